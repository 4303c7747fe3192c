"""Callbacks: seeds of every step, checkpoints, and stopping without losing work.

A checkpoint is only taken where training can continue exactly: after an optimizer
step, and at the end of an epoch after its validation. Never between the last step of
an epoch and its validation, because Lightning would resume with the next epoch.
"""

import logging
import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch import callbacks
from lightning.pytorch.utilities.types import STEP_OUTPUT

from fakenews.bounds import PositiveCount
from fakenews.errors import ConfigError, Interrupted

log = logging.getLogger(__name__)

_LAST = "last.ckpt"


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
        entropy = [self.seed, trainer.current_epoch, batch_idx, trainer.global_rank]
        (state,) = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
        torch.manual_seed(int(state))


class FirstStep(L.Callback):
    """Does something when the first step begins: by then, all settings have proved right.

    Args:
        action: What to do.
    """

    def __init__(self, action: Callable[[], None]) -> None:
        self._action: Callable[[], None] | None = action

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Do it, once."""
        del trainer, pl_module, batch, batch_idx
        if self._action is not None:
            self._action()
            self._action = None


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's, which remembers when it is resumed that it had stopped the training."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop again what was stopped already."""
        super().on_train_start(trainer, pl_module)
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class ProgressBar(callbacks.TQDMProgressBar):
    """Lightning's, which ends its bars before anyone says why the training stops."""

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Close what is open."""
        del trainer, pl_module, exception
        for bar in (self._val_progress_bar, self._train_progress_bar):
            if bar is not None:
                bar.close()


class BestCheckpoint(callbacks.ModelCheckpoint):
    """Lightning's, which remembers the best also when the run folder has been moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint, with paths as they are now."""
        here = Path(str(self.dirpath))

        def moved(path: str) -> str:
            return str(here / Path(path).name) if path else path

        state = state_dict | {
            "dirpath": self.dirpath,
            "best_k_models": {moved(k): v for k, v in state_dict["best_k_models"].items()},
        }
        for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[key] = moved(state_dict[key])
        super().load_state_dict(state)


class LastCheckpoint(callbacks.Checkpoint):
    """Keeps `last.ckpt`, from which a run is resumed, whatever the metrics say.

    Args:
        folder: For `last.ckpt`.
        every_n_train_steps: Save after this many optimizer steps too; None: at the end
            of an epoch only.
    """

    def __init__(
        self, *, folder: str | Path, every_n_train_steps: PositiveCount | None = None
    ) -> None:
        self.checkpoint = Path(folder) / _LAST
        self.every_n_train_steps = every_n_train_steps

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save, when it is time."""
        del pl_module, outputs, batch
        if (
            self.every_n_train_steps is not None
            and trainer.global_step % self.every_n_train_steps == 0
            and _resumable(trainer, batch_idx)
        ):
            trainer.save_checkpoint(self.checkpoint)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save; Lightning calls checkpoints after all other callbacks."""
        del pl_module
        trainer.save_checkpoint(self.checkpoint)


class StopAndSave(callbacks.Checkpoint):
    """Saves `last.ckpt` and stops when asked to from outside.

    A signal only sets a flag: at the end of the step all ranks agree to save, so that
    the checkpoint is whole. When the step was an epoch's last, or validation runs, the
    epoch is finished first. A second Ctrl-C stops at once.

    Lightning calls checkpoint callbacks last, so what is saved has every other
    callback's state of this step.

    Args:
        folder: For `last.ckpt`.
        max_time: Stop after this long, as `DD:HH:MM:SS`; None: no limit.

    Raises:
        Interrupted: From the training loop, after saving.
    """

    def __init__(self, *, folder: str | Path, max_time: str | None = None) -> None:
        self.checkpoint = Path(folder) / _LAST
        self.max_seconds = None if max_time is None else _seconds(max_time)
        self._started = time.monotonic()
        self._signal: int | None = None
        self._stop: Interrupted | None = None
        self._previous: dict[int, Any] = {}

    # Not earlier: Lightning sets handlers of its own just before.
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen for signals (only the main thread can)."""
        del trainer, pl_module
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[number] = signal.signal(number, self._ask)
            except ValueError:
                log.debug("not in the main thread: signals are left alone")

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._signal is not None and number == signal.SIGINT:
            raise Interrupted(
                "interrupted twice: stopped without saving; run the same command with "
                "resume=auto to continue from the last checkpoint",
                status=128 + number,
            )
        self._signal = number
        log.warning("%s received: saving at the end of the step", signal.Signals(number).name)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save, if any rank was asked to stop."""
        del pl_module, outputs, batch
        if _resumable(trainer, batch_idx):
            self._stop = self._save_if_asked(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop; only now has Lightning logged the step that was saved."""
        del trainer, pl_module, batch, batch_idx
        if self._stop is not None:
            raise self._stop

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save and stop, if any rank was asked to."""
        del pl_module
        if (stop := self._save_if_asked(trainer)) is not None:
            raise stop

    def _save_if_asked(self, trainer: L.Trainer) -> Interrupted | None:
        over = (
            self.max_seconds is not None
            and time.monotonic() - self._started >= self.max_seconds
        )
        asked = self._signal is not None or over
        if trainer.world_size > 1:
            # Each rank may have got the signal in another step.
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if not asked:
            return None
        trainer.save_checkpoint(self.checkpoint)
        reason, status = "stopped with another rank", 128 + signal.SIGTERM
        if self._signal is not None:
            reason = f"{signal.Signals(self._signal).name} received"
            status = 128 + self._signal
            self._signal = None
        elif over:
            reason, status = "trainer.max_time is over", 75
        return Interrupted(
            f"{reason}: saved step {trainer.global_step} to {self.checkpoint}; "
            "run the same command with resume=auto to continue",
            status=status,
        )

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back."""
        del trainer, pl_module, exception
        self._give_back()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the signals back, with one that came too late to stop the training."""
        del trainer, pl_module
        self._give_back()
        if self._signal is not None:
            os.kill(os.getpid(), self._signal)

    def _give_back(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()


def _resumable(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether gradients are spent and the epoch goes on after this batch."""
    done = batch_idx + 1
    return done % trainer.accumulate_grad_batches == 0 and done < trainer.num_training_batches


def _seconds(max_time: str) -> float:
    parts = max_time.split(":")
    if len(parts) != 4 or not all(part.isdigit() for part in parts):
        raise ConfigError(f"trainer.max_time is {max_time!r}: write DD:HH:MM:SS")
    days, hours, minutes, seconds = map(int, parts)
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
