"""The handler in a real TorchServe: every shape over HTTP, bad neighbours, metrics, logs."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from fakenews.predictor import Predictor

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
GOOD = "Minister confirms 3 new hospitals by 2030"
JSON = {"Content-Type": "application/json"}
# A word that stands in nothing but requests.
MARK = "Quokkaheadline"


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _eventually(condition: Callable[[], bool]) -> None:
    """Wait for what TorchServe reads from its workers when it comes to it."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


class Server:
    """A TorchServe with an archive of this handler and a bundle."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.folder = folder
        self.inference, self.management, self.metrics, *others = _free_ports(5)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.inference}", timeout=60)
        self._archive(bundle)
        (folder / "tmp").mkdir()
        settings = {
            "inference_address": f"http://127.0.0.1:{self.inference}",
            "management_address": f"http://127.0.0.1:{self.management}",
            "metrics_address": f"http://127.0.0.1:{self.metrics}",
            "grpc_inference_port": others[0],
            "grpc_management_port": others[1],
            "metrics_mode": "prometheus",
            "metrics_config": ROOT / "serve" / "metrics.yaml",
            "disable_system_metrics": "true",
            "max_request_size": 2_000_000,
        }
        lines = [f"{name}={value}\n" for name, value in settings.items()]
        (folder / "config.properties").write_text("".join(lines))
        self.log = folder / "out.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    str(BIN / "torchserve"),
                    *("--foreground", "--ncs", "--disable-token-auth"),
                    *("--ts-config", str(folder / "config.properties")),
                    *("--model-store", str(folder)),
                    *("--models", "news=news.mar"),
                ],
                cwd=folder,
                # What it keeps in the machine's folder of temporary files is not told apart
                # by server: sockets of workers, and its own process id.
                env=os.environ
                | {"TEMP": str(folder / "tmp"), "TMPDIR": str(folder / "tmp")}
                | {"PYTHONPATH": str(ROOT / "src"), "OMP_WAIT_POLICY": "PASSIVE"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait()

    def _archive(self, bundle: Path) -> None:
        extra = self.folder / "extra"
        shutil.copytree(bundle, extra / "bundle")
        config = {
            "minWorkers": 1,
            "maxWorkers": 1,
            "batchSize": 8,
            "maxBatchDelay": 300,  # long: requests of a test meet in one batch
            "responseTimeout": 120,
            "startupTimeout": 120,
            "deviceType": "cpu",
            "handler": {"unsure": 0.1, "threads": 1, "max_items": 50},
        }
        (self.folder / "model-config.yaml").write_text(yaml.safe_dump(config))
        subprocess.run(
            [
                str(BIN / "torch-model-archiver"),
                *("--model-name", "news", "--version", "abc"),
                *("--handler", str(ROOT / "serve" / "handler.py")),
                *("--config-file", str(self.folder / "model-config.yaml")),
                *("--extra-files", str(extra), "--export-path", str(self.folder)),
            ],
            check=True,
            capture_output=True,
        )

    def _wait(self) -> None:
        url = f"http://127.0.0.1:{self.management}/models/news"
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                (model,) = httpx.get(url).json()
                if [worker["status"] for worker in model["workers"]] == ["READY"]:
                    return
            except (httpx.HTTPError, ValueError):
                pass
            time.sleep(0.2)
        self.stop()
        raise AssertionError(self.log.read_text())

    def stop(self) -> None:
        self.client.close()
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(60)

    def post(
        self, content: Any, path: str = "predictions/news", **kwargs: Any
    ) -> httpx.Response:
        """Send what is JSON as JSON, and bytes as they are."""
        if isinstance(content, bytes):
            return self.client.post(path, content=content, **kwargs)
        return self.client.post(path, content=json.dumps(content), headers=JSON, **kwargs)

    def at_once(self, requests: Sequence[tuple[Any, dict[str, str]]]) -> list[httpx.Response]:
        """Answers to requests that are sent at the same time."""
        with ThreadPoolExecutor(len(requests)) as pool:
            return list(
                pool.map(
                    lambda request: self.client.post(
                        "predictions/news", content=request[0], headers=request[1]
                    ),
                    requests,
                )
            )

    def measured(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples."""
        text = httpx.get(f"http://127.0.0.1:{self.metrics}/metrics").text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@pytest.fixture(scope="module")
def server(fusion_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("ts"), fusion_bundle)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def expected(fusion_bundle: Path) -> dict[str, float]:
    """What the predictor says of `GOOD`."""
    return Predictor.load(fusion_bundle).predict([GOOD])[0].probabilities


def test_every_shape(server: Server, expected: dict[str, float]) -> None:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [GOOD]}
    path = "predictions/news"
    text = GOOD.encode()
    answers = [
        server.post({"text": GOOD}),
        server.post({"text": GOOD}, f"{path}/abc"),
        server.post(text, headers={"Content-Type": "text/plain; charset=utf-8"}),
        server.post(text),
        server.post(json.dumps({"text": GOOD}).encode()),
        server.client.post(path, data={"text": GOOD, "other": "x"}),
        server.client.post(path, files={"text": ("a.txt", text, "text/plain")}),
        server.client.post(path, files={"data": ("a.txt", text, "text/plain")}),
        server.client.post(
            path,
            files={"data": ("a.json", json.dumps({"text": GOOD}), "application/json")},
        ),
    ]
    predictions = [answer.json() for answer in answers]
    lists = [
        server.post({"inputs": [GOOD, ""]}),
        server.post({"instances": [{"text": GOOD}, ""]}),
        server.post({"instances": [GOOD, ""]}, "v1/models/news:predict"),
    ]
    for answer in lists:
        prediction, fault = answer.json()["predictions"]
        predictions.append(prediction)
        assert fault["error"]["code"] == "empty_text"
    tensors = [
        server.post({"id": "7", "inputs": [tensor]}, path)
        for path in (path, "v2/models/news/infer")
    ]
    for answer in tensors:
        content = answer.json()
        assert (content["id"], content["model_version"]) == ("7", "abc")
        outputs = {output["name"]: output["data"] for output in content["outputs"]}
        predictions.append(
            {
                "probabilities": dict(
                    zip(outputs["classes"], outputs["probabilities"], strict=True)
                )
            }
        )
    for answer in (*answers, *lists, *tensors):
        assert (answer.status_code, answer.reason_phrase) == (200, "OK")
        assert answer.headers["content-type"] == "application/json"
    for prediction in predictions:
        assert prediction["probabilities"] == pytest.approx(expected, abs=1e-6)
    assert predictions[0]["model"] == "news"
    assert predictions[0]["model_version"] == "abc"


@pytest.mark.parametrize("size", [1, 200, 1000, 5000, 60_000])
def test_texts_arrive_whole_by_every_way(server: Server, size: int) -> None:
    text = "é" * size
    direct = server.post({"text": text}).json()
    form = server.client.post("predictions/news", data={"text": text}).json()
    file = server.client.post("predictions/news", files={"text": ("a", text.encode())}).json()
    raw = server.post(text.encode()).json()
    for other in (form, file, raw):
        assert other["probabilities"] == pytest.approx(direct["probabilities"], abs=1e-6)
        assert other["truncated"] == direct["truncated"]
    if size < 500:
        found = server.client.post("explanations/news", data={"text": text}).json()
        assert found["text"] == text


BAD = [
    (b"", JSON, 400, "not_json"),
    (b"", {}, 422, "empty_text"),
    (b" \n ", {}, 422, "empty_text"),
    (b'{"text": "' + b"Rain " * 200_000 + b'"}', JSON, 413, "text_too_long"),
    (b"Rain " * 200_000, {}, 413, "text_too_long"),
    (b'{"text": 3}', JSON, 422, "wrong_type"),
    (b'{"headline": "Rain"}', JSON, 422, "missing_text"),
    (json.dumps({"inputs": ["a"] * 10_000}).encode(), JSON, 413, "too_many_items"),
    (b'{"text": "\xff"}', JSON, 400, "invalid_utf8"),
    (b"[" * 100_000, JSON, 400, "too_deep"),
    (b'{"text": NaN}', JSON, 400, "not_json"),
    (b'{"text": "a", "text": "b"}', JSON, 400, "not_json"),
    (b'{"text": "a", "x": ' + b"9" * 9000 + b"}", JSON, 400, "not_json"),
    (
        b'{"text": "a"}',
        {"Content-Type": "application/x-www-form-urlencoded"},
        400,
        "unknown_shape",
    ),
]


def test_bad_requests_in_a_batch_with_good_ones(
    server: Server, expected: dict[str, float]
) -> None:
    batches = server.measured("fakenews_batch_items_count")
    seen = server.measured("fakenews_batch_items_sum")
    good = (json.dumps({"text": GOOD}).encode(), JSON)
    requests = [request for bad in BAD for request in (good, bad[:2])]
    answers = server.at_once(requests)
    for answer in answers[::2]:
        assert answer.status_code == 200
        assert answer.json()["probabilities"] == pytest.approx(expected, abs=1e-6)
    found = [(answer.status_code, answer.json()["error"]["code"]) for answer in answers[1::2]]
    assert found == [bad[2:] for bad in BAD]
    assert all(answer.reason_phrase for answer in answers)
    # They did meet.
    seen += sum(status in (200, 422) for status, _ in found) + len(BAD)
    _eventually(lambda: server.measured("fakenews_batch_items_sum") >= seen)
    assert server.measured("fakenews_batch_items_count") - batches < len(requests) / 2


ODD = [
    "🎉 party",
    "\u202e\u05e1\u05d9\u05e4 ﷺ",
    "Rain\x00\x07 in Oslo",
    "Rain\n[METRICS]Evil.Count:1|#Level:Host|#hostname:evil,1",
    "<script>alert('x')</script>",
    "\ud800 half a pair",
]


def test_odd_texts(server: Server, fusion_bundle: Path) -> None:
    found = server.post({"inputs": ODD}).json()["predictions"]
    for odd, prediction in zip(Predictor.load(fusion_bundle).predict(ODD), found, strict=True):
        assert prediction["probabilities"] == pytest.approx(odd.probabilities, abs=1e-6)


def test_explanations(server: Server) -> None:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [GOOD]}
    for content, path in (
        ({"text": GOOD}, "explanations/news"),
        ({"text": GOOD}, "explanations/news/abc"),
        ({"instances": [GOOD]}, "v1/models/news:explain"),
        ({"inputs": [tensor]}, "v2/models/news/explain"),
    ):
        answer = server.post(content, path)
        assert answer.status_code == 200
        found = answer.json()
        assert found["text"] == GOOD
        assert found["target"] == found["prediction"]["label"]
        assert [word["text"] for word in found["words"]] == GOOD.split()
        assert found["completeness_error"] < 0.01
    several = server.post({"inputs": [GOOD, GOOD]}, "explanations/news")
    assert (several.status_code, several.json()["error"]["code"]) == (400, "not_one_item")


def test_what_the_model_saw(server: Server, fusion_bundle: Path) -> None:
    wanted = {"details": ["features", "embeddings"]}
    good, bad = server.post({"inputs": [GOOD, ""], **wanted}).json()["predictions"]
    assert bad["error"]["code"] == "empty_text"
    (seen,) = (p.seen for p in Predictor.load(fusion_bundle).predict([GOOD], seen=True))
    assert seen is not None
    assert seen.tabular is not None
    assert seen.embedding is not None
    found = good["details"]
    assert (found["tokens"], found["unknown_tokens"]) == (seen.tokens, 0)
    tabular = np.frombuffer(base64.b64decode(found["tabular"]), "<f4")
    np.testing.assert_array_equal(tabular, seen.tabular)
    embedding = np.frombuffer(base64.b64decode(found["embedding"]), "<f2")
    np.testing.assert_allclose(embedding, seen.embedding, rtol=2e-3, atol=2e-3)
    why = server.post({"inputs": [GOOD], **wanted}, "explanations/news").json()
    assert why["prediction"]["details"]["tabular"] == found["tabular"]
    plain = server.post({"inputs": [GOOD]}).json()["predictions"][0]
    assert plain.keys() == good.keys() - {"details"}


def test_metrics(server: Server) -> None:
    labels = {"model_name": "news", "model_version": "abc"}
    names = (
        "batch_items_sum",
        "truncated_total",
        "predict_seconds_count",
        "explain_seconds_count",
    )

    def read() -> list[float]:
        return [server.measured(f"fakenews_{name}", **labels) for name in names] + [
            server.measured("fakenews_errors_total", code="missing_text", **labels)
        ]

    before = read()
    server.post({"inputs": ["Rain", {}, "Rain " * 200]})
    server.post({"text": "Rain"}, "explanations/news")
    after = [count + more for count, more in zip(before, [4, 1, 2, 1, 1], strict=True)]
    _eventually(lambda: read() == after)
    assert server.measured("Requests2XX_total") > 0
    assert server.measured("ts_inference_requests_total") > 0
    assert server.measured("Evil") == 0


def test_nothing_that_was_sent_is_logged(server: Server) -> None:
    for body in (
        json.dumps({"text": f"{MARK} in Oslo"}).encode(),
        json.dumps({"text": f"{MARK}\n[METRICS]{MARK}.Count:1|#a:b|#hostname:c,1"}).encode(),
        json.dumps({"inputs": [MARK, {MARK: MARK}]}).encode(),
        f'{{"{MARK}": {MARK}}}'.encode(),
        f'{{"{MARK}": 1, "{MARK}": 2}}'.encode(),
        f'{{"text": "{MARK}'.encode() + b'\xff"}',
    ):
        for path in ("predictions/news", "explanations/news"):
            server.post(body, path, headers=JSON)
            server.post(body, path, headers={"Content-Type": "text/plain"})
    server.client.post("predictions/news", data={"text": MARK, MARK: MARK})
    server.client.post("predictions/news", data={MARK: MARK})
    logs = [server.log, *(server.folder / "logs").rglob("*.log")]
    assert len(logs) > 1
    _eventually(lambda: "fakenews_errors_total" in "".join(log.read_text() for log in logs))
    text = "".join(log.read_text() for log in logs)
    assert MARK not in text
    # Nor that a batch came, which TorchServe says of each.
    assert "Backend received inference" not in text
