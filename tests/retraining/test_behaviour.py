"""What must not move a decision, and what must not move it the wrong way."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fakenews.retraining.behaviour import Trial, behaviour_check, directions, invariance
from fakenews.retraining.contestants import Contestant, Rows, read_rows
from fakenews.retraining.gate_policy import GatePolicy
from fakenews.retraining.gate_verdict import Outcome
from fakenews.retraining.seen import seen_check
from fakenews.retraining.speed import latency_check

POLICY = GatePolicy(behaviour_rows=60, latency_batches=10)


@pytest.fixture(scope="module")
def sides(champion: Path, twin: Path) -> tuple[Contestant, Contestant]:
    return Contestant.load(champion), Contestant.load(twin)


@pytest.fixture(scope="module")
def rows(
    sides: tuple[Contestant, Contestant],
    texts: pd.DataFrame,
    tmp_path_factory: pytest.TempPathFactory,
) -> Rows:
    path = tmp_path_factory.mktemp("rows") / "test.csv"
    texts[:150].to_csv(path, index=False)
    return read_rows(path, champion=sides[0], challenger=sides[1], name="test")


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
            directions=[
                {"phrase": phrase, "place": "end", "label": "fake", "never": never}
            ],
        )
        (found,) = directions(rows, *sides, policy)
        assert phrase in found.name
        shares[never] = found.champion.mean()
    # What is not lower is higher, or as it was.
    assert shares["lower"] + shares["higher"] == pytest.approx(1, abs=0.02)


def test_latency_is_that_of_the_same_batches(
    sides: tuple[Contestant, Contestant], rows: Rows
) -> None:
    check = latency_check(rows, *sides, GatePolicy(latency_batches=10, latency_ratio=20))
    assert check.outcome is Outcome.PASSED
    assert check.numbers["lower"] <= check.numbers["ratio"]
    assert check.numbers["champion_ms"] > 0
    slow = latency_check(rows, *sides, GatePolicy(latency_batches=10, latency_ratio=0.01))
    assert slow.outcome is Outcome.FAILED


def trained_from(path: Path, digest: str, **data: str) -> dict:
    return {
        "config": {"data": {"text": "text", **data}},
        "data": {"files": [{"path": str(path), "sha256": digest, "bytes": 9}]},
    }


@pytest.mark.parametrize("how", ["file", "texts", "drawn", "own test", "gone"])
def test_rows_that_a_challenger_has_learnt_from(
    how: str,
    sides: tuple[Contestant, Contestant],
    rows: Rows,
    variant: Callable[..., Path],
    tmp_path: Path,
    texts: pd.DataFrame,
) -> None:
    (file,) = rows.files
    train = tmp_path / "train.csv"
    texts[100:300].to_csv(train, index=False)
    from fakenews.bundle import sha256

    provenance = {
        "file": trained_from(Path(file.path), file.sha256, test_path="elsewhere"),
        "texts": trained_from(train, sha256(train), test_path="elsewhere"),
        "drawn": trained_from(Path(file.path), file.sha256),
        "own test": trained_from(Path(file.path), file.sha256, test_path=file.path),
        "gone": trained_from(tmp_path / "gone.csv", "0", test_path="elsewhere"),
    }[how]
    challenger = Contestant.load(variant(noise=0.03, provenance=provenance))
    check, notices = seen_check("test", rows, sides[0], challenger, POLICY)
    trained = {"file": 150, "texts": 50}.get(how, 0)
    assert check.numbers["challenger_trained"] == pytest.approx(trained, abs=2)
    assert check.outcome is (Outcome.FAILED if trained else Outcome.PASSED)
    noted = {"drawn": "drawn from", "gone": "not there"}.get(how)
    assert any(noted in notice for notice in notices) if noted else not notices


def test_rows_of_the_validation_split_are_noted(
    sides: tuple[Contestant, Contestant], rows: Rows, variant: Callable[..., Path]
) -> None:
    tokens = sides[0].predictor.tokens(rows.frame[:7])
    reference = {"input_ids": tokens.input_ids, "offsets": tokens.offsets}
    challenger = Contestant.load(variant(noise=0.03, reference=reference))
    check, notices = seen_check("window", rows, sides[0], challenger, POLICY)
    assert check.outcome is Outcome.PASSED
    assert check.numbers["challenger_validated"] >= 7
    assert check.numbers["champion_validated"] == 0
    assert "of its validation split" in notices[0]
