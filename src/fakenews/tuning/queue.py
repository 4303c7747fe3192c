"""The trials of one study, shared by any number of processes on any number of machines."""

import contextlib
import copy
import json
import os
import shutil
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from fakenews.errors import FakeNewsError, TuningError
from fakenews.tuning.retry import RETRIES, kills, place, queue_again
from fakenews.tuning.storage import exclusive, patiently, tell

_SHOWN = 5
# Seconds by which two readings of a process's start may differ: its number is not given to
# another so soon.
_CLOCK = 5

RESULT = "trial.json"
"""In a trial's folder: its state and values, written before the study is told."""


def has_failed(trial: FrozenTrial) -> bool:
    """Whether a trial failed by itself, or was killed once too often."""
    if trial.state is not TrialState.FAIL:
        return False
    if "error" in trial.user_attrs:
        return True
    return kills(trial) >= RETRIES and "interrupted" not in trial.user_attrs


def why_failed(trial: FrozenTrial) -> str:
    """The reason that a failed trial gave, or what must be the reason."""
    reason: str = trial.user_attrs.get("error", "its process was killed again and again")
    return reason


def is_counted(trial: FrozenTrial) -> bool:
    """Whether a trial is one of those asked for: one that was killed is not."""
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or has_failed(trial)


def one_line(error: BaseException) -> str:
    """Why something failed: the message of a user's mistake, or a bug with its type."""
    line = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, FakeNewsError):
        return line
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


class TrialQueue:
    """Gives out the trials of a study until there are as many as asked for.

    A trial whose process was killed is noticed by its missing heartbeat, at once on the
    same machine, and its parameters are queued again.

    Args:
        study: In `storage`.
        storage: With a heartbeat.
        n_trials: Of the study in all.
        max_failure_rate: Share of `n_trials` that may fail.
        sampler: Makes the sampler of a trial from the number of those before that repeat
            no other. So its seed depends on nothing else, however often the sweep was
            interrupted.
        folder: Of the sweep.
    """

    def __init__(
        self,
        study: Study,
        storage: RDBStorage,
        *,
        n_trials: int,
        max_failure_rate: float,
        sampler: Callable[[int], BaseSampler],
        folder: Path,
    ) -> None:
        self.study = study
        self.storage = storage
        self.n_trials = n_trials
        self.max_failure_rate = max_failure_rate
        self.folder = folder
        self._sampler = sampler

    def trials(self) -> list[FrozenTrial]:
        """All trials as they are now."""
        return patiently(lambda: self.study.get_trials(deepcopy=False), self.storage.url)

    def claim(self, overrides: Callable[[Trial], Sequence[str]]) -> FrozenTrial | None:
        """The next trial, which is now this process's; None if all have been given out.

        Args:
            overrides: Draws a trial's parameters, and gives the overrides of its job.

        Raises:
            TuningError: The storage does not answer.
        """
        return patiently(lambda: self._claim(overrides), self.storage.url)

    def _claim(self, overrides: Callable[[Trial], Sequence[str]]) -> FrozenTrial | None:
        with exclusive(self.storage, self.study.study_name):
            self._queue_killed_again()
            trials = self.study.get_trials(deepcopy=False)
            running = sum(trial.state is TrialState.RUNNING for trial in trials)
            if running + sum(map(is_counted, trials)) >= self.n_trials:
                return None
            # Not of `study`: those of grids would stop it when a trial is told.
            asked = copy.copy(self.study)
            asked.sampler = self._sampler(place(trials))
            trial = asked.ask()
            self.storage.record_heartbeat(trial._trial_id)  # noqa: SLF001 it has no other name
            trial.set_user_attr("worker", own_id())
        try:
            folder = self.folder / f"trial_{trial.number}"
            # Of a study that is no more, with its result, its checkpoints, its MLflow run.
            shutil.rmtree(folder, ignore_errors=True)
            trial.set_user_attr("folder", str(folder))
            trial.set_user_attr("overrides", list(overrides(trial)))
        except BaseException:
            self.give_back(trial.number)
            raise
        return self.storage.get_trial(trial._trial_id)  # noqa: SLF001

    def is_done(self) -> bool:
        """Whether the study has all its trials and none of them still runs."""
        trials = self.trials()
        running = any(trial.state is TrialState.RUNNING for trial in trials)
        return not running and sum(map(is_counted, trials)) >= self.n_trials

    def check_failures(self) -> None:
        """Stop a sweep in which too much fails.

        Raises:
            TuningError: More than the allowed share has failed, and why.
        """
        failed = [trial for trial in self.trials() if has_failed(trial)]
        if len(failed) / self.n_trials <= self.max_failure_rate:
            return
        reasons = Counter(map(why_failed, failed))
        shown = [
            reason + (f" ({count} times)" if count > 1 else "")
            for reason, count in reasons.most_common(_SHOWN)
        ]
        raise TuningError(
            f"{len(failed)} of {self.n_trials} trials have failed, more than "
            f"sweep.max_failure_rate={self.max_failure_rate:g} allows: {'; '.join(shown)}. "
            "Finished trials are kept: mend it and raise the rate, or start another "
            "sweep.study; tracebacks are in the trials' folders"
        )

    def give_back(self, number: int) -> None:
        """Queue a trial again that this process has stopped."""
        with contextlib.suppress(TuningError):
            patiently(lambda: self._give_back(number), self.storage.url, patience=10)

    def _give_back(self, number: int) -> None:
        trial = self.study.get_trials(deepcopy=False)[number]
        if trial.state is TrialState.RUNNING and not self._tell_result(trial):
            self.storage.set_trial_user_attr(trial._trial_id, "interrupted", True)  # noqa: SLF001
            self._kill(trial, forgiven=True)

    def fail(self, number: int, error: BaseException) -> None:
        """Note why a trial failed that could not say so itself."""

        def note() -> None:
            trial = self.study.get_trials(deepcopy=False)[number]
            if trial.state is TrialState.RUNNING and not self._tell_result(trial):
                self.storage.set_trial_user_attr(trial._trial_id, "error", one_line(error))  # noqa: SLF001
                tell(self.study, number, TrialState.FAIL)

        patiently(note, self.storage.url)

    def queue_killed_again(self) -> None:
        """Find trials whose process is dead, and queue their parameters again."""

        def locked() -> None:
            with exclusive(self.storage, self.study.study_name):
                self._queue_killed_again()

        patiently(locked, self.storage.url)

    def _queue_killed_again(self) -> None:
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._tell_result(trial):
                continue
            # Who claims a trial signs it before the lock is given up.
            if "worker" not in trial.user_attrs or not is_alive(trial.user_attrs["worker"]):
                self._kill(trial)
        fail_stale_trials(self.study)

    def _kill(self, trial: FrozenTrial, *, forgiven: bool = False) -> None:
        """End a running trial whose process does not run it any more."""
        tell(self.study, trial.number, TrialState.FAIL)
        queue_again(self.study, trial, forgiven=forgiven)

    def _tell_result(self, trial: FrozenTrial) -> bool:
        """Whether a trial had done its work before its process died, or its storage did."""
        if (result := _result(trial)) is None:
            return False
        tell(self.study, trial.number, TrialState[result["state"]], result["values"])
        return True


def _result(trial: FrozenTrial) -> dict[str, Any] | None:
    folder = trial.user_attrs.get("folder")
    if folder is None:
        return None
    try:
        result = json.loads((Path(folder) / RESULT).read_text())
    except (OSError, ValueError):
        return None
    known = isinstance(result, dict) and result.get("number") == trial.number
    return result if known else None


def own_id() -> str:
    """Names this process among all that work on a study."""
    process = psutil.Process()
    return f"{socket.gethostname()}/{process.pid}/{_started(process):.2f}"


def _started(process: psutil.Process) -> float:
    """Seconds from the machine's start to that of a process: clocks may be set."""
    return process.create_time() - psutil.boot_time()


def is_alive(worker: str) -> bool:
    """Whether a process may still run: of another machine's, its heartbeat says more."""
    host, pid, created = worker.split("/")
    if host != socket.gethostname() or int(pid) == os.getpid():
        return True
    try:
        process = psutil.Process(int(pid))
        same = abs(_started(process) - float(created)) < _CLOCK
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
