"""Storages: what is refused in one line, and processes that must not disturb each other."""

import logging
import select
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from subprocess import Popen

import optuna
import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from fakenews.errors import TuningError, interruption
from fakenews.tuning import storage as module
from fakenews.tuning.storage import exclusive, open_storage, patiently, release, tell

Child = Callable[..., "Popen[str]"]


def refusal(url: str, **options: bool) -> str:
    with pytest.raises(TuningError) as caught:
        open_storage(url, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "url", ["mysql://host/db", "optuna.db", "", "redis://h", "http://h/db"]
)
def test_other_databases_are_refused(url: str) -> None:
    message = refusal(url)
    assert f"sweep.storage={url}: use sqlite:///FILE, or postgresql://" in message


def test_a_password_is_refused_and_not_repeated() -> None:
    message = refusal("postgresql://ann:secret@host/db")
    assert "set PGPASSWORD in the environment" in message
    assert "secret" not in message
    assert "secret" not in refusal("mysql://ann:secret@host/db")


def test_a_folder_that_is_missing_is_not_made(tmp_path: Path) -> None:
    message = refusal(f"sqlite:///{tmp_path}/slip/optuna.db")
    assert f"the folder {tmp_path}/slip does not exist: make it" in message
    assert list(tmp_path.iterdir()) == []


def test_a_new_storage_is_made_unless_it_must_exist(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    assert "there are no studies" in refusal(url, must_exist=True)
    assert list(tmp_path.iterdir()) == []
    made = open_storage(url)
    assert made.get_all_studies() == []
    assert made.get_heartbeat_interval() is None
    release(made)
    found = open_storage(url, must_exist=True)
    assert found.get_all_studies() == []
    release(found)


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "optuna.db"
    file.write_text("Dear diary, " * 100)
    message = refusal(f"sqlite:///{file}")
    assert "file is not a database" in message
    assert "sweep.storage" in message
    assert file.read_text().startswith("Dear diary")


def test_a_folder_is_no_storage(tmp_path: Path) -> None:
    (tmp_path / "optuna.db").mkdir()
    assert "unable to open database file" in refusal(f"sqlite:///{tmp_path}/optuna.db")


def test_the_store_of_runs_is_left_alone(tmp_path: Path) -> None:
    # Its tables have a version of their own, under the same name.
    file = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        other.execute("INSERT INTO alembic_version VALUES ('mlflows')")
        other.commit()
    assert "holds something else" in refusal(f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as other:
        tables = other.execute("SELECT name FROM sqlite_master").fetchall()
    assert tables == [("alembic_version",)]


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_file_that_another_process_holds_is_one_line(
    url: str, tmp_path: Path, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CONNECT", 0.2)
    holder = child(HOLD, tmp_path / "optuna.db")
    assert holder.stdout.readline() == "held\n"
    message = refusal(url)
    assert f"{tmp_path}/optuna.db cannot be written (database is locked)" in message
    assert "end the process that holds the file" in message
    holder.kill()
    holder.wait()
    opened = open_storage(url)
    assert opened.get_all_studies() == []
    release(opened)


def test_a_storage_of_a_later_optuna_is_one_line(url: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "optuna.db")) as other:
        other.execute("UPDATE alembic_version SET version_num = 'v99'")
        other.commit()
    message = refusal(url)
    assert "no longer compatible" in message
    assert message.endswith("correct sweep.storage")


def test_a_server_that_does_not_answer_is_one_line() -> None:
    message = refusal("postgresql+psycopg://ann@127.0.0.1:1/db")
    assert (
        "the storage of studies postgresql+psycopg://127.0.0.1:1/db does not answer" in message
    )


def test_a_driver_that_is_missing_is_named() -> None:
    # Of this dialect nothing is installed.
    message = refusal("postgresql+pg8000://ann@127.0.0.1:1/db")
    assert "PostgreSQL needs its driver: pip install" in message


OPEN = """
import sys
import optuna
from fakenews.tuning.storage import open_storage
print("ready", flush=True)
for url in sys.stdin:
    storage = open_storage(url.strip(), heartbeat=60)
    study = optuna.create_study(study_name="news", storage=storage, load_if_exists=True)
    print(study.ask().number, flush=True)
"""


def test_processes_that_start_at_once_make_one_storage(tmp_path: Path, child: Child) -> None:
    processes = [child(OPEN) for _ in range(3)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 3
    for repetition in range(4):
        for process in processes:
            process.stdin.write(f"sqlite:///{tmp_path}/{repetition}.db\n")
            process.stdin.flush()
        numbers = sorted(process.stdout.readline() for process in processes)
        assert numbers == ["0\n", "1\n", "2\n"]


DECIDE = """
import sys
from fakenews.tuning.storage import exclusive, open_storage
storage = open_storage(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print("asks", flush=True)
with exclusive(storage, "news"):
    print("in", flush=True)
    sys.stdin.read()
print("out", flush=True)
"""


def ready(process: "Popen[str]") -> "Popen[str]":
    assert process.stdout.readline() == "ready\n"
    return process


def ask(process: "Popen[str]") -> None:
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "asks\n"


def test_one_process_at_a_time_decides(storage: RDBStorage, url: str, child: Child) -> None:
    first, second = ready(child(DECIDE, url)), ready(child(DECIDE, url))
    with exclusive(storage, "news"):
        ask(first)
        ask(second)
        assert select.select([first.stdout, second.stdout], [], [], 0.3)[0] == []
    (inside,), _, _ = select.select([first.stdout, second.stdout], [], [])
    inside, waiting = (first, second) if inside is first.stdout else (second, first)
    assert inside.stdout.readline() == "in\n"
    assert select.select([waiting.stdout], [], [], 0.3)[0] == []
    inside.stdin.close()
    assert inside.stdout.readline() == "out\n"
    assert waiting.stdout.readline() == "in\n"


def test_who_is_killed_decides_no_longer(storage: RDBStorage, url: str, child: Child) -> None:
    killed = ready(child(DECIDE, url))
    ask(killed)
    assert killed.stdout.readline() == "in\n"
    killed.send_signal(signal.SIGKILL)
    with exclusive(storage, "news"):
        optuna.create_study(study_name="news", storage=storage)
    assert [study.study_name for study in storage.get_all_studies()] == ["news"]


def test_an_error_ends_the_decision(storage: RDBStorage) -> None:
    with pytest.raises(ZeroDivisionError), exclusive(storage, "news"):
        raise ZeroDivisionError
    with exclusive(storage, "news"):
        assert storage.get_all_studies() == []


class Slow(RandomSampler):
    """While a trial is told, another process tells it too."""

    def after_trial(self, study: Study, trial: FrozenTrial, *_: object) -> None:
        other = optuna.load_study(study_name=study.study_name, storage=study._storage)
        other.tell(trial.number, 0.25)


def test_the_first_to_end_a_trial_is_believed(study: Study) -> None:
    study.ask()
    study.sampler = Slow()
    tell(study, 0, TrialState.FAIL)
    tell(study, 0, TrialState.COMPLETE, [0.5])
    (trial,) = study.get_trials()
    assert (trial.state, trial.values) == (TrialState.COMPLETE, [0.25])


class Flaky:
    """Answers after a number of failures."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures, self.error = failures, error

    def __call__(self) -> str:
        if self.failures:
            self.failures -= 1
            raise self.error
        return "answer"


ERRORS = [
    sqlalchemy.exc.OperationalError("SELECT", {}, sqlite3.OperationalError("disk I/O error")),
    StorageInternalError("in the commit"),
]


@pytest.mark.parametrize("error", ERRORS, ids=["database", "optuna"])
def test_a_storage_that_comes_back_is_waited_for(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.01)
    caplog.set_level(logging.INFO, "fakenews.tuning.storage")
    assert patiently(Flaky(3, error), "sqlite:///x.db") == "answer"
    first, last = (record.getMessage() for record in caplog.records)
    assert "x.db does not answer as it should" in first
    assert first.endswith("waiting for it")
    assert last == "the storage of the study answers again"


def test_a_storage_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    with pytest.raises(TuningError) as caught:
        patiently(Flaky(1000, ERRORS[0]), "postgresql://ann@host/db")
    assert str(caught.value).startswith("the storage of studies postgresql://host/db does not")
    assert "disk I/O error" in str(caught.value)
    assert str(caught.value).endswith("the same command continues")


def test_a_mistake_is_not_repeated() -> None:
    flaky = Flaky(1, ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        patiently(flaky, "sqlite:///x.db")
    assert flaky.failures == 0


def test_a_signal_is_no_trouble_of_the_storage() -> None:
    error = StorageInternalError("while it tidied up")
    error.__context__ = KeyboardInterrupt()
    with pytest.raises(StorageInternalError) as caught:
        patiently(Flaky(1, error), "sqlite:///x.db")
    assert isinstance(interruption(caught.value), KeyboardInterrupt)


def test_an_error_is_told_in_one_short_line(storage: RDBStorage, url: str) -> None:
    def ask() -> None:
        with storage.engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"SELECT {'x' * 1000}"))

    with pytest.raises(TuningError, match="no such column: xx") as caught:
        patiently(ask, url, patience=0)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
