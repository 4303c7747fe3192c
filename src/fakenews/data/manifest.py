"""What a run was made of, as one JSON object; and strict, atomic JSON files."""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from fakenews.data.sources import SourceFile, Table
from fakenews.errors import DataError
from fakenews.provenance import SHAPE_DATA, versions

FORMAT = 1
"""Version of the manifest's own layout."""


def manifest(
    tables: Sequence[Table],
    frame: pd.DataFrame,
    split: pd.Series,
    *,
    classes: Sequence[str],
    positive: str,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Describe the data of a run.

    Args:
        tables: What was read, for its files and what was dropped and repaired.
        frame: The rows of all tables, one under another [N].
        split: ``train``, ``val``, ``test`` or ``dropped`` for each row of ``frame`` [N].
        classes: Sorted classes.
        positive: The positive class.
        settings: How the data was read, grouped and split: plain JSON values.

    Returns:
        Plain JSON values: ``format``, ``files``, ``rows``, ``split`` (rows per class and
        split), ``dropped`` (rows by reason), ``repaired``, ``clipped``, ``classes``,
        ``positive``, ``settings``, ``data_hash``, ``versions``.
    """
    counts = pd.crosstab(split.to_numpy(), frame["label"].to_numpy())
    dropped: dict[str, int] = {}
    for table in tables:
        for reason in table.dropped["reason"]:
            dropped[str(reason)] = dropped.get(str(reason), 0) + 1
    if repeated := int((split == "dropped").sum()):
        dropped["training row repeats a validation or test row"] = repeated
    files: list[SourceFile] = [file for table in tables for file in table.files]
    return {
        "format": FORMAT,
        "files": [asdict(file) for file in files],
        "rows": len(frame),
        "split": {
            str(name): {str(c): int(n) for c, n in row.items()}
            for name, row in counts.iterrows()
        },
        "dropped": dropped,
        "repaired": sum(table.repaired for table in tables),
        "clipped": sum(table.clipped for table in tables),
        "classes": list(classes),
        "positive": positive,
        "settings": dict(settings),
        "data_hash": data_hash(frame, split),
        "versions": versions(*SHAPE_DATA),
    }


def data_hash(frame: pd.DataFrame, split: pd.Series) -> str:
    """SHA-256 of what a model learns from: texts, labels, extra columns, split, row order.

    Where the rows were read from (``file``, ``row``), how they were spelt before cleaning
    (``raw``) and the ``group`` do not count, so a copied file has the same hash.
    """
    content = frame.drop(columns=["raw", "file", "row", "group"], errors="ignore")
    content = content.reset_index(drop=True).assign(split=split.to_numpy())
    digest = hashlib.sha256()
    for name in sorted(content.columns):
        values = content[name].tolist()
        # JSON keeps cells apart whatever they contain, and writes floats in full.
        digest.update(json.dumps([name, values], ensure_ascii=True).encode())
    return digest.hexdigest()


def write_json(path: str | Path, obj: object) -> None:
    """Write strict JSON, indented, whole or not at all; the folder is made.

    Raises:
        ValueError: A number is not finite, which JSON cannot write.
        TypeError: A value is not plain JSON.
        DataError: The file cannot be written.
    """
    path = Path(path)
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=f".{path.name}.", encoding="utf-8", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(text)
        temporary.chmod(0o644)  # temporary files are private, results are not
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error
