"""The manifest of a prepared dataset: what its shards are, hold, and were made from.

    ROOT/manifest.json
    ROOT/audit.json
    ROOT/{train,val,test}/00000.parquet ...

The manifest is written last: a folder with one is whole, or says what is missing. It has
the SHA-256 of its own content, so one that was edited is refused.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any, Literal

from tqdm import tqdm

from fakenews.data.manifest_fields import FIELDS, object_faults
from fakenews.data.storage import Storage
from fakenews.errors import DataError

FORMAT = 1
"""Version of the layout of a prepared dataset."""

MANIFEST = "manifest.json"
AUDIT = "audit.json"
SPLITS = ("train", "val", "test")

_READERS = 4  # enough to keep a disk or a connection busy
_FAULTS_SHOWN = 5
_AGAIN = "prepare again with overwrite=true"


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One Parquet file of a prepared dataset.

    Attributes:
        path: Relative to the dataset's root, as in `train/00000.parquet`.
        rows: Its rows.
        row_groups: Rows of each of its row groups, in order.
        bytes: Its size.
        sha256: Of its content, in hexadecimal.
    """

    path: str
    rows: int
    row_groups: tuple[int, ...]
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a prepared dataset is; the content of `manifest.json`.

    Attributes:
        fingerprint: SHA-256 over the hashes of the inputs and the settings.
        inputs: Each file read: `role`, `path`, `sha256`, `bytes`, `mtime_ns`, `rows`,
            `encoding`.
        settings: How it was read, split and sharded.
        classes: Sorted class names.
        positive: The class of interest.
        numeric: Extra columns that are numeric features.
        categorical: Extra columns that are categorical features.
        counts: Split -> class -> rows.
        dropped: Reason -> rows left out.
        quarantined: Rows that failed validation and were set aside.
        repaired: Texts in which a wrong decoding was undone.
        clipped: Texts cut to the longest length.
        tokenizer: `sha256` of the tokenizer's JSON and `max_length` of the stored token
            ids; None when there are none.
        entities: The spaCy model whose entities were counted; None when none were.
        statistics: Of the training rows: `mean`, `scale`, `missing`, `categories`.
        shards: Split -> its shards, in order.
        versions: Of the packages that shape the data.
        commit: Of the code; None when unknown.
    """

    fingerprint: str
    inputs: list[dict[str, Any]]
    settings: dict[str, Any]
    classes: list[str]
    positive: str
    numeric: list[str]
    categorical: list[str]
    counts: dict[str, dict[str, int]]
    dropped: dict[str, int]
    quarantined: int
    repaired: int
    clipped: int
    tokenizer: dict[str, Any] | None
    entities: dict[str, Any] | None
    statistics: dict[str, Any]
    shards: dict[str, list[Shard]]
    versions: dict[str, str]
    commit: str | None

    @property
    def data_hash(self) -> str:
        """SHA-256 of what is trained on: every shard's path and content."""
        digest = hashlib.sha256()
        for shard in chain.from_iterable(self.shards.get(split, []) for split in SPLITS):
            digest.update(f"{shard.path} {shard.sha256}\n".encode())
        return digest.hexdigest()

    def rows(self, split: str) -> int:
        """Rows of a split; 0 when the dataset has none of it."""
        return sum(shard.rows for shard in self.shards.get(split, []))

    def to_json(self) -> dict[str, Any]:
        """JSON types only; `from_json` gives an equal manifest."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["shards"] = {
            split: [{**vars(shard), "row_groups": list(shard.row_groups)} for shard in shards]
            for split, shards in self.shards.items()
        }
        return {"format": FORMAT, **content}

    @classmethod
    def from_json(cls, data: object) -> "Manifest":
        """The manifest that `to_json` gave.

        Raises:
            DataError: A field is missing, unknown, of the wrong type, or contradicts
                another, or the format is of another version; all faults are named.
        """
        if not isinstance(data, dict):
            raise DataError("it is not a JSON object")
        if data.get("format") != FORMAT:
            raise DataError(
                f"its format is {data.get('format')!r}, and this version reads {FORMAT}: "
                f"{_AGAIN}, or use the version that made it"
            )
        if faults := list(object_faults(data, FIELDS, "")):
            raise DataError(faults)
        content = {name: value for name, value in data.items() if name != "format"}
        content["shards"] = {
            split: [Shard(**{**s, "row_groups": tuple(s["row_groups"])}) for s in shards]
            for split, shards in data["shards"].items()
        }
        manifest = cls(**content)
        if faults := list(_contradictions(manifest)):
            raise DataError(faults)
        return manifest


def read_manifest(storage: Storage) -> Manifest:
    """The manifest of the dataset in `storage`.

    Raises:
        DataError: There is none, it is damaged or of another format, or it cannot be read.
    """
    if storage.size(MANIFEST) is None:
        if any(storage.list(split) for split in SPLITS):
            raise DataError(
                f"{storage.url} has shards but no {MANIFEST}: it was interrupted, and "
                f"the same command goes on, or the file was deleted: restore it, or {_AGAIN}"
            )
        raise DataError(
            f"{storage.url} has no {MANIFEST}: it is no prepared dataset; make one by "
            f"scripts/prepare.py with out={storage.url}"
        )
    content = storage.read_bytes(MANIFEST)
    try:
        data = json.loads(content, parse_constant=_refuse_constant)
    except ValueError as error:  # also of bytes that are no UTF-8
        raise DataError(
            f"{storage.url}/{MANIFEST} is damaged ({error}): restore it, or {_AGAIN}"
        ) from error
    if isinstance(data, dict) and data.get("format") == FORMAT:
        digest = data.pop("sha256", None)
        if digest != _digest(data):
            raise DataError(
                f"{storage.url}/{MANIFEST} was changed after it was written (its sha256 "
                f"differs): restore it, or {_AGAIN}"
            )
    try:
        return Manifest.from_json(data)
    except DataError as error:
        raise DataError(
            [f"{storage.url}/{MANIFEST}: {fault}" for fault in error.faults]
        ) from None


def write_manifest(storage: Storage, manifest: Manifest) -> None:
    """Write the manifest, whole or not at all; equal manifests give equal bytes.

    Raises:
        ValueError: A number is not finite, which JSON cannot write.
        DataError: It contradicts itself, or cannot be written.
    """
    content = manifest.to_json()
    digest = _digest(content)
    # What could not be read again must not be written.
    Manifest.from_json(json.loads(json.dumps(content)))
    text = json.dumps(
        {**content, "sha256": digest}, indent=2, ensure_ascii=False, sort_keys=True
    )
    storage.write_bytes(MANIFEST, f"{text}\n".encode())


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of JSON, however it is laid out."""
    canonical = json.dumps(content, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def verify(
    storage: Storage,
    manifest: Manifest,
    *,
    level: Literal["size", "hash"],
    progress: bool = False,
) -> None:
    """Check that the shards are those of the manifest.

    Args:
        storage: Of the dataset.
        manifest: Its manifest.
        level: `size` asks the storage for sizes only; `hash` reads every byte.
        progress: Show a bar while bytes are read.

    Raises:
        DataError: A shard is missing, of another size or content, or a split's folder has
            a file that is none of the shards and is not hidden; the first faults, how many
            there are, and what to do.
    """
    expected = {
        shard.path: shard
        for shard in chain.from_iterable(manifest.shards.get(split, []) for split in SPLITS)
    }
    found = {path: size for split in SPLITS for path, size in storage.list(split).items()}
    faults = {path: "is missing" for path in expected if path not in found}
    faults |= {
        path: f"has {found[path]:,} bytes, not {shard.bytes:,}"
        for path, shard in expected.items()
        if path in found and found[path] != shard.bytes
    }
    if level == "hash":
        sound = [shard for path, shard in expected.items() if path not in faults]
        faults |= _changed(storage, sound, progress=progress)
    strays = {path for path in found if path not in expected and not is_hidden(path)}
    if faults or strays:
        remedies = [f"restore the damaged files, or {_AGAIN}"] if faults else []
        remedies += ["remove what is no file of it"] if strays else []
        faults |= dict.fromkeys(strays, "is no file of this dataset")
        shown = [f"{path} {fault}" for path, fault in sorted(faults.items())]
        more = len(shown) - _FAULTS_SHOWN
        raise DataError(
            f"{storage.url} is not the dataset of its {MANIFEST}: "
            + ", ".join(shown[:_FAULTS_SHOWN])
            + (f" and {more:,} more" if more > 0 else "")
            + f"; {', and '.join(remedies)}"
        )


def is_hidden(path: str) -> bool:
    """Whether it is a file that a system leaves everywhere, as .DS_Store."""
    return path.rpartition("/")[2].startswith(".")


def _changed(storage: Storage, shards: list[Shard], *, progress: bool) -> dict[str, str]:
    """Of shards of the right size, those of other content."""
    changed: dict[str, str] = {}
    bar = tqdm(
        total=sum(shard.bytes for shard in shards),
        desc="verify shards",
        unit="B",
        unit_scale=True,
        delay=1,
        leave=False,
        disable=not progress,
    )
    with bar, ThreadPoolExecutor(_READERS, thread_name_prefix="verify") as pool:
        digests = pool.map(lambda shard: storage.sha256(shard.path), shards)
        for shard, digest in zip(shards, digests, strict=True):
            bar.update(shard.bytes)
            if digest != shard.sha256:
                changed[shard.path] = "has other content (its sha256 differs)"
    return changed


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _contradictions(manifest: Manifest) -> Iterator[str]:
    if manifest.positive not in manifest.classes:
        yield f"positive: {manifest.positive!r} is not in classes"
    columns = [*manifest.numeric, *manifest.categorical]
    for column in sorted({column for column in columns if columns.count(column) > 1}):
        yield f"numeric, categorical: {column!r} is named twice"
    for split, shards in manifest.shards.items():
        for number, shard in enumerate(shards):
            at = f"shards.{split}[{number}]"
            if not re.fullmatch(rf"{re.escape(split)}/[\w-]+\.parquet", shard.path):
                yield f"{at}.path: {shard.path!r} is not in the folder {split}"
            if sum(shard.row_groups) != shard.rows:
                yield f"{at}.row_groups: they have not the shard's {shard.rows} rows together"
        counted = sum(manifest.counts.get(split, {}).values())
        if counted != manifest.rows(split):
            yield (
                f"counts.{split}: {counted} rows, and the shards have {manifest.rows(split)}"
            )
        if unknown := manifest.counts.get(split, {}).keys() - set(manifest.classes):
            yield f"counts.{split}: {sorted(unknown)} are not in classes"
