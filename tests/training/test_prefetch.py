"""Work in threads: in order, not too far ahead, and nothing left over."""

import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import pytest

from fakenews.training.prefetch import ahead, in_background


def numbers(made: list[int], stop: int = 100) -> Generator[int]:
    for number in range(stop):
        made.append(number)
        yield number


def test_all_items_in_order():
    assert list(in_background(lambda: numbers([]), depth=3)) == list(range(100))


def test_it_is_at_most_depth_ahead():
    made: list[int] = []
    items = in_background(lambda: numbers(made), depth=3)
    for number in items:
        # Besides those that wait, one is in the thread's hands.
        assert len(made) <= number + 1 + 3 + 1


def test_an_error_comes_after_the_items_before_it():
    def failing() -> Generator[int]:
        yield 1
        yield 2
        raise KeyError("third")

    items = in_background(failing, depth=1)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(KeyError, match="third"):
        next(items)
    assert "stream" not in {thread.name for thread in threading.enumerate()}


def test_closing_ends_the_thread_and_closes_what_it_made():
    closed = threading.Event()

    def endless() -> Generator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    items = in_background(endless, depth=2)
    next(items)
    items.close()
    assert closed.is_set()
    assert "stream" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("count", [1, 3])
def test_jobs_are_started_a_few_ahead(count: int):
    submitted: list[int] = []
    with ThreadPoolExecutor(2) as pool:

        def submit(job: int):
            submitted.append(job)
            return [pool.submit(lambda: job * 10), pool.submit(lambda: job * 10 + 1)]

        for job, parts in ahead(range(8), submit, count=count):
            assert parts == [job * 10, job * 10 + 1]
            assert len(submitted) == min(job + count + 1, 8)
