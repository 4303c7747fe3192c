"""A folder of files, on a disk and behind fsspec."""

import errno
import hashlib
import io
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fakenews.data.storage import Storage
from fakenews.data.storage_errors import explain, hide, transient
from fakenews.errors import ConfigError, DataError, Interrupted


@pytest.fixture(params=["path", "file", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(
        {
            "path": tmp_path / "data",
            "file": f"file://{tmp_path}/data/",
            "memory": f"memory://{uuid4()}/data/",
        }[request.param]
    )


def test_round_trip(storage: Storage, tmp_path: Path):
    local = tmp_path / "local"
    local.write_bytes(bytes(range(256)) * 20_000)
    assert storage.list() == {}
    storage.write_bytes("manifest.json", b"{}")
    storage.write_bytes("manifest.json", b"[1]")
    storage.publish(local, "train/00000.parquet")
    assert local.is_file()
    assert storage.list() == {"manifest.json": 3, "train/00000.parquet": 5_120_000}
    assert storage.list("train") == {"train/00000.parquet": 5_120_000}
    assert storage.list("tra") == storage.list("test") == {}
    assert storage.size("manifest.json") == 3
    assert storage.size("train") is storage.size("none") is None
    assert storage.read_bytes("train/00000.parquet") == local.read_bytes()
    told: list[int] = []
    expected = hashlib.sha256(local.read_bytes()).hexdigest()
    assert storage.sha256("train/00000.parquet", told.append) == expected
    assert sum(told) == 5_120_000
    storage.delete("manifest.json")
    storage.delete("manifest.json")
    assert list(storage.list()) == ["train/00000.parquet"]


def test_reading_at_any_place(storage: Storage):
    content = os.urandom(3_000_000)
    storage.write_bytes("a", content)
    with storage.open("a") as file:
        expected = io.BytesIO(content)
        for offset, whence, count in (
            (-8, 2, 100),
            (0, 0, 4),
            (2_000_000, 0, 900_000),
            (5, 1, 7),
        ):
            assert file.seek(offset, whence) == expected.seek(offset, whence)
            assert file.read(count) == expected.read(count)
            assert file.tell() == expected.tell()
        assert file.seek(9_000_000) == 9_000_000
        assert file.read() == b""


def test_threads_read_at_once(storage: Storage):
    contents = [os.urandom(200_000 + i) for i in range(8)]
    for i, content in enumerate(contents):
        storage.write_bytes(f"{i}", content)
    with ThreadPoolExecutor(8) as pool:
        names = [str(i % 8) for i in range(64)]
        assert list(pool.map(storage.read_bytes, names)) == [contents[int(n)] for n in names]


def test_another_process_reads(tmp_path: Path):
    storage = Storage(tmp_path)
    storage.write_bytes("a", b"content")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(storage.read_bytes, ("a",)) == b"content"


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "/etc/passwd", "", "a//b", "./a", "a/", "..", "a\\b", "a\0"]
)
def test_a_path_stays_inside_the_folder(storage: Storage, path: str):
    for use in (storage.open, storage.size, storage.delete, storage.sha256):
        with pytest.raises(DataError, match="no path inside the folder"):
            use(path)
    with pytest.raises(DataError, match="no path inside the folder"):
        storage.write_bytes(path, b"")
    assert storage.list() == {}


def test_drafts_are_not_listed(tmp_path: Path):
    storage = Storage(tmp_path)
    storage.write_bytes("train/a", b"1")
    (tmp_path / "train" / ".b.0123abcd.part").write_bytes(b"a process died here")
    (tmp_path / "train" / ".hidden").write_bytes(b"")
    assert storage.list() == {"train/.hidden": 0, "train/a": 1}


@contextmanager
def somebody() -> Iterator[None]:
    """Root may write everywhere."""
    if os.getuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_is_not_writable(tmp_path: Path):
    # The parents of tmp_path are closed to others.
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    try:
        (folder / "a").write_bytes(b"old")
        (folder / "a").chmod(0o600)
        folder.chmod(0o555)
        storage = Storage(folder)
        local = folder / "a"
        with somebody():
            with pytest.raises(DataError, match="permission denied: change the permissions"):
                storage.write_bytes("b", b"new")
            with pytest.raises(DataError, match="permission denied"):
                storage.delete("a")
            if os.getuid() == 0:
                with pytest.raises(DataError, match=f"{folder}/a: permission denied"):
                    storage.read_bytes("a")
                with pytest.raises(DataError, match=f"{local}: permission denied"):
                    Storage(tmp_path).publish(local, "a")
        assert storage.list() == {"a": 3}
    finally:
        folder.chmod(0o755)
        (folder / "a").unlink()
        folder.rmdir()


def test_a_file_in_the_way_and_a_file_that_is_missing(storage: Storage, tmp_path: Path):
    with pytest.raises(DataError, match=r"data/a/b: no such file: mend the path"):
        storage.read_bytes("a/b")
    with pytest.raises(DataError, match="nothing: no such file"):
        storage.publish(tmp_path / "nothing", "a")
    if storage.is_local:
        storage.write_bytes("a", b"")
        for path in ("a/b", "a/b/c"):
            with pytest.raises(DataError, match="a part of the path is a file"):
                storage.write_bytes(path, b"")
        with pytest.raises(DataError, match="it is a folder, not a file"):
            storage.publish(tmp_path, "b")
    assert set(storage.list()) <= {"a"}


def test_drafts_of_killed_processes_can_be_removed(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.write_bytes("train/a.parquet", b"whole")
    (tmp_path / "train" / ".b.parquet.0123abcd.part").write_bytes(b"half")
    (tmp_path / "train" / ".hidden").write_bytes(b"not ours")
    storage.discard_drafts()
    left = sorted(path.name for path in (tmp_path / "train").iterdir())
    assert left == [".hidden", "a.parquet"]


@pytest.mark.parametrize("small_disk", ["1m"], indirect=True)
def test_a_full_disk_keeps_what_was_there(small_disk: Path, tmp_path: Path):
    storage = Storage(small_disk)
    storage.write_bytes("a", b"old")
    local = tmp_path / "local"
    local.write_bytes(bytes(2 << 20))
    for write in (
        lambda: storage.publish(local, "a"),
        lambda: storage.write_bytes("a", local.read_bytes()),
    ):
        with pytest.raises(DataError) as caught:
            write()
        assert str(caught.value) == (
            f"{small_disk}/a: the disk is full: free some space, or choose another place"
        )
        assert storage.read_bytes("a") == b"old"
        assert [path.name for path in small_disk.iterdir()] == ["a"]


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path):
    storage = Storage(tmp_path)
    storage.write_bytes("a", bytes(3 << 20))
    with storage.open("a") as file:
        file.read(10)
        os.truncate(tmp_path / "a", 2_000_000)
        with pytest.raises(DataError, match="ends after 2,000,000 of 3,145,728 bytes"):
            file.read()


def test_parquet_gets_our_error_as_it_is(tmp_path: Path):
    storage = Storage(tmp_path)
    table = pa.table({"a": ["x" * 3_000_000], "b": [1]})
    pq.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False)
    with storage.open("a.parquet") as file:
        parquet = pq.ParquetFile(file)
        assert parquet.read_row_group(0, columns=["b"])["b"].to_pylist() == [1]
        os.truncate(tmp_path / "a.parquet", 2_000_000)
        with pytest.raises(DataError, match="it was changed while it was read"):
            parquet.read_row_group(0, columns=["a"])


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "the path of a folder is empty"),
        ("file://", "the path of a folder is empty"),
        ("s3://", "names no bucket"),
        ("nosuch://a/b", "there is no protocol 'nosuch'"),
        ("s3://AKIA123:hunter2@bucket/a", r"^s3://bucket/a: the URL holds credentials"),
        ("s3://hunter2@bucket/a", r"^s3://bucket/a: the URL holds credentials"),
        ("ftp://me:hunter2@host/a", r"^ftp://host/a: the URL holds credentials"),
    ],
)
def test_addresses_that_cannot_be_used(url: str, message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        Storage(url)
    assert "hunter2" not in str(caught.value)
    assert "AKIA" not in str(caught.value)


def test_a_package_that_is_not_installed():
    program = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from fakenews.data.storage import Storage\n"
        "from fakenews.errors import ConfigError\n"
        "try: Storage('s3://bucket/a')\n"
        "except ConfigError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == (
        "s3://bucket/a: needs the package s3fs: pip install 'fakenews[s3]'"
    )


def test_a_package_of_another_protocol_that_is_not_installed():
    with pytest.raises(
        ConfigError, match="gs://bucket/a: needs the package gcsfs: pip install"
    ):
        Storage("gs://bucket/a")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder of the kernel")
def test_a_folder_that_cannot_be_made():
    storage = Storage("/proc/news/prepared")
    for use in (storage.try_to_write, lambda: storage.write_bytes("train/a", b"")):
        with pytest.raises(
            DataError, match=r"/proc/news/prepared.*: the folder cannot be made"
        ):
            use()


def test_a_trial_leaves_nothing(storage: Storage, tmp_path: Path):
    storage.try_to_write()
    assert storage.list() == {}
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError) as caught:
        Storage(tmp_path / "file" / "data").try_to_write()
    assert str(caught.value).startswith(f"{tmp_path}/file/data: a part of the path is a file")


def test_options_that_are_null_are_not_given():
    options = {"endpoint_url": None, "anon": True}
    assert Storage("memory://a", options=options)._options == {"anon": True}


def test_nothing_secret_is_shown(tmp_path: Path):
    storage = Storage(
        "https://me@host/a?X-Amz-Signature=hunter2", options={"client_kwargs": {"x": "hunter2"}}
    )
    assert storage.url == "https://host/a"
    assert repr(storage) == "Storage('https://host/a')"
    options = {"secret": "hunter2", "client_kwargs": {"aws_session_token": "hunter2long"}}
    assert hide("no hunter2long or hunter2", options) == "no *** or ***"
    assert hide("port 9000", {"endpoint_url": "9000", "anon": True}) == "port 9000"
    error = OSError("GET https://me:hunter2@host/a?sig=hunter2 failed")
    assert (
        explain(error, local=False) == "it cannot be read or written (GET https://host failed)"
    )
    copy = pickle.loads(pickle.dumps(Storage(f"{tmp_path}/")))  # noqa: S301 our own
    assert copy.url == str(tmp_path)


def test_which_failures_are_worth_a_second_try():
    assert transient(ConnectionResetError())
    assert transient(TimeoutError())
    assert transient(OSError(errno.EBUSY, "Please reduce your request rate."))
    assert not transient(PermissionError())
    assert not transient(FileNotFoundError())
    assert not transient(OSError(errno.ENOSPC, "full"))


def test_a_signal_is_no_error_of_the_store(tmp_path):
    stopped = Interrupted("terminated", status=143)

    def action() -> None:
        raise stopped

    with pytest.raises(Interrupted) as caught:
        Storage(str(tmp_path))._attempt("file", action)
    assert caught.value is stopped
