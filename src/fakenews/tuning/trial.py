"""A running trial as its job sees it: it reports, asks whether to go on, and ends."""

import contextlib
import json
import logging
import math
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import optuna
from optuna import TrialPruned
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import Trial, TrialState

from fakenews.errors import Interrupted, TrainingError, TuningError, interruption
from fakenews.tracking.store import public
from fakenews.tuning.queue import RESULT, one_line
from fakenews.tuning.storage import (
    PATIENCE,
    UNREACHABLE,
    open_storage,
    patiently,
    release,
    tell,
)

log = logging.getLogger(__name__)

_MAX_TRACEBACK = 20_000


class StudyTrial:
    """One trial of a study, run by this process.

    Args:
        study: Its name.
        storage: Address of the studies.
        number: Of the trial.
        pruner: Decides whether the trial goes on.
        heartbeat: Seconds between signs of life.
        folder: Of the trial's run.

    Raises:
        TuningError: The storage does not answer, or there is no such running trial.
    """

    def __init__(
        self,
        *,
        study: str,
        storage: str,
        number: int,
        pruner: BasePruner,
        heartbeat: int,
        folder: Path,
    ) -> None:
        self.number = number
        self.folder = folder
        self._url = storage
        self._heartbeat = heartbeat
        self._storage = open_storage(
            storage, heartbeat=heartbeat, must_exist=True, patience=PATIENCE
        )
        self._study, self._trial = patiently(lambda: self._find(study, pruner), storage)
        self._id = self._trial._trial_id  # noqa: SLF001 it has no other name
        self._unsent: dict[int, float] = {}
        self._ended = False

    def _find(self, name: str, pruner: BasePruner) -> tuple[Study, Trial]:
        start = f"sweep.trial={self.number} is for a sweep to give: start one with -m"
        try:
            study = optuna.load_study(study_name=name, storage=self._storage, pruner=pruner)
            id_ = self._storage.get_trial_id_from_study_id_trial_number(
                study._study_id,  # noqa: SLF001 the only way from a number to a trial
                self.number,
            )
        except KeyError as error:
            raise TuningError(
                f"{start} ({public(self._url)} has no such trial of {name})"
            ) from error
        if self._storage.get_trial(id_).state is not TrialState.RUNNING:
            raise TuningError(f"{start} (the trial does not run)")
        return study, Trial(study, id_)

    @property
    def tags(self) -> dict[str, str]:
        """Of the trial's MLflow run: a child of the sweep's, if that has one.

        Raises:
            TuningError: The storage does not come back.
        """
        found = patiently(lambda: self._study.user_attrs, self._url)
        tags = {"optuna.study": self._study.study_name, "optuna.trial": str(self.number)}
        parent: str | None = found.get("mlflow_run_id")
        return tags if parent is None else tags | {"mlflow.parentRunId": parent}

    def report(self, step: int, value: float) -> bool:
        """Report a value, and ask whether the trial should stop.

        A storage that does not answer stops nothing: the value is sent with the next.

        Args:
            step: Validations so far.
            value: Of the objective.

        Raises:
            TuningError: The sweep has given up this trial, and queued it again.
        """
        quiet = bool(self._unsent)
        self._unsent[step] = value
        try:
            self._send()
            return self._trial.should_prune()
        except UNREACHABLE as error:
            if interruption(error) is not None:
                raise
            if not quiet:
                log.warning(
                    "the study cannot be reached (%s); the trial goes on", one_line(error)
                )
            return False
        except UpdateFinishedTrialError as error:
            raise TuningError(
                f"trial {self.number} gave no sign of life for too long, and was queued again"
            ) from error

    def _send(self) -> None:
        for step, value in list(self._unsent.items()):
            self._trial.report(value, step)
            del self._unsent[step]

    def note(self, key: str, value: Any) -> None:
        """Keep something with the trial; what the storage does not take is lost."""
        try:
            self._trial.set_user_attr(key, value)
        except (*UNREACHABLE, UpdateFinishedTrialError) as error:
            if interruption(error) is not None:
                raise
            log.debug("%s was not kept", key)

    def complete(self, values: Sequence[float], names: Sequence[str]) -> None:
        """End the trial with its result.

        Args:
            values: Of each objective.
            names: Of the objectives, for messages.

        Raises:
            TrainingError: A value is not finite.
            TuningError: The storage does not answer; the result lies in the folder, and the
                sweep finds it there.
        """
        for name, value in zip(names, values, strict=True):
            if not math.isfinite(value):
                raise TrainingError(f"{name} is {value}: the trial has no result")
        self._end(TrialState.COMPLETE, list(values))

    def _end(self, state: TrialState, values: list[float] | None = None) -> None:
        result = {"number": self.number, "state": state.name, "values": values}
        temporary = self.folder / f"{RESULT}.tmp"
        temporary.write_text(json.dumps(result) + "\n")
        temporary.replace(self.folder / RESULT)
        self._ended = True

        def send() -> None:
            with contextlib.suppress(UpdateFinishedTrialError):
                self._send()
            tell(self._study, self.number, state, values)

        patiently(send, self._url)

    def _fail(self, error: BaseException) -> None:
        if self._ended:
            return  # it has its result, which the study is told one day
        reason = one_line(error)
        lines = "".join(traceback.format_exception(error))[-_MAX_TRACEBACK:]

        def note() -> None:
            if self._storage.get_trial(self._id).state is TrialState.RUNNING:
                self._trial.set_user_attr("error", reason)
                self._trial.set_user_attr("traceback", lines)
            tell(self._study, self.number, TrialState.FAIL)

        (self.folder / "traceback.txt").write_text(lines)
        patiently(note, self._url)

    @contextlib.contextmanager
    def run(self) -> Iterator[Self]:
        """While the trial runs: signs of life, and its true end whatever that is.

        A trial that is pruned ends here; one that was stopped from outside is left to the
        sweep, which queues it again; any other error is noted, and raised again.
        """
        ended = threading.Event()
        beats = threading.Thread(target=self._beat, args=(ended,), daemon=True)
        beats.start()
        try:
            yield self
        except TrialPruned:
            self._end(TrialState.PRUNED)
        except Interrupted as error:
            if error.status <= 128:  # it had its time, and will not get more
                self._fail(error)
            raise
        except Exception as error:
            self._fail(error)
            raise
        finally:
            ended.set()
            beats.join()
            release(self._storage)

    def _beat(self, ended: threading.Event) -> None:
        while True:
            try:
                self._storage.record_heartbeat(self._id)
            except UNREACHABLE:
                log.debug("no sign of life was taken")
            if ended.wait(self._heartbeat):
                self._storage.remove_session()
                return
