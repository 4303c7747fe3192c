"""Deployments to a real TorchServe: replaced under load, and taken back when they fail."""

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from fakenews.errors import ServingError
from fakenews.serving.deployment import Deployment
from fakenews.serving.keys import Keys, Refused
from fakenews.serving.management import Management
from fakenews.serving.state import abort_canary, read_state
from fakenews.serving.status import read_status
from fakenews.serving.torchserve import Settings, TorchServe, home, store
from fakenews.serving.versions import Timing

pytestmark = pytest.mark.slow

NAME = "fakenews"
TIMING = Timing(settle=0.5, deadline=3, poll=0.1)

MakeArchive = Callable[..., Path]


@dataclass(frozen=True, kw_only=True)
class Place:
    folder: Path
    settings: Settings
    client: Management
    deployment: Deployment

    @property
    def keys(self) -> Keys:
        return self.settings.keys(self.folder)

    def ask(self, version: str, text: str = "Hello", **item: Any) -> Any:
        return self.client.predict(NAME, version, {"text": text, **item})


@contextlib.contextmanager
def served(folder: Path, settings: Settings) -> Iterator[tuple[Place, TorchServe]]:
    with (
        TorchServe(folder=folder, settings=settings) as server,
        settings.client(folder) as client,
    ):
        deployment = Deployment(folder=folder, name=NAME, client=client, timing=TIMING)
        place = Place(folder=folder, settings=settings, client=client, deployment=deployment)
        yield place, server


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, make_settings: Callable[..., Settings]
) -> Iterator[Place]:
    # Keys end every few seconds, so all that follows gets new ones in passing.
    settings = make_settings(token_minutes=0.1, queue=4)
    with served(tmp_path_factory.mktemp("deployment"), settings) as (place, _):
        yield place


@pytest.fixture
def place(running: Place) -> Place:
    """With nothing deployed."""
    running.deployment.undeploy()
    return running


@pytest.fixture(scope="module")
def a(make_archive: MakeArchive) -> Path:
    return make_archive("aaaaaaaaaaaa")


@pytest.fixture(scope="module")
def b(make_archive: MakeArchive) -> Path:
    return make_archive("12e456789012")


@pytest.fixture(scope="module")
def c(make_archive: MakeArchive) -> Path:
    return make_archive("cccccccccccc")


@dataclass
class Load:
    """Requests from threads, sent where the state says, as the gateway does.

    What a worker was ended with, answered or lost, is sent again only if `again`.
    """

    place: Place
    again: bool = False
    answered: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    slowest: float = 0
    ending: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        keys = self.place.keys
        address = self.place.settings.inference_address
        read, state = 0.0, read_state(self.place.folder, name=NAME)
        with httpx.Client(trust_env=False) as client:
            while not self.ending.is_set():
                if time.monotonic() - read > 0.3:
                    read, state = time.monotonic(), read_state(self.place.folder, name=NAME)
                versions = [state.champion]
                if state.canary is not None and random.random() < state.canary.share:
                    versions = [state.canary.version]
                if state.shadow is not None:
                    versions.append(state.shadow)
                for version in versions:
                    self.send(client, keys, f"{address}/predictions/{NAME}/{version}", version)

    def send(self, client: httpx.Client, keys: Keys, url: str, version: str | None) -> None:
        begun = time.monotonic()
        for left in (2, 1, 0):
            key = keys.inference()
            try:
                answer = client.post(
                    url,
                    json={"text": "Hello"},
                    headers={"authorization": f"Bearer {key}"},
                    timeout=TIMING.deadline,
                )
            except httpx.HTTPError as error:
                if self.again and left and isinstance(error, httpx.ReadTimeout):
                    continue
                self.failed.append(repr(error))
                return
            if answer.status_code == 400 and "InvalidKey" in answer.text:
                keys.refresh("inference", refused=key)
            elif not self.again or "Worker died" not in answer.text:
                break
        if answer.status_code != 200 or answer.json()["model_version"] != version:
            self.failed.append(f"{answer.status_code} {answer.text}")
        else:
            self.answered[str(version)] += 1
        self.slowest = max(self.slowest, time.monotonic() - begun)


@contextlib.contextmanager
def load(place: Place, *, again: bool = False) -> Iterator[Load]:
    found = Load(place, again=again)
    running = [threading.Thread(target=found.run) for _ in range(3)]
    for thread in running:
        thread.start()
    try:
        yield found
    finally:
        found.ending.set()
        for thread in running:
            thread.join()


def serving(place: Place) -> set[str]:
    return set(place.client.versions(NAME))


def as_it_was(place: Place) -> tuple[Any, ...]:
    state = place.deployment.state
    found = {version: item.ready for version, item in place.client.versions(NAME).items()}
    files = sorted(path.name for path in store(place.folder).iterdir())
    return state.but(events=()), found, place.client.default(NAME), files


def test_a_whole_life_under_load_without_a_failed_request(
    place: Place, a: Path, b: Path, c: Path
) -> None:
    one, two, three = (path.stem.partition("-")[2] for path in (a, b, c))
    state = place.deployment.deploy(a)
    assert (state.champion, state.previous) == (one, None)
    with load(place) as seen:
        state = place.deployment.deploy(b, shadow_seconds=2, canary_seconds=2, share=0.5)
        assert (state.champion, state.previous) == (two, one)
        assert serving(place) == {two} == set(state.workers)
        assert place.client.default(NAME) == two
        answered = Counter(seen.answered)

        state = place.deployment.canary(c, share=0.5)
        assert state.canary is not None
        time.sleep(2)
        state = place.deployment.promote()
        assert (state.champion, state.previous, state.canary) == (three, two, None)

        # What was killed in the middle, or is asked for twice, does no harm.
        assert place.deployment.promote().champion == three
        assert place.deployment.deploy(c).champion == three

        state = place.deployment.rollback()
        assert (state.champion, state.previous) == (two, None)
        assert place.deployment.rollback().champion == two
    assert seen.failed == []
    assert answered[one]
    assert answered[two]
    assert seen.answered[three]
    assert sum(seen.answered.values()) > 500
    assert serving(place) == {two}
    # Its archive is in the store, those of versions that nobody can go back to are not.
    files = sorted(path.name for path in store(place.folder).iterdir())
    assert files == [f"fakenews-{two}", f"fakenews-{two}.mar"]
    assert [event.action for event in state.events][-7:] == [
        "deploy",
        "shadow",
        "canary",
        "deploy",
        "canary",
        "promote",
        "rollback",
    ]
    print(f"{sum(seen.answered.values())} requests, the slowest {seen.slowest:.2f} s")  # noqa: T201


def test_workers_come_and_go(place: Place, a: Path) -> None:
    place.deployment.deploy(a)
    with load(place, again=True) as seen:
        assert place.deployment.scale(2).workers == {"aaaaaaaaaaaa": 2}
        assert place.client.versions(NAME)["aaaaaaaaaaaa"].ready == 2
        # TorchServe ends a worker with what it computes, and once in some 20 times never
        # answers that; the gateway asks again.
        assert place.deployment.scale(1).workers == {"aaaaaaaaaaaa": 1}
        assert place.client.versions(NAME)["aaaaaaaaaaaa"].ready == 1
    assert seen.failed == []


def test_a_previous_version_that_is_kept_is_ready_for_a_rollback(
    place: Place, a: Path, b: Path
) -> None:
    place.deployment.deploy(a)
    state = place.deployment.deploy(b, keep_previous=True)
    assert state.workers.keys() == serving(place) == {"aaaaaaaaaaaa", "12e456789012"}
    assert place.ask("aaaaaaaaaaaa")["model_version"] == "aaaaaaaaaaaa"
    state = place.deployment.rollback()
    assert state.workers == {"aaaaaaaaaaaa": 1}
    assert serving(place) == {"aaaaaaaaaaaa"}


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"off": 0.01}, r"failed the smoke test: golden text 1: fake has probability 0\."),
        (
            {"code": "raise ImportError('no such thing')"},
            "ended while it loaded the model, after at most .* s: ImportError: no such thing;",
        ),
        (
            {"load_seconds": 60, "startup_timeout": 3},
            "ended while it loaded the model, after at most .*: it took longer than its 3 s",
        ),
    ],
    ids=["wrong predictions", "a worker that fails", "a worker that is never ready"],
)
def test_what_does_not_work_leaves_everything_as_it_was(
    place: Place, a: Path, make_archive: MakeArchive, how: dict[str, Any], reason: str
) -> None:
    place.deployment.deploy(a)
    before = as_it_was(place)
    bad = make_archive("bbbbbbbbbbbb", **how)
    with load(place) as seen, pytest.raises(ServingError, match=reason) as caught:
        place.deployment.deploy(bad)
    assert str(caught.value).endswith("; everything is as it was before")
    assert "\n" not in str(caught.value)
    assert as_it_was(place) == before
    assert seen.failed == []
    assert seen.answered.keys() == {"aaaaaaaaaaaa"}
    assert place.deployment.state.events[-1].action == "failed"


def test_an_archive_that_was_cut_off_is_not_given_to_torchserve(
    place: Place, a: Path, b: Path, tmp_path: Path
) -> None:
    place.deployment.deploy(a)
    before = as_it_was(place)
    cut = tmp_path / "cut.mar"
    cut.write_bytes(b.read_bytes()[:-40])
    with pytest.raises(ServingError, match=r"cut\.mar is no model archive: .*export\.py$"):
        place.deployment.deploy(cut)
    assert as_it_was(place) == before


def test_a_canary_that_the_gateway_gives_up_is_not_deployed(
    place: Place, a: Path, b: Path
) -> None:
    place.deployment.deploy(a)

    def give_up() -> None:
        while not abort_canary(place.folder, "too many errors"):
            time.sleep(0.1)

    gateway = threading.Thread(target=give_up)
    with load(place) as seen:
        gateway.start()
        with pytest.raises(ServingError, match="gave up the canary 12e456789012: too many"):
            place.deployment.deploy(b, canary_seconds=60, share=0.5)
        gateway.join()
    assert seen.failed == []
    state = place.deployment.state
    assert (state.champion, state.canary) == ("aaaaaaaaaaaa", None)
    assert state.aborted is not None
    assert state.aborted.version == "12e456789012"
    assert serving(place) == {"aaaaaaaaaaaa"}


def test_a_trial_is_ended_by_a_rollback_and_excludes_another(
    place: Place, a: Path, b: Path, c: Path
) -> None:
    place.deployment.deploy(a)
    place.deployment.canary(b, share=0.1)
    assert place.deployment.canary(None, share=0.3).canary.share == 0.3  # type: ignore[union-attr]
    with pytest.raises(ServingError, match="12e456789012 is on trial: end that"):
        place.deployment.deploy(c)
    state = place.deployment.rollback()
    assert (state.champion, state.canary) == ("aaaaaaaaaaaa", None)
    assert serving(place) == {"aaaaaaaaaaaa"}


def test_two_deployments_at_once(place: Place, a: Path, b: Path) -> None:
    place.deployment.deploy(a)
    failures: list[str] = []

    def second() -> None:
        while not (place.folder / "deploy.holder.json").exists():
            time.sleep(0.01)
        with place.settings.client(place.folder) as client:
            other = Deployment(folder=place.folder, name=NAME, client=client, timing=TIMING)
            with pytest.raises(ServingError) as caught:
                other.rollback()
            failures.append(str(caught.value))

    thread = threading.Thread(target=second)
    thread.start()
    place.deployment.deploy(b)
    thread.join()
    assert f"action=deploy of process {os.getpid()} on " in failures[0]
    assert place.deployment.state.champion == "12e456789012"


def test_a_killed_worker_is_started_again(place: Place, a: Path) -> None:
    place.deployment.deploy(a)
    killed = place.ask("aaaaaaaaaaaa")["pid"]
    os.kill(killed, signal.SIGKILL)
    # TorchServe keeps requests until it has another.
    deadline = time.monotonic() + 60
    while (pid := _pid(place)) == killed and time.monotonic() < deadline:
        time.sleep(0.1)
    assert pid != killed
    assert place.deployment.restore().champion == "aaaaaaaaaaaa"
    assert place.ask("aaaaaaaaaaaa")["pid"] == pid


def _pid(place: Place) -> int:
    with contextlib.suppress(Refused):
        return int(place.ask("aaaaaaaaaaaa")["pid"])
    return 0


def test_a_full_queue_says_so_and_empties(place: Place, a: Path) -> None:
    place.deployment.deploy(a)
    refused: list[int] = []

    def ask() -> None:
        with place.settings.client(place.folder) as client:
            try:
                client.predict(NAME, "aaaaaaaaaaaa", {"text": "Hello", "seconds": 1})
            except Refused as error:
                refused.append(error.status)

    asking = [threading.Thread(target=ask) for _ in range(16)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert set(refused) == {503}
    assert place.ask("aaaaaaaaaaaa")["model_version"] == "aaaaaaaaaaaa"
    (found,) = place.client.versions(NAME).values()
    assert found.waiting == 0


def test_undeploying_one_version_and_all(place: Place, a: Path, b: Path) -> None:
    place.deployment.deploy(a)
    place.deployment.deploy(b, keep_previous=True)
    with pytest.raises(ServingError, match="12e456789012 is the champion"):
        place.deployment.undeploy("12e456789012")
    assert place.deployment.undeploy("aaaaaaaaaaaa").previous is None
    assert serving(place) == {"12e456789012"}
    state = place.deployment.undeploy()
    assert (state.champion, dict(state.versions)) == (None, {})
    assert serving(place) == set()
    assert list(store(place.folder).iterdir()) == []
    assert place.deployment.undeploy().champion is None
    with pytest.raises(ServingError, match="nothing is deployed"):
        place.deployment.smoke()


def test_keys_of_another_torchserve(place: Place, tmp_path: Path) -> None:
    keys = home(tmp_path) / "key_file.json"
    keys.parent.mkdir()
    entry = '{"key": "wrong", "expiration time": "2030-01-01T00:00:00.123456789Z"}'
    keys.write_text(f'{{"management": {entry}, "inference": {entry}, "API": {{"key": "no"}}}}')
    with place.settings.client(tmp_path) as client:
        assert not client.answers()
        with pytest.raises(ServingError, match=r"refuses the keys of .* of another TorchServe"):
            client.versions(NAME)
        status = read_status(read_state(tmp_path, name=NAME), client, tmp_path)
    assert "refuses the keys" in status.torchserve


def test_a_killed_torchserve_is_restored(
    tmp_path: Path, make_settings: Callable[..., Settings], a: Path, b: Path
) -> None:
    settings = make_settings()
    with served(tmp_path, settings) as (place, server):
        place.deployment.deploy(a)
        place.deployment.deploy(b, keep_previous=True, workers=2)
        group = [
            process
            for process in psutil.process_iter()
            if _group(process.pid) == os.getpgid(place.ask("12e456789012")["pid"])
        ]
        (java,) = [process for process in group if process.name() == "java"]
        java.kill()
        deadline = time.monotonic() + 30
        while server.running and time.monotonic() < deadline:
            time.sleep(0.05)
        # Nothing is left of it, not even workers.
        psutil.wait_procs(group, timeout=10)
        assert not [process for process in group if process.is_running()]
        with pytest.raises(ServingError, match="TorchServe cannot be reached at"):
            place.deployment.rollback()
        server.stop()
        server.start()
        server.wait()
        with pytest.raises(ServingError, match=r"does not have version .*: run action=restore"):
            place.deployment.rollback()
        state = place.deployment.restore()
        found = place.client.versions(NAME)
        assert {version: item.ready for version, item in found.items()} == state.workers
        assert state.workers == {"12e456789012": 2, "aaaaaaaaaaaa": 1}
        assert place.client.default(NAME) == "12e456789012"
        assert place.deployment.smoke().items == 3


def _group(pid: int) -> int:
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(pid)
    return 0
