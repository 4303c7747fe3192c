"""Learning curves."""

import lightning as L
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel

from fakenews.training.history import History

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning's demonstration model


class Logs(BoringModel):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)["loss"]
        self.log("train/loss", loss)
        self.log("other", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        del batch, batch_idx
        self.log("val/score", float(self.current_epoch))


def fit(history: History, *, epochs: int) -> None:
    L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        limit_train_batches=3,
        limit_val_batches=1,
        callbacks=[history],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(Logs())


def test_a_row_an_epoch_with_its_metrics():
    history = History()
    fit(history, epochs=2)
    frame = history.frame()
    assert list(frame["step"]) == [3, 6]
    assert list(frame["val/score"]) == [0, 1]
    assert set(frame.columns) == {"step", "train/loss", "val/score"}


def test_it_continues_from_a_checkpoint():
    first, second = History(), History()
    fit(first, epochs=1)
    second.load_state_dict(first.state_dict())
    fit(second, epochs=1)
    assert len(second.frame()) == 2
    assert len(first.frame()) == 1


def test_before_any_epoch_it_is_empty():
    frame = History().frame()
    assert list(frame.columns) == ["step"]
    assert frame.empty
