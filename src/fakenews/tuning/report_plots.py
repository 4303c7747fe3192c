"""The plots of a sweep, as matplotlib figures; as `evaluation.plots`, without pyplot."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from fakenews.evaluation.plots import (
    AMBER,
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    figure_of,
    style,
)
from fakenews.tuning.findings import COMPLETE, PRUNED, Findings
from fakenews.tuning.report_axes import (
    ABSENT,
    Absent,
    across,
    focus,
    label,
    legend,
    plain,
    slice_names,
    up,
)

_AGES = LinearSegmentedColormap.from_list("ages", ["#C6DCEB", BLUE, "#00263D"])
_BARS = (BLUE, ORANGE, GREEN, PURPLE, AMBER)
_PANELS = 24  # parameters in one figure
_AXES = 14


def figures(findings: Findings) -> dict[str, Figure]:
    """Every plot that the trials allow, by the name its file gets."""
    found: dict[str, Figure] = {}
    finite = [trial for trial in findings.complete if all(map(math.isfinite, trial.values))]
    if finite and findings.single:
        found["history"] = history(findings, finite)
    elif finite:
        found["pareto_front"] = pareto_front(findings, finite)
    if any(result.shares for result in findings.importances):
        found["importances"] = importances(findings)
    names = [name for name in findings.params if any(name in t.params for t in finite)]
    if names:
        for number, key in enumerate(slice_names(findings)):
            found[key] = slices(findings, finite, names, objective=number)
        found["parallel_coordinate"] = parallel_coordinate(findings, finite, names)
    if any(trial.intermediate_values for trial in findings.trials):
        found["intermediate_values"] = intermediate_values(findings)
    return found


def history(findings: Findings, complete: Sequence[FrozenTrial]) -> Figure:
    """The value of each trial by its number, and the best so far."""
    figure, axes = figure_of("History", size=(8.4, 4.4))
    ordered = sorted(complete, key=lambda trial: trial.number)
    numbers = [trial.number for trial in ordered]
    values = [trial.values[0] for trial in ordered]
    pruned = [
        (trial.number, last)
        for trial in findings.trials
        if findings.state(trial) == PRUNED and (last := _last(trial)) is not None
    ]
    if pruned:
        axes.scatter(
            [number for number, _ in pruned],
            [last for _, last in pruned],
            marker="x",
            s=18,
            lw=1,
            color=GREY,
            label="pruned (last value)",
        )
    axes.scatter(numbers, values, s=20, color=BLUE, alpha=0.75, lw=0, label="complete")
    best = np.maximum if findings.maximise[0] else np.minimum
    axes.step(
        [*numbers, max(trial.number for trial in findings.trials)],
        [*best.accumulate(values), best.reduce(values)],
        where="post",
        color=ORANGE,
        lw=1.8,
        label="best so far",
    )
    axes.set(xlabel="Trial", ylabel=label(findings.objectives[0]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    focus(axes, [*values, *(last for _, last in pruned)], maximise=findings.maximise[0])
    legend(axes, above=not findings.maximise[0])
    return figure


def pareto_front(findings: Findings, complete: Sequence[FrozenTrial]) -> Figure:
    """The first objective against each of the others, with the trials none is better than."""
    others = range(1, len(findings.objectives))
    figure = Figure(figsize=(max(6.8, 5.2 * len(others)), 4.8), layout="constrained")
    figure.suptitle("Pareto front", fontweight="bold", fontsize=13)
    front = {trial.number for trial in findings.best}
    grid = figure.subplots(1, len(others), squeeze=False, sharey=True)
    for axes, other in zip(grid.flat, others, strict=True):
        style(axes)
        points = [(t.number, t.values[other], t.values[0]) for t in complete]
        rest = [point for point in points if point[0] not in front]
        best = sorted((point for point in points if point[0] in front), key=lambda p: p[1:])
        if rest:
            axes.scatter(
                [x for _, x, _ in rest],
                [y for *_, y in rest],
                s=18,
                color=GREY,
                alpha=0.6,
                lw=0,
            )
        x, y = [x for _, x, _ in best], [y for *_, y in best]
        if len(others) == 1:
            steps = "steps-pre" if findings.maximise[other] else "steps-post"
            axes.plot(x, y, color=ORANGE, lw=1, drawstyle=steps)
        axes.scatter(x, y, s=42, color=ORANGE, edgecolor="white", lw=0.8, zorder=3)
        focus(axes, [up for *_, up in points], maximise=findings.maximise[0])
        axes.margins(x=0.1)
        for number, *point in _apart(axes, best):
            axes.annotate(
                str(number),
                point,
                textcoords="offset points",
                xytext=(-5, 4 if findings.maximise[0] else -11),
                ha="right",
                fontsize=8,
                color=BLACK,
            )
        axes.set_xlabel(f"{label(findings.objectives[other])} {_wanted(findings, other)}")
    grid[0, 0].set_ylabel(f"{label(findings.objectives[0])} {_wanted(findings, 0)}")
    return figure


def importances(findings: Findings) -> Figure:
    """What share of each objective's variation the parameters explain, as bars."""
    results = findings.importances
    names = list(dict.fromkeys(name for result in results for name in result.shares))[:_PANELS]
    judged = [number for number, result in enumerate(results) if result.shares]
    height = 0.8 / len(judged)
    figure, axes = figure_of("Importance of parameters", size=(7.6, 1.5 + 0.34 * len(names)))
    for place, number in enumerate(judged):
        shares = [results[number].shares.get(name, 0.0) for name in names]
        rows = np.arange(len(names)) + (place - (len(judged) - 1) / 2) * height
        colour = _BARS[place % len(_BARS)]
        bars = axes.barh(
            rows, shares, height * 0.9, color=colour, label=label(findings.objectives[number])
        )
        axes.bar_label(
            bars, [f"{s:.0%}" if s >= 0.005 else "<1%" for s in shares], padding=3, fontsize=8
        )
    axes.set_yticks(range(len(names)), [plain(name, limit=34) for name in names])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("Share of the explained variation")
    if not findings.single:
        axes.legend(loc="lower right", frameon=False, fontsize=9)
    return figure


def slices(
    findings: Findings,
    complete: Sequence[FrozenTrial],
    names: Sequence[str],
    *,
    objective: int,
) -> Figure:
    """An objective against each parameter alone, a panel a parameter."""
    drawn = names[:_PANELS]
    columns = min(len(drawn), 4)
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(max(5.2, 3.3 * columns), 0.7 + 3.1 * rows), layout="constrained")
    more = f", {len(drawn)} of {len(names)} parameters" if len(drawn) < len(names) else ""
    title = f"{label(findings.objectives[objective])} by parameter{more}"
    figure.suptitle(title, fontweight="bold", fontsize=13)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    ages = Normalize(0, max(1, *(trial.number for trial in findings.trials)))
    values = [trial.values[objective] for trial in complete]
    best = {trial.number for trial in findings.best}
    for axes in grid.flat[len(drawn) :]:
        axes.set_axis_off()
    for axes, name in zip(grid.flat, drawn, strict=False):
        style(axes)
        having = [trial for trial in complete if name in trial.params]
        x = across(axes, findings.space[name], having, name)
        y = [trial.values[objective] for trial in having]
        dots = axes.scatter(
            x, y, s=20, c=[t.number for t in having], cmap=_AGES, norm=ages, alpha=0.85, lw=0
        )
        starred = [place for place, trial in enumerate(having) if trial.number in best]
        axes.scatter(
            [x[place] for place in starred],
            [y[place] for place in starred],
            marker="*",
            s=110,
            color=ORANGE,
            edgecolor="white",
            lw=0.7,
        )
        axes.set_xlabel(plain(name, limit=30))
    for axes in grid[:, 0]:
        axes.set_ylabel(label(findings.objectives[objective]))
    focus(grid[0, 0], values, maximise=findings.maximise[objective])
    bar = figure.colorbar(dots, ax=grid, shrink=0.8, aspect=30, pad=0.01)
    bar.set_label("Trial (star: the best)" if findings.single else "Trial (stars: the front)")
    bar.locator = MaxNLocator(nbins=5, integer=True)
    bar.outline.set_visible(False)
    return figure


def parallel_coordinate(
    findings: Findings, complete: Sequence[FrozenTrial], names: Sequence[str]
) -> Figure:
    """A line a trial through the axes of the objectives and the parameters."""
    drawn = names[: _AXES - len(findings.objectives)]
    columns: list[tuple[str, BaseDistribution | None, list[Any]]] = [
        (label(name), None, [trial.values[number] for trial in complete])
        for number, name in enumerate(findings.objectives)
    ]
    columns += [
        (plain(name), findings.space[name], [t.params.get(name, Absent) for t in complete])
        for name in drawn
    ]
    figure, axes = figure_of("Trials as lines", size=(max(7.0, 1.2 * len(columns)), 4.8))
    if len(drawn) < len(names):
        axes.set_title(f"{len(drawn)} of {len(names)} parameters", loc="right", fontsize=9)
    heights = np.empty((len(complete), len(columns)))
    for place, (_, distribution, values) in enumerate(columns):
        heights[:, place], ticks = up(distribution, values)
        axes.axvline(place, color=GREY, lw=0.8, zorder=1)
        for height, text in ticks:
            axes.plot([place - 0.02, place], [height, height], color=GREY, lw=0.8)
            axes.annotate(
                text,
                (place, height),
                textcoords="offset points",
                xytext=(-5, 0),
                ha="right",
                va="center",
                fontsize=8,
                color=BLACK,
                zorder=5,
                bbox={"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.75},
            )
    best = {trial.number for trial in findings.best}
    # By rank: good trials are close to each other, and bad ones are not of interest.
    for rank, (trial, line) in reversed(list(enumerate(zip(complete, heights, strict=True)))):
        first = trial.number in best
        shade = 1 - rank / max(1, len(complete) - 1)
        axes.plot(
            line,
            color=ORANGE if first else _AGES(0.75 * shade),
            lw=1.8 if first else 0.9,
            alpha=1 if first else max(0.12, min(0.7, 40 / len(complete))),
            zorder=4 if first else 2,
        )
    axes.set_xticks(range(len(columns)), [name for name, *_ in columns], rotation=25)
    for name in axes.get_xticklabels():
        name.set(ha="right", rotation_mode="anchor", fontsize=8.5)
    axes.set(yticks=[], xlim=(-0.85, len(columns) - 0.85), ylim=(ABSENT - 0.04, 1.05))
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    return figure


def intermediate_values(findings: Findings) -> Figure:
    """What each trial reported while it ran."""
    figure, axes = figure_of("Values while training", size=(8.4, 4.4))
    best = {trial.number for trial in findings.best}
    many = len(findings.trials) > 30
    shown_once: set[str] = set()
    values: list[float] = []
    for trial in findings.trials:
        points = sorted(trial.intermediate_values.items())
        values += [value for _, value in points]
        first = trial.number in best
        what = "best" if first else findings.state(trial)
        colour = {"best": ORANGE, COMPLETE: BLUE, PRUNED: GREY}.get(what, PURPLE)
        if points:
            axes.plot(
                *zip(*points, strict=True),
                color=colour,
                lw=2.2 if first else 1,
                alpha=1 if first else 0.35 if many else 0.7,
                marker="o" if first or not many or len(points) == 1 else "",
                ms=4 if first else 3,
                zorder={"best": 4, COMPLETE: 3}.get(what, 2),
                label=None if what in shown_once else what,
            )
            shown_once.add(what)
    axes.set(xlabel="Validation", ylabel=label(findings.objectives[0]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    focus(axes, values, maximise=findings.maximise[0])
    legend(axes, above=not findings.maximise[0])
    return figure


def _last(trial: FrozenTrial) -> float | None:
    """The last value that a trial reported, if it was a number."""
    if not trial.intermediate_values:
        return None
    value = trial.intermediate_values[max(trial.intermediate_values)]
    return value if math.isfinite(value) else None


def _apart(
    axes: Axes, points: Sequence[tuple[int, float, float]]
) -> Iterator[tuple[int, float, float]]:
    """Points (number, x, y) with room for a number beside each of them."""
    place = axes.transLimits.transform
    taken: list[Any] = []
    # The ends of a front say most.
    for number, x, y in [*points[:1], *points[:0:-1]]:
        here = place((x, y))
        if all(abs(here - there) @ (16, 20) > 1 for there in taken):
            taken.append(here)
            yield number, x, y


def _wanted(findings: Findings, objective: int) -> str:
    return "(higher is better)" if findings.maximise[objective] else "(lower is better)"
