import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fakenews.errors import ServingError
from fakenews.serving.store import put, read_archive, remove, unpack

NAME = "fakenews"
MANIFEST = "MAR-INF/MANIFEST.json"

MakeMar = Callable[..., Path]


def _manifest(**values: object) -> dict[str, str]:
    model = {"modelName": NAME, "modelVersion": "a", "handler": "handler.py"} | values
    return {MANIFEST: json.dumps({"model": model})}


def test_an_archive_is_looked_into(make_mar: MakeMar) -> None:
    archive = read_archive(make_mar("12e456789012"), name=NAME)
    assert (archive.name, archive.version) == (NAME, "12e456789012")
    assert archive.file == "fakenews-12e456789012.mar"
    assert json.loads(archive.golden)["items"][0] == {"text": "One"}


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"left_out": (MANIFEST,)}, f"it has no {MANIFEST}"),
        ({"left_out": ("bundle/golden.json",)}, r"it has no bundle/golden\.json"),
        ({"left_out": ("handler.py",)}, r"it has no handler\.py"),
        ({"added": {MANIFEST: "{"}}, f"its {MANIFEST} is damaged"),
        ({"added": {MANIFEST: "[]"}}, f"its {MANIFEST} is damaged"),
        ({"added": {MANIFEST: '{"model": {}}'}}, f"its {MANIFEST} is damaged"),
        ({"added": _manifest(modelVersion="../a")}, "no usable name and version"),
        ({"added": _manifest(modelVersion="")}, "no usable name and version"),
        ({"added": {"../outside": ""}}, r"\.\./outside leads out of it"),
        ({"added": {"/outside": ""}}, "/outside leads out of it"),
    ],
)
def test_what_is_no_whole_archive_is_refused(
    make_mar: MakeMar, how: dict[str, object], reason: str
) -> None:
    path = make_mar("a", **how)
    with pytest.raises(
        ServingError,
        match=rf"no model archive: .*{reason}; make it again with scripts/export\.py$",
    ):
        read_archive(path, name=NAME)


def test_damaged_bytes_are_found(make_mar: MakeMar, tmp_path: Path) -> None:
    whole = make_mar("a").read_bytes()
    path = tmp_path / "a.mar"
    at = whole.index(b'"probabilities"')
    for content in (
        whole[:-30],
        b"text",
        b"",
        whole[:at] + b"!" + whole[at + 1 :],
    ):
        path.write_bytes(content)
        with pytest.raises(ServingError, match=r"a\.mar is no model archive: ") as caught:
            read_archive(path, name=NAME)
        assert "\n" not in str(caught.value)


def test_an_archive_of_another_model_or_none(make_mar: MakeMar, tmp_path: Path) -> None:
    with pytest.raises(
        ServingError, match=r"is of the model other, not fakenews: .*serve\.name"
    ):
        read_archive(make_mar("a", name="other"), name=NAME)
    with pytest.raises(ServingError, match=r"none\.mar does not exist"):
        read_archive(tmp_path / "none.mar", name=NAME)
    with pytest.raises(ServingError, match="cannot be read: Is a directory"):
        read_archive(tmp_path, name=NAME)


def test_an_archive_is_put_into_the_store_once_and_taken_out(
    make_mar: MakeMar, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    archive = read_archive(make_mar("a"), name=NAME)
    assert put(archive, store)
    assert not put(archive, store)
    inside = read_archive(store / archive.file, name=NAME)
    assert not put(inside, store)
    assert unpack(store, archive.file) == "fakenews-a"
    before = (store / "fakenews-a" / "handler.py").stat()
    assert unpack(store, archive.file) == "fakenews-a"
    assert (store / "fakenews-a" / "handler.py").stat() == before
    assert json.loads((store / "fakenews-a" / "bundle" / "golden.json").read_text())
    with pytest.raises(ServingError, match="is another archive of version a than"):
        put(read_archive(make_mar("a", fake=0.5), name=NAME), store)
    assert sorted(path.name for path in store.iterdir()) == ["fakenews-a", "fakenews-a.mar"]
    remove(store, archive.file)
    remove(store, archive.file)
    assert list(store.iterdir()) == []
    with pytest.raises(ServingError, match=r"fakenews-a\.mar is missing: copy it back"):
        unpack(store, archive.file)
    assert list(store.iterdir()) == []


@pytest.mark.parametrize("small_disk", ["200k"], indirect=True)
def test_a_full_disk_leaves_no_half_of_an_archive(make_mar: MakeMar, small_disk: Path) -> None:
    archive = read_archive(make_mar("a", added={"weights": "x" * 150_000}), name=NAME)
    assert put(archive, small_disk)
    for again in range(2):
        with pytest.raises(OSError, match="No space left"):
            unpack(small_disk, archive.file)
        assert [path.name for path in small_disk.iterdir()] == [archive.file], again
    other = read_archive(make_mar("b", added={"weights": "x" * 150_000}), name=NAME)
    with pytest.raises(OSError, match="No space left"):
        put(other, small_disk)
    assert [path.name for path in small_disk.iterdir()] == [archive.file]
