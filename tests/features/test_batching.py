"""Batches of rows of like length."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fakenews.features.batching import cheapest_batches, plan_batches

Lengths = NDArray[np.int64]

lengths_of = st.lists(st.integers(0, 512), min_size=1, max_size=300).map(
    lambda values: np.array(values, dtype=np.int64)
)


@settings(max_examples=200)
@given(
    lengths=lengths_of,
    batch_size=st.integers(1, 64),
    batch_tokens=st.none() | st.integers(1, 4096),
    multiple_of=st.integers(1, 5),
    seed=st.none() | st.integers(0, 9),
)
def test_every_row_once_within_the_limits(
    lengths: Lengths,
    batch_size: int,
    batch_tokens: int | None,
    multiple_of: int,
    seed: int | None,
):
    batches = plan_batches(
        lengths,
        batch_size=batch_size,
        batch_tokens=batch_tokens,
        multiple_of=multiple_of,
        generator=None if seed is None else np.random.default_rng(seed),
    )
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert all(0 < len(rows) <= batch_size for rows in batches)
    assert len(batches) % multiple_of == 0 or len(batches) == len(lengths)
    if batch_tokens is not None:
        assert all(
            len(rows) == 1 or len(rows) * lengths[rows].max() <= batch_tokens
            for rows in batches
        )


@settings(max_examples=50)
@given(lengths=lengths_of, batch_size=st.integers(1, 64), multiple_of=st.integers(1, 4))
def test_every_epoch_has_equally_many_batches(
    lengths: Lengths, batch_size: int, multiple_of: int
):
    counts = {
        len(
            plan_batches(
                lengths,
                batch_size=batch_size,
                batch_tokens=700,
                multiple_of=multiple_of,
                generator=generator,
            )
        )
        for generator in (None, *map(np.random.default_rng, range(4)))
    }
    assert len(counts) == 1


def test_the_order_follows_from_the_generator():
    lengths = np.random.default_rng(0).integers(4, 60, 500)

    def plan(seed: int) -> list[list[int]]:
        generator = np.random.default_rng(seed)
        return [b.tolist() for b in plan_batches(lengths, batch_size=16, generator=generator)]

    assert plan(1) == plan(1)
    assert plan(1) != plan(2)
    # Not only the order of batches: their rows are others too.
    same = set(map(frozenset, plan(1))) & set(map(frozenset, plan(2)))
    assert len(same) < len(plan(1)) / 4


def test_without_a_generator_lengths_rise():
    lengths = np.array([9, 3, 3, 5, 1])
    batches = plan_batches(lengths, batch_size=2)
    assert [rows.tolist() for rows in batches] == [[4, 1], [2, 3], [0]]


@pytest.mark.parametrize("batch_size", [16, 32])
def test_little_is_padding_on_the_sample(batch_size: int):
    import pandas as pd

    import fakenews.data

    sample = Path(fakenews.data.__file__).parent / "sample.csv"
    lengths = pd.read_csv(sample)["text"].str.split().str.len().to_numpy() + 2
    batches = plan_batches(lengths, batch_size=batch_size, generator=np.random.default_rng(0))
    padded = sum(len(rows) * lengths[rows].max() for rows in batches)
    assert 1 - lengths.sum() / padded < 0.12


def test_a_text_longer_than_the_budget_gets_a_batch_of_its_own():
    batches = plan_batches(np.array([5, 500, 5]), batch_size=8, batch_tokens=64)
    assert sorted(map(len, batches)) == [1, 2]
    assert [1] in [rows.tolist() for rows in batches]


def test_batches_of_one_step_are_of_like_length() -> None:
    lengths = np.random.default_rng(0).integers(20, 60, 2000)
    batches = plan_batches(
        lengths, batch_size=16, multiple_of=4, generator=np.random.default_rng(1)
    )
    longest = np.array([lengths[rows].max() for rows in batches]).reshape(-1, 4)
    # A rank that has the longest batch of its step keeps the others waiting.
    assert (longest.max(axis=1) / longest.min(axis=1)).max() < 1.15
    # The steps themselves are in no order.
    assert (np.diff(longest[:, 0]) < 0).any()


def cost(lengths: Lengths, batches: list[NDArray[np.int64]], overhead: int) -> int:
    return sum(overhead + len(rows) * max(int(lengths[rows].max()), 1) for rows in batches)


@given(
    lengths=lengths_of,
    batch_size=st.integers(1, 64),
    batch_tokens=st.integers(1, 4096),
    overhead=st.integers(1, 200),
)
def test_the_cheapest_have_every_row_once_within_the_limits(
    lengths: Lengths, batch_size: int, batch_tokens: int, overhead: int
):
    batches = cheapest_batches(
        lengths, batch_size=batch_size, batch_tokens=batch_tokens, overhead=overhead
    )
    order = np.concatenate(batches)
    assert sorted(order) == list(range(len(lengths)))
    assert (np.diff(lengths[order]) >= 0).all()
    for rows in batches:
        assert 0 < len(rows) <= batch_size
        assert len(rows) == 1 or len(rows) * lengths[rows].max() <= batch_tokens
    # Never more than what has as few batches as may be, nor than one row at a time.
    for others in (
        plan_batches(lengths, batch_size=batch_size, batch_tokens=batch_tokens),
        [np.array([row]) for row in range(len(lengths))],
    ):
        assert cost(lengths, batches, overhead) <= cost(lengths, others, overhead)


@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=9).map(np.array),
    overhead=st.integers(1, 100),
)
def test_no_other_cuts_are_cheaper(lengths: Lengths, overhead: int):
    order = np.argsort(lengths)
    found = cheapest_batches(lengths, batch_size=5, batch_tokens=150, overhead=overhead)
    ways = (
        np.split(order, [at for at in range(1, len(order)) if cuts >> (at - 1) & 1])
        for cuts in range(1 << (len(order) - 1))
    )
    allowed = (
        way
        for way in ways
        if all(len(b) <= 5 and (len(b) == 1 or len(b) * lengths[b].max() <= 150) for b in way)
    )
    assert cost(lengths, found, overhead) == min(cost(lengths, w, overhead) for w in allowed)


def test_a_long_row_keeps_to_itself_unless_a_batch_costs_more():
    lengths = np.array([9, 60, 10, 8])

    def cut(overhead: int) -> list[list[int]]:
        batches = cheapest_batches(lengths, batch_size=64, batch_tokens=4096, overhead=overhead)
        return [rows.tolist() for rows in batches]

    assert cut(80) == [[3, 0, 2], [1]]
    assert cut(1 << 20) == [[3, 0, 2, 1]]
    assert (
        cheapest_batches(np.empty(0, dtype=np.int64), batch_size=8, batch_tokens=64, overhead=1)
        == []
    )
