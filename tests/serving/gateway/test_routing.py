"""Canaries and shadows, as the state of the deployment says."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from fakenews.serving.gateway.canary import Watch
from fakenews.serving.gateway.routing import Router
from fakenews.serving.state import read_state

if TYPE_CHECKING:
    from tests.serving.gateway.conftest import Running, StandIn

Start = Callable[..., "Running"]
Deploy = Callable[..., None]

QUICK = {"canary.min_requests": 10, "canary.latency_floor": 0.05}


def router(folder: Path, by: Any = "text") -> Router:
    watch = Watch(
        window=60, min_requests=10, error_excess=0.1, latency_ratio=2, latency_floor=0.1
    )
    return Router(folder=folder, by=by, watch=watch, abort=lambda version, reason: None)


def versions(gateway: "Running", count: int = 200) -> list[str]:
    found = []
    for number in range(count):
        answer = gateway.post("/predict", {"text": f"text {number}"})
        assert answer.status_code == 200, answer.text
        found.append(answer.json()["model_version"])
    return found


def is_well(gateway: "Running") -> bool:
    """Whether the gateway has read, within a short time, what it wrote into the state."""
    deadline = time.monotonic() + 10
    while gateway.client.get("/health/ready").json()["status"] != "ok":
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


# --- routes ------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["text", "random"])
def test_a_share_goes_to_the_canary(deploy: Deploy, tmp_path: Path, by: str) -> None:
    deploy(canary="v2", share=0.3)
    chooses = router(tmp_path / "deployment", by)
    routes = [chooses.choose(f"text {n}") for n in range(3000)]
    assert 800 < routes.count("canary") < 1000
    again = [chooses.choose(f"text {n}") for n in range(3000)]
    assert (routes == again) is (by == "text")


def test_a_new_state_is_read(deploy: Deploy, tmp_path: Path) -> None:
    chooses = router(tmp_path / "deployment")
    assert chooses.routes.champion is None
    for champion in ("v1", "v2"):
        deploy(champion)
        deadline = time.monotonic() + 5
        while chooses.routes.champion != champion:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_damaged_state_changes_nothing(
    deploy: Deploy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deploy(workers=3)
    chooses = router(tmp_path / "deployment")
    assert chooses.routes.workers == {"v1": 3}
    (tmp_path / "deployment" / "state.json").write_text("{")
    chooses._looked = -1
    assert chooses.routes.champion == "v1"
    chooses._looked = -1
    assert chooses.routes.champion == "v1"
    assert caplog.text.count("the routes stay as they were") == 1


def test_nothing_deployed(start: Start, deploy: Deploy) -> None:
    deploy(None)
    gateway = start()
    answer = gateway.post("/predict", {"text": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_model")
    ready = gateway.client.get("/health/ready")
    assert (ready.status_code, ready.json()["reasons"]) == (503, ["no model is deployed"])
    deploy("v1")
    time.sleep(0.3)
    assert gateway.predict("a")[0]["model_version"] == "v1"


# --- canaries ----------------------------------------------------------------------------


def test_a_canary_answers_its_share_and_is_logged_as_one(start: Start, deploy: Deploy) -> None:
    deploy(canary="v2", share=0.25)
    gateway = start()
    found = versions(gateway)
    assert 25 < found.count("v2") < 80
    routes = {(line["model_version"], line["route"]) for line in gateway.logged()}
    assert routes == {("v1", "champion"), ("v2", "canary")}
    assert gateway.metric("fakenews_canary_share") == 0.25


@pytest.mark.parametrize(
    "how",
    [{"status": 500}, {"reset": True}, {"internal": True}, {"status": 404}, {"short": True}],
)
def test_a_canary_that_fails_is_given_up_and_nobody_notices(
    start: Start, deploy: Deploy, stand_in: "StandIn", tmp_path: Path, how: dict[str, Any]
) -> None:
    deploy(canary="v2", share=0.5)
    gateway = start({**QUICK, "canary.patience": 0.02})
    stand_in.behave(v2=how)
    assert set(versions(gateway, 60)) == {"v1"}
    assert gateway.metric("fakenews_canary_aborts_total") == 1
    assert gateway.metric("fakenews_canary_fallbacks_total") >= 10
    assert is_well(gateway)
    state = read_state(tmp_path / "deployment", name="fakenews")
    assert state.canary is None
    assert state.aborted is not None
    assert state.aborted.version == "v2"
    assert "requests failed" in state.aborted.reason


def test_a_canary_that_hangs_or_is_slow_is_given_up(
    start: Start, deploy: Deploy, stand_in: "StandIn", tmp_path: Path
) -> None:
    deploy(canary="v2", share=0.5)
    gateway = start({**QUICK, "deadline": 8, "canary.patience": 0.05, "cache_size": 0})
    stand_in.behave(v2={"hang": True})
    url = str(gateway.client.base_url)
    statuses: list[int] = []

    def ask(first: int) -> None:
        for number in range(first, first + 12):
            answer = httpx.post(f"{url}/predict", json={"text": f"text {number}"}, timeout=30)
            statuses.append(answer.status_code)

    threads = [threading.Thread(target=ask, args=(n * 100,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}
    assert is_well(gateway)
    assert read_state(tmp_path / "deployment", name="fakenews").canary is None


def test_a_slow_canary_is_given_up(
    start: Start, deploy: Deploy, stand_in: "StandIn", tmp_path: Path
) -> None:
    deploy(canary="v2", share=0.5)
    gateway = start({**QUICK, "canary.latency_floor": 0.15})
    stand_in.behave(v2={"delay": 0.4})
    for number in range(60):
        assert gateway.predict(f"text {number}")[0]["label"]
        if gateway.metric("fakenews_canary_aborts_total"):
            break
    assert is_well(gateway)
    state = read_state(tmp_path / "deployment", name="fakenews")
    assert state.aborted is not None
    assert "95th percentile of latency" in state.aborted.reason


def test_the_end_of_a_canary_is_kept_when_it_cannot_be_noted(
    start: Start, deploy: Deploy, stand_in: "StandIn", monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fakenews.serving.gateway.server.abort_canary", full)
    deploy(canary="v2", share=0.5)
    gateway = start({**QUICK, "canary.patience": 0.02})
    stand_in.behave(v2={"status": 500})
    versions(gateway, 60)
    stand_in.behave()
    assert set(versions(gateway, 60)) == {"v1"}
    ready = gateway.client.get("/health/ready").json()
    assert ready["status"] == "degraded"
    assert "the canary v2 was given up" in ready["reasons"][0]
    # Another canary, or the same one once it was withdrawn, is tried.
    deploy(canary="v3", share=0.5)
    time.sleep(0.3)
    assert set(versions(gateway, 60)) == {"v1", "v3"}


# --- shadows -----------------------------------------------------------------------------


def test_a_shadow_is_asked_compared_and_logged(start: Start, deploy: Deploy) -> None:
    deploy(shadow="v3")
    gateway = start()
    answers = [gateway.predict(f"text {n}")[0] for n in range(5)]
    assert {answer["model_version"] for answer in answers} == {"v1"}
    deadline = time.monotonic() + 10
    while gateway.metric('fakenews_shadow_total{result="agrees"}') < 5:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    gateway.predict("one more, so that the log has all before it")
    shadows = [line for line in gateway.logged() if line["route"] == "shadow"]
    assert {line["shadow_of"] for line in shadows} >= {answer["id"] for answer in answers}
    assert {line["model_version"] for line in shadows} == {"v3"}
    assert gateway.metric("fakenews_shadow_difference_count") >= 5


@pytest.mark.parametrize("how", [{"hang": True}, {"status": 500}, {"delay": 1}])
def test_a_shadow_that_fails_or_hangs_holds_up_nobody(
    start: Start, deploy: Deploy, stand_in: "StandIn", how: dict[str, Any]
) -> None:
    deploy(shadow="v3")
    gateway = start({"shadow_in_flight": 2, "deadline": 2})
    stand_in.behave(v3=how)
    for number in range(20):
        assert gateway.predict(f"text {number}")[0]["model_version"] == "v1"
    assert gateway.metric('fakenews_shadow_total{result="dropped"}') > 0
