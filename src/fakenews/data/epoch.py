"""Which rows an epoch reads, in which order, on which rank: all without reading any.

The row groups of a split are put in a random order and cut into *windows* of a bounded
number of rows, in which rows are shuffled. A window of n rows is cut into
ceil(n / batch_size) batches, so every batch of an epoch has a *position* that all ranks
know from the manifest alone. What is left of an epoch is a list of intervals of
positions, whatever the number of ranks was.

Shapes: G row groups.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Intervals = list[tuple[int, int]]
"""Positions as half-open intervals, sorted and apart from each other."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Rows `start` to `stop` of one row group, by its number in the split."""

    group: int
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class Window:
    """Rows to read, shuffle and cut into batches together.

    Attributes:
        number: Of the window in its epoch.
        pieces: The rows to read, in order.
        batches: Number of its batches.
    """

    number: int
    pieces: tuple[Piece, ...]
    batches: int

    @property
    def rows(self) -> int:
        """Rows of all pieces."""
        return sum(piece.stop - piece.start for piece in self.pieces)


class EpochPlan:
    """The windows of one epoch of training.

    Windows are whole multiples of a batch, and so every epoch has the same number of
    batches, on which schedules and loaders count. A row group on the edge of two windows
    is in both, in parts.

    Args:
        group_rows: Rows of each row group, in the manifest's order, [G].
        batch_size: Most rows of a batch.
        window_rows: Fewest rows of a window, unless the whole epoch has fewer; the last one
            may have twice as many.
        seed: Of the order.
        epoch: Number of the epoch, from 0.
    """

    def __init__(
        self,
        group_rows: NDArray[np.int64],
        *,
        batch_size: int,
        window_rows: int,
        seed: int,
        epoch: int,
    ) -> None:
        self._order = np.random.default_rng([seed, epoch]).permutation(len(group_rows))
        self._ends: NDArray[np.int64] = np.cumsum(group_rows[self._order])
        self._batch_size = batch_size
        self._window_batches = math.ceil(window_rows / batch_size)
        self.rows = int(self._ends[-1])
        self.batches = math.ceil(self.rows / batch_size)
        # A rest that would make a small window belongs to the one before.
        self._last = max(self.rows // (self._window_batches * batch_size), 1) - 1

    def windows(self, positions: Intervals) -> Iterator[tuple[Window, list[int]]]:
        """The windows that have these positions, and which of their batches those are."""
        number = -1
        wanted: list[int] = []
        for first, stop in positions:
            start = first
            while start < stop:
                found = min(start // self._window_batches, self._last)
                if found != number and wanted:
                    yield self._window(number), wanted
                    wanted = []
                number = found
                low, high = self._positions(number)
                wanted += range(start - low, min(stop, high) - low)
                start = min(stop, high)
        if wanted:
            yield self._window(number), wanted

    def whole_windows(self, positions: Intervals) -> tuple[int, Intervals]:
        """The rows of all windows that lie whole in an interval; and the other positions."""
        rows, rest = 0, []
        for start, stop in positions:
            low = math.ceil(start / self._window_batches) * self._window_batches
            high = stop // self._window_batches * self._window_batches
            # The last window is longer, and whole or not at its own edges.
            last, end = self._positions(self._last)
            low = end if low > last else low
            high = end if stop >= end else min(high, last)
            if low >= high:
                rest.append((start, stop))
                continue
            rows += min(high * self._batch_size, self.rows) - low * self._batch_size
            rest += [(a, b) for a, b in ((start, low), (high, stop)) if a < b]
        return rows, rest

    def _positions(self, number: int) -> tuple[int, int]:
        """First position of a window, and that of the next."""
        low = number * self._window_batches
        return low, self.batches if number == self._last else low + self._window_batches

    def _window(self, number: int) -> Window:
        low, high = self._positions(number)
        start, stop = low * self._batch_size, min(high * self._batch_size, self.rows)
        return Window(
            number=number,
            pieces=tuple(_pieces(self._order, self._ends, start, stop)),
            batches=high - low,
        )


def _pieces(
    order: NDArray[np.int64], ends: NDArray[np.int64], start: int, stop: int
) -> Iterator[Piece]:
    """Rows `start` to `stop` of the row groups laid end to end in this order."""
    place = int(np.searchsorted(ends, start, side="right"))
    begin = int(ends[place - 1]) if place else 0
    while begin < stop:
        end = int(ends[place])
        yield Piece(
            group=int(order[place]),
            start=max(start, begin) - begin,
            stop=min(stop, end) - begin,
        )
        begin, place = end, place + 1


def count(positions: Intervals) -> int:
    """How many positions the intervals hold."""
    return sum(stop - start for start, stop in positions)


def steps(left: Intervals, ranks: int) -> int:
    """Steps in which all ranks together go through what is left."""
    return -(-count(left) // ranks)


def share(left: Intervals, *, rank: int, ranks: int) -> Intervals:
    """The contiguous part of what is left that a rank goes through.

    Every rank has `steps(left, ranks)` positions; the last ones may have fewer or none.
    """
    size = steps(left, ranks)
    return _slice(left, rank * size, (rank + 1) * size)


def after(left: Intervals, *, done: int, ranks: int) -> Intervals:
    """What is left when each rank has gone through the first `done` of its share."""
    size = steps(left, ranks)
    rest: Intervals = []
    for rank in range(ranks):
        for start, stop in _slice(left, rank * size + min(done, size), (rank + 1) * size):
            if rest and rest[-1][1] == start:
                rest[-1] = (rest[-1][0], stop)
            else:
                rest.append((start, stop))
    return rest


def _slice(left: Intervals, first: int, last: int) -> Intervals:
    """Numbers `first` to `last` of the positions, counted through all intervals."""
    found: Intervals = []
    passed = 0
    for start, stop in left:
        low, high = max(start, start + first - passed), min(stop, start + last - passed)
        if low < high:
            found.append((low, high))
        passed += stop - start
    return found


def as_intervals(value: Any, batches: int) -> Intervals | None:
    """Intervals as a checkpoint has them; None when they are none of `batches` positions."""
    try:
        left = [(int(start), int(stop)) for start, stop in value]
    except (TypeError, ValueError):
        return None
    edges = [0, *(edge for interval in left for edge in interval), batches]
    sound = all(start < stop for start, stop in left) and edges == sorted(edges)
    return left if sound else None


def evaluation_windows(
    group_rows: NDArray[np.int64], *, batch_size: int, window_rows: int, rank: int, ranks: int
) -> list[Window]:
    """The windows of a rank's share of a split that is evaluated: contiguous rows.

    Args:
        group_rows: Rows of each row group, [G].
        batch_size: Most rows of a batch.
        window_rows: Fewest rows of a window, unless the share has fewer.
        rank: Whose share.
        ranks: How many share the split; the last ones may have fewer rows or none.
    """
    ends = np.cumsum(group_rows)
    total = int(ends[-1]) if len(ends) else 0
    size = math.ceil(total / ranks)
    start, stop = min(rank * size, total), min((rank + 1) * size, total)
    windows: list[Window] = []
    pieces: list[Piece] = []
    rows = 0
    for piece in _pieces(np.arange(len(ends)), ends, start, stop):
        pieces.append(piece)
        rows += piece.stop - piece.start
        start += piece.stop - piece.start
        if rows >= window_rows or start == stop:
            batches = math.ceil(rows / batch_size)
            windows.append(Window(number=len(windows), pieces=tuple(pieces), batches=batches))
            pieces, rows = [], 0
    return windows


def evaluation_steps(
    group_rows: NDArray[np.int64], *, batch_size: int, window_rows: int, ranks: int
) -> int:
    """Batches of the rank that has most of them, which all ranks must have."""
    return max(
        sum(
            window.batches
            for window in evaluation_windows(
                group_rows,
                batch_size=batch_size,
                window_rows=window_rows,
                rank=rank,
                ranks=ranks,
            )
        )
        for rank in range(ranks)
    )
