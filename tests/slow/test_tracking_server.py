"""A real MLflow server that dies while a run logs to it, and comes back."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from fakenews.errors import TrackingError
from fakenews.tracking.mlflow import MLflowTracker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ..noload.. loader"),
]

Server = subprocess.Popen[bytes]


@pytest.fixture
def address() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    before = mlflow.get_tracking_uri()
    yield f"http://127.0.0.1:{port}"
    mlflow.set_tracking_uri(before)


@pytest.fixture
def start(tmp_path: Path, address: str) -> Iterator[Callable[[], Server]]:
    """Starts the server, over one store each time."""
    running: list[Server] = []

    def make() -> Server:
        with (tmp_path / "server.log").open("ab") as errors:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
                    *("--host", "127.0.0.1", "--port", address.rpartition(":")[2]),
                    *("--backend-store-uri", f"sqlite:///{tmp_path}/server.db"),
                    *("--artifacts-destination", str(tmp_path / "artifacts")),
                ],
                cwd=tmp_path,
                env=os.environ
                | {"OMP_NUM_THREADS": "1", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        running.append(process)
        deadline = time.monotonic() + 120
        while not _answers(address):
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "server.log").read_text()
            time.sleep(0.2)
        return process

    yield make
    for process in running:
        _stop(process)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=1) as reply:  # noqa: S310 http
            return bool(reply.status == 200)
    except OSError:
        return False


def _stop(process: Server) -> None:
    if process.poll() is None:
        os.killpg(process.pid, 9)
    process.wait(timeout=30)


def test_death_and_return_of_a_server(
    start: Callable[[], Server],
    address: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = start()
    run = MLflowTracker(
        tracking_uri=address, experiment_name="news", timeout=2.0, system_metrics=False
    )
    run_id = run.begin(parameters={"seed": 0}, tags={"data_hash": "abc"})
    run.log_metrics({"loss": 3.0}, step=1)

    _stop(server)
    run.log_metrics({"loss": 2.0}, step=2)
    began = time.monotonic()
    for step in range(3, 100):
        run.log_metrics({"loss": 1.0 / step}, step=step)
    # The store is not asked at every step.
    assert len([r for r in caplog.records if "training goes on" in r.message]) == 1
    assert time.monotonic() < began + 60
    (tmp_path / "model.json").write_text("{}")
    # Files need the server; its own patience is minutes.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with pytest.raises(TrackingError, match="does not take our data") as caught:
        run.log_files({tmp_path / "model.json": "bundle"})
    assert "\n" not in str(caught.value)

    start()
    run.log_files({tmp_path / "model.json": "bundle"})
    version = run.register(name="news", artifact="bundle", tags={"seed": "0"})
    run.end("FINISHED")

    client = MlflowClient(address)
    history = client.get_metric_history(run_id, "loss")
    assert [metric.step for metric in history] == list(range(1, 100))
    assert client.get_run(run_id).info.status == "FINISHED"
    source = client.get_model_version_download_uri("news", str(version))
    local = mlflow.artifacts.download_artifacts(artifact_uri=source, tracking_uri=address)
    assert Path(local, "model.json").read_text() == "{}"


def test_server_that_is_gone_is_one_line_before_any_work(address: str) -> None:
    with pytest.raises(TrackingError, match="Connection refused") as caught:
        MLflowTracker(tracking_uri=address, experiment_name="news", timeout=2.0)
    assert "\n" not in str(caught.value)
