"""What can be wrong with files, columns and cells, and how it is told."""

import difflib
import glob
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fakenews.data.formats import kind
from fakenews.errors import DataError

FRAME_COLUMNS = ("raw", "text", "label", "file", "row", "group", "split", "error")
"""Columns that the program adds; an extra column cannot have one of these names."""

WEIGHT = "sample_weight"
"""The column of weights, where rows have some; then no extra column has this name either."""

_SHOWN = 5  # faults of one kind listed per file, the rest are counted
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def expand_paths(paths: str | Path | Sequence[str | Path]) -> tuple[list[Path], list[str]]:
    """Files of paths, folders and globs.

    Returns:
        The files, each once, those of a folder or a glob sorted; and what is wrong.
    """
    files: dict[Path, Path] = {}
    faults = []
    for entry in [paths] if isinstance(paths, str | Path) else paths:
        path = Path(entry).expanduser()
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.is_file() and kind(p))
            if not found:
                faults.append(f"{path}: the folder has no CSV, TSV, JSON Lines or Parquet file")
        elif glob.has_magic(str(path)) and not path.exists():
            # Path.glob cannot take an absolute pattern.
            matches = glob.glob(str(path), recursive=True)  # noqa: PTH207
            found = sorted(p for p in map(Path, matches) if p.is_file())
            if not found:
                faults.append(f"{path}: no file matches")
        else:
            found = [path]
        for file in found:
            files.setdefault(file.resolve(), file)
    if not files and not faults:
        faults.append("no data file was given")
    return list(files.values()), faults


def check_files(options: Mapping[str, Any]) -> None:
    """Say at once what is missing of the files to read, before anything heavy is loaded.

    Args:
        options: Of `dataset.load`, in which nothing was checked. A value that is no path is
            passed over.

    Raises:
        DataError: With every file, folder or glob that is not there.
    """
    faults = []
    for key in ("path", "val_path", "test_path"):
        paths = options.get(key)
        entries = [paths] if isinstance(paths, str) else paths
        if isinstance(entries, Sequence) and all(isinstance(e, str) and e for e in entries):
            files, missing = expand_paths(list(entries))
            faults += missing
            faults += [f"{file}: no such file" for file in files if not file.exists()]
    if faults:
        raise DataError(faults)


def column_clashes(
    text: str,
    label: str | None,
    numeric: Sequence[str],
    categorical: Sequence[str],
    weight: str | None = None,
) -> list[str]:
    """Columns that are asked for in two roles, or have a name that the program uses."""
    extra = [*numeric, *categorical]
    faults = [
        f"column {name!r} is both an extra column and the {role}"
        for name, role in ((text, "text"), (label, "label"))
        if name in extra
    ]
    if weight is not None:
        faults += [
            f"column {weight!r} is both the weight and {role}"
            for role, names in (
                ("the text", [text]),
                ("the label", [label]),
                ("an extra column", extra),
            )
            if weight in names
        ]
        if WEIGHT in extra and weight != WEIGHT:
            faults.append(
                f"extra column {WEIGHT!r} has a name the program uses; rename it in the file"
            )
    faults += [
        f"extra column {name!r} has a name the program uses; rename it in the file"
        for name in extra
        if name in FRAME_COLUMNS and name not in (text, label)
    ]
    faults += [
        f"extra column {name!r} is named twice" for name in set(extra) if extra.count(name) > 1
    ]
    return faults + (
        [f"column {text!r} is both the text and the label"] if text == label else []
    )


def missing_columns(path: Path, columns: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The wanted columns that a file does not have."""
    return [
        f"{path}: no column {name!r}{hint(name, columns, 'columns')}"
        for name in wanted
        if name not in columns
    ]


def number(cell: str) -> float | None:
    """The number in a cell, NaN if it is empty, None if it holds anything else."""
    cell = cell.strip()
    if not cell or cell.lower() == "nan":
        return math.nan
    value = float(cell) if _NUMBER.fullmatch(cell) else math.inf
    return value if math.isfinite(value) else None


def weight_of(cell: str) -> float | None:
    """The weight in a cell, 1 if it is empty, None if it is no finite number of at least 0."""
    value = number(cell) if cell.strip() else 1.0
    return value if value is not None and value >= 0 else None


def near(name: str, names: Sequence[str]) -> str:
    """A hint at the name that was meant, if one is near."""
    lowered = {n.strip().lower(): n for n in names}
    match = difflib.get_close_matches(name.strip().lower(), lowered, n=1)
    return f", did you mean {lowered[match[0]]!r}?" if match else ""


def hint(name: str, names: Sequence[str], what: str) -> str:
    """What was meant, if one of the names is near, and which there are."""
    meant = near(name, names)
    return f"{meant or ';'} {what}: {some(names)}"


def _short(shown: str) -> str:
    return shown if len(shown) <= 60 else f"{shown[:60]}..."


def some(names: Sequence[object]) -> str:
    """The first ten names, and how many more."""
    # The "columns" of a binary file are pages long.
    shown = ", ".join(_short(repr(name)) for name in names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown


def shown(path: Path, faults: list[str]) -> list[str]:
    """The first faults of a file, and how many more."""
    more = len(faults) - _SHOWN
    listed = [f"{path}: {fault}" for fault in faults[:_SHOWN]]
    return listed + ([f"{path}: {more} more rows like these"] if more > 0 else [])


def listed(files: Sequence[Path]) -> str:
    """The first three files."""
    return ", ".join(str(f) for f in files[:3]) + (", ..." if len(files) > 3 else "")
