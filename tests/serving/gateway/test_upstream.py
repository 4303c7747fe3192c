"""TorchServe in all its moods: whatever it does, requests are answered or told why not."""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from fakenews.errors import ServingError

if TYPE_CHECKING:
    from tests.serving.gateway.conftest import Running, StandIn

Start = Callable[..., "Running"]


class Keys:
    """As `fakenews.serving.keys.Keys`."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.refused: list[str | None] = []
        self.missing = False

    def inference(self) -> str:
        if self.missing:
            raise ServingError("no file")
        return self.tokens[0]

    def refresh(self, *, refused: str | None = None) -> None:
        self.refused.append(refused)
        if len(self.tokens) == 1:
            raise ServingError("TorchServe is gone")
        del self.tokens[0]


def test_an_expired_key_is_renewed_once_for_all(start: Start, stand_in: "StandIn") -> None:
    keys = Keys("old", "new")
    gateway = start({"batching.batch_items": 1, "batching.in_flight": 8}, keys=keys)
    stand_in.behave(any={"token": "new"})
    assert all("id" in answer for answer in gateway.predict(*map(str, range(8))))
    assert keys.refused == ["old"]
    assert gateway.metric('fakenews_upstream_errors_total{kind="refused"}') >= 1


def test_keys_that_stay_refused(start: Start, stand_in: "StandIn") -> None:
    gateway = start({"deadline": 3}, keys=Keys("old"))
    stand_in.behave(any={"token": "new"})
    answer = gateway.post("/predict", {"text": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert "keys" in answer.json()["error"]["message"]
    assert "old" not in answer.text


def test_keys_that_are_not_there_yet(start: Start) -> None:
    keys = Keys("any")
    keys.missing = True
    gateway = start(keys=keys)
    threading.Timer(0.3, lambda: setattr(keys, "missing", False)).start()
    assert gateway.predict("a")[0]["label"]


@pytest.mark.parametrize(
    "how", [{"status": 503}, {"status": 500}, {"status": 404}, {"reset": True}, {"status": 507}]
)
def test_what_fails_sometimes_is_asked_again(
    start: Start, stand_in: "StandIn", how: dict[str, Any]
) -> None:
    gateway = start({"batching.batch_items": 1, "batching.in_flight": 1})
    stand_in.behave(any={**how, "every": 2})
    assert all("id" in answer for answer in gateway.predict(*map(str, range(20))))


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ({"status": 503}, "overloaded"),
        ({"status": 500}, "failed"),
        ({"status": 404}, "unknown_model"),
        ({"short": True}, "failed"),
        ({"hang": True}, "timeout"),
    ],
)
def test_what_always_fails_is_told_within_the_deadline(
    start: Start, stand_in: "StandIn", how: dict[str, Any], kind: str
) -> None:
    gateway = start({"deadline": 1})
    stand_in.behave(any=how)
    before = time.monotonic()
    answer = gateway.post("/predict", {"text": "a"})
    assert time.monotonic() - before < 10
    assert answer.status_code in (503, 504)
    if answer.status_code == 503:
        assert answer.headers["retry-after"] == "1"
    assert gateway.metric(f'fakenews_upstream_errors_total{{kind="{kind}"}}') >= 1
    stand_in.behave()
    assert gateway.predict("b")[0]["label"]


def test_what_is_lost_is_asked_again(start: Start, stand_in: "StandIn") -> None:
    # As TorchServe loses, at times, what it hands to a worker that ends.
    gateway = start({"deadline": 3, "upstream.patience": 0.1, "batching.in_flight": 1})
    stand_in.behave(any={"hang": True, "every": 2})
    for text in "abc":
        assert gateway.predict(text)[0]["label"]
    assert gateway.metric('fakenews_upstream_errors_total{kind="timeout"}') >= 1
    # What is only slow is not lost.
    stand_in.behave(any={"delay": 1.5})
    assert gateway.predict("d")[0]["label"]
    stand_in.behave(any={"hang": True})
    assert gateway.post("/predict", {"text": "e"}).status_code == 504


def test_items_that_the_model_failed_on(start: Start, stand_in: "StandIn") -> None:
    gateway = start()
    stand_in.behave(any={"internal": True})
    answer = gateway.post("/predict", {"text": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "internal")
    assert answer.headers["retry-after"] == "1"
    (error,) = gateway.predict("a")
    assert error["error"]["code"] == "internal"
    stand_in.behave()
    assert gateway.predict("a")[0]["label"]


def test_a_server_that_dies_loses_no_answer(start: Start, stand_in: "StandIn") -> None:
    gateway = start({"cache_size": 0})
    stand_in.behave(any={"delay": 0.02})
    url = str(gateway.client.base_url)
    statuses: list[int] = []
    ids: set[str] = set()
    stop = threading.Event()

    def ask(number: int) -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            while not stop.is_set():
                answer = client.post("/predict", json={"text": f"text {number}"})
                statuses.append(answer.status_code)
                ids.add(answer.json()["id"])

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    stand_in.kill()
    assert gateway.client.get("/health/live").status_code == 200
    time.sleep(0.5)
    stand_in.start()
    time.sleep(0.5)
    stop.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}
    assert len(ids) == len(statuses) == len(gateway.logged())
    assert gateway.metric('fakenews_upstream_errors_total{kind="unreachable"}') >= 1


def test_a_server_that_stays_away(start: Start, stand_in: "StandIn") -> None:
    gateway = start({"deadline": 0.5})
    stand_in.kill()
    answer = gateway.post("/predict", {"text": "a"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "cannot be reached" in answer.json()["error"]["message"]
    ready = gateway.client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
    assert ready.json()["reasons"][0].startswith("the model does not answer")
    assert gateway.post("/explain", {"text": "a"}).status_code == 503
    stand_in.start()
    assert gateway.client.get("/health/ready").status_code == 200
    assert gateway.post("/explain", {"text": "a"}).status_code == 200


def test_explanations_have_a_queue_of_their_own(start: Start, stand_in: "StandIn") -> None:
    gateway = start({"upstream.explain_in_flight": 1, "upstream.explain_queue": 1})
    stand_in.behave(any={"delay": 0.5})
    url = str(gateway.client.base_url)
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(httpx.post(f"{url}/explain", json={"text": "a"}).status_code)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 200, 503]
