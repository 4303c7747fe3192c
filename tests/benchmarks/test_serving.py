"""The benchmark of serving: its clients and its servers, with a tiny model."""

import importlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPT = BENCHMARKS / "serving.py"
# Everything once, and briefly.
SHORT = [
    *("--clients", "1", "3", "--seconds", "0.5", "--warm-up", "0.1", "--repeats", "2"),
    *("--texts", "32", "--list-size", "16", "--threads", "1"),
]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("serving_load")


Answer = Callable[[BaseHTTPRequestHandler, str], None]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], int]]:
    servers = []

    def start(answer: Answer) -> int:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                answer(self, body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server.server_address[1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def reply(handler: BaseHTTPRequestHandler, text: str, status: int = 200) -> None:
    body = text.encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def test_each_request_is_sent_once_and_its_answer_kept_in_order(
    load: Any, serve: Callable[[Answer], int]
) -> None:
    port = serve(lambda handler, body: reply(handler, body.upper()))
    requests = [load.post("/x", text) for text in ("a", "bé", "c", "d", "e")]
    with load.Clients() as clients:
        found = clients.run(
            load.Job(port=port, requests=requests, clients=2, count=7, collect=True)
        )
    assert found.bodies == ["A", "BÉ", "C", "D", "E", "A", "BÉ"]
    assert len(found.latencies) == 7
    assert found.failures == {}


def test_answers_in_the_time_are_counted(load: Any, serve: Callable[[Answer], int]) -> None:
    port = serve(reply)
    with load.Clients() as clients:
        found = clients.run(
            load.Job(
                port=port, requests=[load.post("/x", "a")], clients=3, seconds=0.3, warm_up=0.1
            )
        )
    assert found.seconds == pytest.approx(0.3)
    assert len(found.latencies) > 3
    # Three at once, each busy all the time.
    assert sum(found.latencies) == pytest.approx(3 * 0.3, rel=0.5)


def test_connections_that_a_server_closes_are_made_again(
    load: Any, serve: Callable[[Answer], int]
) -> None:
    def answer(handler: BaseHTTPRequestHandler, body: str) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body.encode())

    port = serve(answer)
    with load.Clients() as clients:
        found = clients.run(
            load.Job(
                port=port, requests=[load.post("/x", "a")], clients=2, count=6, collect=True
            )
        )
    assert found.bodies == ["a"] * 6
    assert found.failures == {}


def test_refusals_are_counted_and_end_the_job(
    load: Any, serve: Callable[[Answer], int]
) -> None:
    port = serve(lambda handler, body: reply(handler, "busy", status=503))
    with load.Clients() as clients:
        job = load.Job(port=port, requests=[load.post("/x", "a")], clients=2, seconds=60)
        assert set(clients.run(job).failures) == {"status 503: busy"}


def test_a_server_that_is_not_there_is_a_failure(load: Any) -> None:
    with load.Clients() as clients:
        found = clients.run(load.Job(port=1, requests=[load.post("/x", "a")], count=1))
    assert list(found.failures) == ["no connection (Connection refused)"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ways", "theirs"], "'theirs': the servers are engine, ours, gateway, example,"),
        (["--ways", "ours/tflite"], "'ours/tflite': ours takes onnx-int8, onnx, torch and"),
        (["--ways", "ours/plain"], "ours/plain needs --plain-bundle"),
        (["--ways", "bentoml"], "bentoml needs --bentoml-python"),
        (["--clients", "0"], "numbers are more than 0"),
        (["--texts", "8"], "--texts is at least --list-size"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: list[str], message: str) -> None:
    done = run_script("--bundle", "anywhere", *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_ratios_are_of_the_same_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    tables = importlib.import_module("serving_tables")

    def way(rates: list[float], p99: float) -> dict[str, Any]:
        loads = [{"texts_per_second": rate, "cpu_seconds_per_text": 1 / rate} for rate in rates]
        return {"loads": {"8": loads}, "pooled": {"8": {"p99": p99}}}

    ways = {
        "ours": way([100, 300, 200], 0.05),
        "litserve": way([50, 100, 250], 0.1),
        "mlflow": way([1, 1, 1], 0.01),
        "bentoml": {"error": "it died"},
    }
    first, second = tables.ratios({"ways": ways})
    assert (first["of"], first["to"], first["load"]) == ("ours", "litserve", "8")
    assert (first["median"], first["min"], first["max"]) == (2.0, 0.8, 3.0)
    assert first["by_cpu_time"] == 2.0
    assert first["p99"] == 0.5
    assert first["met"] is True
    # Faster, but some wait longer.
    assert (second["to"], second["met"]) == ("mlflow", False)


@pytest.mark.slow
def test_peers_answer_as_the_predictor_does(tiny_bundle: Path, tmp_path: Path) -> None:
    ways = ["engine/torch", "example", "litserve/torch", "mlflow/torch", "pipeline"]
    result = measured(tiny_bundle, tmp_path, ways)
    assert list(result["ways"]) == ways
    for name, way in result["ways"].items():
        loads = {"engine/torch": ["1", "lists"], "mlflow/torch": ["1", "3", "lists"]}
        assert list(way["loads"]) == loads.get(name, ["1", "3"])
        for repeats in way["loads"].values():
            assert len(repeats) == 2
            assert min(one["texts_per_second"] for one in repeats) > 0
            assert all(0 < one["p50"] <= one["p99"] for one in repeats)
    assert all(
        way["largest_difference"] < 1e-4
        for name, way in result["ways"].items()
        if name != "engine/torch"
    )
    assert result["stand_in"]["requests_per_second"] > 100


@pytest.mark.slow
def test_ours_answer_as_the_predictor_does(tiny_bundle: Path, tmp_path: Path) -> None:
    result = measured(tiny_bundle, tmp_path, ["engine/torch", "ours/torch", "gateway/torch"])
    for name in ("ours/torch", "gateway/torch"):
        assert result["ways"][name]["largest_difference"] < 1e-4
        assert list(result["ways"][name]["loads"]) == ["1", "3", "lists"]
    assert {(one["of"], one["to"]) for one in result["ratios"]} == {
        ("ours/torch", "engine/torch"),
        ("gateway/torch", "ours/torch"),
    }


@pytest.mark.slow
def test_memory_of_each_process_is_measured(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = run_script(
        *("--bundle", str(tiny_bundle), *SHORT, "--json", str(out)),
        *("--memory", "100", "--memory-way", "gateway/torch"),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text(encoding="utf-8"))["memory"]
    assert found["requests"] == list(range(0, 101, 10))
    assert set(found["mib"]) >= {"worker", "gateway", "TorchServe (Java)"}
    for part in ("worker", "gateway", "TorchServe (Java)"):
        assert min(found["mib"][part]) > 50


@pytest.mark.slow
def test_a_way_that_fails_leaves_the_others(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = run_script(
        *("--bundle", str(tiny_bundle), *SHORT, "--json", str(out)),
        *("--ways", "engine/torch", "bentoml/torch", "--bentoml-python", sys.executable),
    )
    assert done.returncode == 1
    assert "error: not measured: bentoml/torch" in done.stderr
    ways = json.loads(out.read_text(encoding="utf-8"))["ways"]
    assert "No module named bentoml" in ways["bentoml/torch"]["error"]
    assert len(ways["engine/torch"]["loads"]["lists"]) == 2


def measured(bundle: Path, folder: Path, ways: list[str]) -> dict[str, Any]:
    out = folder / "out.json"
    done = run_script("--bundle", str(bundle), *SHORT, "--json", str(out), "--ways", *ways)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], check=False, capture_output=True, text=True
    )
