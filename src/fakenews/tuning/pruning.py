"""A Lightning callback that lets a study stop a training that promises nothing."""

from collections.abc import Callable

import lightning as L
from optuna import TrialPruned


class ReportToStudy(L.Callback):
    """Reports a metric after each validation, and stops if the study says so.

    The decision is one for all ranks: rank 0 asks, and all raise together.

    Args:
        monitor: Name of the metric.
        report: Takes the number of validations so far and the metric, and says whether to
            stop; None on ranks above 0.
        note: Takes a name and a value to be kept with the trial; None likewise.

    Raises:
        TrialPruned: From the training loop.
    """

    def __init__(
        self,
        *,
        monitor: str,
        report: Callable[[int, float], bool] | None = None,
        note: Callable[[str, int], None] | None = None,
    ) -> None:
        self.monitor = monitor
        self._report = report
        self._note = note
        self._validations = 0

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report, and ask."""
        del pl_module
        if trainer.sanity_checking:
            return
        self._validations += 1
        stop = False
        if self._report is not None:
            value = trainer.callback_metrics[self.monitor].item()
            stop = self._report(self._validations, value)
        # After the last epoch there is nothing to be saved any more.
        stop = stop and trainer.current_epoch + 1 < (trainer.max_epochs or 0)
        if trainer.world_size > 1:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:
            self._keep_steps(trainer)
            raise TrialPruned(f"after {self._validations} validations")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep how much was trained."""
        del pl_module
        self._keep_steps(trainer)

    def _keep_steps(self, trainer: L.Trainer) -> None:
        if self._note is not None:
            self._note("steps", trainer.global_step)
