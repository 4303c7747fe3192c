"""What a retraining dataset is, and whether it still is that.

DATASETS/VERSION/train/*.parquet      rows to train on: of the base, then labelled ones
DATASETS/VERSION/test/*.parquet       frozen: the same bytes in every version
DATASETS/VERSION/window/*.parquet     the newest labelled rows, never trained on
DATASETS/VERSION/feedback.parquet     every labelled row, with what became of it
DATASETS/VERSION/left_out.parquet     rows of the base that are not trained on, and why
DATASETS/VERSION/label_issues.csv     labels that are doubted
DATASETS/VERSION/manifest.json        written last
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fakenews.data.manifest import write_json
from fakenews.errors import RetrainingError

MANIFEST = "manifest.json"
PARTS = ("train", "test", "window")
KIND = "retraining dataset"
FORMAT = 1

_AGAIN = "restore it, or make it again from its base"
_SHOWN = 3  # faults that a sentence has


@dataclass(frozen=True, kw_only=True)
class DatasetManifest:
    """The content of `manifest.json`.

    Attributes:
        version: Of the content: hash of the files of the parts.
        parent: Version that it was made from; None of the first.
        base: Where the rows of the base are from: `kind`, `path`, `data_hash`.
        classes: Sorted class names.
        positive: The class of interest.
        numeric: Extra columns that are numeric features.
        categorical: Extra columns that are categorical features.
        reading: How texts are read and grouped: `normalise`, `max_chars`, `near_duplicates`.
        files: Path -> `sha256`, `bytes`, `rows`.
        rows: Part -> source -> class -> rows.
        left_out: Reason -> source -> rows.
        audit: What the audit of labels was made with, and found.
        newest: Time of the newest labelled row; None where none has a time.
        notices: What was wrong with the input, as sentences.
        settings: As given to `make_dataset`.
        made_at: When, as ISO 8601.
    """

    version: str
    parent: str | None
    base: dict[str, Any]
    classes: list[str]
    positive: str
    numeric: list[str]
    categorical: list[str]
    reading: dict[str, Any]
    files: dict[str, dict[str, Any]]
    rows: dict[str, dict[str, dict[str, int]]]
    left_out: dict[str, dict[str, int]]
    audit: dict[str, Any]
    newest: str | None
    notices: list[str]
    settings: dict[str, Any]
    made_at: str

    def count(self, part: str, source: str | None = None) -> int:
        """Rows of a part, of one source or of all."""
        return sum(
            sum(classes.values())
            for name, classes in self.rows.get(part, {}).items()
            if source in (None, name)
        )

    def overrides(self, folder: str | Path) -> list[str]:
        """The options of `train.py`, and of `scripts/prepare.py`, that read a dataset.

        Args:
            folder: Of the version.
        """
        return [
            "data=csv",
            f"data.path={_quoted(f'{folder}/train')}",
            f"data.test_path={_quoted(f'{folder}/test')}",
            "data.text=text",
            "data.label=label",
            f"data.positive={_quoted(self.positive)}",
            f"data.numeric=[{','.join(map(_quoted, self.numeric))}]",
            f"data.categorical=[{','.join(map(_quoted, self.categorical))}]",
            "data.weight=weight",
            f"data.normalise={str(self.reading['normalise']).lower()}",
            f"data.max_chars={self.reading['max_chars']}",
            f"data.near_duplicates={self.reading['near_duplicates']}",
        ]


def write_manifest(folder: Path, manifest: DatasetManifest) -> None:
    """Write the manifest, whole or not at all.

    Raises:
        DataError: It cannot be written.
    """
    content = {"kind": KIND, "format": FORMAT, **asdict(manifest)}
    write_json(folder / MANIFEST, {**content, "sha256": _digest(content)})


def is_dataset(folder: Path) -> bool:
    """Whether a folder has the manifest of a retraining dataset."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("kind") == KIND


def read_dataset(folder: str | Path, *, verify: bool = True) -> DatasetManifest:
    """The manifest of a retraining dataset, after a look at its files.

    Args:
        folder: Of the version.
        verify: Read every byte of the files; otherwise only their sizes are compared.

    Raises:
        RetrainingError: It is none, or was changed after it was made.
    """
    folder = Path(folder)
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RetrainingError(
            f"{folder} has no {MANIFEST}: it is no retraining dataset; give one"
        ) from error
    except (OSError, ValueError) as error:
        raise RetrainingError(f"{folder}/{MANIFEST} is damaged: {_AGAIN}") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise RetrainingError(f"{folder} is no retraining dataset: give one")
    if content.get("format") != FORMAT:
        raise RetrainingError(
            f"{folder}/{MANIFEST}: its format is {content.get('format')!r}, and this version "
            f"reads {FORMAT}: use the version that made it"
        )
    digest = content.pop("sha256", None)
    names = {found.name for found in fields(DatasetManifest)}
    if digest != _digest(content) or content.keys() - {"kind", "format"} != names:
        raise RetrainingError(f"{folder}/{MANIFEST} was changed after it was written: {_AGAIN}")
    manifest = DatasetManifest(**{name: content[name] for name in names})
    if faults := _faults(folder, manifest.files, verify=verify):
        more = len(faults) - _SHOWN
        raise RetrainingError(
            f"{folder} was changed after it was made: {', '.join(faults[:_SHOWN])}"
            + (f" and {more} more" if more > 0 else "")
            + f"; {_AGAIN}"
        )
    return manifest


def describe(path: Path, *, rows: int) -> dict[str, Any]:
    """What the manifest says of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "bytes": path.stat().st_size, "rows": rows}


def version_of(files: Mapping[str, Mapping[str, Any]]) -> str:
    """The version of a dataset with these files: of its parts alone."""
    digest = hashlib.sha256()
    for path in sorted(files):
        if path.partition("/")[0] in PARTS:
            digest.update(f"{path} {files[path]['sha256']}\n".encode())
    return digest.hexdigest()[:12]


def _faults(folder: Path, files: Mapping[str, Mapping[str, Any]], *, verify: bool) -> list[str]:
    found = []
    for path, expected in files.items():
        file = folder / path
        if not file.is_file():
            found.append(f"{path} is missing")
        elif file.stat().st_size != expected["bytes"]:
            found.append(f"{path} has {file.stat().st_size:,} bytes, not {expected['bytes']:,}")
        elif verify and describe(file, rows=0)["sha256"] != expected["sha256"]:
            found.append(f"{path} has another content")
    there = {
        f"{part}/{path.name}"
        for part in PARTS
        for path in (folder / part).glob("*")
        if not path.name.startswith(".")
    }
    return found + [f"{path} is no file of it" for path in sorted(there - files.keys())]


def _digest(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _quoted(name: str) -> str:
    """A string of Hydra's grammar of overrides."""
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
