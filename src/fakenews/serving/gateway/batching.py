"""Concurrent requests share batches, without waiting when nothing else is under way.

A batch is sent at once while few are; otherwise requests wait in the order in which they
came, and go together when a batch returns. Whoever is answered often asks again at once: for a
small share of the time that the batch took, the next one waits for as many.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from fakenews.serving.gateway.problems import Problem, overloaded
from fakenews.serving.gateway.requests import Answer, Item

Send = Callable[[list[Item], float], Awaitable[list[Answer]]]
"""Answers a batch before a time of the event loop's clock."""

# Of the rate at which the queue drains, the weight of earlier batches.
_SMOOTHING = 0.9
_LONGEST_RETRY = 60.0


class _Job:
    """A request that waits for the answers of its items, which may be in several batches."""

    __slots__ = ("answers", "deadline", "future", "items", "missing", "taken")

    def __init__(self, items: Sequence[Item], deadline: float) -> None:
        self.items = items
        self.deadline = deadline
        self.answers: list[Answer | None] = [None] * len(items)
        self.taken = 0  # items that are in a batch already
        self.missing = len(items)
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Lane:
    """The way to one version of a model.

    Args:
        send: Asks the model.
        in_flight: Batches under way at once.
        gather: Share of a batch's time for which the next waits for those who were answered.
        batch_items: Most items of a batch.
        batch_characters: Most characters of a batch, though always one item.
        queue_items: Items that may wait.
        observe: Is told the size of each batch.
    """

    def __init__(
        self,
        *,
        send: Send,
        in_flight: int,
        gather: float,
        batch_items: int,
        batch_characters: int,
        queue_items: int,
        observe: Callable[[int], None],
    ) -> None:
        self.in_flight = in_flight
        self.waiting = 0
        self._send = send
        self._gather = gather
        self._batch_items = batch_items
        self._batch_characters = batch_characters
        self._queue_items = queue_items
        self._observe = observe
        self._queue: deque[_Job] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._woken = False
        self._expected = 0  # requests, for a moment
        self._moment: asyncio.TimerHandle | None = None
        self._rate = 0.0  # items a second

    @property
    def idle(self) -> bool:
        """Whether nothing waits or is under way."""
        return not self._queue and not self._under_way

    async def ask(self, items: Sequence[Item], deadline: float) -> list[Answer]:
        """The answers of some items, in order; cancel it to leave the queue.

        Args:
            items: At least one.
            deadline: Of the event loop's clock; what has not been sent then never is.

        Raises:
            Problem: Too much waits, or the model gave no answer.
        """
        # What goes at once never waits: only the rest has to find room.
        going = (self.in_flight - len(self._under_way)) * self._batch_items
        if self.waiting and self.waiting + len(items) > self._queue_items + max(going, 0):
            raise overloaded(self.retry_after)
        job = _Job(items, deadline)
        self._queue.append(job)
        self.waiting += len(items)
        if not self._woken:
            # After what else is ready now, so that requests of one moment go together.
            self._woken = True
            asyncio.get_running_loop().call_soon(self._wake)
        try:
            await job.future
        finally:
            self._leave(job)
        return [answer for answer in job.answers if answer is not None]

    @property
    def retry_after(self) -> float:
        """Seconds in which what waits now will have gone."""
        if self._rate <= 0:
            return 1.0
        return min(float(math.ceil(self.waiting / self._rate)) or 1.0, _LONGEST_RETRY)

    async def close(self) -> None:
        """Leave what is under way: nobody waits for it any more."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _leave(self, job: _Job) -> None:
        if job.taken < len(job.items):
            self.waiting -= len(job.items) - job.taken
            job.taken = len(job.items)
            if self._queue and self._queue[0] is job:
                self._queue.popleft()
            else:
                self._queue.remove(job)

    def _wake(self) -> None:
        self._woken = False
        if self._gathers():
            return
        while self._queue and len(self._under_way) < self.in_flight:
            batch = self._take()
            if not batch:
                return
            self._expected = 0
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._under_way.add(task)
            task.add_done_callback(self._done)

    def _gathers(self) -> bool:
        """Whether others are waited for, who go with the next batch."""
        return len(self._queue) < self._expected and self.waiting < self._batch_items

    def _take(self) -> list[tuple[_Job, int, int]]:
        """The next batch: of each job, from which item to which."""
        now = asyncio.get_running_loop().time()
        batch: list[tuple[_Job, int, int]] = []
        room, characters = self._batch_items, self._batch_characters
        while self._queue and room:
            job = self._queue[0]
            if job.deadline <= now:
                self._drop(job, Problem(504, "deadline", "there was no answer in time"))
                continue
            start = stop = job.taken
            while stop < len(job.items) and room:
                length = len(job.items[stop]["text"])
                if length > characters and (batch or stop > start):
                    break
                characters -= length
                room -= 1
                stop += 1
            if stop == start:
                break
            batch.append((job, start, stop))
            job.taken = stop
            self.waiting -= stop - start
            if stop < len(job.items):
                break
            self._queue.popleft()
        return batch

    def _drop(self, job: _Job, problem: Problem) -> None:
        self._leave(job)
        if not job.future.done():
            job.future.set_exception(problem)

    async def _run(self, batch: list[tuple[_Job, int, int]]) -> None:
        items = [item for job, first, stop in batch for item in job.items[first:stop]]
        self._observe(len(items))
        start = time.monotonic()
        try:
            answers = await self._send(items, max(job.deadline for job, _, _ in batch))
        except Exception as error:  # noqa: BLE001 it belongs to those who wait
            for job, _, _ in batch:
                self._leave(job)
                if not job.future.done():
                    job.future.set_exception(error)
            return
        seconds = time.monotonic() - start
        self._measure(len(items), seconds)
        self._expect(len(batch), seconds * self._gather)
        at = 0
        for job, first, stop in batch:
            count = stop - first
            job.answers[first:stop] = answers[at : at + count]
            at += count
            job.missing -= count
            if not job.missing and not job.future.done():
                job.future.set_result(None)

    def _expect(self, requests: int, seconds: float) -> None:
        """Wait for as many requests as are answered now, beside those that wait already."""
        if self._moment is not None:
            self._moment.cancel()
        self._expected = len(self._queue) + requests
        self._moment = asyncio.get_running_loop().call_later(seconds, self._expect_none)

    def _expect_none(self) -> None:
        self._expected = 0
        self._wake()

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._under_way.discard(task)
        self._wake()

    def _measure(self, items: int, seconds: float) -> None:
        # As many batches as are under way return in that time.
        rate = items * len(self._under_way) / max(seconds, 1e-6)
        old = _SMOOTHING if self._rate else 0.0
        self._rate = old * self._rate + (1 - old) * rate
