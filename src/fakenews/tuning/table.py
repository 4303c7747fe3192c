"""What a sweep does, while it does it: a live table, or a line for each trial that ended."""

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fakenews.errors import interruption
from fakenews.terminal import Terminal
from fakenews.tuning.queue import TrialQueue, is_counted, why_failed

log = logging.getLogger(__name__)

# Trials in the table: what a screen holds.
_ROWS = 20
_SECONDS = 2


class Watch:
    """Shows the trials of a study; as a context manager, while it lasts.

    Args:
        queue: Of the study.
        objectives: Names.
        console: Where to; None: standard output. A table is shown on a terminal only.
    """

    def __init__(
        self, queue: TrialQueue, *, objectives: Sequence[str], console: Console | None = None
    ) -> None:
        self._queue = queue
        self._objectives = objectives
        self._console = console or Terminal()
        self._seen = {trial.number for trial in queue.trials() if trial.state.is_finished()}
        self._live: Live | None = None

    @property
    def ended(self) -> int:
        """Trials that have ended so far."""
        return len(self._seen)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._table,
                console=self._console,
                refresh_per_second=1 / _SECONDS,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self) -> None:
        """Say what has ended since the last time."""
        trials = self._queue.trials()
        for trial in trials:
            if trial.state.is_finished() and trial.number not in self._seen:
                self._seen.add(trial.number)
                log.info("%s", self._line(trial, trials))

    def _line(self, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> str:
        done = sum(map(is_counted, trials))
        what = trial.state.name.lower()
        if trial.state is TrialState.FAIL:
            what = f"failed: {why_failed(trial)}" if is_counted(trial) else "stopped"
        elif trial.values:
            what += " " + ", ".join(f"{value:.4f}" for value in trial.values)
        params = " ".join(f"{name}={_short(value)}" for name, value in trial.params.items())
        best = self._best(trials)
        suffix = "" if best is None else f"; best {best.values[0]:.4f}, trial {best.number}"
        return f"trial {trial.number} {what} ({params}); {done}/{self._queue.n_trials}{suffix}"

    def _best(self, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
        if len(self._objectives) > 1:
            return None
        complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
        maximise = self._queue.study.direction.name == "MAXIMIZE"
        choose = max if maximise else min
        return choose(complete, key=lambda trial: trial.values[0], default=None)

    def _table(self) -> Table | Text:
        try:
            trials = self._queue.study.get_trials(deepcopy=False)
        except Exception as error:
            if interruption(error) is not None:
                raise
            # The work says what is wrong with the storage.
            return Text("the study cannot be reached")
        return table(
            trials,
            n_trials=self._queue.n_trials,
            objectives=self._objectives,
            best=self._best(trials),
        )


def table(
    trials: Sequence[FrozenTrial],
    *,
    n_trials: int,
    objectives: Sequence[str],
    best: FrozenTrial | None,
) -> Table:
    """The latest trials of a study.

    Args:
        trials: All of them, by number.
        n_trials: How many were asked for.
        objectives: Names.
        best: Marked.
    """
    done = sum(map(is_counted, trials))
    running = sum(trial.state is TrialState.RUNNING for trial in trials)
    shown = Table(
        title=f"{done} of {n_trials} trials, {running} running", box=box.SIMPLE, expand=False
    )
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    for heading in ("Trial", "State", *objectives, "Validations", "Time", *names):
        shown.add_column(heading.rpartition(".")[2], justify="right", overflow="fold")
    for trial in [*trials][-_ROWS:]:
        style = "bold green" if best is not None and trial.number == best.number else None
        shown.add_row(*_cells(trial, objectives, names), style=style)
    return shown


def _cells(
    trial: FrozenTrial, objectives: Sequence[str], names: Sequence[str]
) -> Iterator[str]:
    yield str(trial.number)
    yield trial.state.name.lower()
    reported = trial.intermediate_values
    values = trial.values or ([reported[max(reported)]] if reported else [])
    for index in range(len(objectives)):
        yield f"{values[index]:.4f}" if index < len(values) else ""
    yield str(len(reported) or "")
    begun = trial.datetime_start
    # Optuna's times are local, without a zone.
    until = trial.datetime_complete or datetime.now()  # noqa: DTZ005
    yield "" if begun is None else str(until - begun).partition(".")[0]
    for name in names:
        yield _short(trial.params[name]) if name in trial.params else ""


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
