"""Archives, and the model store that TorchServe takes them from.

TorchServe registers whatever file it is given: one that is no archive becomes version 1.0,
and its worker fails for minutes. So archives are looked into before. And they are unpacked
here: TorchServe would do it in a thread that answers requests, which wait for it.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from fakenews.errors import ServingError

MANIFEST = "MAR-INF/MANIFEST.json"
"""TorchServe's, in an archive."""

GOLDEN = "bundle/golden.json"
"""Predictions that an archive must repeat."""

_ADVICE = "make it again with scripts/export.py"


@dataclass(frozen=True, kw_only=True)
class Archive:
    """An archive that was looked into.

    Attributes:
        path: Of the file.
        name: Of the model.
        version: Of the model.
        golden: Predictions that it must repeat, as JSON.
    """

    path: Path
    name: str
    version: str
    golden: bytes

    @property
    def file(self) -> str:
        """Its name in a model store."""
        return f"{self.name}-{self.version}.mar"


def read_archive(path: Path, *, name: str) -> Archive:
    """Look into an archive.

    Args:
        path: Of the file.
        name: Of the model that it must be of.

    Raises:
        ServingError: It is no whole archive of this model.
    """
    try:
        with zipfile.ZipFile(path) as content:
            for fault in _faults(content):
                raise ServingError(f"{path} is no model archive: {fault}; {_ADVICE}")
            model = _model(content)
            golden = content.read(GOLDEN)
    except FileNotFoundError as error:
        raise ServingError(f"{path} does not exist: give the archive of an export") from error
    except OSError as error:
        raise ServingError(f"{path} cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, ValueError) as error:
        raise ServingError(f"{path} is no model archive: {error}; {_ADVICE}") from error
    if model["modelName"] != name:
        raise ServingError(
            f"{path} is of the model {model['modelName']}, not {name}: give another archive, "
            f"or serve.name={model['modelName']} and a serve.dir for it"
        )
    return Archive(path=path, name=name, version=model["modelVersion"], golden=golden)


def put(archive: Archive, store: Path) -> bool:
    """Copy an archive into a model store, unless it is there; whole or not at all.

    Returns:
        Whether it was not there before.

    Raises:
        ServingError: The store has another archive of this version.
    """
    target = store / archive.file
    if target.exists():
        if target.samefile(archive.path) or _digest(target) == _digest(archive.path):
            return False
        raise ServingError(
            f"{target} is another archive of version {archive.version} than {archive.path}: "
            "make the archive again, so that it gets a version of its own"
        )
    store.mkdir(parents=True, exist_ok=True)
    temporary = store / f".{archive.file}.{os.getpid()}"
    try:
        with archive.path.open("rb") as source:
            _write(source, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def unpack(store: Path, file: str) -> str:
    """Unpack an archive of a store beside it, unless it is; whole or not at all.

    Args:
        store: The model store.
        file: Name of the archive.

    Returns:
        Name of the folder, which TorchServe takes for an archive.

    Raises:
        ServingError: There is no such archive.
    """
    folder = file.removesuffix(".mar")
    if (store / folder).is_dir():
        return folder
    with tempfile.TemporaryDirectory(prefix=f".{folder}.", dir=store) as temporary:
        place = Path(temporary) / folder
        try:
            with zipfile.ZipFile(store / file) as content:
                for member in content.infolist():
                    if not member.is_dir():
                        with content.open(member) as source:
                            _write(source, place / member.filename)
        except FileNotFoundError as error:
            raise ServingError(
                f"{store / file} is missing: copy it back, or undeploy its version and deploy "
                "another"
            ) from error
        place.rename(store / folder)
    return folder


def remove(store: Path, file: str) -> None:
    """Remove an archive from a store, and what was unpacked of it."""
    shutil.rmtree(store / file.removesuffix(".mar"), ignore_errors=True)
    (store / file).unlink(missing_ok=True)


def _write(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
        copy.flush()
        os.fsync(copy.fileno())


def _faults(content: zipfile.ZipFile) -> Iterator[str]:
    names = set(content.namelist())
    for member in sorted(names):
        place = PurePosixPath(member)
        if place.is_absolute() or ".." in place.parts:
            yield f"{member} leads out of it"
    if (broken := content.testzip()) is not None:
        yield f"{broken} is damaged"
    for needed in (MANIFEST, GOLDEN):
        if needed not in names:
            yield f"it has no {needed}"
    try:
        model = _model(content)
        version, handler = model["modelVersion"], model["handler"].partition(":")[0]
    except (ValueError, KeyError, TypeError, AttributeError):
        yield f"its {MANIFEST} is damaged"
    else:
        if not re.fullmatch(r"\w[\w.-]*", version, re.ASCII) or "modelName" not in model:
            yield f"its {MANIFEST} has no usable name and version"
        if not {handler, f"{handler}.py"} & names:
            yield f"it has no {handler}"


def _model(content: zipfile.ZipFile) -> dict[str, str]:
    manifest: dict[str, Any] = json.loads(content.read(MANIFEST))
    return {key: str(value) for key, value in manifest["model"].items()}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
