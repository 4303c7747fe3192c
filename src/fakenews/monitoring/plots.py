"""The plots of a report on monitoring, as matplotlib figures; small, for phones too.

The reference is grey and the newest window blue; see `timelines` for what is over time.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fakenews.evaluation.plots import BLACK, BLUE, GREY, figure_of, plain
from fakenews.monitoring.account import Account
from fakenews.monitoring.comparisons import positive_code
from fakenews.monitoring.explain import Mover
from fakenews.monitoring.rows import Floats, Rows
from fakenews.monitoring.timelines import SIZE, name_all, shares_of, timelines, usual_shares
from fakenews.monitoring.wording import title

MOVED = 0.2  # standard deviations: a small effect by Cohen

_FEATURES = 6
_FEW = 12  # different values that are drawn one by one
_BINS = 24
_CLASSES = 10  # those that changed most


def figures(account: Account) -> dict[str, Figure]:
    """Every plot that an account allows, by the name its file gets."""
    found: dict[str, Figure] = {}
    rows = account.rows
    if rows is not None and len(rows):
        for number, key in enumerate(moved(account, rows), 1):
            found[f"feature_{number}"] = feature(account, rows, key)
        found["scores"] = scores(account, rows)
    if now := _decided(account):
        found["class_rates"] = class_rates(account, now)
    return found | timelines(account)


def far(account: Account) -> list[Mover]:
    """The numbers whose means moved so far that it is worth a look."""
    return [mover for mover in account.movers if abs(mover.shift) >= MOVED]


def moved(account: Account, rows: Rows) -> list[str]:
    """Columns of the texts that are not what they were, those that differ most first.

    Args:
        account: With a judgement of the newest window.
        rows: Of that window.
    """
    newest = account.judgements[-1].findings if account.judgements else {}
    differing = {
        key.removeprefix("drift."): found.effect
        for key, found in newest.items()
        if found is not None and found.exceeded
    }
    by_effect = sorted(differing, key=lambda key: (-differing[key], key))
    by_shift = [mover.key for mover in far(account)]
    columns = rows.columns.keys() & account.reference.rows.columns.keys()
    return [key for key in dict.fromkeys([*by_effect, *by_shift]) if key in columns][:_FEATURES]


def feature(account: Account, rows: Rows, key: str) -> Figure:
    """The distribution of a number in the newest window and in the reference.

    Args:
        account: With the reference.
        rows: Of the window, at least one.
        key: Of the column.
    """
    before, now = account.reference.rows.columns[key], rows.columns[key]
    figure, axes = figure_of(
        plain(title(f"drift.{key}", account.reference.classes), limit=34), size=SIZE
    )
    values = np.unique(np.concatenate([before, now]))
    if len(values) <= _FEW:
        _values(axes, values, before=before, now=now)
    else:
        inner = [np.quantile(sample, (0.005, 0.995)) for sample in (before, now)]
        low, high = min(found[0] for found in inner), max(found[1] for found in inner)
        _densities(axes, (low, high if high > low else low + 1), before=before, now=now)
    name_all(figure)
    return figure


def scores(account: Account, rows: Rows) -> Figure:
    """How sure the model is: of two classes of the positive one, of more of the decided one.

    Args:
        account: With the reference.
        rows: Of the newest window, at least one.
    """
    reference = account.reference
    code = positive_code(reference)
    samples: dict[str, Any] = {
        name: each.probabilities.max(axis=1) if code is None else each.probabilities[:, code]
        for name, each in (("before", reference.rows), ("now", rows))
    }
    said = "Confidence" if code is None else f"Scores of {plain(reference.classes[code])}"
    figure, axes = figure_of(said, size=SIZE)
    _densities(axes, (0.0, 1.0), **samples)
    axes.set_xlabel("Probability of the most probable class" if code is None else "Probability")
    threshold = reference.calibration.threshold
    if threshold is not None:
        axes.axvline(threshold, color=BLACK, lw=1.2, ls=":", label=f"threshold {threshold:.2f}")
    name_all(figure)
    return figure


def _values(axes: Axes, values: Floats, *, before: Floats, now: Floats) -> None:
    at = np.arange(len(values))
    for sample, colour, name, left in (
        (before, GREY, "reference", -0.4),
        (now, BLUE, "newest window", 0.0),
    ):
        shares = [(sample == value).mean() for value in values]
        axes.bar(at + left, shares, 0.4, align="edge", color=colour, label=name)
    axes.set_xticks(at, [f"{value:.3g}" for value in values])
    axes.grid(visible=False, axis="x")
    _shares(axes)


def _densities(axes: Axes, ends: tuple[float, float], *, before: Floats, now: Floats) -> None:
    edges = np.linspace(*ends, _BINS + 1)
    for sample, colour, name in ((before, GREY, "reference"), (now, BLUE, "newest window")):
        counts, _ = np.histogram(sample.clip(*ends), edges)
        share = counts / len(sample)
        axes.stairs(share, edges, color=colour, fill=True, alpha=0.22)
        axes.stairs(share, edges, color=colour, lw=1.8, label=name)
    axes.set_xlim(*ends)
    _shares(axes)


def _shares(axes: Axes) -> None:
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylabel("Share of texts")


def _decided(account: Account) -> dict[str, float]:
    """The share of each class among the newest window's decisions: of all rows, if counted."""
    if account.totals and (shares := shares_of(account.totals[-1].decided)):
        return shares
    if account.rows is None:
        return {}
    classes = account.reference.classes
    counts = np.bincount(account.rows.decided, minlength=len(classes)).tolist()
    return shares_of(dict(zip(classes, counts, strict=True)))


def class_rates(account: Account, now: Mapping[str, float]) -> Figure:
    """How often each class is decided, in the newest window and in the reference.

    Args:
        account: With the reference.
        now: Shares by class; a class that the model has not is drawn too.
    """
    before = usual_shares(account)
    names = [*before, *sorted(now.keys() - before.keys())]
    changed = sorted(names, key=lambda name: -abs(now.get(name, 0) - before.get(name, 0)))
    drawn = [name for name in names if name in changed[:_CLASSES]]
    some = f" ({len(drawn)} of {len(names)})" if len(drawn) < len(names) else ""
    height = max(SIZE[1], 1.3 + 0.5 * len(drawn))
    figure, axes = figure_of(f"Decided classes{some}", size=(SIZE[0], height))
    at = np.arange(len(drawn))
    for shares, colour, label, low in (
        (before, GREY, "reference", -0.38),
        (now, BLUE, "newest window", 0.0),
    ):
        widths = [shares.get(name, 0.0) for name in drawn]
        bars = axes.barh(at + low, widths, 0.36, align="edge", color=colour, label=label)
        axes.bar_label(bars, [f"{width:.1%}" for width in widths], padding=3, fontsize=9)
    axes.set_yticks(at, [plain(name, limit=20) for name in drawn])
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("Share of predictions")
    name_all(figure)
    return figure
