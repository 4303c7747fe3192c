"""One process that works on a study: claim a trial, run its job, until none is left."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from optuna.trial import FrozenTrial, Trial

from fakenews.errors import TuningError, interruption
from fakenews.launch import core_share
from fakenews.tuning.queue import TrialQueue

if TYPE_CHECKING:
    from fakenews.tuning.table import Watch

log = logging.getLogger(__name__)

# Seconds until a worker that has nothing to do looks again.
_PAUSE = 2.0
# Last lines of a child that failed, where it says why.
_LAST_LINES = 5

Launch = Callable[[Sequence[FrozenTrial]], Sequence[BaseException | None]]
"""Runs the jobs of trials, and says of each what went wrong that its study may not know."""


def work(
    queue: TrialQueue,
    launch: Launch,
    overrides: Callable[[Trial], Sequence[str]],
    *,
    watch: "Watch | None" = None,
    batch: int = 1,
) -> None:
    """Run trials until the study has all of them and none runs any more.

    Args:
        queue: Of the study.
        launch: Runs jobs, and waits for them.
        overrides: Of a trial's job.
        watch: Is told when something has changed.
        batch: Trials that are launched together.

    Raises:
        Interrupted: From outside; what ran is queued again.
        TuningError: Too much failed, or the storage does not come back.
    """
    while True:
        queue.check_failures()
        claimed: list[FrozenTrial] = []
        try:
            while len(claimed) < batch and (trial := queue.claim(overrides)) is not None:
                claimed.append(trial)
            _run(queue, launch, claimed)
        except BaseException as error:
            stopped = error if isinstance(error, SystemExit) else interruption(error)
            if stopped is not None:
                for trial in claimed:
                    queue.give_back(trial.number)
            if stopped is None or stopped is error:
                raise
            raise stopped from None
        if watch is not None:
            watch.update()
        if not claimed:
            if queue.is_done():
                return
            time.sleep(_PAUSE)  # others still work, and may leave something


def _run(queue: TrialQueue, launch: Launch, trials: Sequence[FrozenTrial]) -> None:
    """Run jobs, and note what they could not say themselves."""
    for trial, error in zip(trials, launch(trials) if trials else [], strict=True):
        if error is None:
            continue
        stopped = interruption(error)
        if isinstance(stopped, KeyboardInterrupt) or (stopped and stopped.status > 128):
            raise stopped
        queue.fail(trial.number, error)


def launched(
    launcher: Launcher, trials: Sequence[FrozenTrial]
) -> Sequence[BaseException | None]:
    """Run jobs with a launcher of Hydra: in this process, or wherever it sends them."""
    returns: Sequence[JobReturn] = launcher.launch(
        [trial.user_attrs["overrides"] for trial in trials], initial_job_idx=trials[0].number
    )
    return [
        found._return_value if found.status is JobStatus.FAILED else None  # noqa: SLF001 its property raises
        for found in returns
    ]


def spawned(
    trials: Sequence[FrozenTrial], *, ranks: int, folder: Path
) -> Sequence[BaseException | None]:
    """Run a job as a child of torchrun, with several processes."""
    (trial,) = trials
    run = folder / f"trial_{trial.number}"
    run.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(ranks), sys.argv[0]),
        *trial.user_attrs["overrides"],
        f"hydra.run.dir={run}",
    ]
    # Each process of a trial has its share of the cores.
    environment = {"OMP_NUM_THREADS": str(core_share(ranks))}
    with (run / "torchrun.log").open("w") as out:
        child = subprocess.Popen(  # noqa: S603 our own command
            command, stdout=out, stderr=subprocess.STDOUT, env=environment | dict(os.environ)
        )
        try:
            status = child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise
    if status == 0:
        return [None]
    lines = [line for line in (run / "torchrun.log").read_text().splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    reason = (errors or lines[-_LAST_LINES:] or ["no output"])[-1].removeprefix("error: ")
    return [TuningError(reason)]
