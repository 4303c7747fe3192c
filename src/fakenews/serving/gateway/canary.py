"""Whether a canary does worse than the champion, by what happened a short time ago."""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple

_MOST = 2000  # requests remembered of each
# Seconds for which a judgement stands: many requests in that time cost no more than one.
_STANDS = 0.05


class _Seen(NamedTuple):
    time: float
    ok: bool
    seconds: float


class Watch:
    """Compares the requests to a canary with those to the champion.

    Args:
        window: Seconds looked back.
        min_requests: Fewer of the canary say nothing.
        error_excess: By how much its share of failed requests may exceed the champion's.
        latency_ratio: How many times the champion's 95th percentile of latency it may take.
        latency_floor: Seconds of latency that are never too much.
        clock: Seconds.
    """

    def __init__(
        self,
        *,
        window: float,
        min_requests: int,
        error_excess: float,
        latency_ratio: float,
        latency_floor: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._window = window
        self._min_requests = min_requests
        self._error_excess = error_excess
        self._latency_ratio = latency_ratio
        self._latency_floor = latency_floor
        self._clock = clock
        self._seen: dict[str, deque[_Seen]] = {}
        self._judged = -math.inf
        self.reset()

    def reset(self) -> None:
        """Forget everything: the canary is another."""
        self._seen = {"champion": deque(maxlen=_MOST), "canary": deque(maxlen=_MOST)}

    def observe(
        self, who: Literal["champion", "canary"], ok: bool, seconds: float
    ) -> str | None:
        """Take note of a request.

        Args:
            who: Was asked.
            ok: Whether it answered.
            seconds: That it took.

        Returns:
            Why the canary should be given up, or None.
        """
        now = self._clock()
        self._seen[who].append(_Seen(now, ok, seconds))
        if who == "champion" or now < self._judged + _STANDS:
            return None
        self._judged = now
        for seen in self._seen.values():
            while seen and seen[0].time < now - self._window:
                seen.popleft()
        return self._breach()

    def _breach(self) -> str | None:
        canary, champion = self._seen["canary"], self._seen["champion"]
        if len(canary) < self._min_requests:
            return None
        errors, usual = _error_rate(canary), _error_rate(champion)
        if errors > usual + self._error_excess:
            return (
                f"{errors:.1%} of its {len(canary)} requests failed, and {usual:.1%} of the "
                f"champion's {len(champion)}"
            )
        if len(champion) < self._min_requests:
            return None
        slow, allowed = _p95(canary), self._latency_ratio * _p95(champion)
        if slow > max(allowed, self._latency_floor):
            return (
                f"its 95th percentile of latency is {slow * 1000:.0f} ms, and "
                f"{_p95(champion) * 1000:.0f} ms the champion's"
            )
        return None


def _error_rate(seen: deque[_Seen]) -> float:
    return sum(not each.ok for each in seen) / len(seen) if seen else 0.0


def _p95(seen: deque[_Seen]) -> float:
    times = sorted(each.seconds for each in seen)
    return times[int(0.95 * (len(times) - 1))]
