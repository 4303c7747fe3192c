"""A bundle is judged on a labelled file, as training judges it on its test split."""

import dataclasses
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from annotated_types import Ge, Le

from fakenews.bounds import Count, PositiveCount
from fakenews.bundle import find_bundle, read_bundle, sha256
from fakenews.data.artefacts import artefacts
from fakenews.data.manifest import write_json
from fakenews.data.sources import Table, read_table
from fakenews.errors import ConfigError, DataError
from fakenews.evaluation.calibration import Calibration
from fakenews.evaluation.plots import evaluation_figures
from fakenews.evaluation.report import Evaluation, table, write
from fakenews.evaluation.report import evaluate as evaluate_logits
from fakenews.inference.settings import data_setting
from fakenews.predictor import Predictor
from fakenews.terminal import show

log = logging.getLogger(__name__)

_SHOWN = 5  # unknown labels, of any number


def evaluate(
    *,
    bundle: str,
    path: str | Sequence[str],
    out: str = "evaluation",
    text: str | None = None,
    label: str | None = None,
    label_names: Mapping[Any, str] | None = None,
    threshold: Annotated[float, Ge(0), Le(1)] | None = None,
    bootstrap: PositiveCount = 1000,
    seed: Count = 0,
    device: str = "cpu",
    batch_size: PositiveCount = 64,
) -> Evaluation:
    """Evaluate a bundle on labelled files, and write and show the report.

    Args:
        bundle: Folder of a bundle, or of a run.
        path: File, glob, folder, or a list of them.
        out: Folder of the report: made, and its older report replaced.
        text: Column of the text; None takes that of the training.
        label: Column of the label; None takes that of the training.
        label_names: Class of each raw label; None takes those of the training. A raw label
            may be a class name, too.
        threshold: Decides for the positive class of two, in place of the bundle's.
        bootstrap: Resamples of the 95% intervals.
        seed: Of the bootstrap.
        device: As torch names it.
        batch_size: Most texts of a batch.

    Raises:
        ConfigError: The options contradict the bundle.
        DataError: A file cannot be read, lacks a column, or has a label that is no class.
        BundleError: The bundle is damaged.
    """
    content = read_bundle(bundle)
    # A cache for a moment: the model and the slices both count the entities.
    with tempfile.TemporaryDirectory() as cache:
        predictor = Predictor.from_content(
            content, device=device, batch_size=batch_size, cache_dir=Path(cache)
        )
        predictor.calibration = _calibration(predictor, threshold)
        label = data_setting(content, "label", label)
        found = read_table(
            path,
            text=data_setting(content, "text", text),
            label=label,
            numeric=predictor.numeric,
            categorical=predictor.categorical,
            normalise=predictor.cleaning.normalise,
            max_chars=predictor.cleaning.max_chars,
        )
        names = data_setting(content, "label_names", label_names or None) or {}
        frame = found.frame.assign(
            label=_class_names(found.frame, str(label), names, predictor.classes)
        )
        if len(found.dropped):
            log.warning("%s rows without text or label are left out", f"{len(found.dropped):,}")
        present = set(frame["label"])
        if absent := [name for name in predictor.classes if name not in present]:
            log.warning(
                "no row is of the class %s: what compares it with others is not measured",
                ", ".join(absent),
            )
        logits = predictor.outputs(frame, progress=True).logits
        evaluation = evaluate_frame(predictor, frame, logits, resamples=bootstrap, seed=seed)
    figures = evaluation_figures(
        logits,
        pd.Categorical(frame["label"], categories=predictor.classes).codes.astype("int64"),
        calibration=predictor.calibration,
        classes=predictor.classes,
    )
    folder = Path(out)
    write(evaluation, figures, folder)
    write_json(folder / "source.json", _source(bundle, found))
    show(table(evaluation))
    log.info("report: %s", folder / "report.html")
    return evaluation


def evaluate_frame(
    predictor: Predictor,
    frame: pd.DataFrame,
    logits: Any,
    *,
    resamples: int,
    seed: int,
) -> Evaluation:
    """Metrics, intervals and slices of a predictor's logits.

    Args:
        predictor: Gave the logits.
        frame: N rows with `raw`, `text` and `label`.
        logits: [N, C].
        resamples: Of the intervals.
        seed: Of the bootstrap.
    """
    features = predictor.features
    return evaluate_logits(
        logits,
        frame,
        calibration=predictor.calibration,
        classes=predictor.classes,
        positive=predictor.calibration.positive,
        artefacts=artefacts(frame["raw"]),
        entity_counts=None
        if features is None or features.counter is None
        else features.entity_counts(frame),
        resamples=resamples,
        seed=seed,
    )


def _calibration(predictor: Predictor, threshold: float | None) -> Calibration:
    if threshold is None:
        return predictor.calibration
    if len(predictor.classes) != 2:
        raise ConfigError(
            f"threshold={threshold} needs two classes, the bundle has {len(predictor.classes)}"
        )
    return dataclasses.replace(predictor.calibration, threshold=threshold)


def _class_names(
    frame: pd.DataFrame, label: str, names: Mapping[Any, str], classes: Sequence[str]
) -> pd.Series:
    """The class of each row's raw label.

    Raises:
        ConfigError: A name is none of the classes.
        DataError: A label has no class.
    """
    known = ", ".join(map(repr, classes))
    wrong = sorted(set(map(str, names.values())) - set(classes))
    if wrong:
        raise ConfigError(
            f"label_names has {', '.join(map(repr, wrong))}; the bundle's classes are {known}"
        )
    class_of = {name: name for name in classes} | {str(k): str(v) for k, v in names.items()}
    found = frame["label"].map(class_of)
    unknown = frame[found.isna()]
    if len(unknown):
        first = unknown.drop_duplicates("label").head(_SHOWN)
        where = [f"{r.file}, row {r.row}: {r.label!r}" for r in first.itertuples()]
        raise DataError(
            f"{len(unknown):,} of {len(frame):,} rows have a label (column {label!r}) that is "
            f"none of the bundle's classes {known} ({'; '.join(where)}): name the classes, as "
            f"in label_names='{{{first['label'].iloc[0]}: {classes[0]}}}', or choose another "
            "label=COLUMN"
        )
    return found


def _source(bundle: str, found: Table) -> dict[str, Any]:
    """What was evaluated on what."""
    folder = find_bundle(bundle)
    return {
        "bundle": str(folder),
        "bundle_sha256": sha256(folder / "manifest.json"),
        "files": [dataclasses.asdict(file) for file in found.files],
        "rows_dropped": len(found.dropped),
    }
