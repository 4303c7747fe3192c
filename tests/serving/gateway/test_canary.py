"""When a canary is given up."""

import pytest

from fakenews.serving.gateway.canary import Watch


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 0.1
        return self.now


def watch(clock: Clock) -> Watch:
    return Watch(
        window=60,
        min_requests=10,
        error_excess=0.05,
        latency_ratio=2,
        latency_floor=0.1,
        clock=clock,
    )


def test_a_canary_that_does_as_well_stays() -> None:
    seen = watch(Clock())
    for _ in range(100):
        assert seen.observe("champion", True, 0.2) is None
        assert seen.observe("canary", True, 0.3) is None


def test_errors_beyond_those_of_the_champion() -> None:
    seen = watch(Clock())
    # The champion fails as often: it is no fault of the canary.
    for _ in range(20):
        assert seen.observe("champion", False, 0.1) is None
        assert seen.observe("canary", False, 0.1) is None
    seen.reset()
    for _ in range(9):
        seen.observe("champion", True, 0.1)
        assert seen.observe("canary", False, 0.1) is None
    reason = seen.observe("canary", False, 0.1)
    assert reason == "100.0% of its 10 requests failed, and 0.0% of the champion's 9"


def test_latency_beyond_that_of_the_champion() -> None:
    seen = watch(Clock())
    for _ in range(9):
        seen.observe("champion", True, 0.1)
        seen.observe("canary", True, 0.5)
    seen.observe("champion", True, 0.1)
    reason = seen.observe("canary", True, 0.5)
    assert reason == "its 95th percentile of latency is 500 ms, and 100 ms the champion's"


def test_latency_that_is_never_too_much_and_too_few_of_the_champion() -> None:
    seen = watch(Clock())
    for _ in range(50):
        seen.observe("champion", True, 0.001)
        assert seen.observe("canary", True, 0.09) is None
    seen.reset()
    for _ in range(50):
        assert seen.observe("canary", True, 5) is None


def test_what_is_long_ago_does_not_count() -> None:
    clock = Clock()
    seen = watch(clock)
    for _ in range(9):
        seen.observe("canary", False, 0.1)
    clock.now += 61
    for _ in range(20):
        assert seen.observe("canary", True, 0.1) is None


@pytest.mark.parametrize("failing", [0, 1])
def test_many_requests_cost_no_more_than_few(failing: int) -> None:
    clock = Clock()
    seen = watch(clock)
    found = [seen.observe("canary", not failing, 0.1) for _ in range(10_000)]
    assert len(seen._seen["canary"]) <= 2000
    assert any(found) is bool(failing)
