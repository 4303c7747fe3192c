"""What is written down of an item, however it was answered; and what clients get of that."""

import base64
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from conftest import Running, StandIn

Start = Callable[..., "Running"]
Deploy = Callable[..., None]
SEEN = ("tokens", "unknown_tokens", "tabular", "embedding")


def lines(gateway: "Running", count: int) -> list[dict[str, Any]]:
    """The lines of the log, when there are as many: nobody waits for some of them."""
    deadline = time.monotonic() + 20
    while len(found := gateway.logged()) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def test_what_the_model_saw_is_logged_and_kept_from_clients(
    gateway: "Running", stand_in: "StandIn"
) -> None:
    one = gateway.post("/predict", {"text": "Rain 🎉 again"}).json()
    many = gateway.predict("Rain 🎉 again", "Snow")
    why = gateway.post("/explain", {"text": "Hail"}).json()
    for answer in (one, *many, why["prediction"]):
        assert "details" not in answer
        assert answer["label"]
    found = lines(gateway, 4)
    assert [line["tokens"] for line in found] == [5, 5, 3, 3]
    assert [line["unknown_tokens"] for line in found] == [1, 1, 0, 0]
    # The second was remembered, with what was seen.
    assert [asked["items"] for asked in stand_in.asked()] == [1, 1, 1]
    assert found[0]["tabular"] == found[1]["tabular"] == [12.0, 0.1]
    embedding = np.frombuffer(base64.b64decode(found[1]["embedding"]), "<f2")
    assert embedding.tolist() == [1, -0.5, 12]
    assert all(line["error"] is None for line in found)
    assert all(0 <= line["latency_ms"] < 30_000 for line in found[:3])
    assert found[3]["latency_ms"] is None  # most of it was the explanation


def test_it_becomes_parquet(gateway: "Running") -> None:
    gateway.predict("Rain", "MISSING")
    gateway.stop()
    (path,) = (gateway.folder / "predictions").glob("date=*/*.parquet")
    good, bad = sorted(
        pq.read_table(path, partitioning=None).to_pylist(), key=lambda row: row["error"] or ""
    )
    assert np.frombuffer(good["embedding"], "<f2").tolist() == [1, -0.5, 4]
    assert good["tabular"] == [4.0, pytest.approx(0.1)]
    assert (good["tokens"], good["unknown_tokens"], good["error"]) == (3, 0, None)
    assert (bad["label"], bad["probabilities"], bad["error"]) == (None, [], "missing_column")
    assert [bad[name] for name in SEEN] == [None] * 4
    assert bad["words"] == 1
    assert good["latency_ms"] == bad["latency_ms"] > 0


@pytest.mark.parametrize(
    ("values", "asked", "logged"),
    [
        ({"log.features": False}, ["embeddings"], {"embedding"}),
        ({"log.embeddings": False}, ["features"], {"tokens", "unknown_tokens", "tabular"}),
        ({"log.features": False, "log.embeddings": False}, None, set()),
    ],
)
def test_what_is_turned_off_is_not_even_asked_for(
    start: Start,
    stand_in: "StandIn",
    values: dict[str, bool],
    asked: list[str] | None,
    logged: set[str],
) -> None:
    gateway = start(values)
    gateway.predict("Rain")
    gateway.post("/explain", {"text": "Hail"})
    assert [found["details"] for found in stand_in.asked()] == [asked] * 2
    for line in lines(gateway, 2):
        assert {name for name in SEEN if line[name] is not None} == logged


def test_without_a_log_nothing_is_asked_for(start: Start, stand_in: "StandIn") -> None:
    assert start({"log.enabled": False}).predict("Rain")[0]["label"]
    assert stand_in.asked()[0]["details"] is None


@pytest.mark.parametrize(
    "how", [{"older": True}, {"details": None}, {"details": {"tabular": "x", "tokens": "y"}}]
)
def test_a_handler_that_gives_none_fails_nothing(
    gateway: "Running", stand_in: "StandIn", how: dict[str, Any]
) -> None:
    stand_in.behave(any=how)
    assert "details" not in gateway.predict("Rain")[0]
    (line,) = lines(gateway, 1)
    assert [line[name] for name in SEEN] == [None] * 4
    assert line["label"]


def test_what_was_refused_is_logged_with_the_reason(gateway: "Running") -> None:
    gateway.post("/predict", {"inputs": ["", {"text": 3}, {"text": "a", "n": [1]}, "MISSING"]})
    gateway.post("/predict", {"text": " "})
    gateway.post("/explain", {"text": "MISSING", "age": 3})
    found = lines(gateway, 6)
    assert [line["error"] for line in found] == [
        "empty_text",
        "wrong_type",
        "bad_column",
        "missing_column",
        "empty_text",
        "missing_column",
    ]
    for line in found:
        assert (line["label"], line["probabilities"]) == (None, {})
    refused, sent = found[0], found[3]
    names = ("route", "model_version", "text_sha256", "words", "characters", "text")
    assert [refused[name] for name in names] == [None] * 6
    assert (sent["route"], sent["model_version"], sent["words"]) == ("champion", "v1", 1)
    assert found[5]["columns"] == {"age": 3}
    # No client knows such an id; who finds one out cannot judge what was never said.
    answer = gateway.post("/feedback", {"id": sent["id"], "verdict": "wrong"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_id")


def test_what_failed_is_logged(start: Start, stand_in: "StandIn") -> None:
    gateway = start({"deadline": 0.5})
    stand_in.behave(any={"internal": True})
    gateway.post("/predict", {"text": "a"})
    stand_in.behave(any={"status": 503})
    gateway.post("/predict", {"inputs": ["b", "c"]})
    stand_in.behave(any={"hang": True})
    gateway.post("/predict", {"text": "d"})
    found = lines(gateway, 4)
    assert [line["error"] for line in found[:3]] == ["internal", "unavailable", "unavailable"]
    assert found[3]["error"] in ("unavailable", "deadline")
    assert [line["model_version"] for line in found] == ["v1", None, None, None]
    assert found[3]["latency_ms"] > 300


def test_a_shadow_has_its_own(start: Start, deploy: Deploy) -> None:
    deploy("v1", shadow="v2")
    gateway = start()
    gateway.predict("Rain")
    champion, shadow = lines(gateway, 2)
    assert shadow["shadow_of"] == champion["id"]
    assert [shadow[name] for name in SEEN] == [champion[name] for name in SEEN]
    assert shadow["latency_ms"] > 0


def test_latencies_are_finer_than_a_millisecond(start: Start, deploy: Deploy) -> None:
    deploy("v1", shadow="v2")
    gateway = start()
    for _ in range(5):
        gateway.predict("Rain")
    latencies = [(line["shadow_of"], line["latency_ms"]) for line in lines(gateway, 10)]
    champion = [ms for original, ms in latencies if original is None]
    shadow = [ms for original, ms in latencies if original is not None]
    assert any(ms % 1 for ms in champion)
    assert any(ms % 1 for ms in shadow)


def test_what_nobody_waits_for_does_not_pile_up(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fakenews.serving.gateway.prediction_log._NOTES", 0)
    gateway = start()
    gateway.predict("Rain", "")
    assert gateway.metric("fakenews_log_failures_total") == 1
    assert len(lines(gateway, 1)) == 1
