"""Resuming on another number of processes than before."""

import logging
import math
from typing import Any

import lightning as L

from fakenews.errors import TrainingError
from fakenews.training.streaming import StreamingDataModule

log = logging.getLogger(__name__)


class ElasticResume(L.Callback):
    """Makes a checkpoint fit the number of ranks, which may be another than before.

    A streamed epoch's remaining batches are shared out anew by the data module. Here the
    checkpoint is rewritten so that Lightning counts the same: the epoch of N steps goes on
    at step N - n when n are left, and the learning rate is where it was in its schedule.
    Steps already made keep their numbers.

    Data in memory is shared out by another rule, whose loader demands as many ranks as
    before.
    """

    def __init__(self) -> None:
        self._ranks = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note how many ranks there are."""
        del pl_module
        self._ranks = trainer.world_size

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"ranks": self._ranks}

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Rewrite the checkpoint; Lightning restores its loops from it afterwards.

        Raises:
            TrainingError: The run was trained on data of the other kind, or on other ranks
                with a part of the batches.
        """
        del pl_module
        module: Any = trainer.datamodule  # type: ignore[attr-defined]
        if type(module).__qualname__ not in checkpoint:
            raise TrainingError(
                "the run to resume did not read its data as this one does (streamed, or held "
                "in memory): repeat its settings, or start without resume"
            )
        before = checkpoint["callbacks"].get(self.state_key)
        if not isinstance(module, StreamingDataModule) or before is None:
            return
        ranks = trainer.world_size
        if before["ranks"] == ranks:
            return
        if trainer.limit_train_batches != 1.0:
            raise TrainingError(
                f"trainer.limit_train_batches={trainer.limit_train_batches} counts the steps "
                f"of {before['ranks']} process{'es' * (before['ranks'] != 1)}: "
                "resume on as many, or without the limit"
            )
        if trainer.is_global_zero:
            log.info("resuming with processes: %d; before: %d", ranks, before["ranks"])
        loops = checkpoint["loops"]["fit_loop"]
        epochs = loops["epoch_progress"]["current"]
        done = 0
        if epochs["started"] > epochs["processed"]:
            done = module.steps_of_epoch - module.steps_left
            # Saved at the end of a step, which is completed when the checkpoint is loaded.
            loops["epoch_loop.batch_progress"]["current"].update(
                ready=done, started=done, processed=done, completed=done - 1
            )
        every = trainer.accumulate_grad_batches
        steps = epochs["processed"] * math.ceil(module.steps_of_epoch / every) + done // every
        for schedule in checkpoint["lr_schedulers"]:
            schedule["last_epoch"], schedule["_step_count"] = steps, steps + 1
