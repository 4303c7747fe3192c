"""Steps, and each of their failures, against a stand-in; with TorchServe: tests/slow."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakenews.errors import Interrupted, ServingError
from fakenews.serving.deployment import Deployment
from fakenews.serving.management import Management
from fakenews.serving.state import State, abort_canary, change_state
from fakenews.serving.steps import deploying
from fakenews.serving.versions import Timing

NAME = "fakenews"
TIMING = Timing(settle=0, deadline=0, poll=0.001)


@pytest.fixture
def deployment(tmp_path: Path, client: Management) -> Deployment:
    return Deployment(folder=tmp_path, name=NAME, client=client, timing=TIMING)


@pytest.fixture(scope="session")
def mars(make_mar: Callable[..., Path]) -> dict[str, Path]:
    return {version: make_mar(version) for version in "abc"}


def _all(stand_in: Any, deployment: Deployment) -> tuple[Any, ...]:
    """All that a step may change."""
    models = {version: model["workers"] for version, model in stand_in.models.items()}
    files = sorted(path.name for path in stand_in.store.iterdir())
    return deployment.state.but(events=()), models, stand_in.default, files


def _roles(state: State) -> tuple[str | None, str | None, str | None]:
    return state.champion, state.previous, state.canary.version if state.canary else None


def test_a_life(stand_in: Any, deployment: Deployment, mars: dict[str, Path]) -> None:
    assert _roles(deployment.deploy(mars["a"])) == ("a", None, None)
    assert _roles(deployment.deploy(mars["b"], workers=2)) == ("b", "a", None)
    assert (stand_in.models.keys(), stand_in.default) == ({"b"}, "b")
    assert deployment.state.workers == {"b": 2}
    assert _roles(deployment.canary(mars["c"], share=0.2)) == ("b", "a", "c")
    assert deployment.canary(None, share=0.5).canary.share == 0.5  # type: ignore[union-attr]
    assert _roles(deployment.promote(keep_previous=True)) == ("c", "b", None)
    assert stand_in.models.keys() == {"b", "c"}
    assert _roles(deployment.rollback()) == ("b", None, None)
    assert deployment.state.workers == {"b": 1}
    assert deployment.smoke().items == 2
    assert deployment.scale(3).workers == {"b": 3}
    assert _roles(deployment.undeploy()) == (None, None, None)
    assert stand_in.models == {}
    assert list(stand_in.store.iterdir()) == []
    assert [event.action for event in deployment.state.events] == [
        *("deploy", "deploy", "canary", "canary", "promote", "rollback", "scale", "undeploy")
    ]


def test_each_step_may_be_asked_for_again(
    stand_in: Any, deployment: Deployment, mars: dict[str, Path]
) -> None:
    steps: list[Callable[[], State]] = [
        lambda: deployment.deploy(mars["a"]),
        lambda: deployment.deploy(mars["b"]),
        lambda: deployment.scale(2),
        lambda: deployment.canary(mars["c"], share=0.2),
        deployment.promote,
        deployment.rollback,
        deployment.undeploy,
    ]
    for step in steps:
        step()
        before = _all(stand_in, deployment)
        step()
        assert _all(stand_in, deployment) == before


Steps = dict[str, tuple[str, Callable[[Deployment, dict[str, Path]], object]]]

STEPS: Steps = {
    "first": ("", lambda deployment, mars: deployment.deploy(mars["a"])),
    "deploy": (
        "a",
        lambda deployment, mars: deployment.deploy(
            mars["c"], shadow_seconds=0.001, canary_seconds=0.001
        ),
    ),
    "deploy and keep": (
        "ab",
        lambda deployment, mars: deployment.deploy(mars["c"], keep_previous=True),
    ),
    "canary": ("a", lambda deployment, mars: deployment.canary(mars["c"], share=0.5)),
    "scale": ("ab", lambda deployment, mars: deployment.scale(3)),
    "rollback": ("ab", lambda deployment, mars: deployment.rollback()),
    "promote": ("a, b", lambda deployment, mars: deployment.promote()),
}


@pytest.mark.parametrize("name", STEPS)
def test_wherever_a_step_fails_all_is_as_it_was_or_as_it_should_be(
    name: str, stand_in: Any, deployment: Deployment, mars: dict[str, Path]
) -> None:
    deployed, step = STEPS[name]
    first, _, on_trial = deployed.partition(", ")
    for version in first:
        deployment.deploy(mars[version])
    if on_trial:
        deployment.canary(mars[on_trial], share=0.5)
    before = _all(stand_in, deployment)
    failed = 0
    for number in range(200):
        stand_in.fail = _once(number)
        try:
            step(deployment, mars)
        except ServingError as error:
            failed += 1
            after = _all(stand_in, deployment)
            told = str(error)
            assert "\n" not in told
            if "run action=restore" in told:
                # The champion is the new one; what is left over goes.
                assert after[0].champion != before[0].champion
                stand_in.fail = lambda method, path: None
                assert deployment.restore().workers == after[0].workers
                found = {
                    version: model["workers"] for version, model in stand_in.models.items()
                }
                assert found == after[0].workers
                assert stand_in.default == after[0].champion
                return
            assert after == before, told
        else:
            break
    else:
        pytest.fail("it never succeeds")
    assert failed > 3


def _once(number: int) -> Callable[[str, str], int | None]:
    """Fail one request, the one after so many."""
    seen: list[str] = []

    def fail(method: str, path: str) -> int | None:
        seen.append(f"{method} {path}")
        return 400 if len(seen) == number + 1 else None

    return fail


def test_what_cannot_be_taken_back_is_told(
    stand_in: Any, deployment: Deployment, mars: dict[str, Path]
) -> None:
    deployment.deploy(mars["a"])
    before = deployment.state
    stand_in.fail = lambda method, path: (
        400 if "/c" in path or len(stand_in.asked) > 15 else None
    )
    with pytest.raises(
        ServingError, match=r"it could not be taken back \(.*\): run action=rest"
    ):
        deployment.deploy(mars["c"])
    stand_in.fail = lambda method, path: None
    assert deployment.restore().but(events=()) == before.but(events=())
    assert stand_in.models.keys() == {"a"}


def test_what_is_stopped_is_taken_back(
    stand_in: Any, deployment: Deployment, mars: dict[str, Path], caplog: Any
) -> None:
    deployment.deploy(mars["a"])
    before = _all(stand_in, deployment)

    original = deployment.versions.start

    def start(version: str, *arguments: Any) -> int:
        workers = original(version, *arguments)
        if version == "b":
            raise Interrupted("terminated", status=143)
        return workers

    deployment.versions.start = start  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        deployment.deploy(mars["b"])
    assert _all(stand_in, deployment) == before
    assert "deploy was stopped; everything is as it was before" in caplog.text


def test_a_canary_given_up_at_the_last_moment_is_not_deployed(
    tmp_path: Path, stand_in: Any, deployment: Deployment, mars: dict[str, Path]
) -> None:
    deployment.deploy(mars["a"])
    deployment.canary(mars["b"], share=0.5)

    def at_the_last_moment(method: str, path: str) -> int | None:
        if f"{method} {path}".endswith("/b/set-default"):
            abort_canary(tmp_path, "slow")
        return None

    stand_in.fail = at_the_last_moment
    with pytest.raises(ServingError, match="the gateway gave up the canary b: slow"):
        deployment.promote()
    state = deployment.state
    assert (_roles(state), stand_in.default) == (("a", None, None), "a")
    assert state.aborted is not None
    assert state.aborted.version == "b"
    # It may be tried again, which forgets why it was given up.
    stand_in.fail = lambda method, path: None
    assert deployment.canary(mars["b"], share=0.5).aborted is None
    assert deployment.promote().champion == "b"


def test_a_canary_given_up_while_another_step_fails_stays_so(
    tmp_path: Path, stand_in: Any, deployment: Deployment, mars: dict[str, Path]
) -> None:
    deployment.deploy(mars["a"])
    deployment.canary(mars["b"], share=0.5)

    def give_up(method: str, path: str) -> int | None:
        scaled = f"{method} {path}" == "PUT /models/fakenews/a"
        return 400 if scaled and abort_canary(tmp_path, "slow") else None

    stand_in.fail = give_up
    with pytest.raises(ServingError, match="everything is as it was"):
        deployment.scale(2)
    assert deployment.state.canary is None
    assert deployment.state.workers == {"a": 1, "b": 1}


@pytest.mark.parametrize("number", range(4))
def test_a_step_that_is_not_confirmed_is_taken_back(
    tmp_path: Path, client: Management, stand_in: Any, mars: dict[str, Path], number: int
) -> None:
    asked: list[str | None] = []

    def make(confirm: Callable[[], None] | None = None) -> Deployment:
        return Deployment(
            folder=tmp_path, name=NAME, client=client, timing=TIMING, confirm=confirm
        )

    def refuse() -> None:
        asked.append(make().state.champion)
        raise ConnectionError("no")

    plain = make()
    plain.deploy(mars["a"])
    plain.deploy(mars["b"])
    if number in (1, 2):
        plain.canary(mars["c"], share=0.5)
    steps: list[tuple[Callable[[Deployment], object], str]] = [
        (lambda found: found.deploy(mars["c"]), "c"),
        (lambda found: found.promote(), "c"),
        (lambda found: found.rollback(), "b"),  # the end of a trial
        (lambda found: found.rollback(), "a"),
    ]
    step, champion = steps[number]
    before = _all(stand_in, plain)
    with pytest.raises(ConnectionError):
        step(make(refuse))
    # It was asked when the gateway had the new champion already.
    assert asked == [champion]
    assert _all(stand_in, plain) == before
    step(make(lambda: asked.append("yes")))
    assert asked == [champion, "yes"]
    assert plain.state.champion == champion


def test_mistakes_change_nothing_and_leave_no_trace(
    deployment: Deployment, mars: dict[str, Path]
) -> None:
    mistakes: list[tuple[Callable[[], object], str]] = [
        (deployment.promote, "there is no canary to promote"),
        (deployment.rollback, "there is no previous version"),
        (lambda: deployment.scale(2), "nothing is deployed"),
        (deployment.smoke, "nothing is deployed"),
        (lambda: deployment.canary(None, share=0.5), "there is no canary"),
        (lambda: deployment.canary(mars["b"], share=0.5), "nothing is deployed to compare"),
        (lambda: deployment.undeploy("z"), "version z is not deployed: there are none"),
        (lambda: deployment.scale(2, "z"), "version z is not registered: there are none"),
    ]
    for call, reason in mistakes:
        with pytest.raises(ServingError, match=reason) as caught:
            call()
        assert "as it was" not in str(caught.value)
    deployment.deploy(mars["a"])
    deployment.canary(mars["b"], share=0.5)
    before = deployment.state
    mistakes = [
        (lambda: deployment.canary(mars["a"], share=0.5), "version b is on trial"),
        (lambda: deployment.deploy(mars["c"]), "version b is on trial"),
        (lambda: deployment.undeploy("a"), "version a is the champion"),
        (lambda: deployment.deploy(mars["a"].with_name("none.mar")), "does not exist"),
    ]
    for call, reason in mistakes:
        with pytest.raises(ServingError, match=reason):
            call()
    assert deployment.state == before
    deployment.rollback()
    with pytest.raises(
        ServingError, match="version a is the champion: there is nothing to try"
    ):
        deployment.canary(mars["a"], share=0.5)


def test_a_torchserve_that_lacks_what_is_deployed_is_restored_first(
    stand_in: Any, deployment: Deployment, mars: dict[str, Path]
) -> None:
    deployment.deploy(mars["a"])
    stand_in.models.clear()
    with pytest.raises(ServingError, match="does not have version a, which the state says"):
        deployment.deploy(mars["b"])
    # Nor are strays left.
    state = deployment.restore()
    assert stand_in.models.keys() == state.workers.keys() == {"a"}
    (stand_in.store / "fakenews-a.mar").unlink()
    assert deployment.restore() == state
    stand_in.models.clear()
    shutil.rmtree(stand_in.store)
    stand_in.store.mkdir()
    with pytest.raises(ServingError, match=r"fakenews-a\.mar is missing: copy it back"):
        deployment.restore()
    assert deployment.undeploy().champion is None


def test_strays_of_a_killed_step_go_with_the_next(
    tmp_path: Path, stand_in: Any, deployment: Deployment, mars: dict[str, Path]
) -> None:
    deployment.deploy(mars["a"])
    deployment.canary(mars["b"], share=0.5)
    change_state(tmp_path, name=NAME, change=lambda state: state.but(canary=None))
    deployment.deploy(mars["c"])
    assert stand_in.models.keys() == {"c"}
    files = sorted(path.name for path in stand_in.store.iterdir())
    assert files == ["fakenews-a", "fakenews-a.mar", "fakenews-c", "fakenews-c.mar"]


def test_restore_waits_for_a_step_if_it_is_told_to(
    tmp_path: Path, deployment: Deployment, mars: dict[str, Path]
) -> None:
    deployment.deploy(mars["a"])
    begun = threading.Event()

    def hold() -> None:
        with deploying(tmp_path, "deploy"):
            begun.set()
            time.sleep(0.2)

    other = threading.Thread(target=hold)
    other.start()
    begun.wait()
    with pytest.raises(ServingError, match="another deployment is under way"):
        deployment.restore()
    assert deployment.restore(patience=30).champion == "a"
    other.join()


def test_the_folder_of_another_model(
    tmp_path: Path, client: Management, deployment: Deployment, mars: dict[str, Path]
) -> None:
    deployment.deploy(mars["a"])
    other = Deployment(folder=tmp_path, name="other", client=client, timing=TIMING)
    with pytest.raises(ServingError, match=r"is the deployment of fakenews: give serve\.name="):
        other.rollback()
