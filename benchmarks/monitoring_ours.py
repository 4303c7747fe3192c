"""What this project's monitoring finds in the windows of `monitoring.py`."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from monitoring_streams import Split, Stream, Window
from scipy.stats import beta
from tqdm import tqdm

from fakenews.monitoring.checks import Findings, Policy
from fakenews.monitoring.judge import Judge, Judgement
from fakenews.monitoring.performance import METRICS
from fakenews.monitoring.verdict import State

_MEASURED = "decay.measured."
_TREND = "decay.trend."


def judged(judge: Judge, stream: Stream, windows: Iterable[Window]) -> list[Judgement]:
    """What is found of each window."""
    return [judge.judge(stream.rows(window)) for window in windows]


def found_alone(judge: Judge, stream: Stream, windows: Iterable[Window]) -> list[Findings]:
    """The findings, without intervals, which take longer."""
    found = []
    for window in windows:
        rows = stream.rows(window)
        found.append({**judge.unlabelled.judge(rows), **judge.labelled.judge(rows)})
    return found


def exceeding(findings: Findings, *, labelled: bool, floors: bool = True) -> set[str]:
    """Keys of what differs in a window.

    Args:
        findings: Of it.
        labelled: Of the comparisons with labels, or of those without.
        floors: Whether the effect must be large enough, too.
    """
    return {
        key
        for key, found in findings.items()
        if key.startswith(_MEASURED) == labelled
        and found is not None
        and (found.exceeded if floors else found.value > found.threshold)
    }


def rate(count: int, total: int) -> dict[str, Any]:
    """A share with its 95% interval of Clopper and Pearson."""
    lower = beta.ppf(0.025, count, total - count + 1) if count else 0.0
    upper = beta.ppf(0.975, count + 1, total - count) if count < total else 1.0
    return {
        "count": count,
        "windows": total,
        "rate": count / total,
        "interval": [float(lower), float(upper)],
    }


def false_alarms(
    split: Split,
    size: int,
    findings: Sequence[Findings],
) -> dict[str, Any]:
    """How often single clean windows differ."""
    found = [exceeding(one, labelled=False) for one in findings]
    bare = [exceeding(one, labelled=False, floors=False) for one in findings]
    known = [exceeding(one, labelled=True) for one in findings]
    return {
        "reference": split.name,
        "size": size,
        **rate(sum(map(bool, found)), len(findings)),
        "without_floors": rate(sum(map(bool, bare)), len(findings)),
        "measured": rate(sum(map(bool, known)), len(findings)),
        "by_comparison": dict(Counter(key for keys in found for key in keys).most_common()),
        "by_comparison_without_floors": dict(
            Counter(key for keys in bare for key in keys).most_common()
        ),
        "by_comparison_measured": dict(
            Counter(key for keys in known for key in keys).most_common()
        ),
        "hits": list(map(bool, found)),
    }


def alarms(judge: Judge, history: Sequence[Judgement], *, length: int) -> dict[str, Any]:
    """How often a clean window raises an alarm, in sequences of some windows."""
    found: Counter[str] = Counter()
    total = trends = 0
    for start in range(0, len(history) - length + 1, length):
        trend = False
        for end in range(start + 1, start + length + 1):
            keys = alarming(judge, history[start:end])
            found.update(sorted(keys))
            total += any(not key.startswith(_TREND) for key in keys)
            trend |= any(key.startswith(_TREND) for key in keys)
        trends += trend
    sequences = len(history) // length
    return {
        **rate(total, sequences * length),
        "trend": rate(trends, sequences),
        "by_check": dict(found.most_common()),
    }


def alarming(judge: Judge, history: Sequence[Judgement]) -> set[str]:
    """Keys of the checks of the newest window that are an alarm."""
    return {check.key for check in judge.checks(history) if check.state is State.ALARM}


def detection(
    judge: Judge,
    before: Sequence[Judgement],
    sequences: Sequence[Sequence[Judgement]],
) -> dict[str, Any]:
    """How often and how soon drifted windows are found.

    Args:
        judge: Of all.
        before: Clean windows before each sequence.
        sequences: Of drifted windows.
    """
    windows = [one for sequence in sequences for one in sequence]
    seen: Counter[str] = Counter()
    delays: list[int | None] = []
    for sequence in sequences:
        history, delay = list(before), None
        for number, one in enumerate(sequence, start=1):
            history.append(one)
            if alarming(judge, history):
                delay = number
                break
        delays.append(delay)
    for one in windows:
        seen.update(exceeding(one.findings, labelled=False))
        seen.update(exceeding(one.findings, labelled=True))
    hits = [bool(exceeding(one.findings, labelled=False)) for one in windows]
    measured = [bool(exceeding(one.findings, labelled=True)) for one in windows]
    bare = [bool(exceeding(one.findings, labelled=False, floors=False)) for one in windows]
    found_delays = [delay for delay in delays if delay is not None]
    return {
        **rate(sum(hits), len(windows)),
        "without_floors": rate(sum(bare), len(windows)),
        "measured": rate(sum(measured), len(windows)),
        "alarmed": len(found_delays) / len(delays),
        "delay": float(np.median(found_delays)) if found_delays else None,
        "delays": delays,
        "by_comparison": {key: count / len(windows) for key, count in seen.most_common(8)},
        "effects": effects(windows, (50,)),
        "hits": hits,
    }


def effects(
    windows: Sequence[Judgement], percentiles: Sequence[float]
) -> dict[str, list[float]]:
    """Percentiles of each comparison's effect."""
    by_key: dict[str, list[float]] = {}
    for one in windows:
        for key, found in one.findings.items():
            if found is not None:
                by_key.setdefault(key, []).append(found.effect)
    return {
        key: [float(at) for at in np.percentile(values, percentiles)]
        for key, values in by_key.items()
    }


def estimates(windows: Sequence[Judgement]) -> dict[str, dict[str, Any]]:
    """Estimated beside true performance, by metric."""
    found = {}
    for name in METRICS:
        pairs = np.array(
            [
                (*one.estimated[name], one.measured[name][0])
                for one in windows
                if one.measured and not np.isnan(one.measured[name][0])
            ]
        )
        if not len(pairs):
            continue
        value, lower, upper, true = pairs.T
        known = ~np.isnan(value)
        found[name] = {
            "windows": len(pairs),
            "true": float(true.mean()),
            "error": float(np.abs(value - true)[known].mean()),
            "bias": float((value - true)[known].mean()),
            "covered": float(((lower <= true) & (true <= upper)).mean()),
            "width": float(np.nanmean(upper - lower)),
            "truths": true.tolist(),
            "values": value.tolist(),
        }
    return found


def ours(
    stream: Stream,
    *,
    policy: Policy,
    sizes: Sequence[int],
    sequences: int,
    length: int,
    seed: int,
) -> dict[str, Any]:
    """Everything that is measured of this project on a stream.

    Args:
        stream: Of windows.
        policy: Of the judge.
        sizes: Of windows.
        sequences: Of drifted windows, of each kind, strength and size.
        length: Windows of a sequence.
        seed: Of thresholds and drifted windows.
    """
    result: dict[str, Any] = {"clean": [], "alarms": {}, "drift": [], "effects": {}}
    bundle, *drawn = stream.splits
    judge = Judge(bundle.reference, policy=policy, seed=seed, progress=True)
    for size, windows in _sizes(bundle, sizes):
        clean = judged(judge, stream, _bar(windows, f"{stream.name}: {size} clean"))
        findings = [one.findings for one in clean]
        result["clean"].append(false_alarms(bundle, size, findings))
        result["alarms"][str(size)] = alarms(judge, clean, length=length)
        result["effects"][str(size)] = effects(clean, (50, 95, 99, 100))
        result["drift"].append(
            {"kind": "none", "strength": 0.0, "size": size, "estimates": estimates(clean)}
        )
        for drift in tqdm(stream.drifts, desc=f"{stream.name}: {size} drifted", leave=False):
            several = stream.drifted(drift, size, sequences * length, seed=seed)
            found = judged(judge, stream, several)
            cut = [found[at : at + length] for at in range(0, len(found), length)]
            result["drift"].append(
                {
                    "kind": drift.kind,
                    "strength": drift.strength,
                    "size": size,
                    **detection(judge, clean[: policy.of - 1], cut),
                    "estimates": estimates(found),
                }
            )
    for split in drawn:
        judge = Judge(split.reference, policy=policy, seed=seed, progress=True)
        for size, windows in _sizes(split, sizes):
            some = _bar(windows, f"{stream.name}: {size} clean, reference {split.name}")
            found_here = found_alone(judge, stream, some)
            result["clean"].append(false_alarms(split, size, found_here))
    return result


def _sizes(split: Split, sizes: Sequence[int]) -> list[tuple[int, Sequence[Window]]]:
    return [(size, split.clean[size]) for size in sizes if size in split.clean]


def _bar(windows: Sequence[Window], title: str) -> "tqdm[Window]":
    return tqdm(windows, desc=title, leave=False)
