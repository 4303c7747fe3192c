"""Which rows an epoch reads, in which order, on which rank: all without reading any.

The row groups of a split are joined to *windows* of a bounded number of rows, in which
rows are shuffled. A window of n rows is cut into ceil(n / batch_size) batches, so every
batch of an epoch has a *position* that all ranks know from the manifest alone. What is
left of an epoch is a list of intervals of positions, whatever the number of ranks was.

Shapes: G row groups, W windows.
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
        first: Position of its first batch.
        batches: Number of its batches.
    """

    number: int
    pieces: tuple[Piece, ...]
    first: int
    batches: int


class EpochPlan:
    """The windows of one epoch of training.

    Windows have the same sizes in every epoch, and so an epoch always has the same
    number of batches, on which schedules and loaders count. For this only row groups of
    equally many rows change places with each other, which are all but the last ones of
    shards; then the windows do.

    Args:
        group_rows: Rows of each row group, in the manifest's order, [G].
        batch_size: Most rows of a batch.
        window_rows: Fewest rows of a window, unless the whole epoch has fewer.
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
        self._rows = group_rows
        cuts = _window_cuts(group_rows, window_rows)
        generator = np.random.default_rng([seed, epoch])
        # Both sorts bring groups of one size together; the second one in random order.
        self._groups = np.empty(len(group_rows), dtype=np.int64)
        keys = generator.random(len(group_rows))
        self._groups[np.argsort(group_rows, kind="stable")] = np.lexsort((keys, group_rows))
        order = generator.permutation(len(cuts) - 1)
        self._starts, self._stops = cuts[:-1][order], cuts[1:][order]
        ends = np.concatenate(([0], np.cumsum(group_rows)))
        self.window_sizes: NDArray[np.int64] = ends[self._stops] - ends[self._starts]
        """Rows of each window, [W]."""
        batches = -(-self.window_sizes // batch_size)
        self._ends: NDArray[np.int64] = np.cumsum(batches)
        self._firsts = self._ends - batches

    @property
    def batches(self) -> int:
        """Batches of the epoch, the same in every epoch."""
        return int(self._ends[-1])

    def windows(self, positions: Intervals) -> Iterator[tuple[Window, list[int]]]:
        """The windows that have these positions, and which of their batches those are."""
        start = 0
        for number, wanted in _by_window(positions, self._ends):
            start = int(self._firsts[number])
            groups = self._groups[self._starts[number] : self._stops[number]].tolist()
            window = Window(
                number=number,
                pieces=tuple(
                    Piece(group=group, start=0, stop=int(self._rows[group])) for group in groups
                ),
                first=start,
                batches=int(self._ends[number]) - start,
            )
            yield window, [position - start for position in wanted]


def _window_cuts(group_rows: NDArray[np.int64], window_rows: int) -> NDArray[np.int64]:
    """Where windows start and stop, in groups; a last one that is too small is joined."""
    cuts, size = [0], 0
    for place, rows in enumerate(group_rows.tolist(), start=1):
        size += rows
        if size >= window_rows:
            cuts.append(place)
            size = 0
    if size:
        if len(cuts) > 1:
            cuts.pop()
        cuts.append(len(group_rows))
    return np.array(cuts, dtype=np.int64)


def _by_window(
    positions: Intervals, ends: NDArray[np.int64]
) -> Iterator[tuple[int, list[int]]]:
    """Of each window, in order, the positions that lie in it."""
    number = -1
    wanted: list[int] = []
    for first, stop in positions:
        start = first
        while start < stop:
            found = int(np.searchsorted(ends, start, side="right"))
            if found != number and wanted:
                yield number, wanted
                wanted = []
            number = found
            wanted += range(start, min(stop, int(ends[found])))
            start = min(stop, int(ends[found]))
    if wanted:
        yield number, wanted


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
    size = -(-int(ends[-1]) // ranks) if len(ends) else 0
    low, high = rank * size, min((rank + 1) * size, int(ends[-1]) if len(ends) else 0)
    windows: list[Window] = []
    pieces: list[Piece] = []
    first = 0
    group = int(np.searchsorted(ends, low, side="right"))
    while low < high:
        begin, end = int(ends[group] - group_rows[group]), int(ends[group])
        stop = min(end, high)
        pieces.append(Piece(group=group, start=low - begin, stop=stop - begin))
        low, group = stop, group + 1
        rows = sum(piece.stop - piece.start for piece in pieces)
        if rows >= window_rows or low >= high:
            batches = math.ceil(rows / batch_size)
            windows.append(
                Window(number=len(windows), pieces=tuple(pieces), first=first, batches=batches)
            )
            first += batches
            pieces = []
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
