"""Versions are promoted, tried and taken back: a real store, and a stand-in for TorchServe."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakenews.errors import RetrainingError, ServingError
from fakenews.retraining.journal import JOURNAL
from fakenews.retraining.promotion import Promotion
from fakenews.retraining.registry import Registry
from fakenews.retraining.served import How, Serving
from fakenews.retraining.standing import Aliases, Gate
from fakenews.serving.state import State, abort_canary

pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader")

Look = Callable[[], dict[str, Any]]
TRIAL = How(share=0.3)


def roles(state: State) -> tuple[str | None, str | None, str | None]:
    return state.champion, state.previous, state.canary.version if state.canary else None


def test_a_life(
    promotion: Promotion,
    serving: Serving,
    stand_in: Any,
    tmp_path: Path,
    exports: list[int],
) -> None:
    registry = promotion._halves.registry

    def now() -> tuple[Any, ...]:
        assert not (tmp_path / JOURNAL).exists()
        assert stand_in.models.keys() == serving.state.workers.keys()
        aliases = registry.aliases()
        return (aliases.champion, aliases.challenger, aliases.previous), roles(serving.state)

    assert promotion.promote(1)
    assert now() == ((1, None, None), ("v1", None, None))
    assert promotion.challenge(2)
    assert now() == ((1, 2, None), ("v1", None, None))
    assert promotion.challenge(2, how=TRIAL)
    assert now() == ((1, 2, None), ("v1", None, "v2"))
    assert promotion.promote()
    assert now() == ((2, None, 1), ("v2", "v1", None))
    # What is on trial is not exported again.
    assert exports == [1, 2]
    assert promotion.promote(3, how=How(canary_seconds=0.001, keep_previous=True))
    assert now() == ((3, None, 2), ("v3", "v2", None))
    assert serving.state.workers == {"v2": 1, "v3": 1}
    assert promotion.rollback()
    assert now() == ((2, None, 3), ("v2", None, None))
    tags = registry.status().find(3).tags
    assert {"archive", "promoted", "rolled_back"} <= tags.keys()
    assert "forced" not in tags
    # It can be promoted again, and then it is not one that was taken back.
    assert promotion.promote(3)
    assert now() == ((3, None, 2), ("v3", "v2", None))
    assert "rolled_back" not in registry.status().find(3).tags


def test_each_may_be_asked_for_twice(
    promotion: Promotion, look: Look, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    promotion.promote(1)
    steps: list[tuple[Callable[[], bool], str]] = [
        (lambda: promotion.promote(2), "version 2 is the champion already"),
        (lambda: promotion.challenge(3), "version 3 is the challenger already"),
        (lambda: promotion.rollback(2), "version 2 is neither champion nor challenger: there"),
        (promotion.rollback, "version 2 was taken back already, and 1 is the champion"),
        (lambda: promotion.rollback(3), "version 3 is neither champion nor challenger: there"),
    ]
    for number, (step, told) in enumerate(steps):
        # The fourth is what the third did, asked for in another way.
        assert step() is (number != 3)
        before = look()
        caplog.clear()
        assert step() is False
        assert told in caplog.text
        assert look() == before


def test_a_trial_is_taken_back(
    promotion: Promotion, registry: Registry, serving: Serving
) -> None:
    promotion.promote(1)
    promotion.promote(2)
    promotion.challenge(3, how=TRIAL)
    with pytest.raises(RetrainingError, match="archive v3 is on trial: take that back first"):
        promotion.rollback(2)
    assert promotion.rollback(3)
    assert (registry.aliases(), roles(serving.state)) == (
        Aliases(champion=2, previous=1),
        ("v2", "v1", None),
    )
    assert "rolled_back" in registry.status().find(3).tags
    # Asked for again it does not take back another.
    assert not promotion.rollback(3)
    promotion.challenge(3, how=TRIAL)
    assert promotion.rollback()
    assert roles(serving.state) == ("v2", "v1", None)


def test_a_trial_that_no_version_has(
    promotion: Promotion, serving: Serving, make_mar: Callable[..., Path], look: Look
) -> None:
    promotion.promote(1)
    before = look()
    serving.deployment().canary(make_mar("stranger"), share=0.5)
    with pytest.raises(ServingError, match="version stranger is on trial: end that"):
        promotion.promote(2)
    assert promotion.rollback()
    assert look() == before


def test_what_the_gateway_gave_up_is_not_promoted(
    promotion: Promotion, registry: Registry, tmp_path: Path, look: Look
) -> None:
    promotion.promote(1)
    promotion.challenge(2, how=TRIAL)
    abort_canary(tmp_path, "too slow")
    before = look()
    with pytest.raises(
        RetrainingError, match=r"gave up its trial: too slow; try it again with"
    ):
        promotion.promote(2)
    assert look() == before
    assert promotion.promote(2, force=True)
    assert registry.aliases() == Aliases(champion=2, previous=1)
    forced = registry.status().find(2).tags["forced"]
    assert forced.endswith("Z, though the gateway gave up its trial: too slow")


def test_what_the_gate_has_not_accepted_is_not_promoted(
    promotion: Promotion, registry: Registry, look: Look
) -> None:
    promotion.promote(1)
    before = look()
    with pytest.raises(RetrainingError, match="version 4 may not answer: the gate was not ask"):
        promotion.promote(4)
    with pytest.raises(RetrainingError, match="version 4 may not answer: the gate was not ask"):
        promotion.challenge(4, how=TRIAL)
    assert look() == before
    refused = Gate(accepted=False, summary="failed: recall")
    with pytest.raises(
        RetrainingError, match=r"the gate has it refused \(failed: recall\); gi"
    ):
        promotion.promote(4, gate=refused)
    # What the gate has said is known then.
    assert registry.status().find(4).gate == refused
    # Who only wants to answer need not be accepted.
    assert promotion.challenge(4)
    assert promotion.promote(force=True)
    tags = registry.status().find(4).tags
    assert tags["forced"].endswith("though the gate has it refused (failed: recall)")
    assert promotion.rollback()
    assert promotion.promote(4, gate=Gate(accepted=True, summary="all"))
    assert "forced" not in registry.status().find(4).tags


def test_a_verdict_is_of_one_version_and_one_champion(
    alone: Promotion, registry: Registry
) -> None:
    runs = {number: of.run for number, of in registry.status().versions.items()}
    alone.promote(1)

    def verdict(run: int, against: int) -> Gate:
        return Gate(accepted=True, summary="all", run=runs[run], against=runs[against])

    with pytest.raises(RetrainingError, match=r"version 4 is of run \w+: give its own verdict"):
        alone.promote(4, gate=verdict(3, 1))
    assert registry.status().find(4).gate is None
    alone.challenge(4, gate=verdict(4, 1))
    alone.promote(2)
    with pytest.raises(
        RetrainingError, match="has not compared it with the champion, version 2"
    ):
        alone.promote(4)
    assert registry.aliases().champion == 2
    assert alone.promote(4, gate=verdict(4, 2))


def test_a_verdict_is_noted_at_a_challenger(alone: Promotion, registry: Registry) -> None:
    accepted = Gate(accepted=True, summary="all")
    assert alone.challenge(4, gate=accepted)
    assert registry.status().find(4).gate == accepted


def test_there_must_be_somebody(promotion: Promotion, look: Look) -> None:
    before = look()
    mistakes: list[tuple[Callable[[], object], str]] = [
        (promotion.promote, "news has no challenger: give version=N, or propose one with"),
        (promotion.rollback, "there is no previous version to go back to"),
        (lambda: promotion.promote(9), "version=9: news has no such version"),
        (lambda: promotion.rollback(9), "version=9: news has no such version"),
        (lambda: promotion.challenge(9), "version=9: news has no such version"),
    ]
    for mistake, message in mistakes:
        with pytest.raises(RetrainingError, match=message):
            mistake()
    assert look() == before


def test_the_registry_alone(alone: Promotion, registry: Registry, tmp_path: Path) -> None:
    assert alone.promote(1)
    assert not alone.promote(1)
    assert alone.challenge(2)
    assert alone.promote()
    assert registry.aliases() == Aliases(champion=2, previous=1)
    assert alone.rollback()
    assert not alone.rollback()
    assert registry.aliases() == Aliases(champion=1, previous=2)
    assert alone.challenge(3)
    assert alone.rollback(3)
    assert registry.aliases() == Aliases(champion=1, previous=2)
    assert not (tmp_path / "state.json").exists()


def test_what_is_champion_and_not_served_is_served(
    promotion: Promotion, alone: Promotion, registry: Registry, serving: Serving
) -> None:
    alone.promote(1)
    alone.promote(2)
    assert promotion.promote(2)
    assert roles(serving.state) == ("v2", None, None)
    assert registry.aliases() == Aliases(champion=2, previous=1)
    # The deployment has no version before, so that one is made.
    assert promotion.rollback()
    assert roles(serving.state) == ("v1", "v2", None)
    assert registry.aliases() == Aliases(champion=1, previous=2)


def test_what_is_served_already_becomes_champion(
    promotion: Promotion, registry: Registry, serving: Serving, make_mar: Callable[..., Path]
) -> None:
    serving.deployment().deploy(make_mar("v1"))
    before = serving.state
    assert promotion.promote(1)
    assert (registry.aliases(), serving.state) == (Aliases(champion=1), before)


def test_a_rollback_takes_the_archive_that_served(
    promotion: Promotion, serving: Serving, make_mar: Callable[..., Path], exports: list[int]
) -> None:
    promotion.promote(1)
    promotion.promote(2)
    # Serving has gone elsewhere meanwhile, and has forgotten.
    serving.deployment().deploy(make_mar("x"))
    serving.deployment().deploy(make_mar("y"))
    assert promotion.rollback()
    assert roles(serving.state) == ("v1", "y", None)
    assert exports == [1, 2]
