"""What lies at `out` already, and whether it stays, goes, or stops the preparation."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fakenews.data.prepared import read_audit
from fakenews.data.shards import MANIFEST, SPLITS, Manifest, is_hidden, read_manifest, verify
from fakenews.data.storage import Storage
from fakenews.errors import DataError
from fakenews.preparation.recipe import InputFile, Recipe

log = logging.getLogger(__name__)

_SHOWN = 4  # differences that are told
_LONGEST = 60  # characters of a value

# Where a setting is written, if not as `data.NAME`.
_OPTIONS = {
    "seed": "seed",
    "entities": "features (spaCy model)",
    "entities_version": "spaCy and its model",
    "tokenizer": "encoder (sha256 of its tokenizer)",
    "max_length": "encoder.max_length",
    "expectations": "validation.columns",
}


def read_earlier(storage: Storage, *, overwrite: bool) -> Manifest | None:
    """The manifest of the dataset that is there; None if there is none.

    Args:
        storage: Of the result.
        overwrite: A manifest that cannot be read is replaced, with a warning.

    Raises:
        DataError: It cannot be read.
    """
    if storage.size(MANIFEST) is None:
        return None
    try:
        return read_manifest(storage)
    except DataError as error:
        if not overwrite:
            raise
        log.warning("%s: it is prepared again", _fault(error))
        return None


def is_whole(storage: Storage, manifest: Manifest, *, overwrite: bool) -> bool:
    """Whether the dataset, which is of the same inputs and settings, is there; says so.

    Args:
        storage: Of the result.
        manifest: Of the dataset.
        overwrite: Every byte is read, and damage is a reason to prepare again.

    Raises:
        DataError: Files are missing or changed, and are not to be replaced.
    """
    try:
        verify(storage, manifest, level="hash" if overwrite else "size", progress=True)
        read_audit(storage)
    except DataError as error:
        if not overwrite:
            raise
        log.warning("%s: it is prepared again", _fault(error))
        return False
    log.info(
        "%s is prepared from these inputs and settings: nothing to do (%s)",
        storage.url,
        "every byte was read"
        if overwrite
        else "sizes were compared; action=verify reads every byte",
    )
    return True


def _fault(error: DataError) -> str:
    # What to do is being done.
    return str(error).partition(": restore")[0].partition("; restore")[0]


def try_to_write(storage: Storage) -> None:
    """Notice before hours of reading that the result has no place.

    Raises:
        DataError: It has none.
    """
    new = storage.is_local and not Path(storage.url).exists()
    storage.try_to_write()
    if new:
        Path(storage.url).rmdir()


def make_room(storage: Storage, *, overwrite: bool, going_on: bool = False) -> None:
    """Make sure that what is written stands alone.

    Args:
        storage: Of the result.
        overwrite: Shards that are there are deleted.
        going_on: Shards that are there are of this preparation, and stay.

    Raises:
        DataError: There are shards already, and they are not to be replaced; or files that
            are none.
    """
    found = [path for path in storage.list() if path.split("/")[0] in SPLITS]
    shards = [path for path in found if path.endswith(".parquet")]
    strays = [p for p in found if p not in shards and not is_hidden(p)]
    if strays:
        raise DataError(
            f"{storage.url}: {_some(strays)} would stand among the shards: remove what you do "
            "not need there, or give another out"
        )
    if going_on:
        return
    if shards and not overwrite:
        raise DataError(
            f"{storage.url} has shards but no {MANIFEST}: restore it, give another out, or "
            "prepare again with overwrite=true"
        )
    # The manifest first: from then on it is no whole dataset.
    for path in (MANIFEST, *shards):
        storage.delete(path)


def differences(earlier: Manifest, recipe: Recipe, inputs: Sequence[InputFile]) -> str:
    """In what a dataset differs from the one that is wanted: the first, and how many more.

    Args:
        earlier: Of the dataset.
        recipe: What is wanted.
        inputs: What it is to be made from.
    """
    settings = _settings(earlier.settings, recipe.to_json())
    found = [*settings, *_files(earlier.inputs, inputs)]
    return _some(found) or "it was made by another version"


def _settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    old, new = _flat(before), _flat(now)
    for name in (*new, *(name for name in old if name not in new)):
        if old.get(name) != new.get(name):
            option = _OPTIONS.get(name, name if "." in name else f"data.{name}")
            yield f"{option}={_short(new.get(name))} (there {_short(old.get(name))})"


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    flat = {name: value for name, value in settings.items() if name != "sharding"}
    return flat | {f"shards.{k}": v for k, v in settings.get("sharding", {}).items()}


def _files(before: Sequence[Mapping[str, Any]], now: Sequence[InputFile]) -> Iterator[str]:
    old = {(entry["role"], entry["path"]): entry["sha256"] for entry in before}
    new = {(file.role, file.path): file.sha256 for file in now}
    # A file that was moved or renamed is the same one.
    contents = [{(role, sha256) for (role, _), sha256 in files.items()} for files in (old, new)]
    for (role, path), sha256 in new.items():
        if (role, path) in old and old[role, path] != sha256:
            yield f"{path} has another content than it had"
        elif (role, sha256) not in contents[0]:
            yield f"{path} is new ({role})"
    for (role, path), sha256 in old.items():
        if (role, path) not in new and (role, sha256) not in contents[1]:
            yield f"{path} is not there any more ({role})"
    if contents[0] == contents[1] and [*old.values()] != [*new.values()]:
        yield "the files have another order"


def _short(value: Any) -> str:
    shown = "null" if value is None else str(value)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
