"""Preparations that are killed, and those on several machines."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fakenews.data.shards import read_manifest
from fakenews.data.storage import Storage
from fixtures.commands import Commands, Started

pytestmark = pytest.mark.slow


class Preparations:
    """Runs `scripts/prepare.py` in a folder."""

    def __init__(self, command: Commands) -> None:
        self.command = command

    def start(self, folder: Path, *overrides: str, out: str = "prepared") -> Started:
        return self.command.start(
            "scripts/prepare.py",
            f"out={folder / out}",
            f"paths.cache={folder / 'cache'}",
            "data.fetch.rows=4000",
            "features=headline",
            "encoder=tiny",
            "shards.rows=200",
            "prepare.workers=2",
            *overrides,
            cwd=folder,
        )

    def run(self, folder: Path, *overrides: str, out: str = "prepared") -> str:
        process = self.start(folder, *overrides, out=out)
        shown, _ = process.communicate(timeout=300)
        assert process.returncode == 0, shown
        return shown


@pytest.fixture(scope="module")
def prepare(command: Commands) -> Preparations:
    return Preparations(command)


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _wait_for_shards(folder: Path, process: Started, count: int) -> None:
    end = time.monotonic() + 200
    while len(list((folder / "cache" / "prepare").glob("*/buckets/*.json"))) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(
    prepare: Preparations, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    prepare.run(folder)
    return _files(folder / "prepared")


def test_killed_and_started_again_it_ends_with_the_same_bytes(
    prepare: Preparations, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    for count in (2, 6):
        process = prepare.start(tmp_path)
        _wait_for_shards(tmp_path, process, count)
        process.kill()
        process.communicate()
        assert not (tmp_path / "prepared" / "manifest.json").exists()
    shown = prepare.run(tmp_path)
    assert "going on with the preparation" in shown
    assert _files(tmp_path / "prepared") == undisturbed
    assert "nothing to do" in prepare.run(tmp_path)


def test_ctrl_c_stops_all_processes_and_says_so(
    prepare: Preparations, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    process = prepare.start(tmp_path)
    _wait_for_shards(tmp_path, process, 1)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    shown = process.communicate(timeout=60)[0]
    assert process.returncode == 130, shown
    assert "interrupted" in shown
    assert "Traceback" not in shown
    assert not psutil.wait_procs(workers, timeout=20)[1]
    prepare.run(tmp_path)
    assert _files(tmp_path / "prepared") == undisturbed


def test_a_worker_that_is_killed_is_told_and_nothing_is_lost(
    prepare: Preparations, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    process = prepare.start(tmp_path)
    _wait_for_shards(tmp_path, process, 1)
    for worker in psutil.Process(process.pid).children():
        if "spawn_main" in " ".join(worker.cmdline()):
            os.kill(worker.pid, signal.SIGKILL)
    shown = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert "error: a worker process died" in shown
    assert "Traceback" not in shown
    prepare.run(tmp_path)
    assert _files(tmp_path / "prepared") == undisturbed


def test_two_at_once_do_not_mix(prepare: Preparations, tmp_path: Path) -> None:
    much = ("data.fetch.rows=20000", "shards.rows=100")
    first = prepare.start(tmp_path, *much)
    _wait_for_shards(tmp_path, first, 1)
    second = prepare.start(tmp_path, *much)
    shown = second.communicate(timeout=100)[0]
    assert second.returncode == 1
    assert "another process is preparing" in shown
    assert first.communicate(timeout=200)[0]
    assert first.returncode == 0


@pytest.mark.parametrize("small_disk", ["512k"], indirect=True)
def test_a_full_disk_is_one_line_and_with_room_it_goes_on(
    prepare: Preparations, tmp_path: Path, undisturbed: dict[str, bytes], small_disk: Path
) -> None:
    process = prepare.start(tmp_path, f"prepare.work_dir={small_disk}")
    shown = process.communicate(timeout=200)[0]
    assert process.returncode == 1
    assert "No space left" in shown
    assert "prepare.work_dir" in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "prepared").exists()
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    prepare.run(tmp_path, f"prepare.work_dir={small_disk}")
    assert _files(tmp_path / "prepared") == undisturbed


@pytest.mark.usefixtures("small_disk")
@pytest.mark.parametrize("small_disk", ["300k"], indirect=True)
def test_a_result_without_room_is_one_line_and_workers_leave_nothing(
    prepare: Preparations, tmp_path: Path
) -> None:
    process = prepare.start(tmp_path, out="small/prepared")
    shown = process.communicate(timeout=200)[0]
    assert process.returncode == 1
    assert "the disk is full" in shown.splitlines()[-1]
    assert "leaked" not in shown


def test_a_bucket_gets_the_same_dataset_and_trains(
    command: Commands,
    tmp_path: Path,
    undisturbed: dict[str, bytes],
    s3_url: tuple[str, dict[str, Any]],
) -> None:
    url, options = s3_url
    endpoint = f"{{endpoint_url: '{options['endpoint_url']}'}}"
    commands = (
        [
            *("scripts/prepare.py", f"out={url}/news", f"storage_options={endpoint}"),
            *("data.fetch.rows=4000", "features=headline", "encoder=tiny", "shards.rows=200"),
        ],
        [
            *("train.py", "data=shards", f"data.path={url}/news", "features=headline"),
            *(f"data.storage_options={endpoint}", "encoder=tiny", "trainer.max_epochs=1"),
            *("logger=none", "register=null", "bootstrap=10", f"paths.runs={tmp_path}/runs"),
        ],
    )
    for script, *overrides in commands:
        process = command.start(
            *(script, *overrides, f"paths.cache={tmp_path}/cache"),
            cwd=tmp_path,
            AWS_ACCESS_KEY_ID=str(options["key"]),
            AWS_SECRET_ACCESS_KEY=str(options["secret"]),
        )
        shown, _ = process.communicate()
        assert process.returncode == 0, shown
    stored = Storage(f"{url}/news", options=options)
    assert {path: stored.read_bytes(path) for path in stored.list()} == undisturbed
    (data,) = tmp_path.glob("runs/*/*/data.json")
    assert json.loads(data.read_text())["data_hash"] == read_manifest(stored).data_hash


@pytest.fixture
def ray_address() -> Iterator[str]:
    """A real cluster of two nodes on this machine."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20},
    )
    try:
        cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
        yield cluster.address
    finally:
        cluster.shutdown()


def test_a_ray_cluster_of_two_nodes_makes_the_same_dataset(
    prepare: Preparations, tmp_path: Path, undisturbed: dict[str, bytes], ray_address: str
) -> None:
    prepare.run(tmp_path, "prepare.engine=ray", f"prepare.address={ray_address}", out="by-ray")
    found = _files(tmp_path / "by-ray")
    assert json.loads(found["manifest.json"])["shards"]["train"]
    assert found == undisturbed
