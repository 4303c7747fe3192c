"""Copies of requests to a version whose answers nobody sees, to know it before it counts."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from fakenews.serving.gateway.ids import new_id
from fakenews.serving.gateway.metrics import Metrics
from fakenews.serving.gateway.prediction_log import PredictionLog, Record
from fakenews.serving.gateway.problems import Problem
from fakenews.serving.gateway.requests import Answer, Item

log = logging.getLogger(__name__)

AskVersion = Callable[[str, Sequence[Item]], Awaitable[list[Answer]]]


class Shadow:
    """Copies requests, and compares the answers.

    Args:
        ask: Answers some items by a version.
        in_flight: Requests copied at once; others are not copied.
        log: Of predictions, or None.
        metrics: Counts.
    """

    def __init__(
        self, *, ask: AskVersion, in_flight: int, log: PredictionLog | None, metrics: Metrics
    ) -> None:
        self._ask = ask
        self._in_flight = in_flight
        self._log = log
        self._metrics = metrics
        self._under_way: set[asyncio.Task[None]] = set()

    def copy(self, version: str, originals: Sequence[Record]) -> None:
        """Ask a version what was answered already; returns at once.

        Args:
            version: The shadow.
            originals: Predictions of the champion.
        """
        if len(self._under_way) >= self._in_flight:
            self._metrics.shadow.labels("dropped").inc(len(originals))
            return
        task = asyncio.get_running_loop().create_task(self._copy(version, originals))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def close(self) -> None:
        """Leave what is under way."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _copy(self, version: str, originals: Sequence[Record]) -> None:
        start = time.perf_counter()
        try:
            answers = await self._ask(version, [r.item for r in originals if r.item])
        except (Problem, TimeoutError):
            self._metrics.shadow.labels("failed").inc(len(originals))
            return
        records = []
        for original, answer in zip(originals, answers, strict=True):
            if "error" in answer:
                self._metrics.shadow.labels("failed").inc()
                continue
            self._compare(original.answer, answer)
            records.append(
                Record(
                    id=new_id(original.milliseconds),
                    milliseconds=original.milliseconds,
                    route="shadow",
                    item=original.item,
                    answer=answer,
                    seconds=time.perf_counter() - start,
                    shadow_of=original.id,
                )
            )
        if self._log is not None and records:
            self._log.note(records)

    def _compare(self, champion: Answer, shadow: Answer) -> None:
        label = champion["label"]
        same = shadow["label"] == label
        self._metrics.shadow.labels("agrees" if same else "differs").inc()
        given = shadow["probabilities"].get(label, 0.0)
        self._metrics.shadow_difference.observe(abs(given - champion["probabilities"][label]))
