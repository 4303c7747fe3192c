"""Other monitoring libraries on the windows of `monitoring.py`, each in its environment.

A worker reads tables of the reference and of the windows, and prints a line of JSON for each
window: whether the library says that the data set has drifted, the columns that have, and what
performance it estimates.
"""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from monitoring_streams import Stream, Window
from tqdm import tqdm

from fakenews.monitoring.rows import Rows

HERE = Path(__file__).parent
PEERS = ("evidently", "nannyml")


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """Windows of one kind, strength and size."""

    kind: str
    strength: float
    size: int
    windows: Sequence[Window]


def cells(
    stream: Stream,
    *,
    sizes: Sequence[int],
    clean: int,
    drifted: int,
    seed: int,
) -> list[Cell]:
    """The first of the windows that this project is measured with.

    Args:
        stream: Of them.
        sizes: Rows of a window.
        clean: How many that have not drifted, of each size.
        drifted: How many of each kind, strength and size.
        seed: As of this project's.
    """
    found = []
    for size in sizes:
        windows = stream.splits[0].clean.get(size)
        if windows is None:
            continue
        found.append(Cell(kind="none", strength=0.0, size=size, windows=windows[:clean]))
        found += [
            Cell(
                kind=drift.kind,
                strength=drift.strength,
                size=size,
                windows=stream.drifted(drift, size, drifted, seed=seed),
            )
            for drift in stream.drifts
            # Labels do not move what these see.
            if not drift.flipped and drift.labels is None
        ]
    return found


def peer(
    name: str, python: str, stream: Stream, given: Sequence[Cell]
) -> dict[str, list[dict[str, Any]]] | str:
    """What a library finds of each window, by cell; or why it cannot be had.

    Args:
        name: One of `PEERS`.
        python: Of its environment.
        stream: Of the windows.
        given: Cells, in the order of the answer.
    """
    windows = [window for cell in given for window in cell.windows]
    used, places = np.unique(
        np.concatenate([window.index for window in windows]), return_inverse=True
    )
    ends = np.cumsum([len(window.index) for window in windows])[:-1]
    reference = stream.splits[0].reference
    with tempfile.TemporaryDirectory(prefix="monitoring-") as made:
        folder = Path(made)
        known = table(reference.rows, stream.texts, reference.classes)
        # Of columns that never vary, NannyML takes none.
        kept = [column for column in known if len(set(known[column])) > 1]
        known[kept].to_parquet(folder / "reference.parquet")
        pool = table(stream.pool.rows.take(used), stream.pool.texts[used], reference.classes)
        pool[kept].to_parquet(folder / "pool.parquet")
        (folder / "windows.json").write_text(
            json.dumps(
                {
                    "positive": reference.calibration.positive,
                    "windows": [some.tolist() for some in np.split(places, ends)],
                }
            ),
            encoding="utf-8",
        )
        return _answers(name, python, folder, len(windows))


def table(rows: Rows, texts: Sequence[str], classes: Sequence[str]) -> pd.DataFrame:
    """Rows as libraries read them: text, numbers, predictions, and true labels."""
    scored = {k: v for k, v in rows.scored.items() if k != "prediction.confidence"}
    names = np.array(classes, dtype=object)
    return pd.DataFrame(
        {"text": list(texts)}
        | scored
        | {"prediction": names[rows.decided], "truth": names[rows.labels]}
    )


def _answers(name: str, python: str, folder: Path, count: int) -> Any:
    with (folder / "errors.txt").open("w+", encoding="utf-8") as errors:
        command = [python, str(HERE / f"monitoring_{name}.py"), str(folder)]
        try:
            process = subprocess.Popen(  # noqa: S603
                command, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        except OSError as error:
            return str(error)
        with process:
            lines = tqdm(process.stdout or (), total=count, desc=name, leave=False)
            answers = [json.loads(line) for line in lines]
        status = process.returncode
        if not status and len(answers) == count:
            return answers
        errors.seek(0)
        said = errors.read().strip().splitlines()
    return (said or [f"it ended with status {status}"])[-1]


def compared(
    given: Sequence[Cell], answers: dict[str, Any], result: dict[str, Any]
) -> list[dict[str, Any]]:
    """Each cell with the share of windows that each way finds to differ."""
    own = {(one["kind"], one["strength"], one["size"]): one for one in result["drift"]}
    clean = {one["size"]: one for one in result["clean"] if one["reference"] == "bundle"}
    found = []
    start = 0
    for cell in given:
        count = len(cell.windows)
        mine = clean[cell.size] if cell.kind == "none" else own[_key(cell)]
        row: dict[str, Any] = {
            "kind": cell.kind,
            "strength": cell.strength,
            "size": cell.size,
            "windows": count,
            "ours": float(np.mean(mine["hits"][:count])),
        }
        for name, all_of_it in answers.items():
            if isinstance(all_of_it, str):
                continue
            some = all_of_it[start : start + count]
            row[name] = float(np.mean([one["dataset"] for one in some]))
            row[f"{name}, any column"] = float(np.mean([bool(one["columns"]) for one in some]))
            row |= _errors(name, some, own[_key(cell)]["estimates"], count)
        found.append(row)
        start += count
    return found


def _key(cell: Cell) -> tuple[str, float, int]:
    return cell.kind, cell.strength, cell.size


def _errors(
    name: str, some: Sequence[dict[str, Any]], own: dict[str, Any], count: int
) -> dict[str, float]:
    """Mean absolute errors of estimated performance; ours on the same windows."""
    found = {}
    for metric in some[0].get("estimated", {}):
        if metric not in own or len(own[metric]["truths"]) < count:
            continue
        truths = np.array(own[metric]["truths"][:count])
        theirs = np.array([one["estimated"][metric] for one in some], dtype=float)
        found[f"{name}, error of {metric}"] = float(np.nanmean(np.abs(theirs - truths)))
        mine = np.array(own[metric]["values"][:count])
        found[f"ours, error of {metric}"] = float(np.nanmean(np.abs(mine - truths)))
    return found
