"""Work ahead in threads, with what goes wrong there seen here, and no thread left over."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import closing
from typing import TypeVar

T = TypeVar("T")
Job = TypeVar("Job")

# Seconds between looks at whether anyone still wants what a full queue holds.
_LOOK = 0.1


def in_background(make: Callable[[], Generator[T]], *, depth: int) -> Generator[T]:
    """What `make()` yields, made by a thread that is up to `depth` items ahead.

    The thread starts at the first item and has ended when this generator is exhausted or
    closed. An error in it is raised here, as itself, after the items before it.

    Args:
        make: Called in the thread.
        depth: Most items that wait.
    """
    # An item, or how it ended: an error, or None at the end.
    items: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: tuple[T] | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                items.put(item, timeout=_LOOK)
            except queue.Full:
                continue
            return

    def work() -> None:
        end: BaseException | None = None
        try:
            with closing(make()) as made:
                for item in made:
                    put((item,))
                    if stopped.is_set():
                        return
        # Whatever it is, it belongs to whoever waits for an item.
        except BaseException as error:  # noqa: BLE001
            end = error
        put(end)

    # A daemon: a process that must end does not wait for a store that does not answer.
    thread = threading.Thread(target=work, name="stream", daemon=True)
    thread.start()
    try:
        while isinstance(item := items.get(), tuple):
            yield item[0]
        if item is not None:
            raise item
    finally:
        stopped.set()
        thread.join()


def ahead(
    jobs: Iterable[Job], submit: Callable[[Job], list[Future[T]]], *, count: int
) -> Iterator[tuple[Job, list[T]]]:
    """The results of each job, in order, with the next ones under way.

    Args:
        jobs: Taken one after another, when there is room.
        submit: Starts the parts of a job.
        count: Most jobs under way while one's results are in use.
    """
    waiting: deque[tuple[Job, deque[Future[T]]]] = deque()

    def results() -> tuple[Job, list[T]]:
        job, parts = waiting.popleft()
        # A future keeps its result for as long as it lives.
        return job, [parts.popleft().result() for _ in range(len(parts))]

    for job in jobs:
        waiting.append((job, deque(submit(job))))
        if len(waiting) > count:
            yield results()
    while waiting:
        yield results()


def stop(pool: Executor) -> None:
    """Wait for what is running, and drop what is not."""
    pool.shutdown(wait=True, cancel_futures=True)
