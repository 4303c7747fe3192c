"""The command of a Job's pods does what it is for: processes that started apart meet."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakenews.cluster.job import Job
from fakenews.cluster.kubernetes import Kubernetes

# In the place of train.py: who it is, what it was given, and a wait for the end.
PROGRAM = """
import json, os, pathlib, signal, sys, time

folder = pathlib.Path(os.environ["FOUND"])
rank = os.environ["RANK"]
names = ("WORLD_SIZE", "GROUP_RANK", "LOCAL_RANK")
found = {name: os.environ[name] for name in names} | {"arguments": sys.argv[1:]}

def save(number, frame):
    # Longer than torchrun's own patience would be in a test, far shorter than ours.
    time.sleep(1)
    (folder / f"saved-{rank}").touch()
    sys.exit(143)

signal.signal(signal.SIGTERM, save)
(folder / f"new-{rank}").write_text(json.dumps(found))
(folder / f"new-{rank}").rename(folder / f"rank-{rank}")
time.sleep(120)
"""


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _container() -> dict[str, Any]:
    cluster = Kubernetes(
        kind="job",
        nodes=2,
        processes=2,
        gpus=0,
        image=None,
        namespace="fakenews",
        queue=None,
        context=None,
        dry_run=False,
    )
    job = Job(name="news", run_id="x", overrides=("data=csv", "name=a b;$c"), sweep=False)
    planned = list(yaml.safe_load_all(cluster.plan(job)))
    (found,) = [found for found in planned if found["kind"] == "Job"]
    container: dict[str, Any] = found["spec"]["template"]["spec"]["containers"][0]
    return container


def _wait_for(paths: list[Path], pods: list["subprocess.Popen[bytes]"]) -> None:
    deadline = time.monotonic() + 90
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, paths
        assert all(pod.poll() is None for pod in pods), "a pod ended"
        time.sleep(0.1)


@pytest.fixture
def pods() -> Any:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for pod in started:
        if pod.poll() is None:
            # Its processes with it.
            os.killpg(pod.pid, signal.SIGKILL)
        pod.wait()


@pytest.mark.slow
def test_pods_meet_and_save_when_they_are_asked_to_end(
    tmp_path: Path, pods: list["subprocess.Popen[bytes]"]
) -> None:
    container = _container()
    (tmp_path / "train.py").write_text(PROGRAM)
    here = str(tmp_path / "train.py")
    command = [word.replace("/app/train.py", here) for word in container["command"]]
    given = {it["name"]: it["value"] for it in container["env"] if "value" in it}
    # On one machine, the first pod has another name.
    given["PET_RDZV_ENDPOINT"] = f"127.0.0.1:{_free_port()}"
    given["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    given["FOUND"] = str(tmp_path)

    def start(index: int) -> None:
        pods.append(
            subprocess.Popen(
                [*command, *container["args"]],
                env=given | {"JOB_COMPLETION_INDEX": str(index)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    # The one that all meet at comes last, as when its node has to be started.
    start(1)
    time.sleep(3)
    start(0)
    ranks = [tmp_path / f"rank-{rank}" for rank in range(4)]
    _wait_for(ranks, pods)
    found = [json.loads(path.read_text()) for path in ranks]
    assert {it["WORLD_SIZE"] for it in found} == {"4"}
    assert sorted((it["GROUP_RANK"], it["LOCAL_RANK"]) for it in found) == [
        ("0", "0"),
        ("0", "1"),
        ("1", "0"),
        ("1", "1"),
    ]
    # No shell has read them.
    assert all(it["arguments"] == container["args"] for it in found)
    assert found[0]["arguments"][-1] == "name=a b;$c"
    for pod in pods:
        # As the kubelet does: to the container's first process.
        pod.terminate()
    for pod in pods:
        pod.wait(60)
    assert all((tmp_path / f"saved-{rank}").exists() for rank in range(4))
