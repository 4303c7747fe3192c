"""A bundle as TorchServe's model archive; the same content gives the same file."""

import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from model_archiver.model_archiver_config import ModelArchiverConfig
from model_archiver.model_packaging_utils import ModelExportUtils

from fakenews.bounds import PositiveCount
from fakenews.bundle import BundleContent, sha256, write_bundle
from fakenews.errors import BundleError, ServingError
from fakenews.features.entities import model_package

log = logging.getLogger(__name__)

_MANIFEST = "MAR-INF/MANIFEST.json"
_HANDLER = "handler.py"
_CONFIG = "model-config.yaml"
_REQUIREMENTS = "requirements.txt"
_VERSION_DIGITS = 12
# The earliest that a zip can say.
_TIME = (1980, 1, 1, 0, 0, 0)
# What the handler imports, as far as it is installed.
_PACKAGES = (
    "captum",
    "ftfy",
    "numpy",
    "onnxruntime",
    "pandas",
    "safetensors",
    "scikit-learn",
    "scipy",
    "spacy",
    "tokenizers",
    "torch",
    "transformers",
)
# Of the reference rows: what training texts could be read from, and what drift alone needs.
_TEXT_ARRAYS = ("input_ids", "offsets")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """How TorchServe runs a version, if it is not told otherwise.

    Attributes:
        workers: Processes.
        batch_requests: Most requests that a worker is given together.
        batch_delay: Milliseconds that it waits for more of them, even when it is idle.
        response_timeout: Seconds for a batch.
        startup_timeout: Seconds to load and warm up.
    """

    workers: PositiveCount = 1
    batch_requests: PositiveCount = 32
    batch_delay: PositiveCount = 1
    response_timeout: PositiveCount = 30
    startup_timeout: PositiveCount = 300

    def to_yaml(self, handler: Mapping[str, Any]) -> str:
        """TorchServe's `model-config.yaml`.

        Args:
            handler: Arguments of `ServedModel.load`.
        """
        content = {
            "minWorkers": self.workers,
            "maxWorkers": self.workers,
            "batchSize": self.batch_requests,
            "maxBatchDelay": self.batch_delay,
            "responseTimeout": self.response_timeout,
            "startupTimeout": self.startup_timeout,
            "handler": dict(handler),
        }
        return yaml.safe_dump(content, sort_keys=False)


@dataclass(frozen=True, kw_only=True)
class Made:
    """An archive that was made.

    Attributes:
        path: Of the file.
        version: Of the model, from the content.
        new: Whether it was not there before.
    """

    path: Path
    version: str
    new: bool


def write_archive(
    content: BundleContent,
    *,
    name: str,
    config: str,
    handler: Path,
    out: Path,
) -> Made:
    """Make an archive; it appears whole or not at all.

    Args:
        content: The exported bundle.
        name: Of the model.
        config: `model-config.yaml`.
        handler: The module that TorchServe runs.
        out: Folder of archives.

    Raises:
        ServingError: The name is no name of a model, or the archive cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ServingError(f"name={name}: use letters, digits, '_', '-' and '.'")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".archive-", dir=out) as temporary:
            draft = Path(temporary) / name
            write_bundle(without_texts(content), draft / "bundle")
            (draft / _CONFIG).write_text(config, encoding="utf-8")
            (draft / _REQUIREMENTS).write_text(_requirements(content), encoding="utf-8")
            (draft / _HANDLER).write_bytes(handler.read_bytes())
            version = _digest(draft)[:_VERSION_DIGITS]
            path = out / f"{name}-{version}.mar"
            packed = Path(temporary) / path.name
            _pack(draft, packed, _manifest(name, version))
            if path.is_file() and sha256(path) == sha256(packed):
                return Made(path=path, version=version, new=False)
            packed.replace(path)
    except (OSError, BundleError) as error:
        cause = error.__cause__ if isinstance(error, BundleError) else error
        reason = getattr(cause, "strerror", None) or cause
        raise ServingError(
            f"the archive cannot be written to {out}: {reason}; choose a folder that is "
            "writable and has space"
        ) from error
    return Made(path=path, version=version, new=True)


def without_texts(content: BundleContent) -> BundleContent:
    """A bundle from which no training text can be read."""
    reference = {
        name: array for name, array in content.reference.items() if name not in _TEXT_ARRAYS
    }
    return dataclasses.replace(content, reference=reference)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files below a folder by their names there, sorted."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    yield from ((name, path) for name, path in sorted(found.items()) if path.is_file())


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name, path in _files(folder):
        digest.update(f"{name}\0{sha256(path)}\n".encode())
    return digest.hexdigest()


def _manifest(name: str, version: str) -> str:
    """TorchServe's, as its archiver writes it, but for the time."""
    found = json.loads(
        ModelExportUtils.generate_manifest_json(
            ModelArchiverConfig(
                model_name=name,
                version=version,
                handler=_HANDLER,
                requirements_file=_REQUIREMENTS,
                config_file=_CONFIG,
            )
        )
    )
    del found["createdOn"]
    return json.dumps(found, indent=2, sort_keys=True)


def _pack(draft: Path, target: Path, manifest: str) -> None:
    # Not compressed: weights do not get smaller, and TorchServe would wait for them.
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_entry(_MANIFEST), manifest)
        for name, path in _files(draft):
            with (
                path.open("rb") as source,
                archive.open(_entry(name), "w", force_zip64=True) as to,
            ):
                shutil.copyfileobj(source, to, 1 << 20)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _TIME)
    entry.external_attr = 0o644 << 16
    return entry


def _requirements(content: BundleContent) -> str:
    """What the handler imports, as it is installed here; TorchServe installs nothing."""
    entities = (content.features["tabular"] or {}).get("entities")
    model = entities and model_package(entities["model"])
    # Of this project no index has the name: another could take it.
    lines = [f"# fakenews {importlib.metadata.version('fakenews')}, from its own sources"]
    for package in (*_PACKAGES, *([model] if model else [])):
        try:
            # Without the build, as +cpu: any of this version will do.
            lines.append(f"{package}=={importlib.metadata.version(package).partition('+')[0]}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return "".join(f"{line}\n" for line in lines)
