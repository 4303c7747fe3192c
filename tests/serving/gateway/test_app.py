"""The API as programs use it, over a real socket."""

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import pytest

if TYPE_CHECKING:
    from tests.serving.gateway.conftest import Running, StandIn

Start = Callable[..., "Running"]


def test_one_text(gateway: "Running") -> None:
    answer = gateway.post("/predict", {"text": "Minister opens 3 hospitals"})
    assert answer.status_code == 200
    found = answer.json()
    assert UUID(found["id"]).version == 7
    assert found["label"] in ("fake", "real")
    assert sum(found["probabilities"].values()) == pytest.approx(1)
    assert (found["model"], found["model_version"]) == ("fakenews", "v1")
    assert "logged" not in found


def test_many_texts_with_bad_ones_among_them(gateway: "Running") -> None:
    answer = gateway.post(
        "/predict", {"inputs": ["a b", "", {"text": "c", "age": 3}, {"age": 1}, 7, "MISSING"]}
    )
    assert answer.status_code == 200
    found = answer.json()
    assert (found["model"], found["model_version"]) == ("fakenews", "v1")
    codes = [each.get("error", {}).get("code") for each in found["predictions"]]
    assert codes == [None, "empty_text", None, "missing_text", "wrong_type", "missing_column"]
    ids = [each["id"] for each in found["predictions"] if "id" in each]
    assert len(set(ids)) == 2


def test_the_same_text_has_the_same_answer_and_another_id(gateway: "Running") -> None:
    first, second, third = (gateway.predict("again")[0] for _ in range(3))
    assert len({first.pop("id"), second.pop("id"), third.pop("id")}) == 3
    assert first == second == third
    assert gateway.metric('fakenews_cache_total{result="hit"}') == 2
    assert len(gateway.logged()) == 3


def test_no_texts(gateway: "Running") -> None:
    assert gateway.predict() == []


def test_explanations(gateway: "Running") -> None:
    found = gateway.post("/explain", {"text": "Rain in Oslo"}).json()
    assert [word["text"] for word in found["words"]] == ["Rain", "in", "Oslo"]
    assert [line["id"] for line in gateway.logged()] == [found["prediction"]["id"]]
    many = gateway.post("/explain", {"inputs": ["a"]})
    assert (many.status_code, many.json()["error"]["code"]) == (400, "unknown_shape")
    assert gateway.post("/explain", {"text": " "}).status_code == 422


def test_health_and_metrics(gateway: "Running") -> None:
    assert gateway.client.get("/health/live").json()["status"] == "ok"
    ready = gateway.client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "ok")
    assert ready.json()["model_version"] == "v1"
    gateway.predict("a", "b")
    assert gateway.metric('fakenews_requests_total{path="/predict",status="200"}') == 1
    assert gateway.metric("fakenews_batch_items_sum") == 3  # with the question of health
    counts = gateway.client.get("/metrics").text
    assert 'fakenews_predictions_total{label="' in counts
    assert 'fakenews_score_bucket{le="0.5",model_version="v1"}' in counts


def test_metrics_say_whether_the_model_answers_though_nobody_asks_for_health(
    start: Start, deploy: Callable[..., None]
) -> None:
    deploy(None)
    gateway = start()
    assert gateway.metric("fakenews_ready") == 0
    deploy()
    deadline = time.monotonic() + 10
    while gateway.metric("fakenews_ready") != 1:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_documentation(gateway: "Running") -> None:
    schema = gateway.client.get("/openapi.json").json()
    assert set(schema["paths"]) == {
        *("/predict", "/explain", "/predict/csv", "/feedback", "/metrics"),
        *("/health/live", "/health/ready"),
    }
    for path in schema["paths"].values():
        for operation in path.values():
            assert operation["summary"]
    # The page needs no other server.
    page = gateway.client.get("/docs")
    assert page.status_code == 200
    linked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(linked) >= 3
    for path in linked:
        assert path.startswith("/docs/files/")
        assert gateway.client.get(path).status_code == 200


# --- bad input ---------------------------------------------------------------------------


DEEP = "[" * 30 + "]" * 30


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "not_json"),
        (b"{", 400, "not_json"),
        (b'{"text": "a"', 400, "not_json"),
        (b'{"text": NaN}', 400, "not_json"),
        (b'{"text": "\xff\xfe"}', 400, "invalid_utf8"),
        (b'{"text": "a", "x": ' + DEEP.encode() + b"}", 400, "too_deep"),
        (b"[" * 100_000, 400, "too_deep"),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 400, "too_deep"),
        (b'{"text": ' + b"1" * 5000 + b"}", 400, "not_json"),
        (b"[]", 400, "unknown_shape"),
        (b"null", 400, "unknown_shape"),
        (b'"text"', 400, "unknown_shape"),
        (b'{"inputs": "text"}', 400, "unknown_shape"),
        (b'{"inputs": {"text": "a"}}', 400, "unknown_shape"),
        (b'{"inputs": ["a"], "text": "b"}', 400, "unknown_shape"),
        (b"{}", 422, "missing_text"),
        (b'{"headline": "a"}', 422, "missing_text"),
        (b'{"text": null}', 422, "missing_text"),
        (b'{"text": 3}', 422, "wrong_type"),
        (b'{"text": ["a"]}', 422, "wrong_type"),
        (b'{"text": ""}', 422, "empty_text"),
        (b'{"text": " \\t\\n "}', 422, "empty_text"),
        (b'{"text": "a", "age": [1]}', 422, "bad_column"),
        (b'{"text": "a", "age": {"b": 1}}', 422, "bad_column"),
        (b'{"text": "a", "age": 1' + b"0" * 400 + b"}", 422, "bad_column"),
        (json.dumps({"text": "x" * 100_001}).encode(), 413, "text_too_long"),
        (json.dumps({"inputs": ["x"] * 1001}).encode(), 413, "too_many_items"),
        (json.dumps({"inputs": ["x"] * 10_000}).encode(), 413, "too_many_items"),
        (b" " * 8_000_001, 413, "body_too_large"),
    ],
)
def test_a_bad_body_is_refused_with_a_reason(
    gateway: "Running", body: bytes, status: int, code: str
) -> None:
    headers = {"content-type": "application/json"}
    answer = gateway.client.post("/predict", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert 5 < len(answer.json()["error"]["message"]) < 300
    # And the next is answered.
    assert gateway.predict("fine")[0]["label"]


@pytest.mark.parametrize(
    "text",
    [
        "\U0001f600\U0001f468‍\U0001f469‍\U0001f467",
        "\u202eright to left\u202c עברית",
        "control \x00\x01\x07 characters",
        "a\n[METRICS]Something.Milliseconds:1|#Level:Host\nb",
        "<script>alert(1)</script>",
        "donâ€™t",
        "x" * 100_000,
    ],
)
def test_strange_texts_are_answered(gateway: "Running", text: str) -> None:
    answer = gateway.post("/predict", {"text": text})
    assert answer.status_code == 200
    (line,) = gateway.logged()
    assert line["id"] == answer.json()["id"]
    assert line["text"] is None


def test_half_a_surrogate_pair_harms_nobody(gateway: "Running") -> None:
    headers = {"content-type": "application/json"}
    body = b'{"inputs": ["whole", "half \\ud83d pair", {"text": "a", "b": "\\ude00"}]}'
    answer = gateway.client.post("/predict", content=body, headers=headers)
    assert [each["label"] != "" for each in answer.json()["predictions"]] == [True] * 3


def test_only_json(gateway: "Running") -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = gateway.client.post(
            "/predict", content=b'{"text": "a"}', headers={"content-type": kind}
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (415, "wrong_type")
    assert gateway.client.post("/predict/csv", json={}).status_code == 415


def test_unknown_paths_and_methods(gateway: "Running") -> None:
    answer = gateway.client.get("/nothing")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    answer = gateway.client.get("/predict")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


def test_headers_of_every_answer(gateway: "Running") -> None:
    answers = [
        gateway.client.get("/health/live"),
        gateway.client.get("/nothing"),
        gateway.post("/predict", {"text": "a"}),
        gateway.post("/predict", {"text": ""}),
        gateway.client.get("/docs"),
    ]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers


def _raw(gateway: "Running", *pieces: bytes, pause: float = 0) -> bytes:
    """Send bytes as they are, and read to the end of the connection."""
    url = gateway.client.base_url
    with socket.create_connection((url.host, url.port), timeout=20) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has had enough
        found = b""
        try:
            while block := connection.recv(65536):
                found += block
        except ConnectionResetError:
            pass
        return found


HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\n"
)


def test_a_large_body_is_refused_before_it_was_read(start: Start) -> None:
    gateway = start({"bounds.body_bytes": 10_000})
    answer = _raw(gateway, HEAD + b"Content-Length: 100000000\r\n\r\n", b"x" * 100)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"at most 10,000 bytes" in answer


def test_a_chunked_body_is_refused_as_soon_as_it_is_too_large(start: Start) -> None:
    gateway = start({"bounds.body_bytes": 10_000})
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    answer = _raw(gateway, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 4)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert gateway.predict("fine")[0]["label"]


def test_a_body_that_does_not_come(start: Start) -> None:
    gateway = start({"bounds.body_seconds": 0.2})
    answer = _raw(gateway, HEAD + b"Content-Length: 100\r\n\r\n", b"{")
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_what_is_no_http(gateway: "Running") -> None:
    assert b" 400 " in _raw(gateway, b"\x16\x03\x01\x02nonsense\r\n\r\n")
    assert gateway.predict("fine")[0]["label"]


def test_a_bug_is_told_by_its_number_and_logged_without_the_text(
    gateway: "Running", monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(content: Any, *_: Any) -> Any:
        raise ValueError(content["text"])

    monkeypatch.setattr("fakenews.serving.gateway.app.requested", broken)
    answer = gateway.post("/predict", {"text": "secret words"})
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert error["code"] == "internal"
    assert error["id"] in caplog.text
    assert "in predict" in caplog.text
    assert "secret" not in caplog.text + answer.text


# --- time --------------------------------------------------------------------------------


def test_deadlines(start: Start, stand_in: "StandIn") -> None:
    gateway = start({"deadline": 0.5})
    stand_in.behave(any={"hang": True})
    before = time.monotonic()
    answer = gateway.post("/predict", {"text": "a"})
    assert answer.status_code in (503, 504)
    assert time.monotonic() - before < 5
    stand_in.behave()
    assert gateway.predict("b")[0]["label"]


def test_who_goes_away_leaves_the_queue(start: Start, stand_in: "StandIn") -> None:
    gateway = start(
        {"batching.batch_items": 1, "batching.in_flight": 1, "upstream.patience": 1}
    )
    stand_in.behave(any={"delay": 8})
    url = gateway.client.base_url
    gone = 'fakenews_requests_total{path="/predict",status="499"}'
    first = threading.Thread(target=gateway.predict, args=("first",))
    first.start()
    wait(lambda: len(stand_in.asked()) == 1)
    for number in range(5):
        content = b'{"text": "gone %d"}' % number
        with socket.create_connection((url.host, url.port)) as connection:
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(content) + content)
            time.sleep(0.05)
    with httpx.Client(base_url=url) as other:
        wait(lambda: f"{gone} 5.0" in other.get("/metrics").text)
        assert 'fakenews_queue_items{model_version="v1"} 0.0' in other.get("/metrics").text
    first.join()
    # Whoever reads the metrics asks whether the model answers, and wants no details.
    assert sum(found["details"] is not None for found in stand_in.asked()) == 1


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_full_queue_says_when_to_come_again(start: Start, stand_in: "StandIn") -> None:
    values = {"batching.queue_items": 4, "batching.batch_items": 1, "batching.in_flight": 1}
    gateway = start(values)
    stand_in.behave(any={"delay": 0.3})
    url = str(gateway.client.base_url)
    answers = []

    def ask(number: int) -> None:
        answers.append(httpx.post(f"{url}/predict", json={"text": f"t {number}"}, timeout=20))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    for thread in threads:
        thread.join()
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 5
    for answer in answers:
        if answer.status_code == 503:
            assert answer.json()["error"]["code"] == "overloaded"
            assert 1 <= int(answer.headers["retry-after"]) <= 60


@pytest.mark.parametrize("small_disk", ["1m"], indirect=True)
def test_a_full_disk_stops_no_answer(
    start: Start, deploy: Callable[..., None], small_disk: Path, tmp_path: Path
) -> None:
    deploy()
    (tmp_path / "deployment" / "predictions").symlink_to(small_disk)
    gateway = start({"log.text": True})
    assert "logged" not in gateway.predict("a")[0]
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    found = [gateway.predict(f"{n} " + "x" * 5000)[0] for n in range(4)]
    assert all(answer["label"] for answer in found)
    assert found[-1]["logged"] is False
    ready = gateway.client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert "No space left on device" in ready.json()["reasons"][0]
    assert gateway.metric("fakenews_log_failures_total") >= 1
    ballast.unlink()
    assert "logged" not in gateway.predict("b")[0]
    assert gateway.client.get("/health/ready").json()["status"] == "ok"
    gateway.stop()
