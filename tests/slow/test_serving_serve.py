"""`scripts/serve.py` as a person runs it: a real TorchServe, and the gateway before it."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from fakenews.predictor import Predictor
from fakenews.serving.golden import TEXTS
from fakenews.serving.model import Incoming, ServedModel

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PORTS = (
    "serve.torchserve.inference_port",
    "serve.torchserve.management_port",
    "serve.torchserve.metrics_port",
    "serve.gateway.port",
)


class Served:
    """A deployment's folder, and what serves it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        probes = [socket.socket() for _ in PORTS]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        self.ports = [int(probe.getsockname()[1]) for probe in probes]
        for probe in probes:
            probe.close()
        self.url = f"http://127.0.0.1:{self.ports[-1]}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def common(self) -> list[str]:
        return [
            f"serve.dir={self.folder / 'deployment'}",
            "serve.torchserve.grpc_inference_port=0",
            "serve.torchserve.grpc_management_port=0",
            "serve.torchserve.heap=256m",
            *(f"{name}={port}" for name, port in zip(PORTS, self.ports, strict=True)),
        ]

    def command(self, script: str, *overrides: str) -> list[str]:
        return [sys.executable, str(ROOT / "scripts" / script), *self.common, *overrides]

    def start(self, *overrides: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command("serve.py", *overrides), cwd=self.folder, stdout=log, stderr=log
            )
        return self.process

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def wait(self, condition: Callable[[], bool], seconds: float = 180) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.log()
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            time.sleep(0.2)

    def answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            content = {"text": f"A headline {time.monotonic()}"}
            answer = httpx.post(f"{self.url}/predict", json=content, timeout=20)
            return answer.is_success
        return False

    def children(self, name: str) -> list[psutil.Process]:
        """Processes with a word in their command line."""
        assert self.process is not None
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any(name in word for word in child.cmdline()):
                    found.append(child)
        return found


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    found = Served(tmp_path)
    yield found
    if found.process is not None and found.process.poll() is None:
        left = psutil.Process(found.process.pid).children(recursive=True)
        found.process.terminate()
        found.process.wait(60)
        psutil.wait_procs(left, 20)


def test_it_starts_recovers_and_ends(served: Served, make_archive: Callable[..., Path]) -> None:
    process = served.start(f"archive={make_archive('v1')}")
    served.wait(lambda: "is open at" in served.log())
    assert served.url in served.log()
    assert served.answers()
    ready = httpx.get(f"{served.url}/health/ready")
    assert (ready.status_code, ready.json()["model_version"]) == (200, "v1")
    assert "torch" not in served.log().lower().replace("torchserve", "")

    # Whatever dies comes back, and the gateway answers in time all the while.
    statuses: set[int] = set()
    stop = threading.Event()

    def watch() -> None:
        with httpx.Client(base_url=served.url, timeout=60, trust_env=False) as client:
            while not stop.is_set():
                with contextlib.suppress(httpx.ConnectError, httpx.ReadError):
                    content = {"text": f"Another {time.monotonic()}"}
                    statuses.add(client.post("/predict", json=content).status_code)

    thread = threading.Thread(target=watch)
    thread.start()
    (worker,) = served.children("model_service_worker")
    worker.kill()
    served.wait(served.answers)
    (java,) = served.children("org.pytorch.serve.ModelServer")
    java.kill()
    served.wait(lambda: "TorchServe answers again" in served.log())
    served.wait(served.answers)
    stop.set()
    thread.join()
    assert statuses <= {200, 503, 504}
    (gateway,) = served.children("start=[gateway]")
    gateway.kill()
    served.wait(lambda: "the gateway answers again" in served.log())
    assert served.answers()

    everything = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert psutil.wait_procs(everything, 20)[1] == []
    assert "Traceback" not in served.log()

    # What was deployed is there the next time.
    process = served.start()
    served.wait(served.answers)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0


def test_nothing_is_deployed_until_it_is(
    served: Served, make_archive: Callable[..., Path]
) -> None:
    served.start()
    served.wait(lambda: "is open at" in served.log())
    assert "nothing is deployed: run python scripts/deploy.py action=deploy" in served.log()
    assert httpx.get(f"{served.url}/health/ready").status_code == 503
    command = served.command("deploy.py", "action=deploy", f"archive={make_archive('v1')}")
    subprocess.run(
        [text for text in command if not text.startswith("serve.gateway.port")],
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    served.wait(served.answers, 20)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["start=[]"], "start=[] starts nothing"),
        (["start=[gatway]"], "start=['gatway']: it should be 'torchserve' or 'gateway'"),
        (["start=[gateway]", "archive=a.mar"], "archive needs TorchServe"),
        (["serve.gateway.cache_size=-1"], "serve.gateway.cache_size=-1: it should be greater"),
        (["serve.gateway.batching.queue_items=10"], "is less than one request may have"),
        (["serve.torchserve.max_request_bytes=1000"], "is less than a batch may have"),
        (["serve.gateway.access.rate=often"], "rate=often: write it as in 600/minute"),
        (["serve.gateway.prot=1"], "prot"),
        (["archive=absent.mar"], "absent.mar does not exist"),
    ],
)
def test_mistakes_are_one_line(served: Served, overrides: list[str], message: str) -> None:
    given = overrides if "archive" in overrides[0] else ["start=[gateway]", *overrides]
    process = served.start(*given)
    assert process.wait(120) == 1
    lines = [line for line in served.log().splitlines() if "error: " in line]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in served.log()


def test_one_text_has_one_probability_through_every_door(
    served: Served, tiny_run: Path, tmp_path: Path
) -> None:
    """The predictor, an archive made twice, its handler, TorchServe, the gateway."""
    archives = []
    for attempt in ("once", "again"):
        out = tmp_path / attempt
        command = served.command("export.py", f"bundle={tiny_run}", f"out={out}")
        subprocess.run(
            [text for text in command if not text.startswith("serve.gateway.port")],
            check=True,
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        archives += out.iterdir()
    first, second = archives
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()

    expected = [found.probabilities for found in Predictor.load(tiny_run).predict(list(TEXTS))]
    shutil.unpack_archive(first, tmp_path / "content", "zip")
    with (tmp_path / "content" / "model-config.yaml").open() as file:
        settings = yaml.safe_load(file)["handler"]
    model = ServedModel.load(
        tmp_path / "content" / "bundle", name="fakenews", version="of-itself", **settings
    )
    body = json.dumps({"inputs": [{"text": text} for text in TEXTS]}).encode()
    ((status, content),), _ = model.answer(
        [Incoming(fields={"body": body}, content_type="application/json", explain=False)]
    )
    assert status == HTTPStatus.OK
    check(json.loads(content), expected)

    served.start(f"archive={first}")
    served.wait(served.answers)
    version = first.stem.removeprefix("fakenews-")
    keys = json.loads(
        (served.folder / "deployment" / "torchserve" / "key_file.json").read_text()
    )
    inputs = {"inputs": [{"text": text} for text in TEXTS]}
    torchserve = httpx.post(
        f"http://127.0.0.1:{served.ports[0]}/predictions/fakenews/{version}",
        json=inputs,
        headers={"Authorization": f"Bearer {keys['inference']['key']}"},
        timeout=60,
    )
    gateway = httpx.post(f"{served.url}/predict", json=inputs, timeout=60)
    for answer in (torchserve, gateway):
        answer.raise_for_status()
        check(answer.json(), expected)
        assert {found["model_version"] for found in answer.json()["predictions"]} == {version}


def check(answer: dict[str, Any], expected: list[dict[str, float]]) -> None:
    for found, wanted in zip(answer["predictions"], expected, strict=True):
        assert found["probabilities"] == pytest.approx(wanted, abs=1e-6)
