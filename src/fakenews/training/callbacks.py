"""Callbacks: seeds of every step, and stopping without losing work."""

import logging
import signal
import time
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT

from fakenews.errors import ConfigError, Interrupted

log = logging.getLogger(__name__)


class StepSeed(L.Callback):
    """Seeds torch's generator from the run's seed, the step and the rank.

    Dropout then depends on nothing that happened before the step, so a run that was
    interrupted ends with the weights of one that was not.

    Args:
        seed: The run's seed.
    """

    def __init__(self, *, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the step."""
        del pl_module, batch
        # The generator scrambles its seed, so neighbouring numbers are as good as any;
        # the multipliers keep epochs, ranks and runs apart.
        step = trainer.current_epoch * 1_000_003 + batch_idx
        torch.manual_seed((self.seed * 1_000_000_007 + step) * 4_099 + trainer.global_rank)


class StopAndSave(L.Callback):
    """Saves `last.ckpt` and stops at the end of a step, when asked to from outside.

    A signal only sets a flag: at the end of the step all ranks agree to save, so that
    the checkpoint is whole. A second Ctrl-C stops at once.

    Args:
        folder: For `last.ckpt`.
        max_time: Stop after this long, as `DD:HH:MM:SS`; None: no limit.

    Raises:
        Interrupted: From the training loop, after saving.
    """

    def __init__(self, *, folder: str | Path, max_time: str | None = None) -> None:
        self.checkpoint = Path(folder) / "last.ckpt"
        self.max_seconds = None if max_time is None else _seconds(max_time)
        self._started = time.monotonic()
        self._reason: tuple[str, int] | None = None
        self._previous: dict[int, Any] = {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen for signals (only the main thread can)."""
        del trainer, pl_module
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[number] = signal.signal(number, self._ask)
            except ValueError:
                log.debug("not in the main thread: signals are left alone")

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._reason is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        name = signal.Signals(number).name
        self._reason = (f"{name} received", 128 + number)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save and stop, if any rank was asked to."""
        del pl_module, outputs, batch, batch_idx
        over = (
            self.max_seconds is not None
            and time.monotonic() - self._started >= self.max_seconds
        )
        if over and self._reason is None:
            self._reason = ("trainer.max_time is over", 75)
        asked = self._reason is not None
        if trainer.world_size > 1:
            # Each rank may have got the signal in another step.
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if not asked:
            return
        trainer.save_checkpoint(self.checkpoint)
        reason, status = self._reason or ("another rank was told to stop", 143)
        raise Interrupted(
            f"{reason}: saved step {trainer.global_step} to {self.checkpoint}; "
            "run the same command with resume=auto to continue",
            status=status,
        )

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the signals back."""
        del trainer, pl_module, stage
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()


def _seconds(max_time: str) -> float:
    parts = max_time.split(":")
    if len(parts) != 4 or not all(part.isdigit() for part in parts):
        raise ConfigError(f"trainer.max_time is {max_time!r}: write DD:HH:MM:SS")
    days, hours, minutes, seconds = map(int, parts)
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
