"""The manifest of a prepared dataset, and what is said of a dataset that is none."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakenews.data.prepared import PreparedDataset
from fakenews.data.shards import Manifest, read_manifest, verify, write_manifest
from fakenews.data.storage import Storage
from fakenews.errors import DataError

Write = Callable[..., PreparedDataset]


@pytest.fixture(scope="module")
def original(write_prepared: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("prepared")
    write_prepared(root, entities=("GPE",))
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "data"))


def test_a_manifest_is_read_as_it_was_written(root: Path, tmp_path: Path):
    manifest = read_manifest(Storage(root))
    again = Storage(tmp_path / "again")
    write_manifest(again, manifest)
    assert read_manifest(again) == manifest
    assert (tmp_path / "again/manifest.json").read_bytes() == (
        root / "manifest.json"
    ).read_bytes()
    assert manifest.rows("train") == 169
    assert manifest.shards["train"][0].row_groups == (40, 40, 23)


def test_the_hash_is_of_the_shards(root: Path):
    manifest = read_manifest(Storage(root))
    assert replace(manifest, commit="other", inputs=[]).data_hash == manifest.data_hash
    first, *others = manifest.shards["train"]
    changed = {**manifest.shards, "train": [replace(first, sha256="0" * 64), *others]}
    assert replace(manifest, shards=changed).data_hash != manifest.data_hash
    reordered = {**manifest.shards, "train": [*others, first]}
    assert replace(manifest, shards=reordered).data_hash != manifest.data_hash


def changed(root: Path, **changes: Any) -> Any:
    data = json.loads((root / "manifest.json").read_text())
    del data["sha256"]
    return {name: value for name, value in (data | changes).items() if value != "absent"}


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"format": 2}, ["its format is 2, and this version reads 1"]),
        ({"format": "absent"}, ["its format is None"]),
        (
            {"classes": "absent", "extra": 1, "quarantined": -1},
            ["extra: unknown field", "classes: missing", "quarantined: must be a whole number"],
        ),
        ({"positive": "nobody"}, ["positive: 'nobody' is not in classes"]),
        ({"numeric": ["lang"]}, ["numeric, categorical: 'lang' is named twice"]),
        ({"fingerprint": "abc"}, ["fingerprint: must be a SHA-256"]),
        ({"counts": {"train": {"fake": 3}}}, ["counts.train: 3 rows, and the shards have 169"]),
        ({"shards": {"all": []}}, ["shards: must be an object of train, val and test"]),
        ({"tokenizer": {"sha256": "0" * 64}}, ["tokenizer: must be null, or an object"]),
        ({"statistics": {"mean": {}}}, ["statistics: must be an object of mean, scale"]),
        ({"commit": 3}, ["commit: must be null or a string"]),
    ],
)
def test_every_fault_is_named(root: Path, changes: dict[str, Any], messages: list[str]):
    with pytest.raises(DataError) as raised:
        Manifest.from_json(changed(root, **changes))
    for message in messages:
        assert any(fault.startswith(message) for fault in raised.value.faults), raised.value


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("path", "../train/00000.parquet", "is not in the folder train"),
        ("path", "val/00000.parquet", "is not in the folder train"),
        ("row_groups", [1, 2], "they have not the shard's 103 rows together"),
    ],
)
def test_a_shard_that_contradicts_itself(root: Path, field: str, value: Any, message: str):
    data = changed(root)
    data["shards"]["train"][0][field] = value
    with pytest.raises(DataError, match=message) as raised:
        Manifest.from_json(data)
    assert "shards.train[0]" in str(raised.value)


def test_what_could_not_be_read_is_not_written(root: Path, tmp_path: Path):
    manifest = read_manifest(Storage(root))
    storage = Storage(tmp_path / "again")
    with pytest.raises(DataError, match="is not in classes"):
        write_manifest(storage, replace(manifest, positive="nobody"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_manifest(storage, replace(manifest, settings={"share": float("nan")}))
    assert storage.list() == {}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"format": NaN}', b"[1]"])
def test_a_damaged_manifest(root: Path, content: bytes):
    (root / "manifest.json").write_bytes(content)
    with pytest.raises(DataError, match=r"manifest\.json") as raised:
        read_manifest(Storage(root))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "edit",
    [
        lambda data: data.update(positive="real"),
        lambda data: data["settings"].update(seed=3),
        lambda data: data["statistics"]["mean"].update(age=0.5),
        lambda data: data.pop("sha256"),
        lambda data: data.update(sha256="0" * 64),
    ],
)
def test_an_edited_manifest(root: Path, edit: Callable[[dict[str, Any]], object]):
    path = root / "manifest.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data))
    read_manifest(Storage(root))  # another layout is the same manifest
    edit(data)
    path.write_text(json.dumps(data))
    with pytest.raises(
        DataError,
        match=r"manifest\.json was changed after it was written .*again with overwrite=true",
    ):
        read_manifest(Storage(root))


def test_no_manifest(root: Path, tmp_path: Path):
    (root / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"has shards but no manifest\.json: "):
        read_manifest(Storage(root))
    with pytest.raises(DataError, match=r"has no manifest\.json: it is no prepared dataset"):
        read_manifest(Storage(tmp_path / "nothing"))


def test_a_sound_dataset_is_verified(root: Path):
    storage = Storage(root)
    manifest = read_manifest(storage)
    verify(storage, manifest, level="size")
    verify(storage, manifest, level="hash", progress=True)


def test_all_faults_of_shards_are_reported_together(root: Path):
    storage = Storage(root)
    manifest = read_manifest(storage)
    train = root / "train"
    (train / "00000.parquet").unlink()
    (train / "00001.parquet").write_bytes((train / "00001.parquet").read_bytes()[:-1])
    content = bytearray((train / "00002.parquet").read_bytes())
    content[100] ^= 1
    (train / "00002.parquet").write_bytes(content)
    (root / "val" / "notes.txt").write_text("mine")
    with pytest.raises(DataError) as raised:
        verify(storage, manifest, level="hash")
    for part in (
        "train/00000.parquet is missing",
        "train/00001.parquet has ",
        "train/00002.parquet has other content",
        "val/notes.txt is no file of this dataset",
    ):
        assert part in str(raised.value)
    assert str(raised.value).endswith(
        "; restore the damaged files, or prepare again with overwrite=true, and remove what is "
        "no file of it"
    )
    with pytest.raises(DataError) as raised:
        verify(storage, manifest, level="size")
    assert "00002" not in str(raised.value)


def test_hidden_files_are_nobodys_business(root: Path):
    for folder in (root, root / "train"):
        (folder / ".DS_Store").write_text("")
    verify(Storage(root), read_manifest(Storage(root)), level="size")


def test_many_faults_are_counted(root: Path):
    for number in range(9):
        (root / "train" / f"{number}.tmp").write_text("")
    with pytest.raises(DataError, match="and 4 more; remove what is no file of it"):
        verify(Storage(root), read_manifest(Storage(root)), level="size")
