"""A checkpoint is rewritten for another number of processes, and only then."""

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fakenews.data.prepared import PreparedDataset
from fakenews.errors import TrainingError
from fakenews.training.elastic import ElasticResume
from fakenews.training.streaming import StreamingDataModule

Write = Callable[..., PreparedDataset]


@pytest.fixture(scope="module")
def module(write_prepared: Write, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of 20 batches."""
    data = write_prepared(tmp_path_factory.mktemp("prepared"), shard_groups=[(80, 80)])
    return StreamingDataModule(dataset=data, features=None, pretrained=None, batch_size=8)


def trainer(module: Any, ranks: int, **changes: Any) -> Any:
    arguments = {"limit_train_batches": 1.0, "accumulate_grad_batches": 1, "overfit_batches": 0}
    found = SimpleNamespace(
        world_size=ranks,
        global_rank=0,
        is_global_zero=True,
        datamodule=module,
        **(arguments | changes),
    )
    module.trainer = found
    return found


def checkpoint(*, ranks: int, epoch: int, done: int, mid_epoch: bool = True) -> dict[str, Any]:
    """As Lightning has it after `done` steps of an epoch, at the end of the last."""
    started = epoch + 1 if mid_epoch else epoch
    current = {"ready": done, "started": done, "processed": done, "completed": done - 1}
    return {
        "StreamingDataModule": {},
        "callbacks": {"ElasticResume": {"ranks": ranks}},
        "loops": {
            "fit_loop": {
                "epoch_progress": {"current": {"started": started, "processed": epoch}},
                "epoch_loop.batch_progress": {"current": current},
            }
        },
        "lr_schedulers": [{"last_epoch": 100, "_step_count": 101}],
    }


def resumed(module: Any, left: list[list[int]], epoch: int) -> None:
    state = {"left": left, "epoch": epoch, "hash": module._hash, "seed": 0}
    module.load_state_dict(state)


@pytest.mark.parametrize(
    ("left", "ranks", "every", "expected"),
    [
        ([[5, 20]], 2, 1, (2, 12)),  # 15 batches are 8 steps of 10
        ([[1, 20]], 2, 1, (0, 10)),  # 19 are 10 of 10
        ([[5, 10], [15, 20]], 1, 1, (10, 30)),
        ([[5, 20]], 2, 2, (2, 6)),
        ([[5, 20]], 40, 1, (0, 1)),
    ],
)
def test_the_epoch_goes_on_where_as_many_steps_are_left(
    module: Any, left: list[list[int]], ranks: int, every: int, expected: tuple[int, int]
):
    done, steps = expected
    found = checkpoint(ranks=3, epoch=1, done=5)
    attached = trainer(module, ranks, accumulate_grad_batches=every)
    resumed(module, left, 1)
    ElasticResume().on_load_checkpoint(attached, None, found)  # type: ignore[arg-type]
    current = found["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
    assert current == {"ready": done, "started": done, "processed": done, "completed": done - 1}
    assert found["lr_schedulers"] == [{"last_epoch": steps, "_step_count": steps + 1}]


def test_between_two_epochs_only_the_schedule_moves(module: Any):
    found = checkpoint(ranks=1, epoch=2, done=20, mid_epoch=False)
    loops = copy.deepcopy(found["loops"])
    attached = trainer(module, 2)
    resumed(module, [[0, 20]], 2)
    ElasticResume().on_load_checkpoint(attached, None, found)  # type: ignore[arg-type]
    assert found["loops"] == loops
    assert found["lr_schedulers"][0]["last_epoch"] == 20


def test_on_as_many_ranks_nothing_changes(module: Any):
    found = checkpoint(ranks=2, epoch=0, done=5)
    before = copy.deepcopy(found)
    attached = trainer(module, 2, limit_train_batches=8)
    ElasticResume().on_load_checkpoint(attached, None, found)  # type: ignore[arg-type]
    assert found == before


def test_a_part_of_the_batches_and_other_ranks(module: Any):
    attached = trainer(module, 2, limit_train_batches=8)
    with pytest.raises(TrainingError, match=r"limit_train_batches=8 counts .* of 1 process:"):
        ElasticResume().on_load_checkpoint(
            attached,
            None,  # type: ignore[arg-type]
            checkpoint(ranks=1, epoch=0, done=5),
        )


@pytest.mark.parametrize("kind", ["HeadlineDataModule", "StreamingDataModule"])
def test_a_run_on_data_of_the_other_kind(module: Any, kind: str):
    other = SimpleNamespace() if kind == "StreamingDataModule" else module
    attached = trainer(other, 1)
    found = checkpoint(ranks=1, epoch=0, done=5)
    found[kind] = found.pop("StreamingDataModule")
    with pytest.raises(TrainingError, match="did not read its data as this one does"):
        ElasticResume().on_load_checkpoint(attached, None, found)  # type: ignore[arg-type]


def test_the_state_has_the_ranks(module: Any):
    callback = ElasticResume()
    callback.on_train_start(trainer(module, 4), None)  # type: ignore[arg-type]
    assert callback.state_dict() == {"ranks": 4}


def test_it_is_a_callback_of_every_run():
    conf = Path(__file__).resolve().parents[2] / "conf" / "callbacks" / "default.yaml"
    assert "fakenews.training.elastic.ElasticResume" in conf.read_text()
