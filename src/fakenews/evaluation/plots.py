"""The plots of an evaluation, as matplotlib figures.

Figures are made and saved without pyplot, so nothing here touches global state or needs a
display. Colours are those of Okabe and Ito (2008), which colour-blind readers can tell
apart; lines differ in style or weight as well.

Shapes: N rows, C classes.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from sklearn.metrics import precision_recall_curve

from fakenews.evaluation.calibration import Calibration, softmax
from fakenews.evaluation.metrics import (
    Codes,
    Floats,
    expected_calibration_error,
    reliability,
)

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, AMBER, BLACK, GREY = "#56B4E9", "#E69F00", "#222222", "#767676"
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER, BLACK)
_STYLES = ("-", "--", "-.", ":")
_SHADES = LinearSegmentedColormap.from_list("shades", ["#FFFFFF", BLUE])
_DPI = 150
_SIZE = (6.4, 4.6)  # inches
_LEGEND_ROWS = 6  # more entries go beside the plot
_ANNOTATED_CLASSES = 12  # a larger confusion matrix has no room for figures in its cells


def evaluation_figures(
    logits: Floats,
    labels: Codes,
    *,
    calibration: Calibration,
    classes: Sequence[str],
    history: pd.DataFrame | None = None,
) -> dict[str, Figure]:
    """Every plot of an evaluation, by the name its file gets.

    Args:
        logits: [N, C], before temperature scaling.
        labels: [N], codes.
        calibration: Temperature, threshold and positive class.
        classes: The C sorted class names.
        history: For `learning_curves`, which is left out without it.
    """
    probabilities = calibration.apply(logits)
    positive, threshold = calibration.positive, calibration.threshold
    decided = calibration.decide(probabilities, classes)
    figures = {
        "precision_recall": precision_recall(
            probabilities, labels, classes=classes, positive=positive, threshold=threshold
        ),
        "reliability": reliability_diagram(softmax(logits), probabilities, labels),
        "confusion_matrix": confusion_matrix(decided, labels, classes=classes),
        "score_histogram": score_histogram(
            probabilities, labels, classes=classes, positive=positive, threshold=threshold
        ),
    }
    if history is not None:
        figures["learning_curves"] = learning_curves(history)
    return figures


def precision_recall(
    probabilities: Floats,
    labels: Codes,
    *,
    classes: Sequence[str],
    positive: str,
    threshold: float | None = None,
) -> Figure:
    """Precision against recall with average precision, the base rate and the decision.

    Of two classes the positive one; of more, each against the rest. A class without a row,
    or with all of them, has no curve, and the legend says so.

    Args:
        probabilities: [N, C].
        labels: [N], codes.
        classes: The C sorted class names.
        positive: One of them.
        threshold: Of two classes, marks the point the decision is made at.
    """
    shown = [list(classes).index(positive)] if len(classes) == 2 else range(len(classes))
    beside = len(shown) > _LEGEND_ROWS
    figure, axes = figure_of("Precision and recall", size=(9.4, 4.6) if beside else _SIZE)
    for place, code in enumerate(shown):
        is_class = labels == code
        name = plain(classes[code])
        colour, style = look(place)
        if is_class.all() or not is_class.any():
            axes.plot([], [], color=colour, linestyle=style, label=f"{name}: undefined here")
            continue
        precision, recall, _ = precision_recall_curve(is_class, probabilities[:, code])
        ap = -np.sum(np.diff(recall) * precision[:-1])
        axes.plot(
            recall,
            precision,
            color=colour,
            linestyle=style,
            drawstyle="steps-post",
            label=f"{name}: AP {ap:.3f}",
        )
        rate = is_class.mean()
        label = f"base rate {rate:.3f}" if len(classes) == 2 else None
        axes.axhline(rate, color=colour if label is None else GREY, lw=1, ls=":", label=label)
        if threshold is not None and len(classes) == 2:
            called = probabilities[:, code] >= threshold
            if called.any():
                hits = (called & is_class).sum()
                axes.plot(
                    hits / is_class.sum(),
                    hits / called.sum(),
                    marker="o",
                    ms=8,
                    ls="",
                    color=ORANGE,
                    label=f"decision at {threshold:.3f}",
                )
    axes.set(xlabel="Recall", ylabel="Precision", xlim=(0, 1.01), ylim=(0, 1.03))
    legend(axes, loc="lower left")
    return figure


def reliability_diagram(before: Floats, after: Floats, labels: Codes) -> Figure:
    """Confidence against accuracy before and after temperature scaling.

    Points are the bins of `metrics.reliability`, each of nearly equally many rows.

    Args:
        before: Probabilities [N, C] of the logits as they are.
        after: Probabilities [N, C] of the logits divided by the temperature.
        labels: [N], codes.
    """
    figure, axes = figure_of("Reliability")
    low = 1.0
    for probabilities, name, colour, style, marker in (
        (before, "before scaling", ORANGE, "--", "s"),
        (after, "after scaling", BLUE, "-", "o"),
    ):
        binned = reliability(probabilities, labels)
        ece = expected_calibration_error(probabilities, labels)
        low = min(low, binned.confidence.min(), binned.accuracy.min())
        axes.plot(
            binned.confidence,
            binned.accuracy,
            color=colour,
            linestyle=style,
            marker=marker,
            markersize=5,
            label=f"{name}: ECE {ece:.3f}",
        )
    low = max(0.0, low - 0.03)
    axes.plot([low, 1], [low, 1], color=GREY, lw=1, ls=":", label="perfect")
    axes.set(
        xlabel="Confidence: probability of the predicted class",
        ylabel="Accuracy",
        xlim=(low, 1.01),
        ylim=(low, 1.03),
    )
    legend(axes, loc="upper left")
    return figure


def confusion_matrix(decided: Codes, labels: Codes, *, classes: Sequence[str]) -> Figure:
    """Rows by true and decided class; the shade is the share of the true class.

    Args:
        decided: [N], codes.
        labels: [N], codes.
        classes: The C sorted class names.
    """
    width = len(classes)
    counts = np.bincount(labels * width + decided, minlength=width**2).reshape(width, width)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    side = min(max(4.6, 2.2 + 0.65 * width), 14)
    figure, axes = figure_of("Confusion matrix", size=(side + 0.9, side))
    image = axes.imshow(shares, cmap=_SHADES, vmin=0, vmax=1)
    names = [plain(name, limit=16) for name in classes]
    upright = width > 3 or max(map(len, names)) > 10
    axes.set_xticks(range(width), names, rotation=45 if upright else 0)
    for text in axes.get_xticklabels():
        text.set(ha="right" if upright else "center", rotation_mode="anchor")
    axes.set_yticks(range(width), names)
    axes.set(xlabel="Decided class", ylabel="True class")
    axes.grid(visible=False)
    if width <= _ANNOTATED_CLASSES:
        for (row, column), count in np.ndenumerate(counts):
            share = shares[row, column]
            axes.text(
                column,
                row,
                f"{count:,}\n{share:.1%}" if totals[row, 0] else "0",
                ha="center",
                va="center",
                fontsize=11 if width <= 4 else 7,
                color="white" if share > 0.55 else BLACK,
            )
    bar = figure.colorbar(image, ax=axes, format=PercentFormatter(1, decimals=0), shrink=0.8)
    bar.set_label("Share of the true class")
    bar.outline.set_visible(False)
    return figure


def score_histogram(
    probabilities: Floats,
    labels: Codes,
    *,
    classes: Sequence[str],
    positive: str,
    threshold: float | None = None,
) -> Figure:
    """How the model scores the rows of each class, as shares of that class.

    Of two classes the score is the probability of the positive one; of more, that of the
    true class, and the histograms are lines of a heat map. Shares of the class, for a rare
    class would not be seen among counts.

    Args:
        probabilities: [N, C].
        labels: [N], codes.
        classes: The C sorted class names.
        positive: One of them.
        threshold: Of two classes, drawn as a line.
    """
    binary = len(classes) == 2
    positive_code = list(classes).index(positive)
    edges = np.linspace(0, 1, 31 if binary else 21)
    totals = np.bincount(labels, minlength=len(classes))
    column = np.full(len(labels), positive_code) if binary else labels
    scores = np.clip(probabilities[np.arange(len(labels)), column], 0, 1)
    counts, _, _ = np.histogram2d(labels, scores, [np.arange(len(classes) + 1) - 0.5, edges])
    shares = counts / np.maximum(totals, 1)[:, None]
    names = [plain(name) for name in classes]
    if not binary:
        return _score_map(shares, [f"{n} ({t:,})" for n, t in zip(names, totals, strict=True)])

    figure, axes = figure_of("Scores by true class")
    for code in (1 - positive_code, positive_code):
        colour, style = (ORANGE, "-") if code == positive_code else (BLUE, "--")
        label = f"{names[code]} ({totals[code]:,} rows)"
        axes.stairs(shares[code], edges, color=colour, alpha=0.18, fill=True)
        axes.stairs(shares[code], edges, color=colour, lw=1.8, ls=style, label=label)
    if threshold is not None:
        axes.axvline(threshold, color=BLACK, lw=1.2, ls=":", label=f"threshold {threshold:.3f}")
    axes.set(xlabel=f"Probability of {names[positive_code]}", xlim=(0, 1))
    axes.set(ylabel="Share of the class's rows")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    legend(axes, loc="best")
    return figure


def learning_curves(history: pd.DataFrame) -> Figure:
    """Training and validation metrics over time, a panel a metric.

    The training loss and the validation log loss share one: they are the same figure
    unless the loss is weighted, focal or smoothed.

    Args:
        history: A column `step` (preferred) or `epoch`, and columns named `train/METRIC`
            and `val/METRIC`; other columns are not drawn. Empty cells are skipped, since
            the two are logged at different steps.

    Raises:
        ValueError: There is neither a column `step` nor one `epoch`.
    """
    time = next((name for name in ("step", "epoch") if name in history), None)
    if time is None:
        raise ValueError(f"no column 'step' or 'epoch' among {list(history.columns)}")
    curves = [name for name in history.columns if name.startswith(("train/", "val/"))]
    curves = [name for name in curves if history[name].notna().any()]
    panels = list(dict.fromkeys(map(_panel, curves)))
    across = min(len(panels), 3) or 1
    down = -(-len(panels) // across) or 1
    figure = Figure(figsize=(max(6.4, 4.2 * across), 0.6 + 3.2 * down), layout="constrained")
    figure.suptitle("Learning curves", fontweight="bold", fontsize=13)
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    if not panels:
        grid[0, 0].text(0.5, 0.5, "Nothing was logged", ha="center", va="center", color=GREY)
    for axes, panel in zip(grid.flat, panels, strict=False):
        style(axes)
        for curve in [name for name in curves if _panel(name) == panel]:
            points = history[[time, curve]].dropna().sort_values(time)
            training = curve.startswith("train/")
            axes.plot(
                *points.to_numpy(dtype=float).T,
                color=ORANGE if training else BLUE,
                ls="--" if training else "-",
                marker="o" if len(points) <= 30 else "",
                ms=3.5,
                label="training" if training else "validation",
            )
        axes.set_title(plain(panel, limit=40).replace("_", " "), fontsize=11, loc="left")
        axes.set_xlabel(time.capitalize())
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        legend(axes, loc="best")
    return figure


def _panel(curve: str) -> str:
    metric = curve.partition("/")[2]
    return "loss" if metric == "log_loss" else metric


def save(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write each figure to `folder/NAME.png` and return the paths, in order.

    The folder is made when it is not there. The same plot of the same data gives the
    same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in figures]
    for figure, path in zip(figures.values(), paths, strict=True):
        with warnings.catch_warnings():
            # Class names may be in a script that the bundled font lacks; boxes will do.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(path, dpi=_DPI, format="png", metadata={"Software": None})
    return paths


def _score_map(shares: Floats, names: Sequence[str]) -> Figure:
    """Histograms [C, bins] as the lines of a heat map."""
    figure, axes = figure_of(
        "Scores by true class", size=(6.8, min(1.6 + 0.36 * len(names), 14))
    )
    image = axes.imshow(
        shares, cmap=_SHADES, vmin=0, aspect="auto", extent=(0, 1, len(names) - 0.5, -0.5)
    )
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="Probability of the true class")
    axes.grid(visible=False)
    bar = figure.colorbar(image, ax=axes, format=PercentFormatter(1))
    bar.set_label("Share of the class's rows")
    bar.outline.set_visible(False)
    return figure


def figure_of(title: str, *, size: tuple[float, float] = _SIZE) -> tuple[Figure, Axes]:
    """A figure with one plot and its title.

    Args:
        title: Of the plot.
        size: Width and height in inches.
    """
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontweight="bold", fontsize=13, loc="left", pad=10)
    style(axes)
    return figure, axes


def style(axes: Axes) -> None:
    """Leave of a frame what is needed to read it."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E5E5E5", lw=0.8)
    axes.set_axisbelow(True)


def look(place: int) -> tuple[str, str]:
    """Colour and line style of the curve at this place: 28 that differ."""
    return _COLOURS[place % len(_COLOURS)], _STYLES[place // len(_COLOURS) % len(_STYLES)]


def legend(axes: Axes, *, loc: Literal["best", "lower left", "upper left"]) -> None:
    """Name the curves, beside the plot where they are many."""
    entries = len(axes.get_legend_handles_labels()[0])
    if entries > _LEGEND_ROWS:
        columns = -(-entries // 20)
        axes.legend(
            loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=8, ncols=columns
        )
    elif entries:
        axes.legend(loc=loc, framealpha=0.9, edgecolor="none", fontsize=9)


def plain(name: str, *, limit: int = 28) -> str:
    """A class or metric name as matplotlib can draw it: one line, not too long, no maths."""
    line = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    short = line if len(line) <= limit else line[: limit - 1] + "…"
    # A legend leaves out labels that begin with an underscore; dollars begin formulas.
    return ("\u200a" if short.startswith("_") else "") + short.replace("$", r"\$")
