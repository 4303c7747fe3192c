"""A training that its study may stop, with Lightning's own trainer."""

import logging
from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
from optuna import TrialPruned
from torch import Tensor
from torch.utils.data import DataLoader

from fakenews.errors import TuningError
from fakenews.tuning.pruning import ReportToStudy

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]

STEPS = 4


class Line(L.LightningModule):
    """One weight, and a validation score that follows from the epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        del batch_idx
        return (self.weight * batch).square().mean()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        del batch_idx
        self.log("val/score", 10.0 + self.current_epoch, batch_size=len(batch))
        self.log("val/other", -1.0, batch_size=len(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Study:
    """Notes what it is told, and stops from a certain validation on."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.reports: list[tuple[int, float]] = []
        self.notes: list[tuple[str, int]] = []
        self.stop_at = stop_at

    def report(self, step: int, value: float) -> bool:
        self.reports.append((step, value))
        return self.stop_at is not None and step >= self.stop_at

    def note(self, name: str, value: int) -> None:
        self.notes.append((name, value))


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "lightning.pytorch")


def fit(callback: ReportToStudy, **arguments: Any) -> L.Trainer:
    trainer = L.Trainer(
        **{
            "accelerator": "cpu",
            "max_epochs": 3,
            "callbacks": [callback],
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
        }
        | arguments
    )
    data = DataLoader(torch.arange(float(STEPS)), batch_size=1)
    trainer.fit(Line(), data, data)
    return trainer


def callback(study: Study, monitor: str = "val/score") -> ReportToStudy:
    return ReportToStudy(monitor=monitor, report=study.report, note=study.note)


def test_each_validation_is_reported_and_the_steps_are_kept() -> None:
    study = Study()
    fit(callback(study))
    assert study.reports == [(1, 10.0), (2, 11.0), (3, 12.0)]
    assert all(isinstance(value, float) for _, value in study.reports)
    assert study.notes == [("steps", 3 * STEPS)]


def test_the_metric_is_the_one_that_is_asked_for() -> None:
    study = Study()
    fit(callback(study, "val/other"), max_epochs=1)
    assert study.reports == [(1, -1.0)]


@pytest.mark.parametrize("stop_at", [1, 2])
def test_a_training_that_promises_nothing_is_stopped(stop_at: int) -> None:
    study = Study(stop_at)
    with pytest.raises(TrialPruned, match=f"after {stop_at} validations"):
        fit(callback(study))
    assert [step for step, _ in study.reports] == list(range(1, stop_at + 1))
    assert study.notes == [("steps", stop_at * STEPS)]


def test_a_training_is_not_stopped_after_its_last_epoch() -> None:
    study = Study(stop_at=3)
    trainer = fit(callback(study))
    assert trainer.state.finished
    assert [step for step, _ in study.reports] == [1, 2, 3]
    assert study.notes == [("steps", 3 * STEPS)]


def test_validations_are_counted_and_not_epochs() -> None:
    study = Study()
    fit(callback(study), max_epochs=2, val_check_interval=0.5)
    assert [step for step, _ in study.reports] == [1, 2, 3, 4]
    few = Study()
    fit(callback(few), max_epochs=4, check_val_every_n_epoch=2)
    assert few.reports == [(1, 11.0), (2, 13.0)]


def test_a_trainings_first_check_is_no_validation() -> None:
    study = Study()
    fit(callback(study), max_epochs=1, num_sanity_val_steps=1)
    assert study.reports == [(1, 10.0)]


def test_accumulated_batches_are_one_step() -> None:
    study = Study()
    fit(callback(study), max_epochs=1, accumulate_grad_batches=2)
    assert study.notes == [("steps", STEPS // 2)]


def test_a_study_that_is_not_asked_stops_nothing() -> None:
    # As on ranks above 0, and with several objectives.
    notes = Study()
    trainer = fit(ReportToStudy(monitor="val/score", note=notes.note))
    assert trainer.state.finished
    assert notes.notes == [("steps", 3 * STEPS)]
    assert fit(ReportToStudy(monitor="val/score"), max_epochs=1).global_step == STEPS


def test_what_a_report_raises_ends_the_training() -> None:
    study = Study()

    def report(step: int, value: float) -> bool:
        study.report(step, value)
        raise TuningError("the sweep has given up this trial")

    with pytest.raises(TuningError, match="given up"):
        fit(ReportToStudy(monitor="val/score", report=report, note=study.note))
    assert study.reports == [(1, 10.0)]
    assert study.notes == []


class Rank:
    """A trainer as this rank sees it, of two that decide together."""

    sanity_checking = False
    world_size = 2
    current_epoch = 0
    max_epochs = 3
    global_step = STEPS
    callback_metrics = {"val/score": torch.tensor(1.0)}  # noqa: RUF012

    def __init__(self, agree: Callable[[bool], bool]) -> None:
        self.strategy = self
        self.agree = agree

    def reduce_boolean_decision(self, decision: bool, *, all: bool) -> bool:  # noqa: A002
        assert not all
        return self.agree(decision)


def test_all_ranks_stop_together() -> None:
    study = Study(stop_at=1)
    first = callback(study)
    asked: list[bool] = []

    def agree(decision: bool) -> bool:
        asked.append(decision)
        return True  # what rank 0 says

    with pytest.raises(TrialPruned):
        first.on_validation_end(Rank(agree), Line())
    with pytest.raises(TrialPruned):
        ReportToStudy(monitor="val/score").on_validation_end(Rank(agree), Line())
    assert asked == [True, False]
    assert study.reports == [(1, 1.0)]
