"""Both halves of a promotion change, or neither: whatever fails, and wherever it is killed."""

import os
import shutil
import signal
import sqlite3
import traceback
from collections.abc import Callable
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from fakenews.errors import RetrainingError, ServingError, TrackingError
from fakenews.retraining.halves import Halves
from fakenews.retraining.journal import JOURNAL, Journal
from fakenews.retraining.promotion import Promotion
from fakenews.retraining.registry import Registry
from fakenews.retraining.served import How, Serving
from fakenews.retraining.standing import Aliases
from fakenews.serving.state import change_state

pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader")

Look = Callable[[], dict[str, Any]]
TRIAL = How(share=0.3)

Story = tuple[Callable[[Promotion], object], Callable[[Promotion], object]]

STORIES: dict[str, Story] = {
    "first": (lambda _: None, lambda found: found.promote(1)),
    "promote": (
        lambda found: (found.promote(1), found.promote(2)),
        lambda found: found.promote(3, how=How(canary_seconds=0.001)),
    ),
    "promote a canary": (
        lambda found: (found.promote(1), found.promote(2), found.challenge(3, how=TRIAL)),
        lambda found: found.promote(),
    ),
    "challenge": (
        lambda found: (found.promote(1), found.promote(2)),
        lambda found: found.challenge(3, how=TRIAL),
    ),
    "end a trial": (
        lambda found: (found.promote(1), found.challenge(2, how=TRIAL)),
        lambda found: found.rollback(),
    ),
    "roll back": (
        lambda found: (found.promote(1), found.promote(2)),
        lambda found: found.rollback(),
    ),
}
EACH = pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)


@EACH
def test_a_registry_that_fails_leaves_both_as_they_were(
    promotion: Promotion, look: Look, tmp_path: Path, stand_in: Any, story: Story
) -> None:
    before, step = story
    before(promotion)
    found, models = look(), dict(stand_in.models)
    # It can be read, and not be written.
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        for what in ("insert", "update", "delete"):
            other.execute(
                f"create trigger no_{what} before {what} on registered_model_aliases "
                "begin select raise(abort, 'no more'); end"
            )
        other.commit()
        with pytest.raises(TrackingError, match="does not take our data"):
            step(promotion)
        for what in ("insert", "update", "delete"):
            other.execute(f"drop trigger no_{what}")
        other.commit()
    assert look() == found
    assert stand_in.models.keys() == models.keys()
    assert not (tmp_path / JOURNAL).exists()
    # Nothing is in the way of another attempt.
    step(promotion)
    assert look() != found


@EACH
def test_serving_that_fails_leaves_the_registry_as_it_was(
    promotion: Promotion, look: Look, tmp_path: Path, stand_in: Any, story: Story
) -> None:
    before, step = story
    before(promotion)
    start = look()
    failed = 0
    for number in range(100):
        seen: list[str] = []

        def fail(_: str, path: str, seen: list[str] = seen, number: int = number) -> Any:
            seen.append(path)
            return 400 if len(seen) == number + 1 else None

        stand_in.fail = fail
        try:
            step(promotion)
        except ServingError:
            failed += 1
            stand_in.fail = lambda method, path: None
            assert not (tmp_path / JOURNAL).exists()
            if look() != start:
                break  # both are done, and what is left over in TorchServe is told
        else:
            break
    else:
        pytest.fail("it never succeeds")
    assert failed >= 1
    done = look()
    assert done["aliases"] != start["aliases"]
    assert done["state"] != start["state"]


def test_what_is_stopped_before_it_has_tidied_up_is_finished_by_the_next(
    promotion: Promotion,
    look: Look,
    tmp_path: Path,
    stand_in: Any,
) -> None:
    promotion.promote(1)
    promotion.promote(2)
    old = look()["state"].champion

    def interrupt(*_: object) -> None:
        # Ctrl-C, once another version answers and the old one is still there.
        if look()["state"].champion != old:
            stand_in.fail = lambda method, path: None
            os.kill(os.getpid(), signal.SIGINT)

    stand_in.fail = interrupt
    with pytest.raises(KeyboardInterrupt):
        promotion.promote(3)
    done = look()
    assert done["aliases"].champion == 3
    assert stand_in.models[old]["workers"]
    assert (tmp_path / JOURNAL).exists()
    assert not promotion.promote(3)  # the champion already
    assert not (tmp_path / JOURNAL).exists()
    assert look() == done
    assert old not in stand_in.models


def test_a_registry_that_cannot_be_asked_any_more(
    promotion: Promotion,
    look: Look,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = promotion._halves.registry
    promotion.promote(1)
    before = look()
    original = registry._set

    def dies(client: Any, alias: Any, holder: int | None) -> None:
        original(client, alias, holder)  # it has done it, and then nobody hears of it
        monkeypatch.setattr(registry, "_aliases", dead)
        monkeypatch.setattr(registry, "_set", dead)
        raise OSError("the line is dead")

    def dead(*_: object) -> None:
        raise OSError("the line is dead")

    monkeypatch.setattr(registry, "_set", dies)
    with pytest.raises(TrackingError, match="the line is dead"):
        promotion.promote(2)
    assert "registry and serving may differ: the next command" in caplog.text
    assert (tmp_path / JOURNAL).exists()
    with pytest.raises(TrackingError, match="the line is dead"):
        promotion.rollback()
    assert (tmp_path / JOURNAL).exists()
    monkeypatch.undo()
    with pytest.raises(RetrainingError, match="there is no previous version"):
        promotion.rollback()
    assert "action=promote of version 2 was cut off after" in caplog.text
    assert "it is taken back now" in caplog.text
    assert look() == before


def test_aliases_that_somebody_moves_meanwhile(
    promotion: Promotion, registry: Registry, serving: Serving, stand_in: Any, tmp_path: Path
) -> None:
    promotion.promote(1)
    state = serving.state

    def at_the_last_moment(_: str, path: str) -> None:
        if path.endswith("/v2/set-default"):
            registry.promote(3)

    stand_in.fail = at_the_last_moment
    with pytest.raises(RetrainingError, match="were moved by somebody else meanwhile"):
        promotion.promote(2)
    assert registry.aliases() == Aliases(champion=3, previous=1)
    assert serving.state.but(events=()) == state.but(events=())
    assert "promoted" not in registry.status().find(2).tags
    assert not (tmp_path / JOURNAL).exists()


def test_serving_that_somebody_changes_meanwhile(
    promotion: Promotion,
    registry: Registry,
    serving: Serving,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    promotion.promote(1)
    promotion.challenge(2, how=TRIAL)
    # After it was looked at: the canary is given up, and another one promoted by hand.
    original = Journal.write

    def late(journal: Journal, entry: Any) -> None:
        original(journal, entry)
        change_state(tmp_path, name="fakenews", change=lambda state: state.but(canary=None))

    monkeypatch.setattr(Journal, "write", late)
    with pytest.raises(ServingError, match="there is no canary to promote"):
        promotion.promote(2)
    assert registry.aliases() == Aliases(champion=1, challenger=2)
    assert serving.state.champion == "v1"


def test_two_at_once(promotion: Promotion, alone: Promotion, tmp_path: Path) -> None:
    with (
        Journal(tmp_path).held("rollback"),
        pytest.raises(
            RetrainingError,
            match=r"another promotion is under way in .*: action=rollback of process",
        ),
    ):
        promotion.promote(1)
    alone.promote(1)


def test_what_was_begun_elsewhere_is_told(
    promotion: Promotion,
    alone: Promotion,
    tmp_path: Path,
    uri: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Journal, "clear", lambda journal: None)
    promotion.promote(1)
    with pytest.raises(RetrainingError, match=r"with name=news and serving=torchserve$"):
        alone.promote(2)
    other = Registry(uri=uri, model="other")
    with pytest.raises(RetrainingError, match="action=promote of news was cut off, as"):
        Promotion(Halves(registry=other, serving=None, journal=Journal(tmp_path))).rollback()
    monkeypatch.undo()
    assert not promotion.promote(1)
    (tmp_path / JOURNAL).write_text('{"format": 2}')
    with pytest.raises(RetrainingError, match="cannot be read: look with action=status at"):
        promotion.promote(2)


def test_what_cannot_be_ended_is_told_once(
    promotion: Promotion, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    promotion.promote(1)
    monkeypatch.setattr(Journal, "clear", lambda journal: None)
    promotion.promote(2)
    monkeypatch.undo()
    registry.promote(3)
    with pytest.raises(RetrainingError, match="was cut off, and cannot be ended: the aliases"):
        promotion.promote(3)
    assert promotion.promote(3)


QUICK = ("end a trial",)

# What a promotion does, one by one; it may be killed before any of them.
POINTS = (
    "fakenews.retraining.journal.Journal.write",
    "fakenews.retraining.journal.Journal.clear",
    "fakenews.retraining.registry.Registry.tag",
    "fakenews.retraining.registry.Registry._set",
    "fakenews.serving.versions.Versions.start",
    "fakenews.serving.versions.Versions.set_default",
    "fakenews.serving.versions.Versions.end",
    "fakenews.serving.steps.Steps.change",
    "fakenews.serving.steps.Steps.tidy",
)


def killed(step: Callable[[], object], point: int, patch: pytest.MonkeyPatch) -> bool:
    """Run a step in a process that is killed at a point; whether it was, or has ended."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert status in (0, signal.SIGKILL), status
        return status != 0
    passed = 0

    def counting(original: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal passed
            if passed == point:
                os.kill(os.getpid(), signal.SIGKILL)
            passed += 1
            return original(*arguments, **named)

        return counted

    try:
        for name in POINTS:
            owner, _, attribute = name.rpartition(".")
            module, _, kind = owner.rpartition(".")
            of = getattr(__import__(module, fromlist=[kind]), kind)
            patch.setattr(of, attribute, counting(getattr(of, attribute)))
        step()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(1)


class Again:
    """Everything as it was at some time, as often as that is wanted."""

    def __init__(self, folder: Path, stand_in: Any, serving: Serving, copy: Path) -> None:
        self._folder, self._stand_in, self._serving = folder, stand_in, serving
        self._copy = copy
        self._models, self._default = deepcopy(stand_in.models), stand_in.default
        shutil.copytree(folder, copy)
        self._times = 0

    def __call__(self) -> Promotion:
        self._stand_in.models, self._stand_in.default = deepcopy(self._models), self._default
        for path in (self._stand_in.store, self._folder / "state.json"):
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            source = self._copy / path.name
            if source.is_dir():
                shutil.copytree(source, path)
            elif source.exists():
                shutil.copy(source, path)
        # Not the file that connections are open to.
        self._times += 1
        store = shutil.copy(self._copy / "mlflow.db", self._folder / f"{self._times}.db")
        registry = Registry(uri=f"sqlite:///{store}", model="news", timeout=1)
        journal = Journal(self._folder)
        return Promotion(Halves(registry=registry, serving=self._serving, journal=journal))


@pytest.fixture
def again(
    tmp_path: Path, stand_in: Any, serving: Serving, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Again]:
    copy = tmp_path_factory.mktemp("copy") / "copy"
    return lambda: Again(tmp_path, stand_in, serving, copy)


@pytest.mark.parametrize(
    "story",
    # Each of many points takes a process, so the others are for when there is time.
    [
        pytest.param(story, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, story in STORIES.items()
    ],
)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork")
def test_what_is_killed_at_any_point_is_finished_or_taken_back(
    promotion: Promotion,
    again: Callable[[], Again],
    stand_in: Any,
    monkeypatch: pytest.MonkeyPatch,
    story: Story,
) -> None:
    def look(of: Promotion) -> tuple[Any, ...]:
        halves = of._halves
        assert halves.serving is not None
        state = halves.serving.state.but(events=(), aborted=None)
        aliases = halves.registry.aliases()
        files = sorted(path.name for path in stand_in.store.iterdir())
        models = {version: model["workers"] for version, model in stand_in.models.items()}
        assert (models, stand_in.default) == (state.workers, state.champion)
        # When it was added is another time.
        plain = state.model_dump(exclude={"versions": {"__all__": {"added"}}})
        return aliases, plain, files

    before, step = story
    before(promotion)
    make = again()
    start = look(make())
    reference = make()
    step(reference)
    end = look(reference)
    assert (start[0], start[1]) != (end[0], end[1])
    ends = []
    for point in range(100):
        fresh = make()
        was_killed = killed(lambda fresh=fresh: step(fresh), point, monkeypatch)
        with fresh._halves.alone("restore"):
            pass  # what each command does first
        assert fresh._halves._journal.read() is None
        found = look(fresh)
        if found == start:
            # Nothing is in the way of another attempt.
            step(fresh)
            assert look(fresh) == end
        else:
            assert found[:2] == end[:2]
        ends.append("taken back" if found == start else "finished")
        if not was_killed:
            break
    # Up to some point everything is taken back, and after it everything is finished.
    assert ends == sorted(ends, reverse=True)
    assert set(ends) >= {"finished"}
    assert len(ends) > 5
