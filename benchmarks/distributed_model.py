"""How a step's time grows with the number of ranks: arithmetic, without a measurement.

    T(n) = compute * (1 + uneven(n)) + loader + max(0, ring(n) - overlap)
    ring(n) = 2 (n - 1) / n * bytes / bandwidth + 2 (n - 1) * latency * buckets

A ring all-reduce sends each rank's gradients around twice, in n pieces: once to add them,
once to hand the sums out. So what a rank sends approaches twice the gradients, however many
ranks there are, and the number of messages grows with them. All wait for the rank with the
longest batch: that is `uneven`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

NODES = (1, 2, 4, 8, 16, 32, 64)
BANDWIDTHS = (10.0, 25.0, 100.0)


@dataclass(frozen=True, kw_only=True)
class Constants:
    """What a step is made of.

    Attributes:
        compute: Seconds of a step of one rank that talks to nobody.
        gradient_bytes: That all ranks add up in a step.
        latency: Seconds until a message without content arrives.
        buckets: All-reduces of a step, one after the other.
        loader: Seconds in which a step waits for its batch.
        overlap: Seconds of communication that the backward pass hides; 0 hides none.
    """

    compute: float
    gradient_bytes: float
    latency: float = 0.0
    buckets: int = 1
    loader: float = 0.0
    overlap: float = 0.0


def ring_seconds(constants: Constants, *, ranks: int, gbits: float) -> float:
    """Seconds of a step's all-reduces with so many Gbit/s in each direction, at each rank."""
    sent = 2 * (ranks - 1) / ranks * constants.gradient_bytes
    return sent * 8 / (gbits * 1e9) + 2 * (ranks - 1) * constants.latency * constants.buckets


def step_seconds(
    constants: Constants, *, ranks: int, gbits: float, uneven: float = 0.0
) -> float:
    """Seconds of a step, in which every rank trains on a batch of its own.

    Args:
        constants: Of the machine and the model.
        ranks: How many.
        gbits: Bandwidth of each.
        uneven: How much longer the longest of their batches takes than the mean.
    """
    ring = ring_seconds(constants, ranks=ranks, gbits=gbits)
    compute = constants.compute * (1 + uneven)
    return compute + constants.loader + max(0.0, ring - constants.overlap)


def efficiency(constants: Constants, *, ranks: int, gbits: float, uneven: float = 0.0) -> float:
    """Rows/s of each rank beside one that is alone; times the ranks, it is the speed-up."""
    alone = step_seconds(constants, ranks=1, gbits=gbits)
    return alone / step_seconds(constants, ranks=ranks, gbits=gbits, uneven=uneven)


def model_table(
    constants: Constants,
    *,
    bandwidths: Sequence[float] = BANDWIDTHS,
    nodes: Sequence[int] = NODES,
    uneven: Sequence[float] | None = None,
) -> Table:
    """Seconds of a step and efficiency, by nodes of one rank each and bandwidth.

    Args:
        constants: Of the machine and the model.
        bandwidths: Gbit/s; a column each.
        nodes: A row each.
        uneven: Of each number of nodes; None: batches are all alike.
    """
    table = Table(
        title=f"compute {constants.compute:g} s, {constants.gradient_bytes / 1e6:.1f} MB, "
        f"{constants.buckets} x {constants.latency * 1e6:g} us, "
        f"loader {constants.loader:g} s, overlap {constants.overlap:g} s; not measured",
        caption="seconds of a step (efficiency, speed-up)",
    )
    table.add_column("nodes", justify="right", no_wrap=True, min_width=5)
    for gbits in bandwidths:
        table.add_column(f"{gbits:g} Gbit/s", justify="right", no_wrap=True)
    for ranks, more in zip(nodes, uneven or [0.0] * len(nodes), strict=True):
        cells = []
        for gbits in bandwidths:
            seconds = step_seconds(constants, ranks=ranks, gbits=gbits, uneven=more)
            share = efficiency(constants, ranks=ranks, gbits=gbits, uneven=more)
            cells.append(f"{seconds:.3f} ({share:.0%}, {share * ranks:.1f})")
        table.add_row(str(ranks), *cells)
    return table
