"""The benchmark of the gate: models of known quality, shares of verdicts, a short run."""

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fakenews.bundle import read_bundle, write_bundle
from fakenews.data.sample import generate
from fakenews.retraining.gate_policy import METRICS
from fakenews.retraining.gate_verdict import Check, Outcome

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def models(modules: Any) -> Any:
    found = modules("gate_models")
    found._MANY = 20_000
    return found


@pytest.mark.parametrize("metric", METRICS)
def test_a_worse_model_is_worse_by_what_was_asked(models: Any, metric: str) -> None:
    world = models.World(rows=300, rate=0.2, skill=2.0, shared=0.9)
    champion = world.truth(models.Model(skill=2.0))
    found = world.truth(world.worse(metric, 0.05))
    loss = champion[metric] - found[metric]
    assert abs(loss) == pytest.approx(0.05, abs=0.01)
    assert (loss < 0) == (metric == "brier")


def test_two_models_agree_as_much_as_is_asked(models: Any) -> None:
    world = models.World(rows=20_000, rate=0.3, skill=2.0, shared=0.9)
    model = models.Model(skill=2.0)
    scored = world.draw(np.random.default_rng(0), model, model)
    odds = [
        np.log(one.probabilities[:, 1] / one.probabilities[:, 0])
        for one in (scored.pair.champion, scored.pair.challenger)
    ]
    for code in (0, 1):
        of_class = scored.pair.labels == code
        shared = np.corrcoef(odds[0][of_class], odds[1][of_class])[0, 1]
        assert shared == pytest.approx(0.9, abs=0.01)


def check(key: str, outcome: Outcome) -> Check:
    numbers = {"margin": 0.1, "margin_borne": 0.2}
    return Check(key=key, outcome=outcome, message="", numbers=numbers)


def test_shares_of_verdicts(modules: Any) -> None:
    gate = modules("gate")
    good = [check("test.brier", Outcome.PASSED), check("test.macro_f1", Outcome.SKIPPED)]
    bad = [check("test.brier", Outcome.PASSED), check("test.macro_f1", Outcome.FAILED)]
    unsure = [check("test.brier", Outcome.UNDECIDED)]
    found = gate.summary([good, good, bad, unsure], "brier")
    assert [found[name] for name in ("accepted", "refused", "undecided")] == [0.5, 0.25, 0.25]
    assert found["own_check_passed"] == 0.75
    assert found["not_passed"] == {"test.macro_f1": 0.25, "test.brier": 0.25}
    assert found["margins"]["test.brier"] == 0.1


def test_real_bundles(
    modules: Any,
    fusion_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = read_bundle(fusion_bundle)
    calibration = content.calibration | {"temperature": 2.0}
    other = write_bundle(replace(content, calibration=calibration), tmp_path / "other")
    rows = pd.concat(list(generate(200, seed=3)), ignore_index=True)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    modules("gate").main(
        [
            *("--runs", str(fusion_bundle), str(other), "--test", str(tmp_path / "rows.csv")),
            *("--rows", "120", "--draws", "2", "--resamples", "500"),
            *("--json", str(tmp_path / "found.json")),
        ]
    )
    found = json.loads((tmp_path / "found.json").read_text())
    assert [line["draws"] for line in found] == [2, 2]
    assert "measured: policy.seed_sd=" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("models")
def test_a_short_simulation(modules: Any, tmp_path: Path) -> None:
    gate = modules("gate")
    gate._PILOT = 1
    gate.main(
        [
            *("--rows", "200", "--rates", "0.3", "--draws", "2", "--resamples", "500"),
            *("--workers", "1", "--window", "200", "--json", str(tmp_path / "found.json")),
        ]
    )
    found = json.loads((tmp_path / "found.json").read_text())
    kinds = [line["challenger"].partition(":")[0] for line in found]
    assert kinds == ["equal", "retrained", *["worse"] * 4, "much worse", "better"]
    assert all(line["accepted"] + line["refused"] + line["undecided"] == 1 for line in found)
