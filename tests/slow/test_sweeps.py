"""Sweeps with real processes: what fails, ranks, launchers, MLflow, the best again."""

import json
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from fixtures.sweeps import FINISHED, Sweep

pytestmark = [
    pytest.mark.slow,
    # MLflow's own use of SQLAlchemy.
    pytest.mark.filterwarnings("ignore:The ..noload.. loader"),
]


def test_failures_are_kept_and_stop_the_sweep_only_when_they_are_many(sweep: Sweep) -> None:
    space = ("sweep=grid", "optimizer.lr=choice(1e-4,1e30)", "model.network.dropout=0.1")
    study = "sweep.study=tiny-random"
    process = sweep.start(*space, study, "sweep.max_failure_rate=0.4")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "1 of 2 trials have failed" in output
    (failed,) = (trial for trial in sweep.trials() if trial.state is TrialState.FAIL)
    assert failed.params == {"optimizer.lr": 1e30}
    assert "not finite" in failed.user_attrs["error"]
    assert "TrainingError" in failed.user_attrs["traceback"]
    # Allowed, it goes on, and does not count the failed one twice.
    sweep.run(*space, study, "sweep.max_failure_rate=0.5")
    states = sorted(trial.state.name for trial in sweep.trials())
    assert states == ["COMPLETE", "FAIL"]


ALWAYS = (
    "sweep.pruner=none",
    "++sweep.pruner._target_=optuna.pruners.ThresholdPruner",
    "++sweep.pruner.lower=2",
)


def test_ranks_are_pruned_together(sweep: Sweep) -> None:
    sweep.run(
        "sweep.n_trials=1", "trainer=ddp", "trainer.accelerator=cpu", "sweep.ranks=2", *ALWAYS
    )
    (trial,) = sweep.trials()
    assert trial.state is TrialState.PRUNED
    assert list(trial.intermediate_values) == [1]
    assert '"state": "pruned"' in (Path(trial.user_attrs["folder"]) / "run.json").read_text()


def test_pruned_trial_is_told_apart_in_mlflow(sweep: Sweep) -> None:
    sweep.run("sweep.n_trials=2", *ALWAYS, "logger=mlflow", "logger.system_metrics=false")
    assert [trial.state for trial in sweep.trials()] == [TrialState.PRUNED] * 2
    client = MlflowClient(f"sqlite:///{sweep.folder}/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    states = sorted((run.info.status, run.data.tags.get("state")) for run in runs)
    assert states == [("FINISHED", None), ("KILLED", "pruned"), ("KILLED", "pruned")]


def test_launchers_of_hydra_work(sweep: Sweep) -> None:
    sweep.run("sweep.n_trials=3", "sweep.workers=2", "hydra/launcher=joblib")
    assert [trial.state in FINISHED for trial in sweep.trials()] == [True] * 3
    assert len({trial.user_attrs["worker"] for trial in sweep.trials()}) == 1


def test_best_configuration_gives_the_best_value_again(sweep: Sweep) -> None:
    output = sweep.run(
        "sweep.n_trials=3", "sweep.study=tiny-random", "sweep.pruner=none", "sweep.workers=2"
    )
    assert "python train.py experiment=tiny-random_best" in output
    folder = sweep.folder / "sweeps" / "tiny-random"
    assert (folder / "report.html").is_file()
    assert {path.suffix for path in (folder / "plots").iterdir()} == {".png", ".html", ".js"}
    sweep.run(
        f"hydra.searchpath=[file://{sweep.folder}/conf]",
        *("experiment=tiny-random_best", "bootstrap=10", "name=final"),
        multirun=False,
    )
    (run,) = (sweep.folder / "runs" / "final").iterdir()
    metrics = json.loads((run / "result.json").read_text())["metrics"]
    best = max(trial.values[0] for trial in sweep.trials())
    assert metrics["val"]["average_precision"] == best
