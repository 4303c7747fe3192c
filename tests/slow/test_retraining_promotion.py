"""Promotions to a real TorchServe, under load, by processes that are killed on the way."""

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import mlflow
import pytest
from mlflow.tracking import MlflowClient

from fakenews.errors import ServingError
from fakenews.retraining.halves import Halves
from fakenews.retraining.journal import JOURNAL, Journal
from fakenews.retraining.promotion import Promotion
from fakenews.retraining.registry import Registry
from fakenews.retraining.served import How, Serving
from fakenews.retraining.standing import Aliases, Gate
from fakenews.serving.archive import Made
from fakenews.serving.deployment import Deployment
from fakenews.serving.management import Management
from fakenews.serving.state import read_state
from fakenews.serving.torchserve import Settings, TorchServe
from fakenews.serving.versions import Timing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("forked_workers"),
    pytest.mark.filterwarnings("ignore:The ..noload.. loader"),
]

NAME, MODEL = "fakenews", "news"
TIMING = Timing(settle=0.3, deadline=1.5, poll=0.1)

# Reads lines that say what to promote, and where to stop. For each, a process of its own does
# it, and is killed before the so-manieth of what it does. Prints how each process ended, and
# before what.
PROMOTER = """
import json, os, signal, sys, traceback
from pathlib import Path
from fakenews.retraining.halves import Halves
from fakenews.retraining.journal import Journal
from fakenews.retraining.promotion import Promotion
from fakenews.retraining.registry import Registry
from fakenews.retraining.served import How, Serving
from fakenews.serving.archive import Made
from fakenews.serving.deployment import Deployment
from fakenews.serving.keys import Keys
from fakenews.serving.management import Management
from fakenews.serving.steps import Steps
from fakenews.serving.versions import Timing, Versions

passed = 0

def killing(of, name, point):
    original = getattr(of, name)
    def counted(*arguments, **named):
        global passed
        if passed == point:
            print(-signal.SIGKILL, f"{of.__name__}.{name}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1
        return original(*arguments, **named)
    setattr(of, name, counted)

def promote(given):
    folder = Path(given["folder"])
    for of, names in (
        (Journal, ("write", "clear")), (Registry, ("tag", "_set")),
        (Versions, ("start", "set_default", "end")), (Steps, ("change", "tidy")),
    ):
        for name in names:
            killing(of, name, given["point"])
    keys = Keys(Path(given["keys"]), address=given["management"])
    addresses = {"management": given["management"], "inference": given["inference"]}
    with Management(**addresses, keys=keys) as client:
        serving = Serving(
            folder=folder,
            deployment=lambda *, confirm=None: Deployment(
                folder=folder, name="fakenews", client=client,
                timing=Timing(**given["timing"]), confirm=confirm,
            ),
            export=lambda version: Made(
                path=Path(given["archives"][str(version)]), version=f"v{version}", new=False
            ),
            archives=folder,
        )
        registry = Registry(uri=given["uri"], model="news")
        halves = Halves(registry=registry, serving=serving, journal=Journal(folder))
        promotion = Promotion(halves)
        if given["action"] == "promote":
            how = How(canary_seconds=0.5, share=0.5)
            promotion.promote(given["version"], how=how)
        else:
            promotion.rollback()

for line in sys.stdin:
    if pid := os.fork():
        os.waitpid(pid, 0)
        print("gone", flush=True)
        continue
    try:
        promote(json.loads(line))
        print(0, "the end", flush=True)
    except BaseException:
        traceback.print_exc()
        print(1, "an error", flush=True)
    os._exit(0)
"""


@dataclass
class Load:
    """Requests sent where the state says, as the gateway does."""

    folder: Path
    settings: Settings
    answered: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        keys = self.settings.keys(self.folder)
        with httpx.Client(trust_env=False) as client:
            while not self.ending.is_set():
                # Read each time: it is never older than a request.
                version = read_state(self.folder, name=NAME).champion
                answer = client.post(
                    f"{self.settings.inference_address}/predictions/{NAME}/{version}",
                    json={"text": "Hello"},
                    headers={"authorization": f"Bearer {keys.inference()}"},
                    timeout=10,
                )
                if answer.status_code != 200:
                    self.failed.append(f"{answer.status_code} {answer.text}")
                else:
                    self.answered[str(answer.json()["model_version"])] += 1


@contextmanager
def load(folder: Path, settings: Settings) -> Iterator[Load]:
    found = Load(folder, settings)
    thread = threading.Thread(target=found.run)
    thread.start()
    try:
        yield found
    finally:
        found.ending.set()
        thread.join()


@dataclass(frozen=True, kw_only=True)
class Place:
    folder: Path
    settings: Settings
    client: Management
    archives: dict[int, Path]
    uri: str
    promoter: "subprocess.Popen[str]"

    @property
    def serving(self) -> Serving:
        def deployment(*, confirm: Callable[[], None] | None = None) -> Deployment:
            return Deployment(
                folder=self.folder,
                name=NAME,
                client=self.client,
                timing=TIMING,
                confirm=confirm,
            )

        def export(version: int) -> Made:
            return Made(path=self.archives[version], version=f"v{version}", new=False)

        return Serving(
            folder=self.folder, deployment=deployment, export=export, archives=self.folder
        )

    @property
    def registry(self) -> Registry:
        return Registry(uri=self.uri, model=MODEL)

    @property
    def promotion(self) -> Promotion:
        journal = Journal(self.folder)
        return Promotion(Halves(registry=self.registry, serving=self.serving, journal=journal))

    def killed(self, action: str, version: int | None, point: int) -> str | None:
        """Do it in a process that is killed at a point: before what, or None if it ended."""
        given = {
            "folder": str(self.folder),
            "uri": self.uri,
            "keys": str(self.folder / "torchserve" / "key_file.json"),
            "management": self.settings.management_address,
            "inference": self.settings.inference_address,
            "archives": {str(number): str(path) for number, path in self.archives.items()},
            "timing": {"settle": 0.3, "deadline": 1.5, "poll": 0.1},
            "action": action,
            "version": version,
            "point": point,
        }
        assert self.promoter.stdin is not None
        assert self.promoter.stdout is not None
        print(json.dumps(given), file=self.promoter.stdin, flush=True)
        status, before = self.promoter.stdout.readline().strip().split(maxsplit=1)
        assert int(status) in (0, -signal.SIGKILL)
        assert self.promoter.stdout.readline() == "gone\n"
        return before if int(status) else None

    def both(self) -> tuple[Aliases, str | None, set[str]]:
        """Who is what, what is champion, and what TorchServe has."""
        versions = {name for name, of in self.client.versions(NAME).items() if of.ready}
        return self.registry.aliases(), self.serving.state.champion, versions


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
    make_settings: Callable[..., Settings],
    make_archive: Callable[..., Path],
) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("deployment")
    uri = f"sqlite:///{folder}/mlflow.db"
    before = mlflow.get_tracking_uri()
    client = MlflowClient(uri)
    client.create_registered_model(MODEL)
    for number in (1, 2, 3):
        client.create_model_version(MODEL, source=f"{folder}/x", await_creation_for=None)
        Registry(uri=uri, model=MODEL).note_gate(number, Gate(accepted=True, summary="all"))
    settings = make_settings()
    with (
        TorchServe(folder=folder, settings=settings),
        settings.client(folder) as management,
        subprocess.Popen(
            [sys.executable, "-c", PROMOTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as promoter,
    ):
        yield Place(
            folder=folder,
            settings=settings,
            client=management,
            archives={number: make_archive(f"v{number}") for number in (1, 2, 3)},
            uri=uri,
            promoter=promoter,
        )
    mlflow.set_tracking_uri(before)


def test_a_life_under_load(place: Place) -> None:
    promotion = place.promotion
    promotion.promote(1)
    with load(place.folder, place.settings) as seen:
        assert promotion.promote(2, how=How(shadow_seconds=0.5, canary_seconds=0.5))
        assert place.both() == (Aliases(champion=2, previous=1), "v2", {"v2"})
        assert promotion.challenge(3, how=How(share=0.5))
        assert place.both()[0] == Aliases(champion=2, challenger=3, previous=1)
        assert promotion.promote()
        assert place.both() == (Aliases(champion=3, previous=2), "v3", {"v3"})
        assert promotion.rollback()
        assert place.both() == (Aliases(champion=2, previous=3), "v2", {"v2"})
    assert seen.failed == []
    assert {"v1", "v2", "v3"} == seen.answered.keys()


@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_a_process_killed_at_any_point(place: Place, action: str) -> None:
    ends: list[tuple[str, str]] = []
    place.promotion.promote(1)
    for point in range(40):
        # To where version 1 is champion, or 2 in its place; unless all was taken back.
        place.promotion.promote(1 if action == "promote" else 2)
        start = place.both()
        with load(place.folder, place.settings) as seen:
            at = place.killed(action, 2 if action == "promote" else None, point)
            # The next command: it says nothing but who is what, after it has put that right.
            with place.promotion._halves.alone("restore"):
                pass
        assert seen.failed == []
        assert not (place.folder / JOURNAL).exists()
        found = place.both()
        champion = f"v{found[0].champion}"
        assert found[1:] == (champion, {champion})
        ends.append((at or "the end", "taken back" if found == start else "finished"))
        if at is None:
            break
    print(*ends, sep="\n")  # noqa: T201
    told = [end for _, end in ends]
    assert told == sorted(told, reverse=True)
    assert set(told) == {"taken back", "finished"}
    assert ends[-1] == ("the end", "finished")


def test_a_torchserve_that_is_gone(place: Place) -> None:
    place.promotion.promote(1)
    before = place.both()
    with Management(
        management="http://127.0.0.1:1",
        inference="http://127.0.0.1:1",
        keys=place.settings.keys(place.folder),
    ) as client:
        gone = replace(place, client=client).promotion
        with pytest.raises(ServingError, match="TorchServe cannot be reached at"):
            gone.promote(2)
    assert place.both() == before
    assert not (place.folder / JOURNAL).exists()
