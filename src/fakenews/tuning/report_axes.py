"""Axes of a sweep's plots: how they look, and where the values of a parameter stand."""

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

from fakenews.evaluation.plots import GREY
from fakenews.tuning.findings import Findings, shown

ABSENT = -0.12
"""Height at which a line passes the axis of a parameter that its trial lacks."""

_GOLDEN = 0.618  # spreads trials that share a choice, always in the same way
_MARKS = 12
_HIDDEN = 0.1  # the largest share of values that a plot may leave out


class Absent:
    """Stands where a trial has no value of a parameter."""


def slice_names(findings: Findings) -> list[str]:
    """The name of the slice plot of each objective."""
    if findings.single:
        return ["slice"]
    return [f"slice_{number}" for number in range(1, len(findings.objectives) + 1)]


def legend(axes: Axes, *, above: bool) -> None:
    """Name what is drawn, where the good values are not."""
    place: Literal["upper right", "lower right"] = "upper right" if above else "lower right"
    axes.legend(loc=place, framealpha=0.9, edgecolor="none", fontsize=9)


def label(objective: str) -> str:
    """An objective for an axis, with its unit."""
    return "latency (ms)" if objective == "latency" else plain(objective, limit=40)


def plain(name: str, *, limit: int = 22) -> str:
    """A name as matplotlib draws it: one line, of a long one the end, no formula."""
    line = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    if len(line) > limit:
        end = line[1 - limit :]
        # From a part's beginning, if there is one.
        part = re.search(r"[./]([^./].*)", end[:-2])
        line = f"…{end[part.start(1) :] if part else end}"
    return line.replace("$", r"\$")


def distinct(names: Sequence[str], *, limit: int) -> list[str]:
    """Names as `plain` gives them; if it makes some alike, what they differ in."""
    short = [plain(name, limit=limit) for name in names]
    if len(set(short)) == len(names):
        return short
    start = _alike(names)
    end = _alike([name[start:][::-1] for name in names])
    return [plain(f"…{name[start : len(name) - end]}…", limit=limit) for name in names]


def _alike(names: Sequence[str]) -> int:
    """How many letters at their beginning all names share."""
    letters = zip(*names, strict=False)  # the shortest ends it
    return sum(1 for _ in itertools.takewhile(lambda found: len(set(found)) == 1, letters))


def focus(axes: Axes, values: Sequence[float], *, maximise: bool) -> None:
    """Let a few very bad values not flatten all others, and say that they are not seen.

    Args:
        axes: Whose vertical limits are set.
        values: What it shows; those that are no numbers do not count.
        maximise: Whether more is better.
    """
    finite = np.array([value for value in values if math.isfinite(value)])
    if not len(finite):
        return
    best = finite.max() if maximise else finite.min()
    middle = float(np.median(finite))
    worst = middle - 4 * (best - middle)
    beyond = int((finite < worst).sum() if maximise else (finite > worst).sum())
    if not 0 < beyond <= _HIDDEN * len(finite) or best == middle:
        return
    kept = finite[finite >= worst] if maximise else finite[finite <= worst]
    margin = 0.08 * (kept.max() - kept.min())
    axes.set_ylim(kept.min() - margin, kept.max() + margin)
    axes.annotate(
        f"{beyond} worse value{'s' * (beyond > 1)} not shown",
        (0.01, 0.01 if maximise else 0.99),
        xycoords="axes fraction",
        va="bottom" if maximise else "top",
        fontsize=8,
        color=GREY,
    )


def across(
    axes: Axes, distribution: BaseDistribution, trials: Sequence[FrozenTrial], name: str
) -> list[float]:
    """Make the horizontal axis that of a parameter; where each trial stands on it.

    Args:
        axes: Whose horizontal axis it is.
        distribution: Of the parameter.
        trials: All of them have it.
        name: Of the parameter.
    """
    if isinstance(distribution, CategoricalDistribution):
        values = {repr(trial.params[name]) for trial in trials}
        choices = [choice for choice in distribution.choices if repr(choice) in values]
        places = {repr(choice): place for place, choice in enumerate(choices)}
        texts = distinct([shown(choice) for choice in choices], limit=18)
        upright = sum(map(len, texts)) > 24
        every = -(-len(choices) // _MARKS)
        axes.set_xticks(
            range(0, len(choices), every), texts[::every], rotation=35 if upright else 0
        )
        for text in axes.get_xticklabels():
            text.set(ha="right" if upright else "center", rotation_mode="anchor", fontsize=8.5)
        axes.set_xlim(-0.6, len(choices) - 0.4)
        return [
            places[repr(trial.params[name])] + (trial.number * _GOLDEN % 1 - 0.5) * 0.5
            for trial in trials
        ]
    found = [float(trial.params[name]) for trial in trials]
    if _log(distribution):
        axes.set_xscale("log")
        ticks = _decades(min(found), max(found))
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    else:
        whole = isinstance(distribution, IntDistribution)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=whole, min_n_ticks=1))
    return found


def up(
    distribution: BaseDistribution | None, values: Sequence[Any]
) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights from 0 to 1 on a vertical axis of its own, and the marks of that axis.

    Args:
        distribution: Of the parameter; None for an objective.
        values: Of the trials, `Absent` where there is none.
    """
    present = [value for value in values if value is not Absent]
    if isinstance(distribution, CategoricalDistribution):
        known = set(map(repr, present))
        choices = [choice for choice in distribution.choices if repr(choice) in known]
        last = len(choices) - 1
        heights = {repr(c): place / last if last else 0.5 for place, c in enumerate(choices)}
        placed = [ABSENT if v is Absent else heights[repr(v)] for v in values]
        texts = distinct([shown(choice) for choice in choices], limit=14)
        every = -(-len(choices) // _MARKS)
        marks = list(zip(heights.values(), texts, strict=True))[::every]
    else:
        log = distribution is not None and _log(distribution)
        scale = math.log if log else float
        low, high = min(present), max(present)
        start, width = scale(low), scale(high) - scale(low)
        placed = [
            ABSENT if v is Absent else (scale(v) - start) / width if width else 0.5
            for v in values
        ]
        marks = [(0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")] if width else [(0.5, f"{low:.3g}")]
        if width and not isinstance(distribution, IntDistribution):
            middle = start + width / 2
            marks.append((0.5, f"{math.exp(middle) if log else middle:.3g}"))
    if len(present) < len(values):
        marks.append((ABSENT, "absent"))
    return placed, marks


def _decades(low: float, high: float) -> list[float]:
    """A few round numbers from a logarithmic range; its ends if there are none."""
    first, last = math.floor(math.log10(low)), math.floor(math.log10(high))
    for steps in ((1,), (1, 3), (1, 2, 5), range(1, 10)):
        every = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        ticks = [tick for tick in every if low <= tick <= high]
        if len(ticks) >= 3:
            return ticks[:: -(-len(ticks) // 4)]
    return sorted({low, high})


def _log(distribution: BaseDistribution) -> bool:
    return isinstance(distribution, FloatDistribution | IntDistribution) and distribution.log
