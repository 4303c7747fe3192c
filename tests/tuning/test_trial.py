"""A running trial: what it reports, how it ends, and a storage that does not answer."""

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path

import optuna
import pytest
from optuna import TrialPruned
from optuna.exceptions import StorageInternalError
from optuna.pruners import BasePruner, NopPruner, ThresholdPruner
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from fakenews.errors import DataError, Interrupted, TrainingError, TuningError
from fakenews.tuning import storage as storage_module
from fakenews.tuning.queue import RESULT
from fakenews.tuning.trial import StudyTrial

Make = Callable[..., StudyTrial]
Locked = Callable[[], AbstractContextManager[sqlite3.Connection]]


@pytest.fixture
def make(study: Study, url: str, tmp_path: Path) -> Make:
    """Makes the trial 0 of the study `news`, which runs in `tmp_path`."""
    study.ask()

    def made(
        *,
        study: str = "news",
        number: int = 0,
        pruner: BasePruner | None = None,
        heartbeat: int = 60,
        storage: str = url,
    ) -> StudyTrial:
        return StudyTrial(
            study=study,
            storage=storage,
            number=number,
            pruner=pruner or NopPruner(),
            heartbeat=heartbeat,
            folder=tmp_path,
        )

    return made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage is waited for a moment only."""
    monkeypatch.setattr(storage_module, "_BUSY", 0.05)
    monkeypatch.setattr(storage_module, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(storage_module, "PATIENCE", 0.0)


def told(study: Study) -> FrozenTrial:
    """The trial as the study knows it."""
    return study.get_trials()[0]


def result(folder: Path) -> object:
    return json.loads((folder / RESULT).read_text())


def test_a_trial_that_completes_is_told_with_its_values(
    make: Make, study: Study, tmp_path: Path
) -> None:
    with make().run() as trial:
        assert not trial.report(1, 0.25)
        assert not trial.report(2, 0.5)
        trial.note("steps", 40)
        trial.complete([0.75], ["val/auroc"])
    found = told(study)
    assert (found.state, found.values) == (TrialState.COMPLETE, [0.75])
    assert found.intermediate_values == {1: 0.25, 2: 0.5}
    assert found.user_attrs == {"steps": 40}
    assert result(tmp_path) == {"number": 0, "state": "COMPLETE", "values": [0.75]}
    assert not (tmp_path / f"{RESULT}.tmp").exists()


def test_a_trial_of_several_objectives(storage: RDBStorage, make: Make) -> None:
    both = optuna.create_study(
        study_name="both", storage=storage, directions=["maximize", "minimize"]
    )
    both.ask()
    with make(study="both").run() as trial:
        trial.complete([0.75, 12.5], ["val/auroc", "latency"])
    assert told(both).values == [0.75, 12.5]


def test_a_pruned_trial_ends_without_an_error(make: Make, study: Study, tmp_path: Path) -> None:
    with make(pruner=ThresholdPruner(lower=0.5)).run() as trial:
        assert not trial.report(1, 0.6)
        assert trial.report(2, 0.4)
        raise TrialPruned
    found = told(study)
    assert (found.state, found.values) == (TrialState.PRUNED, [0.4])
    assert result(tmp_path) == {"number": 0, "state": "PRUNED", "values": None}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DataError("a.csv: empty"), "a.csv: empty"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (Interrupted("trainer.max_time is over", status=75), "trainer.max_time is over"),
    ],
    ids=repr,
)
def test_a_trial_that_fails_says_why(
    error: Exception, reason: str, make: Make, study: Study, tmp_path: Path
) -> None:
    with pytest.raises(type(error)), make().run():
        raise error
    found = told(study)
    assert found.state is TrialState.FAIL
    assert found.user_attrs["error"] == reason
    assert found.user_attrs["traceback"].startswith("Traceback")
    assert (tmp_path / "traceback.txt").read_text() == found.user_attrs["traceback"]
    assert not (tmp_path / RESULT).exists()


def test_a_long_traceback_is_cut_at_its_start(make: Make, study: Study) -> None:
    with pytest.raises(ValueError), make().run():
        raise ValueError("x" * 50_000 + " end")
    kept = told(study).user_attrs["traceback"]
    assert len(kept) == 20_000
    assert kept.rstrip().endswith("end")


@pytest.mark.parametrize(
    "error",
    [
        Interrupted("SIGINT received", status=130),
        Interrupted("SIGTERM received", status=143),
        KeyboardInterrupt(),
        SystemExit(1),
    ],
    ids=repr,
)
def test_a_trial_that_is_stopped_from_outside_is_left_to_the_sweep(
    error: BaseException, make: Make, study: Study, tmp_path: Path
) -> None:
    with suppress(type(error)), make().run():
        raise error
    assert told(study).state is TrialState.RUNNING
    assert told(study).user_attrs == {}
    assert list(tmp_path.glob("tr*")) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_a_failure(
    value: float, make: Make, study: Study, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=f"latency is {value}"), make().run() as trial:
        trial.complete([0.5, value], ["val/auroc", "latency"])
    assert told(study).state is TrialState.FAIL
    assert told(study).user_attrs["error"].startswith("latency is")
    assert not (tmp_path / RESULT).exists()


def test_an_error_after_the_result_does_not_take_it_back(make: Make, study: Study) -> None:
    with suppress(DataError), make().run() as trial:
        trial.complete([0.5], ["val/auroc"])
        raise DataError("the store refuses")
    assert (told(study).state, told(study).values) == (TrialState.COMPLETE, [0.5])
    assert "error" not in told(study).user_attrs


def test_a_trial_that_the_sweep_gave_up_stops_at_its_next_report(
    make: Make, study: Study
) -> None:
    trial = make()
    study.tell(0, state=TrialState.FAIL)
    trial.note("steps", 3)
    with pytest.raises(TuningError, match="no sign of life for too long"), trial.run():
        trial.report(1, 0.5)
    assert told(study).state is TrialState.FAIL
    assert told(study).user_attrs == {}


def test_a_trial_that_the_sweep_gave_up_changes_nothing_by_its_end(
    make: Make, study: Study
) -> None:
    with make().run() as trial:
        study.tell(0, state=TrialState.FAIL)
        trial.complete([0.5], ["val/auroc"])
    assert (told(study).state, told(study).values) == (TrialState.FAIL, None)


@pytest.mark.usefixtures("impatient")
def test_a_storage_that_does_not_answer_stops_nothing(
    make: Make, study: Study, locked: Locked, caplog: pytest.LogCaptureFixture
) -> None:
    with make(pruner=ThresholdPruner(lower=0.5)).run() as trial:
        with locked():
            assert not trial.report(1, 0.1)
            assert not trial.report(2, 0.2)
            trial.note("steps", 3)
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 1
        assert "the study cannot be reached" in warnings[0].getMessage()
        assert warnings[0].getMessage().endswith("the trial goes on")
        assert told(study).intermediate_values == {}
        assert trial.report(3, 0.3)
        assert told(study).intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3}
        trial.complete([0.3], ["val/auroc"])
    assert told(study).values == [0.3]


def test_a_signal_that_an_error_of_the_storage_hides_is_heard(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise StorageInternalError from KeyboardInterrupt()

    trial = make()
    for name in ("set_trial_user_attr", "set_trial_intermediate_value"):
        monkeypatch.setattr(trial._storage, name, interrupted)
    with pytest.raises(StorageInternalError):
        trial.note("steps", 3)
    with pytest.raises(StorageInternalError):
        trial.report(1, 0.1)


@pytest.mark.usefixtures("impatient")
def test_a_trial_that_starts_waits_for_a_storage_that_is_away(
    make: Make, locked: Locked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_module, "PATIENCE", 60)
    trial = make()
    with ThreadPoolExecutor(1) as pool:
        with locked():
            tags = pool.submit(lambda: trial.tags)
            with pytest.raises(TimeoutError):
                tags.result(0.5)
        assert tags.result(60) == {"optuna.study": "news", "optuna.trial": "0"}


@pytest.mark.usefixtures("impatient")
def test_what_was_not_sent_is_sent_with_the_end(
    make: Make, study: Study, locked: Locked
) -> None:
    with make().run() as trial:
        with locked():
            trial.report(1, 0.1)
        trial.complete([0.2], ["val/auroc"])
    assert told(study).intermediate_values == {1: 0.1}
    assert told(study).values == [0.2]


@pytest.mark.usefixtures("impatient")
def test_a_result_that_cannot_be_told_lies_in_the_folder(
    make: Make, study: Study, locked: Locked, tmp_path: Path
) -> None:
    trial = make()
    with pytest.raises(TuningError, match="the same command continues"), locked(), trial.run():
        trial.complete([0.5], ["val/auroc"])
    assert told(study).state is TrialState.RUNNING
    assert result(tmp_path) == {"number": 0, "state": "COMPLETE", "values": [0.5]}
    assert not (tmp_path / "traceback.txt").exists()


@pytest.mark.usefixtures("impatient")
def test_a_pruned_trial_that_cannot_be_told_lies_in_the_folder(
    make: Make, study: Study, locked: Locked, tmp_path: Path
) -> None:
    trial = make()
    with pytest.raises(TuningError, match="the same command continues"), locked(), trial.run():
        raise TrialPruned
    assert told(study).state is TrialState.RUNNING
    assert result(tmp_path) == {"number": 0, "state": "PRUNED", "values": None}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"number": 7}, "has no such trial of news"),
        ({"study": "other"}, "has no such trial of other"),
    ],
)
def test_a_trial_that_does_not_exist_is_one_line(
    options: dict[str, object], reason: str, make: Make
) -> None:
    with pytest.raises(TuningError) as caught:
        make(**options)
    assert str(caught.value).startswith(
        f"sweep.trial={options.get('number', 0)} is for a sweep"
    )
    assert reason in str(caught.value)


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.FAIL])
def test_a_trial_that_has_ended_cannot_run(state: TrialState, make: Make, study: Study) -> None:
    study.tell(0, 0.5 if state is TrialState.COMPLETE else None, state)
    with pytest.raises(TuningError, match=r"sweep\.trial=0 .*the trial does not run"):
        make()


def test_a_trial_makes_no_storage(make: Make, tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="there are no studies"):
        make(storage=f"sqlite:///{tmp_path}/slip.db")
    assert not (tmp_path / "slip.db").exists()


def test_an_mlflow_run_is_a_child_of_the_sweeps(make: Make, study: Study) -> None:
    tags = {"optuna.study": "news", "optuna.trial": "0"}
    assert make().tags == tags
    study.set_user_attr("mlflow_run_id", "abc")
    assert make().tags == tags | {"mlflow.parentRunId": "abc"}


def test_a_trial_gives_signs_of_life_while_it_runs(make: Make, url: str) -> None:
    threads = threading.active_count()
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as raw:

        def beats() -> list[tuple[str]]:
            return raw.execute("SELECT heartbeat FROM trial_heartbeats").fetchall()

        with make(heartbeat=1).run():
            while not beats():
                time.sleep(0.05)
            raw.execute("UPDATE trial_heartbeats SET heartbeat = '2000-01-01 00:00:00'")
            while beats() == [("2000-01-01 00:00:00",)]:
                time.sleep(0.05)
        (last,) = beats()
    assert last[0] > "2000-01-01 00:00:00"
    assert threading.active_count() == threads
