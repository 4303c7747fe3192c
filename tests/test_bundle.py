"""Writing, reading and distrusting bundles."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fakenews import bundle
from fakenews.bundle import BundleContent, read_bundle, write_bundle
from fakenews.errors import BundleError

FILES = [
    "calibration.json",
    "features.json",
    "labels.json",
    "manifest.json",
    "metrics.json",
    "model.json",
    "reference/validation.safetensors",
    "tokenizer.json",
    "weights.safetensors",
]


@pytest.fixture
def damaged(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


@pytest.fixture
def content() -> BundleContent:
    return BundleContent(
        model={"network": "none"},
        weights={"w": np.arange(6.0).reshape(2, 3).T},  # not contiguous
        tokenizer='{"a": "é"}',
        features={},
        labels={"classes": ["a", "b"]},
        calibration={"temperature": 1.25},
        reference={"rows": np.arange(3)},
        metrics={"val": {"auroc": None}},
        provenance={"commit": None},
    )


def sign(folder: Path, change: Callable[[dict], None] = lambda manifest: None) -> None:
    """Make the manifest fit the files, as someone would who wants to deceive."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in manifest["files"]:
        manifest["files"][name] = bundle.sha256(folder / name)
    change(manifest)
    manifest["sha256"] = bundle._own_digest(manifest)
    bundle._write_json(path, manifest)


def fault(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        read_bundle(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_written_is_read(content: BundleContent, tmp_path: Path) -> None:
    folder = write_bundle(content, tmp_path / "deep" / "bundle")
    found = read_bundle(folder)
    assert found.weights["w"].tolist() == content.weights["w"].tolist()
    assert found.reference["rows"].dtype == np.int64
    plain = {
        field.name: getattr(content, field.name) for field in dataclasses.fields(content)
    } | {"weights": None, "reference": None}
    assert {
        name: None if value is None else getattr(found, name) for name, value in plain.items()
    } == plain
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_a_run_leaves_these_files_and_none_is_a_pickle(tiny_bundle: Path) -> None:
    found = sorted(
        path.relative_to(tiny_bundle).as_posix()
        for path in tiny_bundle.rglob("*")
        if path.is_file()
    )
    assert found == FILES


def test_a_run_folder_stands_for_its_bundle(tiny_run: Path, tiny_bundle: Path) -> None:
    assert read_bundle(tiny_run).labels == read_bundle(tiny_bundle).labels


def test_an_exported_bundle_has_more(content: BundleContent, tmp_path: Path) -> None:
    more = {
        "engine": {"name": "onnx"},
        "onnx": {"encoder": b"\x00one", "head": b"\x00two"},
        "golden": {"format": 1},
    }
    folder = write_bundle(dataclasses.replace(content, **more), tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    parts = {"engine/encoder.onnx", "engine/head.onnx"}
    assert manifest["files"].keys() > {"engine.json", "golden.json", *parts}
    found = read_bundle(folder)
    assert {name: getattr(found, name) for name in more} == more
    (folder / "engine" / "head.onnx").write_bytes(b"another")
    assert "engine/head.onnx was changed after the bundle was written" in fault(folder)
    (folder / "engine" / "head.onnx").unlink()
    assert "engine/head.onnx is missing from the bundle" in fault(folder)


def test_an_older_bundle_is_replaced_whole(content: BundleContent, tmp_path: Path) -> None:
    folder = write_bundle(content, tmp_path / "bundle")
    write_bundle(dataclasses.replace(content, tokenizer=None), folder)
    assert read_bundle(folder).tokenizer is None
    assert not (folder / "tokenizer.json").exists()


def test_a_bundle_that_fails_leaves_the_older_one(
    content: BundleContent, tmp_path: Path
) -> None:
    folder = write_bundle(content, tmp_path / "bundle")
    with pytest.raises(ValueError, match="JSON"):
        write_bundle(dataclasses.replace(content, metrics={"auroc": np.nan}), folder)
    assert read_bundle(folder).metrics == content.metrics
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_that_cannot_be_written(content: BundleContent, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        BundleError, match=r"file/bundle: the bundle cannot be written: File exists"
    ):
        write_bundle(content, tmp_path / "file" / "bundle")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_is_named(damaged: Path, name: str) -> None:
    (damaged / name).unlink()
    assert name in fault(damaged)


@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("name", FILES)
def test_a_file_with_a_changed_byte_is_named(damaged: Path, name: str, place: float) -> None:
    data = bytearray((damaged / name).read_bytes())
    data[int(place * len(data))] ^= 1
    (damaged / name).write_bytes(data)
    assert name in fault(damaged)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_cut_is_named(damaged: Path, name: str) -> None:
    data = (damaged / name).read_bytes()
    (damaged / name).write_bytes(data[:-1])
    assert name in fault(damaged)


@pytest.mark.parametrize("name", ["extra.txt", "reference/manifest.json", "model.pkl"])
def test_a_file_too_many_is_named(damaged: Path, name: str) -> None:
    (damaged / name).write_text("{}")
    assert f"{name} does not belong to the bundle" in fault(damaged)


def test_all_faults_are_reported_at_once(damaged: Path) -> None:
    (damaged / "model.json").unlink()
    (damaged / "labels.json").write_text("{}")
    (damaged / "more.json").write_text("{}")
    message = fault(damaged)
    assert "model.json is missing" in message
    assert "labels.json was changed" in message
    assert "more.json does not belong" in message


def test_another_format_is_refused(damaged: Path) -> None:
    sign(damaged, lambda manifest: manifest.update(format=99))
    assert "manifest.json has format 99, this version reads 1" in fault(damaged)


def test_a_file_that_a_manifest_must_list(damaged: Path) -> None:
    (damaged / "weights.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        sign(damaged)
    manifest = json.loads((damaged / "manifest.json").read_text())
    del manifest["files"]["weights.safetensors"]
    (damaged / "manifest.json").write_text(json.dumps(manifest))
    sign(damaged)
    assert "manifest.json does not list weights.safetensors" in fault(damaged)


def test_damage_under_a_manifest_that_fits(damaged: Path) -> None:
    weights = damaged / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    sign(damaged)
    assert "weights.safetensors cannot be read" in fault(damaged)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "cannot be read"),
        ("[]", "holds no JSON object"),
        ("{}", "has format None"),
        ('{"format": 1}', "was changed"),
        ("\ud800", "cannot be read"),
    ],
)
def test_a_manifest_that_is_none(damaged: Path, text: str, reason: str) -> None:
    (damaged / "manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert reason in fault(damaged)


def test_folders_that_are_no_bundles(tmp_path: Path) -> None:
    assert "there is no such folder" in fault(tmp_path / "absent")
    assert "it has no manifest.json" in fault(tmp_path)
    (tmp_path / "file").touch()
    assert "there is no such folder" in fault(tmp_path / "file")
