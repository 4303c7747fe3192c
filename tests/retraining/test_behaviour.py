"""What must not move a decision, and what must not move it the wrong way."""

import numpy as np
import pytest

from fakenews.retraining.behaviour import Trial, behaviour_check, directions, invariance
from fakenews.retraining.contestants import Contestant, Rows
from fakenews.retraining.gate_policy import GatePolicy
from fakenews.retraining.gate_verdict import Outcome

POLICY = GatePolicy(behaviour_rows=60)


def trial(champion: float, challenger: float, *, texts: int = 200) -> Trial:
    place = np.arange(texts) / texts
    return Trial(
        name="number",
        champion=place < champion,
        challenger=place < challenger,
        examples=["Rain at 5"],
    )


@pytest.mark.parametrize(
    ("champion", "challenger", "outcome"),
    [
        (0.0, 0.0, Outcome.PASSED),
        (0.3, 0.3, Outcome.PASSED),  # no worse than the champion
        (0.0, 0.08, Outcome.PASSED),  # borne in any case
        (0.2, 0.24, Outcome.PASSED),  # not surely more
        (0.0, 0.3, Outcome.FAILED),
        (0.3, 0.6, Outcome.FAILED),
        (0.6, 0.3, Outcome.PASSED),
    ],
)
def test_a_challenger_is_held_against_the_champion(
    champion: float, challenger: float, outcome: Outcome
) -> None:
    check = behaviour_check("invariance", [trial(champion, challenger)], POLICY, otherwise="")
    assert check.outcome is outcome
    (line,) = check.numbers["tests"]
    assert (line["champion"], line["challenger"]) == (champion, challenger)
    assert line["examples"] == ["Rain at 5"]


def test_no_trials_decide_nothing() -> None:
    check = behaviour_check("directions", [], POLICY, otherwise="there are none")
    assert check.outcome is Outcome.SKIPPED
    assert check.message == "directions: there are none"


def test_texts_are_changed_and_both_are_asked(
    sides: tuple[Contestant, Contestant], rows: Rows
) -> None:
    trials = {one.name: one for one in invariance(rows, *sides, POLICY)}
    assert {"whitespace", "punctuation", "casing", "entity"} <= trials.keys()
    # Cleaning takes spaces away before a model sees them.
    assert not trials["whitespace"].champion.any()
    assert 20 <= len(trials["entity"].champion) == len(trials["entity"].challenger) <= 60
    again = {one.name: one for one in invariance(rows, *sides, POLICY)}
    assert all((again[name].challenger == one.challenger).all() for name, one in trials.items())


def test_a_phrase_that_moves_a_probability_the_wrong_way(
    sides: tuple[Contestant, Contestant], rows: Rows
) -> None:
    phrase = "BREAKING!!! 100% 100% 100%"
    shares = {}
    for never in ("lower", "higher"):
        policy = GatePolicy(
            behaviour_rows=60,
            tolerance=0.0,
            directions=[{"phrase": phrase, "place": "end", "label": "fake", "never": never}],
        )
        (found,) = directions(rows, *sides, policy)
        assert phrase in found.name
        shares[never] = found.champion.mean()
    # What is not lower is higher, or as it was.
    assert shares["lower"] + shares["higher"] == pytest.approx(1, abs=0.02)
