"""How long a challenger takes beside a champion: the same batches, in turns, in one process."""

import time

import numpy as np
from scipy import stats

from fakenews.retraining.contestants import Contestant, Rows
from fakenews.retraining.gate_policy import GatePolicy
from fakenews.retraining.gate_verdict import Check, Outcome

_BATCH, _WARM_UP = 32, 3


def latency_check(
    rows: Rows, champion: Contestant, challenger: Contestant, policy: GatePolicy
) -> Check:
    """Whether the challenger is surely slower than is borne.

    Each batch is predicted by both, and who begins changes; so what else the machine does
    meets both. The ratio is the median over batches, and its lower bound an order statistic
    (of the sign test), which a few disturbed batches do not move.

    Args:
        rows: The test set, whose texts are timed.
        champion: Timed.
        challenger: Timed.
        policy: Batches, ratio and rates.
    """
    rng = np.random.default_rng(policy.seed)
    count = policy.latency_batches
    times = np.empty((count, 2))
    for number in range(-_WARM_UP, count):
        some = rng.choice(len(rows.frame), min(_BATCH, len(rows.frame)), replace=False)
        batch = rows.frame.iloc[some]
        sides = [(0, champion), (1, challenger)]
        for at, side in sides if number % 2 else sides[::-1]:
            began = time.perf_counter()
            side.score(batch)
            if number >= 0:
                times[number, at] = 1000 * (time.perf_counter() - began)
    old, new = np.median(times, axis=0)
    ratios = np.sort(times[:, 1] / times[:, 0])
    ratio = float(np.median(ratios))
    # Of so many, at most this many are below the true median but for `tripwire` of the time.
    below = int(stats.binom.ppf(policy.tripwire, count, 0.5))
    lower = float(ratios[max(below - 1, 0)])
    slower = lower > policy.latency_ratio
    said = f"a batch of {_BATCH} takes {old:.0f} ms, with the challenger {new:.0f} ms"
    return Check(
        key="latency",
        outcome=Outcome.FAILED if slower else Outcome.PASSED,
        message=f"{said}: {ratio:.2f} times as long, {policy.latency_ratio:g} are borne",
        numbers={
            "champion_ms": float(old),
            "challenger_ms": float(new),
            "ratio": ratio,
            "lower": lower,
            "borne": policy.latency_ratio,
            "batches": count,
            "level": policy.tripwire,
        },
    )
