"""Labels that are doubted: where a model is sure of another class than a person said.

Confident learning (Northcutt, Jiang and Chuang, 2021, "Confident Learning: Estimating
Uncertainty in Dataset Labels"), by cleanlab, from the champion's probabilities. It has not
learnt from new labels, so they are out of sample, and nothing is trained.

Under drift the champion is wrong where new labels are worth most: a doubted label is to be
looked at, and may well be right.
"""

import csv
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fakenews.errors import RetrainingError
from fakenews.predictor import Predictor

# N rows, C classes

COLUMNS = (
    "id",
    "time",
    "user",
    "label",
    "suggested",
    "probability_of_label",
    "probability_of_suggested",
    "part",
    "text",
)
_LEAST = 20  # labels with which confident learning can say anything


@dataclass(frozen=True, kw_only=True)
class Issue:
    """A label that is doubted.

    Attributes:
        place: Of its row among the labelled ones.
        label: As a person said.
        suggested: What the model is sure of.
        given: The model's probability of the label.
        likely: The model's probability of what it suggests.
    """

    place: int
    label: str
    suggested: str
    given: float
    likely: float


def find_issues(
    tables: Iterable[pa.Table],
    places: Mapping[int, str],
    *,
    bundle: Path,
    classes: Sequence[str],
) -> tuple[list[Issue], int]:
    """Find labels that are doubted.

    Args:
        tables: All labelled rows, in order.
        places: Of those to look at, with their parts.
        bundle: Of the champion.
        classes: Of the base.

    Returns:
        The doubted labels, the worst first; and how many labels were looked at.

    Raises:
        RetrainingError: The bundle has other classes, or cleanlab is not installed.
        BundleError: It is damaged.
        DataError: It needs columns that the base has not.
    """
    if importlib.util.find_spec("cleanlab") is None:
        raise RetrainingError(
            "the audit of labels needs the package cleanlab: pip install 'fakenews[retrain]', "
            "or audit=off"
        )
    predictor = Predictor.load(bundle)
    if list(predictor.classes) != list(classes):
        raise RetrainingError(
            f"{bundle} has the classes {', '.join(predictor.classes)}, and the base "
            f"{', '.join(classes)}: give the bundle that was trained on the base"
        )
    at: list[int] = []
    labels: list[str] = []
    found: list[list[float]] = []
    start = 0
    for table in tables:
        chosen = [row for row in range(table.num_rows) if start + row in places]
        frame = table.take(pa.array(chosen, pa.int64())).to_pandas()
        for row, label, prediction in zip(
            chosen, frame["label"], predictor.predict(frame), strict=True
        ):
            if prediction.error is None:
                at.append(start + row)
                labels.append(label)
                found.append([prediction.probabilities[name] for name in classes])
        start += table.num_rows
    if len(at) < _LEAST:
        return [], len(at)
    probabilities = np.array(found)
    codes = np.array([list(classes).index(label) for label in labels])
    return [
        Issue(
            place=at[row],
            label=labels[row],
            suggested=classes[int(probabilities[row].argmax())],
            given=float(probabilities[row, codes[row]]),
            likely=float(probabilities[row].max()),
        )
        for row in _doubted(codes, probabilities).tolist()
    ], len(at)


def _doubted(codes: NDArray[np.int64], probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows whose labels are doubted, the worst first."""
    # Imported here: it takes seconds.
    from cleanlab.filter import find_label_issues

    present = np.unique(codes)
    if len(present) < 2:
        return np.array([], dtype=np.int64)
    found: NDArray[np.int64] = find_label_issues(
        codes,
        probabilities,
        filter_by="confident_learning",
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    return found


def write_issues(
    path: Path, issues: Sequence[Issue], tables: Iterable[pa.Table], places: Mapping[int, str]
) -> None:
    """Write the doubted labels as a table, the worst first.

    Args:
        path: Is written.
        issues: As found.
        tables: All labelled rows, in order.
        places: As for `find_issues`.

    Raises:
        OSError: The disk is full.
    """
    wanted = {issue.place for issue in issues}
    rows: dict[int, dict[str, Any]] = {}
    start = 0
    for table in tables:
        here = [row for row in range(table.num_rows) if start + row in wanted]
        found = table.take(pa.array(here, pa.int64())).to_pylist()
        rows |= dict(zip((start + row for row in here), found, strict=True))
        start += table.num_rows
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for issue in issues:
            content = rows[issue.place]
            when = content["time"]
            writer.writerow(
                [
                    content["id"],
                    None if when is None else when.isoformat(),
                    content["_user"],
                    issue.label,
                    issue.suggested,
                    f"{issue.given:.4f}",
                    f"{issue.likely:.4f}",
                    places[issue.place],
                    content["text"],
                ]
            )
