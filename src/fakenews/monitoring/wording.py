"""How checks and verdicts are said to people: in a few words, in one sentence."""

from collections.abc import Sequence

from fakenews.evaluation.report import METRIC_NAMES
from fakenews.monitoring.verdict import Check, Kind, State, Verdict

MEASURED, ESTIMATED = "measured performance", "estimated performance"
QUALITY = "data quality"
SUBJECTS = (MEASURED, ESTIMATED, QUALITY, "predictions", "texts", "features")
"""What checks are about, in the order in which people ask for it."""

STATES = {
    State.OK: "OK",
    State.WARNING: "Warning",
    State.UNKNOWN: "Not judged",
    State.ALARM: "Alarm",
}

# The first beginning that fits.
_SUBJECTS = {
    "decay.measured": MEASURED,
    "decay": ESTIMATED,
    "drift.prediction.": "predictions",
    "drift.tabular.": "features",
    "drift": "texts",
}
_METRICS = {
    "decay.measured.": "measured",
    "decay.estimated.": "estimated",
    "decay.trend.estimated.": "estimated, over time",
}
_TITLES = {
    "drift.embedding.mmd": "Texts (discrepancy)",
    "drift.embedding.classifier": "Texts (classifier)",
    "drift.text.tokens": "Length in tokens",
    "drift.text.unknown": "Unknown tokens",
    "drift.prediction.label": "Decided classes",
    "drift.prediction.confidence": "Confidence",
}
_RARE = 0.001
_COUNTED = {"windows_differing", "windows", "floor"}
_SCORE = "drift.prediction.score"


def subject(key: str) -> str:
    """What a check is about: one of `SUBJECTS`."""
    found = (said for beginning, said in _SUBJECTS.items() if key.startswith(beginning))
    return next(found, QUALITY)


def title(key: str, classes: Sequence[str]) -> str:
    """What a check looks at.

    Args:
        key: Of the check.
        classes: The sorted class names.
    """
    if key in _TITLES:
        return _TITLES[key]
    for beginning, how in _METRICS.items():
        if key.startswith(beginning):
            metric = key.removeprefix(beginning)
            return f"{METRIC_NAMES.get(metric, metric)}, {how}"
    code = key.removeprefix(_SCORE)
    if code.isdecimal() and int(code) < len(classes):
        return f"Score of {classes[int(code)]}"
    if key.startswith("quality."):
        return f"{capital(key.removeprefix('quality.'))} (data quality)"
    return key.removeprefix("drift.tabular.")


def answer(check: Check, classes: Sequence[str]) -> tuple[str, str]:
    """What a check looks at, and what it found there, in plain words.

    Args:
        check: Any; what is no comparison with the reference says it as its message does.
        classes: The sorted class names.
    """
    if (
        check.kind is not Kind.DRIFT
        or check.value is None
        or check.threshold is None
        or check.p_value is None
        or check.effect is None
        or not check.details.keys() >= _COUNTED
    ):
        return "", capital(check.message)
    name, floor = title(check.key, classes), check.details["floor"]
    windows = "{windows_differing} of the last {windows} windows".format_map(check.details)
    if check.effect < floor or check.value <= check.threshold:
        return name, f"changed in {windows}, and no more in the newest."
    clean = "of 1,000 clean windows none does"
    if check.p_value > _RARE:
        clean = f"of clean windows one in {round(1 / check.p_value):,} does"
    matters = f", where {floor:g} matters" if floor else ""
    return name, (
        f"changed in {windows}, now by {check.effect:.2g} {check.unit}{matters}; {clean}."
    )


def sentence(verdict: Verdict) -> str:
    """A verdict in one sentence."""
    state, count = verdict.state, len(verdict.checks)
    found = [check for check in verdict.checks if check.state is state]
    if state is State.OK:
        return f"Nothing has changed: all {count} checks are as in the reference."
    if state is State.UNKNOWN:
        if verdict.window is None:
            return "Nothing could be judged: there is no window with predictions."
        if not count:
            return "Nothing could be judged: no check was made."
        if len(found) == 1:
            return f"{capital(found[0].message.removesuffix('.'))}."
        return f"{len(found)} of {count} checks could not be made."
    said = capital(_listed(_clauses({subject(check.key) for check in found})))
    return f"{said}{', in too few windows for an alarm yet' * (state is State.WARNING)}."


def capital(text: str) -> str:
    """A text as the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def _clauses(found: set[str]) -> list[str]:
    subjects = [name for name in SUBJECTS if name in found]
    dropped = [name for name in subjects if name in (MEASURED, ESTIMATED)]
    changed = [name for name in subjects if name not in (MEASURED, ESTIMATED, QUALITY)]
    clauses = []
    if dropped:
        clauses.append(f"{_listed(dropped)} {'have' if len(dropped) > 1 else 'has'} dropped")
    if QUALITY in found:
        clauses.append("the data is not as it should be")
    if changed:
        clauses.append(f"{_listed(changed)} have changed")
    return clauses


def _listed(names: Sequence[str]) -> str:
    *rest, last = names
    return f"{', '.join(rest)} and {last}" if rest else last
