"""The plan of an epoch: every row once, on any number of ranks, stopped anywhere."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakenews.data.epoch import (
    EpochPlan,
    Intervals,
    Window,
    after,
    as_intervals,
    count,
    evaluation_steps,
    evaluation_windows,
    share,
    steps,
)

GROUPS = st.lists(st.integers(1, 50), min_size=1, max_size=30)


def plan(groups: Sequence[int], batch_size: int, window_rows: int, epoch: int = 0) -> EpochPlan:
    return EpochPlan(
        np.array(groups), batch_size=batch_size, window_rows=window_rows, seed=1, epoch=epoch
    )


def rows_of(window: Window) -> Iterator[tuple[int, int]]:
    """Each row as its row group and its place there."""
    for piece in window.pieces:
        assert piece.start < piece.stop
        yield from ((piece.group, row) for row in range(piece.start, piece.stop))


@given(groups=GROUPS, batch_size=st.integers(1, 40), window_rows=st.integers(1, 200))
def test_every_epoch_has_each_row_once_in_equally_many_batches(
    groups: list[int], batch_size: int, window_rows: int
):
    rows = Counter((group, row) for group, size in enumerate(groups) for row in range(size))
    for epoch in range(3):
        found = plan(groups, batch_size, window_rows, epoch)
        windows = list(found.windows([(0, found.batches)]))
        assert Counter(row for window, _ in windows for row in rows_of(window)) == rows
        assert found.batches == -(-sum(groups) // batch_size)
        for window, wanted in windows:
            assert wanted == list(range(window.batches))
            assert window.batches == -(-window.rows // batch_size)
            if len(windows) > 1:
                assert window.rows >= window_rows
                assert window.rows < 2 * (window_rows + batch_size)


@given(
    groups=GROUPS,
    batch_size=st.integers(1, 40),
    window_rows=st.integers(1, 200),
    edges=st.lists(st.integers(0, 2000), max_size=8),
)
def test_windows_of_some_positions_have_just_these(
    groups: list[int], batch_size: int, window_rows: int, edges: list[int]
):
    found = plan(groups, batch_size, window_rows)
    cuts = sorted({edge % (found.batches + 1) for edge in edges})
    wanted = list(zip(cuts[::2], cuts[1::2], strict=False))
    firsts, first = {}, 0
    for window, _ in found.windows([(0, found.batches)]):
        firsts[window.number] = first
        first += window.batches
    positions = [
        firsts[window.number] + batch
        for window, batches in found.windows(wanted)
        for batch in batches
    ]
    assert positions == [p for start, stop in wanted for p in range(start, stop)]
    whole, rest = found.whole_windows(wanted)
    sizes = {window.number: window.rows for window, _ in found.windows([(0, found.batches)])}
    split = {window.number for window, _ in found.windows(rest)}
    named = {window.number for window, _ in found.windows(wanted)}
    # What is not whole may touch a window twice, but never one that is whole.
    assert whole == sum(sizes[number] for number in named - split)


def test_the_order_follows_from_seed_and_epoch():
    def order(epoch: int) -> list[int]:
        found = plan([8] * 40, 4, 16, epoch)
        return [
            piece.group for w, _ in found.windows([(0, found.batches)]) for piece in w.pieces
        ]

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert sorted(order(0)) == sorted(order(1)) == list(range(40))


def positions(left: Intervals) -> list[int]:
    return [position for start, stop in left for position in range(start, stop)]


@given(
    batches=st.integers(1, 200),
    stops=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 60)), max_size=6),
    last=st.integers(1, 9),
)
def test_stopped_and_resumed_on_any_ranks_each_position_is_seen_once(
    batches: int, stops: list[tuple[int, int]], last: int
):
    left: Intervals = [(0, batches)]
    seen: list[int] = []
    for ranks, done in [*stops, (last, batches)]:
        shares = [positions(share(left, rank=rank, ranks=ranks)) for rank in range(ranks)]
        assert sorted(chain.from_iterable(shares)) == positions(left)
        assert max(map(len, shares)) == steps(left, ranks) == len(shares[0])
        for mine in shares:
            seen += mine[:done]
        rest = after(left, done=done, ranks=ranks)
        # Who resumes on as many ranks goes on where each of them was.
        if count(rest):
            for rank, mine in enumerate(shares):
                assert positions(share(rest, rank=rank, ranks=ranks)) == mine[done:]
            assert steps(rest, ranks) == steps(left, ranks) - done
        left = rest
        assert as_intervals([list(interval) for interval in left], batches) == left
    assert sorted(seen) == list(range(batches))
    assert left == []


@pytest.mark.parametrize(
    "value",
    [
        None,
        3,
        [[0, 11]],
        [[2, 2]],
        [[3, 1]],
        [[4, 6], [1, 2]],
        [[0, 3], [2, 4]],
        [[-1, 2]],
        "x",
    ],
)
def test_intervals_that_are_none(value: object):
    assert as_intervals(value, 10) is None


@given(
    groups=GROUPS,
    batch_size=st.integers(1, 40),
    window_rows=st.integers(1, 200),
    ranks=st.integers(1, 9),
)
def test_an_evaluation_has_each_row_once_over_all_ranks(
    groups: list[int], batch_size: int, window_rows: int, ranks: int
):
    shares = [
        evaluation_windows(
            np.array(groups),
            batch_size=batch_size,
            window_rows=window_rows,
            rank=rank,
            ranks=ranks,
        )
        for rank in range(ranks)
    ]
    assert Counter(row for mine in shares for window in mine for row in rows_of(window)) == (
        Counter((group, row) for group, size in enumerate(groups) for row in range(size))
    )
    most = max(sum(window.batches for window in mine) for mine in shares)
    assert most == evaluation_steps(
        np.array(groups), batch_size=batch_size, window_rows=window_rows, ranks=ranks
    )
    assert most >= 1
