"""Sweeps whose processes are killed at bad moments, and which others share."""

import os
import signal

import psutil
import pytest
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from fakenews.tuning.queue import is_counted
from fixtures.sweeps import FINISHED, Sweep, finished, one_runs_after

pytestmark = [
    pytest.mark.slow,
    # MLflow's own use of SQLAlchemy.
    pytest.mark.filterwarnings("ignore:The ..noload.. loader"),
]


def test_killed_sweep_goes_on_to_the_same_total_and_loses_nothing(sweep: Sweep) -> None:
    process = sweep.start("sweep.n_trials=5")
    sweep.wait_for(one_runs_after(2))
    process.kill()
    process.communicate()
    before = sweep.trials()
    (killed,) = (trial for trial in before if trial.state is TrialState.RUNNING)

    output = sweep.run("sweep.n_trials=5")
    after = sweep.trials()
    assert sum(map(is_counted, after)) == len(finished(after)) == 5
    assert finished(before).items() <= finished(after).items()
    assert after[killed.number].state is TrialState.FAIL
    again = [trial for trial in after if trial.params == killed.params]
    assert [trial.state in FINISHED for trial in again] == [False, True]
    assert "queued again" in output

    # A finished study answers, and changes nothing.
    assert "has its 5 trials" in sweep.run("sweep.n_trials=5")
    assert len(sweep.trials()) == len(after)
    # More trials are more trials, with the values that an uninterrupted sweep draws.
    sweep.run("sweep.n_trials=6")
    assert len(finished(sweep.trials())) == 6


def test_killed_worker_is_replaced(sweep: Sweep) -> None:
    process = sweep.start("sweep.n_trials=6", "sweep.workers=2")
    trials = sweep.wait_for(one_runs_after(1))
    running = next(trial for trial in trials if trial.state is TrialState.RUNNING)
    os.kill(int(running.user_attrs["worker"].split("/")[1]), signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "was killed (SIGKILL); another takes its place" in output
    after = sweep.trials()
    assert sum(map(is_counted, after)) == len(finished(after)) == 6
    workers = {trial.user_attrs["worker"] for trial in after if trial.state in FINISHED}
    assert len(workers) >= 2
    # Each had its share of the processor, and says so.
    share = max(len(os.sched_getaffinity(0)) // 2, 1)
    assert all(f"threads={share}" in trial.user_attrs["overrides"] for trial in after)


def test_workers_end_with_a_killed_sweep(sweep: Sweep) -> None:
    process = sweep.start("sweep.n_trials=30", "sweep.workers=2")
    sweep.wait_for(one_runs_after(2))
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    count = len(finished(sweep.trials())) + 2
    sweep.run(f"sweep.n_trials={count}", "sweep.workers=2")
    assert len(finished(sweep.trials())) == count


def test_two_sweeps_share_a_study(sweep: Sweep) -> None:
    both = [sweep.start("sweep.n_trials=7", "trainer.max_epochs=12") for _ in range(2)]
    for process in both:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    trials = sweep.trials()
    assert [trial.state in FINISHED for trial in trials] == [True] * 7
    assert len({trial.user_attrs["worker"] for trial in trials}) == 2
    folders = {trial.user_attrs["folder"] for trial in trials}
    assert len(folders) == 7


def test_interrupted_sweep_is_continued(sweep: Sweep) -> None:
    tracked = ("logger=mlflow", "logger.system_metrics=false")
    process = sweep.start("sweep.n_trials=3", *tracked)
    sweep.wait_for(one_runs_after(1))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert not any(trial.state is TrialState.RUNNING for trial in sweep.trials())
    client = MlflowClient(f"sqlite:///{sweep.folder}/mlflow.db")
    (experiment,) = (e for e in client.search_experiments() if e.name == "tiny")
    (parent,) = client.search_runs(
        [experiment.experiment_id], "attributes.run_name = 'tiny-random'"
    )
    assert parent.info.status == "KILLED"

    sweep.run("sweep.n_trials=3", *tracked)
    assert len(finished(sweep.trials())) == 3
    parent = client.get_run(parent.info.run_id)
    assert parent.info.status == "FINISHED"
    children = client.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    )
    statuses = [run.info.status for run in children]
    assert statuses.count("FINISHED") == 3
    # The interrupted one, if it had begun.
    assert set(statuses) <= {"FINISHED", "KILLED"}
