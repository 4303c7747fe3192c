"""Batches: who goes with whom, and when."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fakenews.serving.gateway.batching import Lane
from fakenews.serving.gateway.problems import Problem


class Model:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gates: list[asyncio.Event] = []
        self.error: Exception | None = None

    async def send(self, items: list[dict[str, Any]], deadline: float) -> list[dict[str, Any]]:
        del deadline
        gate = asyncio.Event()
        self.batches.append([item["text"] for item in items])
        self.gates.append(gate)
        await gate.wait()
        if self.error is not None:
            raise self.error
        return [{"label": item["text"].upper()} for item in items]

    async def asked(self, batches: int) -> None:
        """Return when so many were asked for."""
        while len(self.batches) < batches:  # noqa: ASYNC110 each has an event of its own
            await asyncio.sleep(0.01)

    async def release(self) -> None:
        self.gates.pop(0).set()
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def lane(model: Model, **values: Any) -> Lane:
    options = {
        "in_flight": 2,
        "gather": 0,
        "batch_items": 4,
        "batch_characters": 100,
        "queue_items": 10,
    }
    return Lane(send=model.send, observe=lambda size: None, **{**options, **values})


def ask(way: Lane, *texts: str, seconds: float = 60) -> "asyncio.Task[list[str]]":
    async def run() -> list[str]:
        deadline = asyncio.get_running_loop().time() + seconds
        found = await way.ask([{"text": text} for text in texts], deadline)
        return [answer["label"] for answer in found]

    return asyncio.get_running_loop().create_task(run())


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


def test_nothing_waits_when_nothing_is_under_way() -> None:
    async def test() -> None:
        model = Model()
        way = lane(model)
        first = ask(way, "a")
        await settle()
        second = ask(way, "b")
        await settle()
        assert model.batches == [["a"], ["b"]]
        third, fourth = ask(way, "c"), ask(way, "d")
        await settle()
        assert (len(model.batches), way.waiting) == (2, 2)
        await model.release()
        # Those that waited go together.
        assert model.batches[2] == ["c", "d"]
        await model.release()
        await model.release()
        assert [await task for task in (first, second, third, fourth)] == [
            ["A"],
            ["B"],
            ["C"],
            ["D"],
        ]
        assert way.idle

    run(test)


def test_requests_of_one_moment_go_together() -> None:
    async def test() -> None:
        model = Model()
        way = lane(model)
        tasks = [ask(way, text) for text in "abc"]
        await settle()
        assert model.batches == [["a", "b", "c"]]
        await model.release()
        await asyncio.gather(*tasks)

    run(test)


def test_those_who_were_answered_are_waited_for() -> None:
    async def test() -> None:
        model = Model()
        way = lane(model, in_flight=1, gather=1000)
        first = ask(way, "a")
        await settle()
        second = ask(way, "b")
        await asyncio.sleep(0.05)
        await model.release()
        await first
        assert model.batches == [["a"]]
        # It comes back, and goes with the one that waited.
        third = ask(way, "c")
        await settle()
        assert model.batches == [["a"], ["b", "c"]]
        await model.release()
        await asyncio.gather(second, third)
        assert way.idle

    run(test)


def test_those_who_do_not_come_back_are_not_waited_for_long() -> None:
    async def test() -> None:
        model = Model()
        way = lane(model, in_flight=1, gather=1)
        first, second = ask(way, "a"), ask(way, "b")
        await asyncio.sleep(0.05)
        await model.release()
        await asyncio.gather(first, second)
        third = ask(way, "c")
        await asyncio.wait_for(model.asked(2), 10)
        assert model.batches == [["a", "b"], ["c"]]
        await model.release()
        await third

    run(test)


def test_who_comes_after_those_goes_at_once() -> None:
    async def test() -> None:
        model = Model()
        way = lane(model, in_flight=2, gather=1000)
        asked = [ask(way, text) for text in "ab"]
        await asyncio.sleep(0.05)
        await model.release()
        asked += [ask(way, text) for text in "cd"]
        await settle()
        asked += [ask(way, "e")]
        await settle()
        assert model.batches == [["a", "b"], ["c", "d"], ["e"]]
        await model.release()
        await model.release()
        await asyncio.gather(*asked)

    run(test)


def test_a_full_batch_and_who_is_alone_wait_for_nobody() -> None:
    async def test() -> None:
        model = Model()
        way = lane(model, in_flight=1, gather=1000, batch_items=2)
        asked = [ask(way, text) for text in "ab"]
        await settle()
        asked += [ask(way, text) for text in "cd"]
        await asyncio.sleep(0.05)
        await model.release()
        assert model.batches == [["a", "b"], ["c", "d"]]
        await model.release()
        await asyncio.gather(*asked)

        alone = lane(model, in_flight=1, gather=1000)
        for text in "ef":
            task = ask(alone, text)
            await asyncio.sleep(0.05)
            assert model.batches[-1] == [text]
            await model.release()
            await task

    run(test)


def test_lists_are_cut_and_joined_in_the_order_of_arrival() -> None:
    async def test() -> None:
        model = Model()
        way = lane(model, in_flight=1)
        many, one = ask(way, *"abcdef"), ask(way, "g")
        other = ask(way, *"hi")
        await settle()
        for _ in range(3):
            await model.release()
        assert model.batches == [list("abcd"), list("efgh"), ["i"]]
        assert await many == list("ABCDEF")
        assert (await one, await other) == (["G"], ["H", "I"])

    run(test)


def test_characters_are_bounded_but_for_one_text() -> None:
    async def test() -> None:
        model = Model()
        way = lane(model, in_flight=1, batch_characters=10)
        task = ask(way, "x" * 50, "a" * 6, "b" * 6, "c" * 4)
        await settle()
        for _ in range(3):
            await model.release()
        assert [list(map(len, batch)) for batch in model.batches] == [[50], [6], [6, 4]]
        assert len(await task) == 4

    run(test)


def test_a_full_queue_refuses_and_says_for_how_long() -> None:
    async def test() -> None:
        model = Model()
        way = lane(model, in_flight=1, batch_items=1, queue_items=3)
        tasks = [ask(way, text) for text in "abcd"]
        await settle()
        assert way.waiting == 3
        with pytest.raises(Problem) as caught:
            await ask(way, "e")
        assert (caught.value.status, caught.value.code) == (503, "overloaded")
        assert caught.value.retry_after == 1
        # A list that is larger than the queue is welcome when nothing waits.
        for _ in range(4):
            await model.release()
        large = ask(way, *"abcdef")
        await settle()
        for _ in range(6):
            await model.release()
        assert len(await large) == 6
        await asyncio.gather(*tasks)

    run(test)


def test_who_is_cancelled_leaves_the_queue() -> None:
    async def test() -> None:
        model = Model()
        way = lane(model, in_flight=1, batch_items=2)
        kept, gone, half = ask(way, "a"), ask(way, "b"), ask(way, *"cdef")
        last = ask(way, "z")
        await settle()  # a and b are sent
        gone.cancel()
        await model.release()  # c and d are sent
        half.cancel()
        await settle()
        assert way.waiting == 1
        await model.release()
        await model.release()
        assert model.batches == [["a", "b"], ["c", "d"], ["z"]]
        assert (await kept, await last) == (["A"], ["Z"])
        assert way.idle

    run(test)


def test_what_is_too_late_is_not_sent() -> None:
    async def test() -> None:
        model = Model()
        way = lane(model, in_flight=1)
        first = ask(way, "a")
        await settle()
        late = ask(way, "b", seconds=-1)
        last = ask(way, "c")
        await model.release()
        await model.release()
        assert model.batches == [["a"], ["c"]]
        with pytest.raises(Problem, match="504"):
            await late
        await asyncio.gather(first, last)

    run(test)


def test_a_failure_is_that_of_its_batch_alone() -> None:
    async def test() -> None:
        model = Model()
        way = lane(model, in_flight=1, batch_items=2)
        failing = [ask(way, "a"), ask(way, "b", "c")]
        fine = ask(way, "d")
        await settle()
        model.error = Problem(503, "unavailable", "no")
        await model.release()
        model.error = None
        await model.release()
        for task in failing:
            with pytest.raises(Problem, match="unavailable"):
                await task
        assert await fine == ["D"]
        # What was left of the request that failed is asked no more.
        assert model.batches == [["a", "b"], ["d"]]

    run(test)


def test_the_rate_is_measured() -> None:
    async def test() -> None:
        model = Model()
        way = lane(model, in_flight=1, batch_items=1, queue_items=1000)
        tasks = [ask(way, str(n)) for n in range(101)]
        await settle()
        await asyncio.sleep(0.05)
        await model.release()
        # 20 a second, and 99 wait.
        assert 4 <= way.retry_after <= 60
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert way.waiting == 0

    run(test)
