"""The gate as a whole, with real bundles."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from fakenews.bundle import read_bundle, write_bundle
from fakenews.errors import BundleError, ConfigError, DataError, RetrainingError
from fakenews.evaluation.metrics import Sample
from fakenews.retraining.gate import Scored, gate, statistical_checks
from fakenews.retraining.gate_policy import GatePolicy
from fakenews.retraining.gate_verdict import GateVerdict, Outcome, State
from fakenews.retraining.paired import Pair

# Two twins differ by little, and what is measured here is no speed.
POLICY = GatePolicy(
    resamples=500, behaviour_rows=60, latency_batches=10, latency_ratio=5, min_minority=10
)


@pytest.fixture(scope="session")
def test_set(texts: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "test.parquet"
    texts.to_parquet(path)
    return path


@pytest.fixture
def bundles(champion: Path, twin: Path) -> tuple[Path, Path]:
    return champion, twin


def outcome(verdict: GateVerdict, key: str) -> Outcome:
    return next(check.outcome for check in verdict.checks if check.key == key)


def test_a_twin_is_accepted_and_every_number_is_told(
    champion: Path,
    twin: Path,
    test_set: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "verdict"
    verdict = gate(
        champion=champion,
        challenger=twin,
        test=test_set,
        window=test_set,
        policy=POLICY,
        out=out,
    )
    assert verdict.accepted, verdict.reason
    assert verdict.exit_status == 0
    assert sorted(path.name for path in out.iterdir()) == ["gate.html", "gate.json"]

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    content = json.loads((out / "gate.json").read_text(), parse_constant=refuse)
    assert content["accepted"] is True
    assert content["state"] == "accepted"
    checks = {check["key"]: check for check in content["checks"]}
    assert checks.keys() >= {
        "test.rows",
        "test.unseen",
        "test.average_precision",
        "test.macro_f1",
        "test.minority_recall",
        "test.brier",
        "test.recall_floor",
        "test.slices",
        "test.artefacts",
        "window.average_precision",
        "window.slices",
        "behaviour.invariance",
        "behaviour.directions",
        "latency",
    }
    assert "window.recall_floor" not in checks
    assert all(check["message"] for check in checks.values())
    found = checks["test.average_precision"]["numbers"]
    assert found["lower"] < found["gain"] < found["upper"]
    assert checks["behaviour.directions"]["passed"] is None
    assert content["rows"]["test"]["rows"] == 500
    assert content["champion"]["sha256"] != content["challenger"]["sha256"]
    assert content["policy"]["wrong_acceptance"] == 0.05
    page = (out / "gate.html").read_text()
    assert "The challenger may replace the champion" in page
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("http-equiv", "")
    assert "accepted: " in capsys.readouterr().out


def test_one_that_is_worse_is_refused_and_told_why(
    champion: Path, worse: Path, test_set: Path, tmp_path: Path
) -> None:
    verdict = gate(
        champion=champion, challenger=worse, test=test_set, policy=POLICY, out=tmp_path
    )
    assert verdict.state is State.REFUSED
    assert verdict.exit_status == 2
    assert verdict.reason.startswith("refused: average precision on the test set: ")
    assert outcome(verdict, "test.macro_f1") is Outcome.FAILED
    assert "\n" not in verdict.reason
    page = (tmp_path / "gate.html").read_text()
    assert "The champion stays" in page
    assert not any(check.key.startswith("window") for check in verdict.checks)


def test_a_worse_champion_is_no_veto(
    champion: Path, worse: Path, test_set: Path, tmp_path: Path
) -> None:
    verdict = gate(
        champion=worse, challenger=champion, test=test_set, policy=POLICY, out=tmp_path
    )
    assert outcome(verdict, "test.recall_floor") is Outcome.PASSED
    assert outcome(verdict, "test.artefacts") is Outcome.PASSED
    metrics = [check for check in verdict.checks if "margin_borne" in check.numbers]
    assert {check.outcome for check in metrics} == {Outcome.PASSED}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (slice(0, 30), "the test set has 30 rows"),
        ("real", "all are of one class"),
    ],
)
def test_a_test_set_that_tells_nothing_leaves_it_undecided(
    rows: slice | str,
    said: str,
    texts: pd.DataFrame,
    bundles: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    champion, twin = bundles
    some = texts[rows] if isinstance(rows, slice) else texts[texts["label"] == rows]
    some.to_csv(tmp_path / "few.csv", index=False)
    verdict = gate(
        champion=champion,
        challenger=twin,
        test=tmp_path / "few.csv",
        policy=POLICY,
        out=tmp_path / "out",
    )
    assert verdict.state is State.UNDECIDED
    assert verdict.exit_status == 2
    assert said in verdict.reason
    assert "too few rows to tell" in (tmp_path / "out" / "gate.html").read_text()


def test_rows_that_cannot_tell_the_margin_say_how_many_could(
    champion: Path, variant: Callable[..., Path], texts: pd.DataFrame, tmp_path: Path
) -> None:
    texts[:120].to_csv(tmp_path / "few.csv", index=False)
    margins = POLICY.margins | {"macro_f1": 0.001}
    policy = replace(POLICY, margins=margins, seed_sd=dict.fromkeys(margins, 0.0))
    verdict = gate(
        champion=champion,
        challenger=variant(noise=0.3),
        test=tmp_path / "few.csv",
        policy=policy,
        out=tmp_path / "out",
    )
    found = next(check for check in verdict.checks if check.key == "test.macro_f1")
    assert found.outcome is Outcome.UNDECIDED
    assert found.numbers["rows_needed"] > 1000
    assert f"{found.numbers['rows_needed']:,}" in verdict.reason


def test_a_window_of_one_class_is_left_out(
    champion: Path, twin: Path, test_set: Path, texts: pd.DataFrame, tmp_path: Path
) -> None:
    texts[texts["label"] == "real"].to_csv(tmp_path / "window.csv", index=False)
    verdict = gate(
        champion=champion,
        challenger=twin,
        test=test_set,
        window=tmp_path / "window.csv",
        policy=POLICY,
        out=tmp_path / "out",
    )
    assert verdict.accepted, verdict.reason
    assert outcome(verdict, "window.rows") is Outcome.SKIPPED
    assert not any(check.key == "window.average_precision" for check in verdict.checks)


def test_the_same_bundle_twice(champion: Path, test_set: Path, tmp_path: Path) -> None:
    with pytest.raises(RetrainingError, match="predict with the same files: give two bundles"):
        gate(champion=champion, challenger=champion, test=test_set, policy=POLICY, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_classes(
    champion: Path, columns_bundle: Path, test_set: Path, tmp_path: Path
) -> None:
    with pytest.raises(RetrainingError, match="the champion's classes are 'fake', 'real', the"):
        gate(
            champion=champion,
            challenger=columns_bundle,
            test=test_set,
            policy=POLICY,
            out=tmp_path,
        )


def test_another_positive_class(
    champion: Path, variant: Callable[..., Path], test_set: Path, tmp_path: Path
) -> None:
    calibration = read_bundle(champion).calibration | {"positive": "real"}
    other = variant(noise=0.01, calibration=calibration)
    with pytest.raises(RetrainingError, match=r"train with data\.positive=fake"):
        gate(champion=champion, challenger=other, test=test_set, policy=POLICY, out=tmp_path)


def test_a_damaged_bundle(
    champion: Path, variant: Callable[..., Path], test_set: Path, tmp_path: Path
) -> None:
    damaged = variant(noise=0.03)
    (damaged / "labels.json").write_text("{}")
    with pytest.raises(BundleError, match=r"labels\.json was changed after"):
        gate(champion=champion, challenger=damaged, test=test_set, policy=POLICY, out=tmp_path)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("headline,label\nRain,fake\n", "no column 'text'"),
        ("text,label\nRain,maybe\nSnow,fake\n", "1 of 2 rows have a label that is no class"),
        ("text,label\n", "no rows"),
    ],
)
def test_rows_that_cannot_be_used(
    table: str, said: str, champion: Path, twin: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(table)
    with pytest.raises((DataError, ConfigError), match=said):
        gate(champion=champion, challenger=twin, test=path, policy=POLICY, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_columns_that_a_bundle_needs(columns_bundle: Path, tmp_path: Path) -> None:
    content = read_bundle(columns_bundle)
    calibration = content.calibration | {"temperature": 3.0}
    other = write_bundle(replace(content, calibration=calibration), tmp_path / "other")
    path = tmp_path / "rows.csv"
    path.write_text("text,label\nRain,yes\n")
    with pytest.raises(DataError, match="no column 'age'"):
        gate(champion=columns_bundle, challenger=other, test=path, policy=POLICY, out=tmp_path)


def test_a_phrase_about_a_class_that_there_is_not(
    champion: Path, twin: Path, test_set: Path, tmp_path: Path
) -> None:
    phrase = {"phrase": "officials say", "place": "end", "label": "true", "never": "lower"}
    policy = replace(POLICY, directions=[phrase])
    with pytest.raises(ConfigError, match=r"policy\.directions\[0\]\.label=true: the classes"):
        gate(champion=champion, challenger=twin, test=test_set, policy=policy, out=tmp_path)


def test_a_folder_that_cannot_be_written(
    champion: Path, twin: Path, test_set: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(RetrainingError, match="out is no folder that can be written"):
        gate(
            champion=champion,
            challenger=twin,
            test=test_set,
            policy=POLICY,
            out=tmp_path / "out",
        )


def test_more_than_two_classes_and_no_threshold() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(3, p=[0.6, 0.3, 0.1], size=900).astype(np.int64)
    classes = ["a", "b", "c"]
    odds = 2.5 * np.eye(3)[labels] + rng.normal(size=(900, 3))

    def sample(odds: np.ndarray) -> Sample:
        return Sample.of(
            softmax(odds, axis=1), labels, classes=classes, positive="c", threshold=None
        )

    outcomes = {}
    for name, challenger in (
        ("twin", odds + 0.2 * rng.normal(size=(900, 3))),
        ("worse", 0.3 * odds + rng.normal(size=(900, 3))),
    ):
        pair = Pair(
            labels=labels,
            groups=np.arange(900),
            champion=sample(odds),
            challenger=sample(challenger),
            minority=2,
        )
        masks = {"half": np.arange(900) < 450}
        scored = Scored(pair=pair, masks=masks, format_scores=rng.random(900))
        checks = statistical_checks({"test": scored}, POLICY)
        outcomes[name] = {check.key: check.outcome for check in checks}
    assert set(outcomes["twin"].values()) == {Outcome.PASSED}
    assert outcomes["worse"]["test.average_precision"] is Outcome.FAILED
    assert outcomes["worse"]["test.slices"] is Outcome.FAILED
