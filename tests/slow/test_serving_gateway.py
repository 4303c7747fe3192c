"""The gateway as a process: its start, its end, and what a violent end leaves."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from fakenews.serving.state import State, Version, change_state

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = ROOT / "tests" / "serving" / "gateway" / "standin.py"

Process = subprocess.Popen[bytes]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Launcher:
    """Starts gateways as `scripts/serve.py start=[gateway]`, all at one port."""

    def __init__(self, folder: Path, upstream: str) -> None:
        self.folder = folder
        self.upstream = upstream
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.processes: list[Process] = []

    def start(self, *overrides: str, wait: bool = True) -> Process:
        log = (self.folder / "log").open("ab")
        process = subprocess.Popen(
            [
                *(sys.executable, str(ROOT / "scripts" / "serve.py"), "start=[gateway]"),
                f"serve.dir={self.folder / 'deployment'}",
                f"serve.gateway.port={self.port}",
                f"serve.gateway.upstream.address={self.upstream}",
                *overrides,
            ],
            cwd=self.folder,
            stdout=log,
            stderr=log,
        )
        log.close()
        self.processes.append(process)
        deadline = time.monotonic() + 120
        while wait and not self.lives():
            assert process.poll() is None, self.log()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return process

    def behave(self, **how: Any) -> None:
        """Set how the stand-in behaves."""
        httpx.put(f"{self.upstream}/control", json={"*": how}).raise_for_status()

    def lives(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/live").is_success
        except httpx.HTTPError:
            return False

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def ids(self) -> set[str]:
        """Of all predictions that were logged, in lines or Parquet."""
        folder = self.folder / "deployment" / "predictions"
        found = set()
        for path in folder.glob("open/*.jsonl"):
            for line in path.read_bytes().splitlines():
                try:
                    found.add(json.loads(line)["id"])
                except ValueError:
                    continue  # cut short when it was killed
        for path in folder.glob("date=*/*.parquet"):
            table = pq.read_table(path, columns=["id"], partitioning=None)
            found |= set(table["id"].to_pylist())
        return found


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    """Before a stand-in for TorchServe, which has its keys."""
    version = Version(archive="fakenews-v1.mar", workers=1, added="2026")
    state = State(name="fakenews", versions={"v1": version}, champion="v1")
    change_state(tmp_path / "deployment", name="fakenews", change=lambda _: state)
    keys = tmp_path / "deployment" / "torchserve" / "key_file.json"
    keys.parent.mkdir(parents=True)
    kinds = ("inference", "management", "API")
    keys.write_text(json.dumps({kind: {"key": kind} for kind in kinds}))
    port = free_port()
    stand_in = subprocess.Popen(
        [sys.executable, str(STAND_IN), str(port)], stdout=subprocess.PIPE
    )
    assert stand_in.stdout is not None
    assert stand_in.stdout.readline() == b"ready\n"
    found = Launcher(tmp_path, f"http://127.0.0.1:{port}")
    yield found
    for process in (*found.processes, stand_in):
        process.kill()
        process.wait()
    stand_in.stdout.close()


class Load:
    """Clients that ask without a pause, and remember what they were answered."""

    def __init__(self, url: str, clients: int = 4) -> None:
        self.url = url
        self.acknowledged: list[str] = []
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        with httpx.Client(base_url=self.url, timeout=30, trust_env=False) as client:
            self._ask_by(client, number)

    def _ask_by(self, client: httpx.Client, number: int) -> None:
        asked = 0
        while not self._stop.is_set():
            asked += 1
            try:
                answer = client.post("/predict", json={"text": f"text {number} {asked}"})
            except httpx.ConnectError:
                time.sleep(0.02)
                continue  # nobody is there: nothing was promised
            except httpx.HTTPError as error:
                self.failures.append(repr(error))
                continue
            if answer.status_code == 200 and answer.json().get("logged", True):
                self.acknowledged.append(answer.json()["id"])
            else:
                self.failures.append(answer.text)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_answers_first(launcher: Launcher, number: signal.Signals) -> None:
    process = launcher.start()
    launcher.behave(delay=0.3)
    load = Load(launcher.url)
    time.sleep(1)
    process.send_signal(number)
    assert process.wait(60) == 0
    load.stop()
    assert load.failures == []
    assert load.acknowledged
    assert launcher.ids() == set(load.acknowledged)
    # All of it is Parquet.
    assert list((launcher.folder / "deployment/predictions/open").iterdir()) == []
    assert "Traceback" not in launcher.log()


def test_it_is_not_ready_before_it_stops(launcher: Launcher) -> None:
    process = launcher.start("serve.gateway.drain_delay=1.5")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    ready = httpx.get(f"{launcher.url}/health/ready")
    assert (ready.status_code, ready.json()["reasons"]) == (503, ["the gateway is stopping"])
    assert httpx.post(f"{launcher.url}/predict", json={"text": "a"}).status_code == 200
    assert process.wait(30) == 0


def test_requests_that_take_too_long_are_left(launcher: Launcher) -> None:
    process = launcher.start("serve.gateway.drain=1", "serve.deadline=60")
    launcher.behave(hang=True)
    load = Load(launcher.url, clients=1)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    load.stop()
    assert len(load.failures) == 1


def test_killed_at_any_moment_it_loses_nothing_that_it_acknowledged(
    launcher: Launcher,
) -> None:
    acknowledged: set[str] = set()
    for _ in range(3):
        process = launcher.start("serve.gateway.log.segment_bytes=20000")
        load = Load(launcher.url)
        time.sleep(random.uniform(0.5, 1.5))
        process.kill()
        process.wait()
        load.stop()
        acknowledged |= set(load.acknowledged)
    assert len(acknowledged) > 20
    assert launcher.ids() >= acknowledged
    # The next one takes up what is left.
    process = launcher.start()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert launcher.ids() >= acknowledged
    assert list((launcher.folder / "deployment/predictions/open").iterdir()) == []


def test_mistakes_are_one_line(launcher: Launcher) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", launcher.port))
        taken.listen()
        process = launcher.start(wait=False)
        assert process.wait(60) == 1
    assert launcher.log() == (
        f"error: the gateway cannot listen on 127.0.0.1:{launcher.port}: Address already in "
        "use; choose another with serve.gateway.host=HOST serve.gateway.port=PORT\n"
    )


def test_it_ends_with_who_started_it(launcher: Launcher) -> None:
    read, write = os.pipe()
    script = [sys.executable, str(ROOT / "scripts" / "serve.py"), "start=[gateway]"]
    process = subprocess.Popen(
        [*script, f"serve.gateway.port={launcher.port}", f"serve.dir={launcher.folder}/d"],
        stdin=read,
        env=os.environ | {"FAKENEWS_SUPERVISED": "1"},
        stdout=subprocess.DEVNULL,
    )
    launcher.processes.append(process)
    os.close(read)
    deadline = time.monotonic() + 60
    while not launcher.lives():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.close(write)
    assert process.wait(30) == 0


def test_fuzzed_by_its_own_documentation(launcher: Launcher) -> None:
    launcher.start()
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            *("run", f"{launcher.url}/openapi.json", "--max-examples=60"),
            # No status of 500 conforms; one of 503 does, on a machine that is too busy.
            (
                "--checks=status_code_conformance,content_type_conformance,"
                "response_schema_conformance"
            ),
            "--phases=examples,coverage,fuzzing",
        ],
        cwd=launcher.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    counts = httpx.get(f"{launcher.url}/metrics").text
    answered = [line for line in counts.splitlines() if line.startswith("fakenews_requests_t")]
    assert any('status="200"' in line for line in answered)
    assert not any('status="500' in line for line in answered)
