"""Callbacks: seeds of steps, checkpoints, and stopping without losing work."""

import os
import signal
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from torch import Tensor
from torch.utils.data import DataLoader

from fakenews.errors import ConfigError, Interrupted
from fakenews.training.callbacks import (
    BestCheckpoint,
    EarlyStopping,
    FirstStep,
    LastCheckpoint,
    StepSeed,
    StopAndSave,
)
from fakenews.training.checkpoints import AtomicCheckpointIO

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*not resumable"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
]

STEPS = 4


class Line(L.LightningModule):
    """One weight, dropout, and a validation score that never gets better."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(8))
        self.masks: list[Tensor] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        del batch_idx
        mask = torch.nn.functional.dropout(torch.ones(8), 0.5)
        self.masks.append(mask)
        return (self.weight * mask * batch).square().mean()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        del batch, batch_idx
        self.log("val/score", -float(self.current_epoch), batch_size=1)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class At(Callback):
    """Sends this process a signal at one moment, as another process would."""

    def __init__(self, hook: str, number: int, *, epoch: int, step: int = 0) -> None:
        self.number, self.epoch, self.step = number, epoch, step
        setattr(self, hook, self.send)

    def send(self, trainer: L.Trainer, module: Any, *hook: Any) -> None:
        del module
        batch_idx = hook[-1] if hook else 0
        if trainer.current_epoch == self.epoch and batch_idx == self.step:
            os.kill(os.getpid(), self.number)


def trainer(*callbacks: Callback, **arguments: Any) -> L.Trainer:
    return L.Trainer(
        **{
            "accelerator": "cpu",
            "max_epochs": 3,
            "callbacks": list(callbacks),
            "logger": False,
            "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "plugins": [AtomicCheckpointIO()],
        }
        | arguments
    )


def fit(run: L.Trainer, model: L.LightningModule, checkpoint: Path | None = None) -> None:
    data = DataLoader([torch.tensor(float(value)) for value in range(STEPS)], batch_size=1)
    run.fit(model, data, data, ckpt_path=checkpoint)


def test_the_first_step_is_the_first_of_all_epochs() -> None:
    model, seen = Line(), []
    fit(trainer(FirstStep(lambda: seen.append(len(model.masks)))), model)
    assert seen == [0]


def test_dropout_follows_from_seed_and_step_alone():
    first, second, other = Line(), Line(), Line()
    fit(trainer(StepSeed(seed=1)), first)
    torch.rand(99)
    fit(trainer(StepSeed(seed=1)), second)
    fit(trainer(StepSeed(seed=2)), other)
    assert torch.equal(torch.stack(first.masks), torch.stack(second.masks))
    assert not torch.equal(torch.stack(first.masks), torch.stack(other.masks))
    # No two steps share a mask.
    assert len(torch.stack(first.masks).unique(dim=0)) > 0.9 * len(first.masks)


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**63])
def test_any_seed_will_do(seed: int):
    model = Line()
    fit(trainer(StepSeed(seed=seed), max_epochs=1), model)
    assert len(model.masks) == STEPS


def test_the_last_checkpoint_is_saved_whatever_the_score(tmp_path: Path):
    fit(trainer(LastCheckpoint(folder=tmp_path)), Line())
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 3 * STEPS


class Saves(Callback):
    """Notes the step of what is saved."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_save_checkpoint(self, trainer: L.Trainer, *rest: Any) -> None:
        del rest
        self.steps.append(trainer.global_step)


def test_more_checkpoints_but_none_between_an_epochs_last_step_and_its_validation(
    tmp_path: Path,
):
    saves = Saves()
    fit(trainer(saves, LastCheckpoint(folder=tmp_path, every_n_train_steps=2)), Line())
    # Each epoch's end is saved once, after its validation.
    assert saves.steps == [2, 4, 6, 8, 10, 12]


def test_no_checkpoint_while_gradients_accumulate(tmp_path: Path):
    saves = Saves()
    last = LastCheckpoint(folder=tmp_path, every_n_train_steps=1)
    fit(trainer(saves, last, max_epochs=1, accumulate_grad_batches=2), Line())
    assert saves.steps == [1, 2]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_at_the_end_of_the_step(tmp_path: Path, number: int, status: int):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"saved step 6 .*resume=auto to continue") as caught:
        fit(
            trainer(
                At("on_train_batch_start", number, epoch=1, step=1),
                StopAndSave(folder=tmp_path),
            ),
            Line(),
        )
    assert caught.value.status == status
    assert "\n" not in str(caught.value)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 6
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    "moment",
    [
        At("on_train_batch_start", signal.SIGTERM, epoch=1, step=STEPS - 1),
        At("on_validation_start", signal.SIGTERM, epoch=1),
        At("on_train_epoch_end", signal.SIGTERM, epoch=1),
    ],
    ids=["last step", "validation", "end"],
)
def test_a_stop_late_in_an_epoch_waits_for_its_validation(tmp_path: Path, moment: At):
    model = Line()
    stop = StopAndSave(folder=tmp_path)
    with pytest.raises(Interrupted, match="saved step 8"):
        fit(trainer(moment, stop), model)
    resumed = Line()
    fit(trainer(StepSeed(seed=0)), resumed, tmp_path / "last.ckpt")
    assert len(resumed.masks) == STEPS


def test_a_stop_in_the_last_epoch_leaves_nothing_to_train(tmp_path: Path):
    moment = At("on_validation_start", signal.SIGTERM, epoch=2)
    with pytest.raises(Interrupted, match="saved step 12"):
        fit(trainer(moment, StopAndSave(folder=tmp_path)), Line())
    resumed = Line()
    fit(trainer(), resumed, tmp_path / "last.ckpt")
    assert resumed.masks == []


def test_a_stop_that_comes_too_late_reaches_the_handler_of_before(tmp_path: Path):
    heard: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        # This callback's hook comes before that of StopAndSave, which ends the listening.
        moment = At("on_train_end", signal.SIGTERM, epoch=3)
        fit(trainer(moment, StopAndSave(folder=tmp_path)), Line())
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert heard == [signal.SIGTERM]


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path):
    first = At("on_validation_start", signal.SIGINT, epoch=0)
    second = At("on_validation_batch_end", signal.SIGINT, epoch=0)
    model = Line()
    with pytest.raises(Interrupted, match=r"interrupted twice: .*resume=auto") as caught:
        fit(trainer(first, second, StopAndSave(folder=tmp_path)), model)
    assert caught.value.status == 130
    assert not (tmp_path / "last.ckpt").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_time_limit(tmp_path: Path):
    stop = StopAndSave(folder=tmp_path, max_time="00:00:00:00")
    with pytest.raises(Interrupted, match=r"trainer\.max_time is over: saved step 1") as caught:
        fit(trainer(stop), Line())
    assert caught.value.status == 75


@pytest.mark.parametrize("value", ["10", "1:2:3", "a:b:c:d", "00:00:00:-1", ""])
def test_a_time_limit_that_cannot_be_read(tmp_path: Path, value: str):
    with pytest.raises(ConfigError, match=r"trainer\.max_time is .*DD:HH:MM:SS"):
        StopAndSave(folder=tmp_path, max_time=value)


def test_early_stopping_is_not_forgotten(tmp_path: Path):
    def stopping() -> EarlyStopping:
        return EarlyStopping(monitor="val/score", mode="max", patience=1)

    model = Line()
    last = LastCheckpoint(folder=tmp_path)
    fit(trainer(stopping(), last, max_epochs=9), model)
    assert len(model.masks) == 2 * STEPS
    resumed = Line()
    fit(trainer(stopping(), max_epochs=9), resumed, tmp_path / "last.ckpt")
    assert resumed.masks == []


def test_the_best_is_found_again_when_the_folder_moved(tmp_path: Path):
    def best(folder: Path) -> BestCheckpoint:
        return BestCheckpoint(
            dirpath=folder,
            filename="best",
            monitor="val/score",
            mode="max",
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )

    here, there = tmp_path / "here", tmp_path / "there"
    fit(trainer(best(here), LastCheckpoint(folder=here), max_epochs=2), Line())
    here.rename(there)
    moved = best(there)
    fit(trainer(moved, max_epochs=3), Line(), there / "last.ckpt")
    assert moved.best_model_path == str(there / "best.ckpt")
    assert moved.best_model_score == 0
    # The first epoch was the best, and it is still what is there.
    saved = torch.load(moved.best_model_path, weights_only=True)
    assert saved["global_step"] == STEPS
