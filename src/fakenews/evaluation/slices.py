"""Where a model is good and where it is not: metrics of groups of rows.

A slice is a boolean mask over the rows, under a name a person can read.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from fakenews.evaluation.metrics import check_predictions, classification_metrics

MINIMUM_ROWS = 20
_DIGIT = re.compile(r"\d")
_METRICS = ("average_precision", "auroc", "macro_f1", "accuracy")


def slice_masks(
    frame: pd.DataFrame,
    *,
    artefacts: pd.DataFrame | None = None,
    entity_counts: ArrayLike | None = None,
) -> dict[str, NDArray[np.bool_]]:
    """The standard slices of a frame, each a mask [N].

    By length in words (terciles of these rows; equal lengths stay together, so a slice may
    be empty), with and without a digit, with and without a named entity, with each format
    artefact, and with none of them, which shows how a model does that cannot cheat.

    Args:
        frame: Has the column `text`.
        artefacts: N rows in the same order, a column of booleans (or 0/1) an artefact.
        entity_counts: [N, E], entities of each type; no entity slices without it.

    Raises:
        ValueError: `artefacts` or `entity_counts` has not one row for each of the frame.
    """
    texts = frame["text"].tolist()
    words = np.array([len(text.split()) for text in texts], dtype=np.int64)
    has_digit = np.array([bool(_DIGIT.search(text)) for text in texts], dtype=np.bool_)
    masks = _length_masks(words)
    masks |= {"has digit": has_digit, "no digit": ~has_digit}
    if entity_counts is not None:
        counts = np.asarray(entity_counts)
        _check_rows("entity_counts", len(counts), frame)
        has_entity = np.any(counts > 0, axis=1)
        masks |= {"has entity": has_entity, "no entity": ~has_entity}
    if artefacts is not None:
        _check_rows("artefacts", len(artefacts), frame)
        present = artefacts.to_numpy(dtype=np.float64) > 0
        names = [str(name) for name in artefacts.columns]
        masks |= {f"artefact: {name}": present[:, i] for i, name in enumerate(names)}
        masks["no artefact"] = np.all(~present, axis=1)
    return masks


def slice_metrics(
    probabilities: ArrayLike,
    labels: ArrayLike,
    masks: Mapping[str, NDArray[np.bool_]],
    *,
    classes: Sequence[str],
    positive: str,
    threshold: float | None = None,
    minimum_rows: int = MINIMUM_ROWS,
) -> pd.DataFrame:
    """The metrics of each slice, the first line being `all` rows.

    Average precision rises with the share of positives, so compare slices by AUROC where
    these shares differ.

    Args:
        probabilities: [N, C], and with the next arguments as `classification_metrics`.
        labels: See there.
        masks: Slice name to mask [N].
        classes: See there.
        positive: See there.
        threshold: See there.
        minimum_rows: A smaller slice has no metric: it would be chance.

    Returns:
        Columns slice, rows, positives (rows of the positive class), average_precision,
        auroc, macro_f1 and accuracy. A slice that is too small has NaN in all four, one
        with a single class in those that need two; none is left out.

    Raises:
        DataError: As `classification_metrics`.
        ValueError: As `classification_metrics`.
    """
    scores, codes = check_predictions(probabilities, labels, classes=classes)
    is_positive = codes == list(classes).index(positive)
    lines = []
    for name, mask in {"all": np.ones(len(codes), dtype=bool), **masks}.items():
        rows = int(mask.sum())
        line = {"slice": name, "rows": rows, "positives": int(is_positive[mask].sum())}
        metrics = dict.fromkeys(_METRICS, np.nan)
        if rows >= max(minimum_rows, 1):
            metrics = classification_metrics(
                scores[mask],
                codes[mask],
                classes=classes,
                positive=positive,
                threshold=threshold,
            )
        lines.append(line | {metric: metrics[metric] for metric in _METRICS})
    return pd.DataFrame(lines)


def _length_masks(words: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    if len(words) == 0:
        return {}
    first, second = np.quantile(words, [1 / 3, 2 / 3], method="lower")
    return {
        f"short (up to {first} words)": words <= first,
        f"medium ({first + 1} to {second} words)": (words > first) & (words <= second),
        f"long (over {second} words)": words > second,
    }


def _check_rows(name: str, rows: int, frame: pd.DataFrame) -> None:
    if rows != len(frame):
        raise ValueError(f"{name} has {rows} rows, the frame {len(frame)}")
