"""Batches of rows of like length: the padding, and so the work wasted, stays small.

Rows are bucketed by length, shuffled within a bucket, and cut in bucket order wherever
the next row would pass the batch's limit of rows or of padded tokens. The cuts depend
on the lengths alone, so every epoch has the same number of batches, in any order and
with any shuffling: what schedules, resuming and distributed training count on.

A few rows that somebody waits for are of all lengths: they are cut where that costs least.
"""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]

# A bucket spans lengths within this ratio: wide enough to hold many rows to shuffle,
# narrow enough that a batch padded to its longest row wastes a hundredth or two.
_BUCKET_RATIO = 1.03


def plan_batches(
    lengths: NDArray[np.int64],
    *,
    batch_size: int,
    batch_tokens: int | None = None,
    multiple_of: int = 1,
    generator: np.random.Generator | None = None,
) -> list[Rows]:
    """Cut rows into batches of like length that cover every row exactly once.

    Args:
        lengths: Tokens of each row, [N].
        batch_size: Most rows of a batch.
        batch_tokens: Most tokens of a batch, padding included; a longer row gets a batch
            of its own. None: no limit.
        multiple_of: The number of batches is made a multiple of this, by halving the
            largest, so that every rank gets equally many. Impossible once every batch
            has one row. So many neighbours are batches of like length: ranks that take one
            each are done at the same time.
        generator: Shuffles rows within a bucket, and the batches. None: in length order.

    Returns:
        Row numbers of each batch.
    """
    buckets = np.ceil(np.log(np.maximum(lengths, 1)) / np.log(_BUCKET_RATIO)).astype(np.int64)
    if generator is None:
        order = np.argsort(lengths, kind="stable")
    else:
        shuffled = generator.permutation(len(lengths))
        order = shuffled[np.argsort(buckets[shuffled], kind="stable")]
    batches = [order[start:stop] for start, stop in _cuts(buckets, batch_size, batch_tokens)]
    while len(batches) % multiple_of and len(batches) < len(lengths):
        largest = max(range(len(batches)), key=lambda index: len(batches[index]))
        rows = batches.pop(largest)
        batches[largest:largest] = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    if generator is not None and len(batches) % multiple_of == 0:
        steps = generator.permutation(len(batches) // multiple_of)
        places = (steps[:, None] * multiple_of + np.arange(multiple_of)).ravel()
        batches = [batches[index] for index in places]
    return batches


def cheapest_batches(
    lengths: NDArray[np.int64], *, batch_size: int, batch_tokens: int, overhead: int
) -> list[Rows]:
    """Cut rows, in length order, into the batches that cost least together.

    A batch costs its tokens, padding included, and its overhead. By dynamic programming over
    where the last batch begins; the larger batch where two ways cost the same.

    Args:
        lengths: Tokens of each row, [N].
        batch_size: Most rows of a batch.
        batch_tokens: Most tokens of a batch, padding included; a longer row gets a batch
            of its own.
        overhead: What a batch costs beside its tokens, in tokens.

    Returns:
        Row numbers of each batch.
    """
    order = np.argsort(lengths, kind="stable")
    longest = np.maximum(lengths[order], 1).tolist()
    counts = np.arange(min(batch_size, len(order)), 0, -1)
    costs = np.zeros(len(order) + 1, dtype=np.int64)  # of the first so many rows
    begins = [0] * (len(order) + 1)  # of the last of their batches
    for stop, tokens in enumerate(longest, start=1):
        most = max(min(batch_size, batch_tokens // tokens, stop), 1)
        ways = costs[stop - most : stop] + counts[-most:] * tokens
        best = int(ways.argmin())
        costs[stop] = ways[best] + overhead
        begins[stop] = stop - most + best
    batches: list[Rows] = []
    stop = len(order)
    while stop:
        batches.append(order[begins[stop] : stop])
        stop = begins[stop]
    return batches[::-1]


def _cuts(
    buckets: NDArray[np.int64], batch_size: int, batch_tokens: int | None
) -> list[tuple[int, int]]:
    """Where batches start and stop, from the sorted buckets' upper bounds alone."""
    cuts: list[tuple[int, int]] = []
    first = 0
    values, counts = np.unique(buckets, return_counts=True)
    ends = np.cumsum(counts)
    for value, count, end in zip(values, counts, ends, strict=True):
        longest = int(_BUCKET_RATIO ** int(value) + 1e-9)
        limit = batch_size if batch_tokens is None else min(batch_size, batch_tokens // longest)
        limit = max(limit, 1)
        # Rows left over from shorter buckets start this one's first batch, unless they are
        # too many for it.
        begin = int(end - count)
        if begin - first >= limit:
            cuts.append((first, begin))
            first = begin
        while end - first >= limit:
            cuts.append((first, first + limit))
            first += limit
    if first < len(buckets):
        cuts.append((first, len(buckets)))
    return cuts
