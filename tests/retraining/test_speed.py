"""How long a challenger takes beside a champion."""

from fakenews.retraining.contestants import Contestant, Rows
from fakenews.retraining.gate_policy import GatePolicy
from fakenews.retraining.gate_verdict import Outcome
from fakenews.retraining.speed import latency_check


def test_latency_is_that_of_the_same_batches(
    sides: tuple[Contestant, Contestant], rows: Rows
) -> None:
    check = latency_check(rows, *sides, GatePolicy(latency_batches=10, latency_ratio=20))
    assert check.outcome is Outcome.PASSED
    assert check.numbers["lower"] <= check.numbers["ratio"]
    assert check.numbers["champion_ms"] > 0
    slow = latency_check(rows, *sides, GatePolicy(latency_batches=10, latency_ratio=0.01))
    assert slow.outcome is Outcome.FAILED
