"""A bundle: one folder with everything needed to predict, and nothing else.

    model.json           architecture
    weights.safetensors  its weights
    tokenizer.json       truncating tokenizer (not for `model=tfidf`)
    features.json        text cleaning and fitted tabular features
    labels.json          class names and the positive class
    calibration.json     temperature and decision threshold
    reference/           what the validation split looked like, for drift
    metrics.json         how good it was on validation and test
    engine.json          which engine runs it, and how it was checked (of an exported one)
    engine/*.onnx        its encoder and head as ONNX, for the engines that read that
    golden.json          predictions that a server must repeat (of an exported one)
    manifest.json        sha256 of every file, and where it all came from

Nothing is pickled, so opening a bundle runs none of its content.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
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
# Of exported bundles.
_OPTIONAL = ("engine", "golden")
_PARTS = "engine"  # of the network, as ONNX


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
        reference: Arrays of N rows of the validation split: `rows`, `labels`, `logits`,
            `embeddings`, `tabular` [N, ...] each, and the texts as `input_ids` [total] with
            `offsets` [N + 1], as far as the model reads them.
        metrics: By split.
        provenance: Data hash, configuration, commit, versions, run id.
        engine: Of an exported bundle: its engine's name, and how that was checked.
        onnx: The network's parts by name, for the engines that read ONNX.
        golden: Of an exported bundle: predictions that a server must repeat.
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
    engine: dict[str, Any] | None = None
    onnx: Mapping[str, bytes] = field(default_factory=dict)
    golden: dict[str, Any] | None = None


def write_bundle(content: BundleContent, folder: Path) -> Path:
    """Write a bundle; the folder appears whole or not at all, and replaces an older one.

    Returns:
        The folder.

    Raises:
        BundleError: The folder cannot be written, for want of space or of permission.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
            draft = Path(name) / "bundle"
            _write_files(content, draft)
            if folder.exists():
                # Two quick renames: no reader waits for a deletion to be done.
                folder.replace(Path(name) / "old")
            draft.replace(folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BundleError(
            f"{folder}: the bundle cannot be written: {reason}; choose a folder that is "
            "writable and has space"
        ) from error
    return folder


def _write_files(content: BundleContent, draft: Path) -> None:
    (draft / "reference").mkdir(parents=True)
    save_file(_contiguous(content.weights), draft / "weights.safetensors")
    save_file(_contiguous(content.reference), draft / "reference" / "validation.safetensors")
    if content.tokenizer is not None:
        (draft / "tokenizer.json").write_text(content.tokenizer, encoding="utf-8")
    for name in ("model", "features", "labels", "calibration", "metrics"):
        _write_json(draft / f"{name}.json", getattr(content, name))
    for name in _OPTIONAL:
        if (value := getattr(content, name)) is not None:
            _write_json(draft / f"{name}.json", value)
    for name, part in content.onnx.items():
        (draft / _PARTS).mkdir(exist_ok=True)
        (draft / _PARTS / f"{name}.onnx").write_bytes(part)
    files = sorted(path for path in draft.rglob("*") if path.is_file())
    for path in files:
        path.chmod(0o644)  # safetensors makes files that only their owner can read
    manifest = {
        "format": FORMAT,
        "files": {path.relative_to(draft).as_posix(): sha256(path) for path in files},
        "provenance": content.provenance,
    }
    _write_json(draft / MANIFEST, manifest | {"sha256": _own_digest(manifest)})


def read_bundle(folder: str | Path) -> BundleContent:
    """Read and verify a bundle.

    Args:
        folder: The bundle, or the run folder that has it.

    Raises:
        BundleError: Naming every file that is missing, changed, unknown or damaged.
    """
    folder = find_bundle(folder)
    manifest = verify(folder)
    values = {
        name: _read_json(folder / f"{name}.json")
        for name in ("model", "features", "labels", "calibration", "metrics")
    }
    for name in _OPTIONAL:
        if (folder / f"{name}.json").is_file():
            values[name] = _read_json(folder / f"{name}.json")
    tokenizer = folder / "tokenizer.json"
    return BundleContent(
        weights=_read_arrays(folder / "weights.safetensors"),
        reference=_read_arrays(folder / "reference" / "validation.safetensors"),
        tokenizer=tokenizer.read_text(encoding="utf-8") if tokenizer.is_file() else None,
        onnx={path.stem: path.read_bytes() for path in (folder / _PARTS).glob("*.onnx")},
        provenance=manifest["provenance"],
        **values,
    )


def find_bundle(folder: str | Path) -> Path:
    """The bundle that a folder is, or, of a run folder, the one that it has."""
    folder = Path(folder)
    inside = folder / "bundle"
    return inside if inside.is_dir() and not (folder / MANIFEST).exists() else folder


def verify(folder: Path) -> dict[str, Any]:
    """Compare every file of a bundle with its manifest, and return the manifest.

    Raises:
        BundleError: Naming every file that is missing, changed or unknown.
    """
    if not folder.is_dir():
        raise BundleError(f"{folder} is no bundle: there is no such folder")
    if not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder} is no bundle: it has no {MANIFEST}")
    manifest = _read_manifest(folder / MANIFEST)
    expected = manifest["files"]
    found = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    }
    faults = [
        f"{folder / name} does not belong to the bundle: remove it"
        for name in sorted(found - {MANIFEST, *expected})
    ]
    for name, digest in expected.items():
        if name not in found:
            faults.append(f"{folder / name} is missing from the bundle")
        elif _digest(folder / name) != digest:
            faults.append(f"{folder / name} was changed after the bundle was written")
    if faults:
        raise BundleError("; ".join(faults))
    return manifest


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = _read_json(path)
    if manifest.get("format") != FORMAT:
        raise BundleError(
            f"{path} has format {manifest.get('format')!r}, this version reads "
            f"{FORMAT}: export the bundle again, or install the version that wrote it"
        )
    # What cannot be listed in itself carries its own digest, in the one form we write.
    if manifest.get("sha256") != _own_digest(manifest) or path.read_bytes() != _json_bytes(
        manifest
    ):
        raise BundleError(f"{path} was changed after the bundle was written")
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


def _digest(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error


def _contiguous(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _own_digest(manifest: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(_json_bytes(rest)).hexdigest()


def _json_bytes(content: Any) -> bytes:
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False, sort_keys=True)
    return f"{text}\n".encode()


def _write_json(path: Path, content: Any) -> None:
    path.write_bytes(_json_bytes(content))


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
