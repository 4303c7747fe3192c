"""An evaluation as one object, and as what people read: tables, files and one page."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from fakenews.errors import DataError
from fakenews.evaluation import plots
from fakenews.evaluation.calibration import Calibration, softmax
from fakenews.evaluation.metrics import bootstrap_intervals, classification_metrics
from fakenews.evaluation.page import publish, render
from fakenews.evaluation.slices import slice_masks, slice_metrics

METRIC_NAMES = {
    "average_precision": "Average precision",
    "auroc": "AUROC",
    "macro_f1": "Macro-F1",
    "weighted_f1": "Weighted F1",
    "accuracy": "Accuracy",
    "log_loss": "Log loss",
    "brier": "Brier score",
    "ece": "Calibration error (ECE)",
}
_PER_CLASS = ("precision", "recall", "f1")
_BEFORE = ("ece", "brier", "log_loss")


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """How good a model is on one set of rows.

    Args:
        rows: How many.
        classes: The sorted class names.
        positive: One of them.
        threshold: The decision threshold; None decides the most probable class.
        temperature: The logits were divided by it.
        metrics: As `classification_metrics` returns them, after temperature scaling.
        intervals: 95% intervals, as `bootstrap_intervals` returns them.
        uncalibrated: `ece_before`, `brier_before` and `log_loss_before` scaling.
        slices: As `slice_metrics` returns them.
    """

    rows: int
    classes: Sequence[str]
    positive: str
    threshold: float | None
    temperature: float
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    uncalibrated: Mapping[str, float]
    slices: pd.DataFrame

    @property
    def never_decided(self) -> list[str]:
        """Classes that have rows and that the model decides for none."""
        return [
            name
            for name in self.classes
            if self.metrics[f"support/{name}"] and math.isnan(self.metrics[f"precision/{name}"])
        ]

    def to_json(self) -> dict[str, Any]:
        """The content of `metrics.json`: strict JSON, in which an undefined metric is null."""
        content: dict[str, Any] = _nan_to_none(
            {
                "rows": self.rows,
                "classes": list(self.classes),
                "positive": self.positive,
                "threshold": self.threshold,
                "temperature": self.temperature,
                "metrics": self.metrics,
                "intervals": self.intervals,
                "uncalibrated": self.uncalibrated,
                "slices": self.slices.to_dict("records"),
            }
        )
        return content


def evaluate(
    logits: ArrayLike,
    rows: pd.DataFrame | ArrayLike,
    *,
    calibration: Calibration,
    classes: Sequence[str],
    positive: str,
    artefacts: pd.DataFrame | None = None,
    entity_counts: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Evaluate logits against the labels of their rows.

    Args:
        logits: [N, C], before temperature scaling.
        rows: A frame of N rows with the columns `text` and `label` (and `file` and `row`,
            for messages), which is sliced; or the labels alone, codes [N], without slices.
        calibration: As chosen on the validation split.
        classes: The C sorted class names.
        positive: One of them, the one `calibration` was fitted for.
        artefacts: For the slices of a frame, see `slice_masks`.
        entity_counts: Likewise.
        resamples: Bootstrap resamples of the intervals.
        seed: Of the bootstrap.

    Raises:
        DataError: There is no row, a label is none of the classes, or a logit is not
            finite.
        BundleError: The calibration does not fit the classes.
        ValueError: The shapes, or `positive` and the calibration, contradict each other.
    """
    if positive != calibration.positive:
        raise ValueError(f"positive is {positive!r}, calibrated for {calibration.positive!r}")
    labels = _codes(rows, classes) if isinstance(rows, pd.DataFrame) else np.asarray(rows)
    calibration.check(classes)
    before, after = softmax(logits), calibration.apply(logits)
    threshold = calibration.threshold
    metrics = classification_metrics(
        after, labels, classes=classes, positive=positive, threshold=threshold
    )
    uncalibrated = classification_metrics(before, labels, classes=classes, positive=positive)
    intervals = bootstrap_intervals(
        after,
        labels,
        classes=classes,
        positive=positive,
        threshold=threshold,
        resamples=resamples,
        seed=seed,
    )
    masks = {}
    if isinstance(rows, pd.DataFrame):
        masks = slice_masks(rows, artefacts=artefacts, entity_counts=entity_counts)
    slices = slice_metrics(
        after, labels, masks, classes=classes, positive=positive, threshold=threshold
    )
    return Evaluation(
        rows=len(labels),
        classes=list(classes),
        positive=positive,
        threshold=threshold,
        temperature=calibration.temperature,
        metrics=metrics,
        intervals=intervals,
        uncalibrated={f"{name}_before": uncalibrated[name] for name in _BEFORE},
        slices=slices,
    )


def table(evaluation: Evaluation) -> Group:
    """The metrics with their intervals, and those of each class, for the terminal."""
    metrics = Table("Metric", title=f"{evaluation.rows:,} rows", box=box.SIMPLE)
    for heading in ("Value", "95% interval", "Before scaling"):
        metrics.add_column(heading, justify="right")
    for title, *figures in _metric_lines(evaluation):
        metrics.add_row(Text(title), *figures)  # a Text, for names may look like markup
    per_class = Table("Class", box=box.SIMPLE)
    for heading in ("Precision", "Recall", "F1", "Rows"):
        per_class.add_column(heading, justify="right")
    for name, *figures in _class_lines(evaluation):
        per_class.add_row(Text(name), *figures)
    return Group(metrics, per_class)


def write(evaluation: Evaluation, figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write `metrics.json`, `slices.csv`, `plots/NAME.png` and `report.html`.

    The page holds its plots within itself, so it can be sent alone. All files are made
    in a temporary folder first and then moved, so none is ever half-written; a file of
    the same name is replaced.

    Args:
        evaluation: What to write.
        figures: Plots by name, as `plots.evaluation_figures` returns them.
        folder: Made when it is not there.

    Returns:
        The paths written, `report.html` last.

    Raises:
        FakeNewsError: The folder cannot be written.
    """
    return publish(
        lambda draft: _write_files(evaluation, figures, draft),
        folder,
        what="the evaluation report",
    )


def _write_files(
    evaluation: Evaluation, figures: Mapping[str, Figure], folder: Path
) -> list[Path]:
    content = json.dumps(evaluation.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "metrics.json").write_text(content + "\n", encoding="utf-8")
    evaluation.slices.to_csv(folder / "slices.csv", index=False)
    paths = plots.save(figures, folder / "plots")
    images = {
        path.stem.replace("_", " "): base64.b64encode(path.read_bytes()).decode("ascii")
        for path in paths
    }
    slices = evaluation.slices
    page = render(
        evaluation=evaluation,
        metrics=_metric_lines(evaluation),
        per_class=_class_lines(evaluation),
        slices=[[_shown(value) for value in line] for line in slices.itertuples(index=False)],
        slice_headings=[METRIC_NAMES.get(name, name.capitalize()) for name in slices.columns],
        images=images,
    )
    (folder / "report.html").write_text(page, encoding="utf-8")
    names = ("metrics.json", "slices.csv", "report.html")
    return [*paths, *(folder / name for name in names)]


def _metric_lines(evaluation: Evaluation) -> list[list[str]]:
    lines = []
    for name, title in METRIC_NAMES.items():
        shown_title, interval = title, ""
        if name in evaluation.intervals:
            low, high = evaluation.intervals[name]
            interval = "n/a" if math.isnan(low) else f"{low:.3f} to {high:.3f}"
        before = evaluation.uncalibrated.get(f"{name}_before")
        shown_before = "" if before is None else _shown(before)
        if name in ("average_precision", "auroc"):
            of = "mean of classes" if len(evaluation.classes) > 2 else evaluation.positive
            shown_title = f"{title} ({of})"
        lines.append([shown_title, _shown(evaluation.metrics[name]), interval, shown_before])
    return lines


def _class_lines(evaluation: Evaluation) -> list[list[str]]:
    lines = []
    for name in evaluation.classes:
        figures = [_shown(evaluation.metrics[f"{kind}/{name}"]) for kind in _PER_CLASS]
        lines.append([name, *figures, _shown(int(evaluation.metrics[f"support/{name}"]))])
    return lines


def _shown(value: object) -> str:
    if isinstance(value, float):
        return "n/a" if math.isnan(value) else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _codes(frame: pd.DataFrame, classes: Sequence[str]) -> NDArray[np.int64]:
    """The labels of a frame as codes; a label that is no class is a DataError."""
    codes = pd.Index(list(classes)).get_indexer(pd.Index(frame["label"]))
    unknown = frame.loc[codes < 0]
    if len(unknown):
        first = unknown.drop_duplicates("label")
        where = [
            f"{line.get('file', 'data')}, row {line.get('row', index)}: {line['label']!r}"
            for index, line in first.head(5).iterrows()
        ]
        raise DataError(
            f"{len(unknown)} of {len(frame)} rows have a label that the model does not know "
            f"({'; '.join(where)}); its classes are {', '.join(map(repr, classes))}"
        )
    return codes.astype(np.int64)


def _nan_to_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _nan_to_none(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_nan_to_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
