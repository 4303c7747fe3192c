"""What tests of sweeps share: a storage, a study and its queue, processes to be killed."""

import shutil
import socket
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial
from sqlalchemy import Engine, event

from fakenews.tuning.queue import TrialQueue
from fakenews.tuning.storage import open_storage, release


@pytest.fixture(autouse=True)
def unflushed() -> Iterator[None]:
    """Nothing waits for the disk: no test cuts the power."""

    def hurry(connection: object, record: object) -> None:
        del record
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", hurry)
    yield
    event.remove(Engine, "connect", hurry)


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage without studies, to be copied: its tables take half a second to make."""
    path = tmp_path_factory.mktemp("storage") / "optuna.db"
    with warnings.catch_warnings():
        release(open_storage(f"sqlite:///{path}"))
    return path


@pytest.fixture
def url(tmp_path: Path, tables: Path) -> str:
    """Of a storage in `tmp_path/optuna.db`."""
    shutil.copy(tables, tmp_path / "optuna.db")
    return f"sqlite:///{tmp_path}/optuna.db"


@pytest.fixture
def storage(url: str) -> Iterator[RDBStorage]:
    """That storage, with a heartbeat of a minute."""
    storage = open_storage(url, heartbeat=60)
    yield storage
    release(storage)


@pytest.fixture
def study(storage: RDBStorage) -> Study:
    """The study `news` in that storage, where more is better."""
    return optuna.create_study(study_name="news", storage=storage, direction="maximize")


@pytest.fixture
def make_queue(study: Study, storage: RDBStorage, tmp_path: Path) -> Callable[..., TrialQueue]:
    """Makes a queue of that study, with the folder `tmp_path/sweep`."""

    def make(
        *,
        n_trials: int = 3,
        max_failure_rate: float = 0.25,
        sampler: Callable[[int], BaseSampler] = RandomSampler,
    ) -> TrialQueue:
        return TrialQueue(
            study,
            storage,
            n_trials=n_trials,
            max_failure_rate=max_failure_rate,
            sampler=sampler,
            folder=tmp_path / "sweep",
        )

    return make


@pytest.fixture
def child() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts a Python process with its source and arguments; it does not outlive the test."""
    started: list[subprocess.Popen[str]] = []

    def start(source: str, *arguments: object) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", source, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        with process:
            pass


@pytest.fixture
def locked(url: str) -> Callable[[], AbstractContextManager[sqlite3.Connection]]:
    """While it lasts, the storage does not answer."""

    @contextmanager
    def hold() -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        try:
            yield connection
        finally:
            connection.close()

    return hold


@pytest.fixture(scope="session")
def dead() -> str:
    """Names a process of this machine that is no more, as a trial's worker is named."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return f"{socket.gethostname()}/{process.pid}/1.00"


@pytest.fixture
def claim() -> Callable[[TrialQueue], FrozenTrial]:
    """Claims a trial, which has one parameter."""

    def found(queue: TrialQueue) -> FrozenTrial:
        trial = queue.claim(lambda trial: [f"x={trial.suggest_float('x', 0, 1)}"])
        assert trial is not None
        return trial

    return found


@pytest.fixture
def kill(dead: str) -> Callable[[TrialQueue, FrozenTrial], None]:
    """Leaves of a trial what is left when its process was killed, and has that found."""

    def killed(queue: TrialQueue, trial: FrozenTrial) -> None:
        queue.storage.set_trial_user_attr(trial._trial_id, "worker", dead)
        queue.queue_killed_again()

    return killed
