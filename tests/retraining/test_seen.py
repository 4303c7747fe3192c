"""Whether a bundle may have learnt from the rows that it is judged on."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from fakenews.bundle import sha256
from fakenews.retraining.contestants import Contestant, Rows
from fakenews.retraining.gate_policy import GatePolicy
from fakenews.retraining.gate_verdict import Outcome
from fakenews.retraining.seen import seen_check

POLICY = GatePolicy()


def trained_from(path: Path, digest: str, *, test: Path | None = None) -> dict:
    files = [{"path": str(path), "sha256": digest, "bytes": 9}]
    if test is not None:
        digest = sha256(test) if test.exists() else "1"
        files = [one for one in files if one["path"] != str(test)]
        files.append({"path": str(test), "sha256": digest, "bytes": 9})
    data = {"text": "text", "test_path": None if test is None else str(test)}
    return {"config": {"data": data}, "data": {"files": files}}


def prepared(role: str, path: Path) -> dict:
    digest = sha256(path) if role == "train" else "1"
    return {"role": role, "path": str(path), "sha256": digest, "bytes": 9}


@pytest.fixture
def provenances(rows: Rows, texts: pd.DataFrame, tmp_path: Path) -> dict[str, dict]:
    """What a challenger was trained from, by what that has to do with the rows."""
    (file,) = rows.files
    train = tmp_path / "train.csv"
    texts[100:300].to_csv(train, index=False)
    return {
        "file": trained_from(Path(file.path), file.sha256, test=tmp_path / "elsewhere.csv"),
        "texts": trained_from(train, sha256(train), test=tmp_path / "elsewhere.csv"),
        "drawn": trained_from(Path(file.path), file.sha256),
        "own test": trained_from(Path(file.path), file.sha256, test=Path(file.path)),
        "prepared": {
            "data": {
                "inputs": [prepared("train", train), prepared("test", train)],
                "settings": {"text": "text"},
            }
        },
        "gone": trained_from(tmp_path / "gone.csv", "0", test=tmp_path / "elsewhere.csv"),
    }


@pytest.mark.parametrize("how", ["file", "texts", "drawn", "own test", "prepared", "gone"])
def test_rows_that_a_challenger_has_learnt_from(
    how: str,
    provenances: dict[str, dict],
    sides: tuple[Contestant, Contestant],
    rows: Rows,
    variant: Callable[..., Path],
) -> None:
    challenger = Contestant.load(variant(noise=0.03, provenance=provenances[how]))
    check, notices = seen_check("test", rows, sides[0], challenger, POLICY)
    trained = {"file": 150, "texts": 50, "prepared": 50}.get(how, 0)
    assert check.numbers["challenger_trained"] == pytest.approx(trained, abs=5)
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
