import logging
import os
import pickle
import resource
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fakenews.features.cache import CountCache, read_arrays, write_arrays

WRITER = """
import sys
from pathlib import Path
import numpy as np
from fakenews.features.cache import CountCache

path, first, batches = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
cache = CountCache(path=path, width=3)
for batch in range(batches):
    numbers = range(first + 10 * batch, first + 10 * batch + 10)
    cache.put([b"%d" % n for n in numbers], np.array([[n, n + 1, n + 2] for n in numbers]))
    print(batch, flush=True)
"""


def row(number: int) -> list[int]:
    return [number, number + 1, number + 2]


def writer(path: Path, first: int, batches: int) -> subprocess.Popen:
    arguments = [sys.executable, "-c", WRITER, str(path), str(first), str(batches)]
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def warnings_in(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_put_and_get(tmp_path):
    cache = CountCache(path=tmp_path / "deep" / "counts.sqlite", width=3)
    keys = [b"%d" % number for number in range(1200)]  # more than one query takes
    cache.put(keys, np.array([row(number) for number in range(1200)], dtype=np.int16))
    found = CountCache(path=cache.path, width=3).get([*keys, b"absent"])
    assert set(found) == set(keys)
    assert found[b"7"].tolist() == row(7)
    assert found[b"7"].dtype == np.int16
    assert cache.get([]) == {}


def test_put_again_replaces(tmp_path):
    cache = CountCache(path=tmp_path / "counts.sqlite", width=1)
    cache.put([b"a"], np.array([[1]]))
    cache.put([b"a"], np.array([[2]]))
    assert cache.get([b"a"])[b"a"].tolist() == [2]


def test_can_be_pickled(tmp_path):
    cache = CountCache(path=tmp_path / "counts.sqlite", width=1)
    cache.put([b"a"], np.array([[1]]))
    assert pickle.loads(pickle.dumps(cache)).get([b"a"])[b"a"].tolist() == [1]  # noqa: S301


def test_two_processes_write_at_once(tmp_path):
    path = tmp_path / "counts.sqlite"
    writers = [writer(path, first, 40) for first in (0, 200)]  # they overlap from 200 to 399
    for process in writers:
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
    found = CountCache(path=path, width=3).get([b"%d" % n for n in range(700)])
    assert {int(key): value.tolist() for key, value in found.items()} == {
        number: row(number) for number in range(600)
    }


def test_killed_writer_loses_at_most_its_last_batch(tmp_path):
    path = tmp_path / "counts.sqlite"
    process = writer(path, 0, 1_000_000)
    for _ in range(20):
        finished = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.communicate()
    cache = CountCache(path=path, width=3)
    keys = [b"%d" % number for number in range(10 * (finished + 1))]
    assert [value.tolist() for value in cache.get(keys).values()] != []
    assert set(cache.get(keys)) == set(keys)
    cache.put([b"next"], np.array([row(0)]))
    assert cache.get([b"next"])[b"next"].tolist() == row(0)


@pytest.mark.parametrize("value", [b"", b"\0" * 6, b"\0" * 10, "text", None])
def test_damaged_row_is_a_missing_row(tmp_path, caplog, value):
    cache = CountCache(path=tmp_path / "counts.sqlite", width=3)
    cache.put([b"a", b"b"], np.array([row(1), row(2)]))
    with sqlite3.connect(cache.path) as connection:
        connection.execute(
            "UPDATE counts SET value = ? WHERE key = ?",
            (value if value is not None else 5, b"a"),
        )
    connection.close()
    assert {key: v.tolist() for key, v in cache.get([b"a", b"b"]).items()} == {b"b": row(2)}
    assert warnings_in(caplog) == []


def test_row_of_another_key_is_a_missing_row(tmp_path):
    cache = CountCache(path=tmp_path / "counts.sqlite", width=3)
    cache.put([b"a"], np.array([row(1)]))
    with sqlite3.connect(cache.path) as connection:
        connection.execute("UPDATE counts SET key = ?", (b"b",))
    connection.close()
    assert cache.get([b"b"]) == {}


def damage_garbage(path: Path) -> None:
    path.write_bytes(b"this is no database" * 100)


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def damage_pages(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:4096] + os.urandom(len(data) - 4096))


def damage_table(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE counts")
        connection.execute("CREATE TABLE counts (other)")
    connection.close()


@pytest.mark.parametrize("damage", [damage_garbage, damage_cut, damage_pages, damage_table])
def test_damaged_file_warns_once_and_gives_nothing(tmp_path, caplog, damage):
    cache = CountCache(path=tmp_path / "counts.sqlite", width=3)
    keys = [b"%d" % number for number in range(1000)]
    cache.put(keys, np.array([row(number) for number in range(1000)], dtype=np.int16))
    damage(cache.path)
    for _ in range(2):
        found = cache.get(keys)
        assert all(value.tolist() == row(int(key)) for key, value in found.items())
        assert len(found) < len(keys)
        cache.put([b"new"], np.array([row(1)]))
    (message,) = warnings_in(caplog)
    assert str(cache.path) in message
    assert "delete the file" in message


def test_unwritable_folder_warns_once(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = CountCache(path=tmp_path / "file" / "counts.sqlite", width=3)
    cache.put([b"a"], np.array([row(1)]))
    assert cache.get([b"a"]) == {}
    assert len(warnings_in(caplog)) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_warns_once(tmp_path, caplog):
    tmp_path.chmod(0o500)
    cache = CountCache(path=tmp_path / "counts.sqlite", width=3)
    cache.put([b"a"], np.array([row(1)]))
    tmp_path.chmod(0o700)
    assert cache.get([b"a"]) == {}
    assert len(warnings_in(caplog)) == 1


def test_locked_file_warns_once(tmp_path, caplog):
    cache = CountCache(path=tmp_path / "counts.sqlite", width=3, timeout=0.05)
    cache.put([b"a"], np.array([row(1)]))
    other = sqlite3.connect(cache.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    cache.put([b"b"], np.array([row(2)]))
    cache.put([b"c"], np.array([row(3)]))
    other.close()
    (message,) = warnings_in(caplog)
    assert "locked" in message
    assert set(CountCache(path=cache.path, width=3).get([b"a", b"b", b"c"])) == {b"a"}


def test_full_disk_warns_once_and_keeps_what_was_written(tmp_path, caplog):
    cache = CountCache(path=tmp_path / "counts.sqlite", width=3)
    cache.put([b"a"], np.array([row(1)]))
    keys = [b"%d" % number for number in range(5000)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))  # no file grows beyond
    try:
        cache.put(keys, np.array([row(number) for number in range(5000)], dtype=np.int16))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(warnings_in(caplog)) == 1
    after = CountCache(path=cache.path, width=3).get([b"a", *keys])
    assert {key: value.tolist() for key, value in after.items()} == {b"a": row(1)}


def test_arrays_round_trip(tmp_path):
    path = tmp_path / "deep" / "arrays.npz"
    assert read_arrays(path, ["a"]) is None
    write_arrays(path, {"a": np.arange(3), "b": np.zeros((0, 2))})
    read = read_arrays(path, ["a", "b"])
    assert read["a"].tolist() == [0, 1, 2]
    assert read["b"].shape == (0, 2)
    assert [entry.name for entry in path.parent.iterdir()] == ["arrays.npz"]


def test_missing_array_is_logged(tmp_path, caplog):
    write_arrays(tmp_path / "arrays.npz", {"a": np.arange(3)})
    assert read_arrays(tmp_path / "arrays.npz", ["a", "b"]) is None
    assert "damaged cache file" in caplog.text


def test_arrays_are_whole_or_absent_when_the_disk_is_full(tmp_path, caplog):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        write_arrays(tmp_path / "arrays.npz", {"a": np.zeros(5000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
    assert "cache not written" in caplog.text
