"""Archives of a handler that is no model, and a TorchServe of one's own to serve them."""

import importlib.util
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.commands import Commands

ROOT = Path(__file__).resolve().parents[2]

# What the contract asks of an answer, and ways to misbehave.
HANDLER = """
import json, logging, os, time

STARTED = {}

def answer(item, context):
    text, how = item["text"], context.model_yaml_config["handler"]
    if text == "fail":
        raise RuntimeError("asked to")
    time.sleep(float(item.get("seconds", 0)))
    fake = (sum(text.encode()) % 101) / 101
    return {
        "label": "fake" if fake > 0.5 else "real",
        "probabilities": {"fake": fake, "real": 1 - fake},
        "model": context.manifest["model"]["modelName"],
        "model_version": context.manifest["model"]["modelVersion"],
        "pid": os.getpid(),
        "sees": [name for name in os.environ if name.startswith("TEST_")],
    }

def handle(data, context):
    how = context.model_yaml_config["handler"]
    if not STARTED:
        STARTED["yes"] = True
        time.sleep(how.get("load_seconds", 0))
    if data is None:
        return None
    answers = []
    for row in data:
        time.sleep(how.get("seconds", 0))
        body = json.loads(row["body"])
        if "inputs" in body:
            answers.append({"predictions": [answer(item, context) for item in body["inputs"]]})
        else:
            answers.append(answer(body, context))
    return answers
"""

MakeArchive = Callable[..., Path]


@pytest.fixture(scope="session")
def make_archive(tmp_path_factory: pytest.TempPathFactory) -> MakeArchive:
    """Make an archive with torch-model-archiver."""

    def make(
        version: str,
        *,
        code: str = "",
        off: float = 0,
        startup_timeout: int = 60,
        name: str = "fakenews",
        **how: Any,
    ) -> Path:
        work = tmp_path_factory.mktemp("archive")
        (work / "handler.py").write_text(HANDLER + code)
        (work / "model-config.yaml").write_text(
            json.dumps(
                {
                    "minWorkers": 1,
                    "maxWorkers": 1,
                    "batchSize": 4,
                    "maxBatchDelay": 1,
                    "responseTimeout": 20,
                    "startupTimeout": startup_timeout,
                    "handler": how,
                }
            )
        )
        texts = ["A headline", "Breaking: Löwe im Zoo", "x" * 300]
        fakes = [(sum(text.encode()) % 101) / 101 + off for text in texts]
        golden = {
            "format": 1,
            "atol": 1e-4,
            "items": [{"text": text} for text in texts],
            "probabilities": [{"fake": fake, "real": 1 - fake} for fake in fakes],
        }
        (work / "files" / "bundle").mkdir(parents=True)
        (work / "files" / "bundle" / "golden.json").write_text(json.dumps(golden))
        subprocess.run(
            [
                str(Path(sys.executable).with_name("torch-model-archiver")),
                *("--model-name", name, "--version", version, "--handler", "handler.py"),
                *("--config-file", "model-config.yaml", "--extra-files", "files"),
            ],
            cwd=work,
            check=True,
        )
        return (work / f"{name}.mar").rename(work / f"{name}-{version}.mar")

    return make


@pytest.fixture(scope="module")
def forked_workers(command: Commands) -> Iterator[None]:
    """TorchServe and its workers are forked: a handler that is no model needs no own Python."""
    with pytest.MonkeyPatch.context() as patch:
        here = SimpleNamespace(executable=command.python)
        patch.setattr("fakenews.serving.torchserve.sys", here)
        yield


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture(scope="session")
def make_settings() -> Callable[..., Any]:
    """Settings of a small TorchServe, with ports of its own."""
    from fakenews.serving.torchserve import Settings

    # Importing it leaves a file open.
    spec = importlib.util.find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    metrics = Path(spec.origin).parent / "configs" / "metrics.yaml"

    def make(**values: Any) -> Settings:
        inference, management, metrics_port = _free_ports(3)
        settings = {
            "inference_port": inference,
            "management_port": management,
            "metrics_port": metrics_port,
            "metrics_host": "127.0.0.1",
            "grpc_inference_port": 0,
            "grpc_management_port": 0,
            "max_request_bytes": 1_000_000,
            "max_response_bytes": 1_000_000,
            "queue": 50,
            "netty_threads": 4,
            "client_threads": 2,
            "response_timeout": 30,
            "startup_timeout": 60,
            "unregister_timeout": 30,
            "token_minutes": 60,
            "heap": "256m",
            "direct_memory": "128m",
            "java_home": None,
            "log_config": str(ROOT / "serve" / "log4j2.xml"),
            "metrics_config": str(metrics),
            "hidden_variables": ".*SECRET.*",
            "start_timeout": 120,
            "stop_timeout": 20,
        }
        return Settings(**(settings | values))

    return make
