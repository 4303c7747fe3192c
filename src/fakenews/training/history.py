"""A run's learning curves, kept in its checkpoints so that resuming continues them."""

from typing import Any

import lightning as L
import pandas as pd


class History(L.Callback):
    """Notes training loss and validation metrics at the end of each epoch."""

    def __init__(self) -> None:
        self._rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the epoch."""
        del pl_module
        metrics = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(("train/", "val/"))
        }
        self._rows.append({"step": float(trainer.global_step), **metrics})

    def frame(self) -> pd.DataFrame:
        """A row an epoch: `step`, and what was logged as `train/...` and `val/...`."""
        return pd.DataFrame(self._rows, columns=None if self._rows else ["step"])

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self._rows = list(state_dict["rows"])
