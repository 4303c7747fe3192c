"""A bundle: one folder with everything needed to predict, and nothing else.

    model.json           architecture
    weights.safetensors  its weights
    tokenizer.json       truncating tokenizer (not for `model=tfidf`)
    features.json        text cleaning and fitted tabular features
    labels.json          class names and the positive class
    calibration.json     temperature and decision threshold
    reference/           what the validation split looked like, for drift
    metrics.json         how good it was on validation and test
    manifest.json        sha256 of every file, and where it all came from

Nothing is pickled, so opening a bundle runs none of its content.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fakenews.errors import BundleError

FORMAT = 1
MANIFEST = "manifest.json"
_REQUIRED = (
    "model.json",
    "weights.safetensors",
    "features.json",
    "labels.json",
    "calibration.json",
    "metrics.json",
    "reference/validation.safetensors",
)


@dataclass(frozen=True, kw_only=True)
class BundleContent:
    """What a bundle holds, in memory.

    Attributes:
        model: Architecture, plain JSON.
        weights: Arrays by name.
        tokenizer: Content of `tokenizer.json`, or None.
        features: Text cleaning and fitted tabular features, plain JSON.
        labels: `classes` (sorted) and `positive`.
        calibration: Temperature and threshold.
        reference: Arrays of the validation split, [N, ...] each.
        metrics: By split.
        provenance: Data hash, configuration, commit, versions, run id.
    """

    model: dict[str, Any]
    weights: Mapping[str, NDArray[Any]]
    tokenizer: str | None
    features: dict[str, Any]
    labels: dict[str, Any]
    calibration: dict[str, Any]
    reference: Mapping[str, NDArray[Any]]
    metrics: dict[str, Any]
    provenance: dict[str, Any]


def write_bundle(content: BundleContent, folder: Path) -> Path:
    """Write a bundle; the folder appears whole or not at all, and replaces an older one.

    Returns:
        The folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        draft.chmod(0o755)
        (draft / "reference").mkdir()
        save_file(_contiguous(content.weights), draft / "weights.safetensors")
        save_file(
            _contiguous(content.reference), draft / "reference" / "validation.safetensors"
        )
        if content.tokenizer is not None:
            (draft / "tokenizer.json").write_text(content.tokenizer, encoding="utf-8")
        for name in ("model", "features", "labels", "calibration", "metrics"):
            _write_json(draft / f"{name}.json", getattr(content, name))
        files = sorted(path for path in draft.rglob("*") if path.is_file())
        for path in files:
            path.chmod(0o644)  # safetensors makes files that only their owner can read
        manifest = {
            "format": FORMAT,
            "files": {path.relative_to(draft).as_posix(): sha256(path) for path in files},
            "provenance": content.provenance,
        }
        _write_json(draft / MANIFEST, manifest)
        if folder.exists():
            shutil.rmtree(folder)
        draft.replace(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return folder


def read_bundle(folder: str | Path) -> BundleContent:
    """Read and verify a bundle.

    Raises:
        BundleError: Naming the file that is missing, changed, unknown or damaged.
    """
    folder = Path(folder)
    manifest = verify(folder)
    values = {
        name: _read_json(folder / f"{name}.json")
        for name in ("model", "features", "labels", "calibration", "metrics")
    }
    tokenizer = folder / "tokenizer.json"
    return BundleContent(
        weights=_read_arrays(folder / "weights.safetensors"),
        reference=_read_arrays(folder / "reference" / "validation.safetensors"),
        tokenizer=tokenizer.read_text(encoding="utf-8") if tokenizer.is_file() else None,
        provenance=manifest["provenance"],
        **values,
    )


def verify(folder: Path) -> dict[str, Any]:
    """Compare every file of a bundle with its manifest, and return the manifest.

    Raises:
        BundleError: Naming the file that is missing, changed or unknown.
    """
    if not folder.is_dir():
        raise BundleError(f"{folder} is no bundle: there is no such folder")
    if not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder} is no bundle: it has no {MANIFEST}")
    manifest = _read_manifest(folder / MANIFEST)
    expected = manifest["files"]
    found = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }
    for name in sorted(found - set(expected)):
        raise BundleError(f"{folder / name} does not belong to the bundle: remove it")
    for name, digest in expected.items():
        if name not in found:
            raise BundleError(f"{folder / name} is missing from the bundle")
        if sha256(folder / name) != digest:
            raise BundleError(f"{folder / name} was changed after the bundle was written")
    return manifest


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = _read_json(path)
    if manifest.get("format") != FORMAT:
        raise BundleError(
            f"{path} has format {manifest.get('format')!r}, this version reads "
            f"{FORMAT}: export the bundle again, or install the version that wrote it"
        )
    expected = manifest.get("files")
    if not isinstance(expected, dict) or not isinstance(manifest.get("provenance"), dict):
        raise BundleError(f"{path} lacks files or provenance")
    for name in _REQUIRED:
        if name not in expected:
            raise BundleError(f"{path} does not list {name}")
    return manifest


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _contiguous(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False, sort_keys=True)
    path.write_text(f"{text}\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path} holds no JSON object")
    return content


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
