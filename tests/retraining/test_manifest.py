"""What a version says of itself."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from fakenews.config import CONF, check, register_resolvers
from fakenews.errors import RetrainingError
from fakenews.retraining.manifest import (
    DatasetManifest,
    describe,
    is_dataset,
    read_dataset,
    version_of,
    write_manifest,
)
from fakenews.rules import preparation_rules


@pytest.fixture
def version(tmp_path: Path) -> tuple[Path, DatasetManifest]:
    folder = tmp_path / "it's a {version}"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "00000.parquet").write_bytes(b"rows")
    files = {"train/00000.parquet": describe(folder / "train/00000.parquet", rows=3)}
    manifest = DatasetManifest(
        version=version_of(files),
        parent=None,
        base={"kind": "run", "path": "runs/a", "data_hash": "0"},
        classes=["fake: yes", "it's real"],
        positive="it's real",
        numeric=["age, in years", "b"],
        categorical=["channel"],
        reading={"normalise": True, "max_chars": 400, "near_duplicates": 0.7},
        files=files,
        rows={"train": {"base": {"fake: yes": 2}, "feedback": {"it's real": 1}}},
        left_out={},
        audit={"audit": "off"},
        newest=None,
        notices=[],
        settings={"conflicts": "majority"},
        made_at="2026-03-01T00:00:00+00:00",
    )
    write_manifest(folder, manifest)
    return folder, manifest


def test_it_is_read_as_it_was_written(version: tuple[Path, DatasetManifest]):
    folder, manifest = version
    assert is_dataset(folder)
    assert read_dataset(folder) == manifest
    counts = [manifest.count("train", source) for source in ("base", "feedback", None)]
    assert counts == [2, 1, 3]
    assert manifest.count("window") == 0


@pytest.mark.parametrize("root", ["train", "prepare"])
def test_trainings_and_preparations_read_it(version: tuple[Path, DatasetManifest], root: str):
    folder, manifest = version
    register_resolvers()
    needed = ["out=prepared"] if root == "prepare" else []
    with initialize_config_dir(str(CONF)):
        cfg = compose(root, [*manifest.overrides(folder), *needed])
    data = cfg.data
    assert (data.path, data.test_path) == (f"{folder}/train", f"{folder}/test")
    assert (data.positive, data.weight) == ("it's real", "weight")
    assert (list(data.numeric), list(data.categorical)) == (
        ["age, in years", "b"],
        ["channel"],
    )
    assert (data.normalise, data.max_chars, data.near_duplicates) == (True, 400, 0.7)
    check(cfg.data)
    if root == "prepare":
        check(cfg, rules=preparation_rules)


def edit(folder: Path, before: str, after: str) -> None:
    path = folder / "manifest.json"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda f: edit(f, "majority", "drop"), "was changed after it was written: restore it"),
        (lambda f: edit(f, '"format": 1', '"format": 2'), "its format is 2, and this version"),
        (
            lambda f: edit(f, "retraining dataset", "other"),
            "is no retraining dataset: give one",
        ),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json is damaged: restore"),
        (
            lambda f: (f / "manifest.json").write_text("[]"),
            "is no retraining dataset: give one",
        ),
        (lambda f: (f / "manifest.json").unlink(), "has no manifest.json: it is no retraining"),
        (lambda f: (f / "train/00000.parquet").write_bytes(b"rowz"), "has another content"),
        (lambda f: (f / "train/00000.parquet").write_bytes(b""), "has 0 bytes, not 4"),
        (lambda f: (f / "train/00000.parquet").unlink(), "train/00000.parquet is missing"),
        (
            lambda f: (f / "train/1.parquet").write_bytes(b""),
            "train/1.parquet is no file of it",
        ),
    ],
)
def test_what_was_changed_is_told(
    version: tuple[Path, DatasetManifest], change: Callable[[Path], object], fault: str
):
    folder, _ = version
    change(folder)
    with pytest.raises(RetrainingError) as caught:
        read_dataset(folder)
    assert fault in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_quick_look_compares_sizes(version: tuple[Path, DatasetManifest]):
    folder, manifest = version
    (folder / "train" / "00000.parquet").write_bytes(b"rowz")
    (folder / "train" / ".DS_Store").write_bytes(b"")
    assert read_dataset(folder, verify=False) == manifest


def test_a_version_is_of_the_parts_alone():
    parts = {"train/00000.parquet": {"sha256": "a"}, "test/00000.parquet": {"sha256": "b"}}
    version = version_of(parts)
    assert version_of(dict(reversed(parts.items()))) == version
    assert version_of(parts | {"label_issues.csv": {"sha256": "c"}}) == version
    assert version_of(parts | {"window/00000.parquet": {"sha256": "c"}}) != version
    assert json.dumps(version)
