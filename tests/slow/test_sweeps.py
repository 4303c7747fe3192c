"""Sweeps with real processes, killed at bad moments, on SQLite and PostgreSQL."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import optuna
import psutil
import pytest
from mlflow.tracking import MlflowClient
from optuna.trial import FrozenTrial, TrialState

from fakenews.tuning.queue import has_failed, is_counted, why_failed
from fakenews.tuning.storage import open_storage, release
from fixtures.commands import Commands, Started

pytestmark = [
    pytest.mark.slow,
    # MLflow's own use of SQLAlchemy.
    pytest.mark.filterwarnings("ignore:The ..noload.. loader"),
]

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class Sweep:
    """A sweep of a small model, as a user starts it, and what its study says."""

    def __init__(self, folder: Path, command: Commands) -> None:
        self.folder = folder
        self.command = command
        self.storage = f"sqlite:///{folder}/optuna.db"
        self.processes: list[Started] = []

    def start(self, *arguments: str, multirun: bool = True) -> Started:
        process = self.command.start(
            "train.py",
            *(["-m", "sweep=random", f"sweep.storage={self.storage}"] if multirun else []),
            "name=tiny",
            "data.fetch.rows=300",
            "encoder=tiny",
            "features=headline",
            "logger=none",
            "trainer.max_epochs=2",
            f"paths.root={self.folder}",
            f"paths.cache={self.folder}/cache",
            *arguments,
            cwd=self.folder,
        )
        self.processes.append(process)
        return process

    def run(self, *arguments: str, multirun: bool = True) -> str:
        process = self.start(*arguments, multirun=multirun)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        return output

    def trials(self) -> list[FrozenTrial]:
        storage = open_storage(self.storage, must_exist=True)
        try:
            study = optuna.load_study(study_name="tiny-random", storage=storage)
            return study.get_trials(deepcopy=False)
        finally:
            release(storage)

    def wait_for(self, condition: Callable[[list[FrozenTrial]], bool]) -> list[FrozenTrial]:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            try:
                trials = self.trials()
            except Exception:  # noqa: BLE001 there is no study yet
                trials = []
            if condition(trials):
                return trials
            running = [process for process in self.processes if process.poll() is None]
            assert running, [process.communicate()[0] for process in self.processes]
            time.sleep(0.25)  # a look takes a sixth of that
        raise AssertionError("it did not happen")


@pytest.fixture
def sweep(tmp_path: Path, command: Commands) -> Iterator[Sweep]:
    found = Sweep(tmp_path, command)
    yield found
    for process in found.processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


def finished(trials: Sequence[FrozenTrial]) -> dict[int, tuple[TrialState, list[float]]]:
    return {
        trial.number: (trial.state, trial.values) for trial in trials if trial.state in FINISHED
    }


def one_runs_after(count: int) -> Callable[[list[FrozenTrial]], bool]:
    def condition(trials: list[FrozenTrial]) -> bool:
        running = [trial for trial in trials if trial.state is TrialState.RUNNING]
        begun = any("overrides" in trial.user_attrs for trial in running)
        return len(finished(trials)) >= count and begun

    return condition


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


@pytest.fixture
def postgres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["Postgres"]:
    # Where Debian has them.
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    monkeypatch.setenv("PATH", os.pathsep.join([os.environ["PATH"], *map(str, folders)]))
    if shutil.which("initdb") is None:
        pytest.skip("PostgreSQL is not installed")
    server = Postgres(tmp_path / "postgres")
    yield server
    server.kill()


class Postgres:
    """A real server, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.port = _free_port()
        # It refuses to run as root.
        self.user: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
            for parent in folder.parents:
                if not parent.stat().st_mode & 0o001:
                    parent.chmod(parent.stat().st_mode | 0o011)
            self.user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        self._run("initdb", "-D", str(folder / "data"), "-U", "sweep", "-A", "trust", "-N")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://sweep@127.0.0.1:{self.port}/postgres"

    def _run(self, *command: str) -> None:
        subprocess.run([*self.user, *command], check=True, capture_output=True, cwd=self.folder)

    def start(self) -> None:
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [
                *(*self.user, "postgres", "-D", str(self.folder / "data")),
                *("-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder)),
            ],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            ready = subprocess.run(
                ["pg_isready", "-h", "127.0.0.1", "-p", str(self.port)],
                check=False,
                capture_output=True,
            )
            if ready.returncode == 0:
                return
            time.sleep(0.1)
        raise AssertionError("PostgreSQL does not start")

    def kill(self) -> None:
        assert self.process is not None
        main = psutil.Process(self.process.pid)
        processes = [main, *main.children(recursive=True)] if main.is_running() else []
        for process in processes:
            # One that served a connection may have ended meanwhile.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def test_sweep_survives_its_database(sweep: Sweep, postgres: Postgres) -> None:
    sweep.storage = postgres.url
    process = sweep.start("sweep.n_trials=6", "sweep.workers=2")
    before = sweep.wait_for(one_runs_after(2))
    postgres.kill()
    time.sleep(4)
    assert process.poll() is None
    postgres.start()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    after = sweep.trials()
    assert not [why_failed(trial) for trial in after if has_failed(trial)]
    assert sum(map(is_counted, after)) == len(finished(after)) == 6
    assert finished(before).items() <= finished(after).items()


def test_wrong_password_and_lost_database_are_one_line(
    sweep: Sweep, postgres: Postgres
) -> None:
    sweep.storage = postgres.url.replace("sweep@", "nobody@")
    process = sweep.start("sweep.n_trials=1")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'role "nobody" does not exist' in output
    assert "Traceback" not in output


def test_storage_of_postgres_is_made_by_many_at_once(postgres: Postgres) -> None:
    code = "import sys; from fakenews.tuning.storage import open_storage as o; o(sys.argv[1])"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, postgres.url], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    storage = open_storage(postgres.url)
    try:
        assert storage.get_all_studies() == []
    finally:
        release(storage)
