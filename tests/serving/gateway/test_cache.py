"""Answers remembered, and questions asked once."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from fakenews.serving.gateway.cache import AnswerCache

Item = dict[str, Any]


class Model:
    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, items: Sequence[Item]) -> list[Item]:
        self.asked.append([item["text"] for item in items])
        await self.gate.wait()
        return [
            {"error": {"code": "empty_text"}}
            if item["text"] == "bad"
            else {"label": item["text"]}
            for item in items
        ]


def texts(*given: str) -> list[Item]:
    return [{"text": text} for text in given]


def cache(size: int = 10) -> tuple[AnswerCache, list[tuple[int, int]]]:
    seen: list[tuple[int, int]] = []
    return AnswerCache(
        size=size, observe=lambda hits, misses: seen.append((hits, misses))
    ), seen


def test_what_is_known_is_not_asked_again() -> None:
    async def test() -> None:
        known, seen = cache()
        model = Model()
        await known.answers("v1", texts("a", "b", "a"), model)
        found = await known.answers("v1", texts("b", "c"), model)
        assert [answer["label"] for answer in found] == ["b", "c"]
        assert model.asked == [["a", "b"], ["c"]]
        assert seen == [(0, 2), (1, 1)]

    asyncio.run(test())


def test_versions_and_columns_are_told_apart() -> None:
    async def test() -> None:
        known, _ = cache()
        model = Model()
        await known.answers("v1", texts("a"), model)
        await known.answers("v2", texts("a"), model)
        await known.answers("v1", [{"text": "a", "age": 1}], model)
        await known.answers("v1", [{"text": "a", "age": 2}], model)
        await known.answers("v1", [{"age": 1, "text": "a"}], model)
        assert len(model.asked) == 4

    asyncio.run(test())


def test_errors_are_not_remembered_and_the_oldest_are_forgotten() -> None:
    async def test() -> None:
        known, _ = cache(2)
        model = Model()
        for text in ("bad", "bad", "a", "b", "c", "a"):
            await known.answers("v1", texts(text), model)
        assert model.asked == [["bad"], ["bad"], ["a"], ["b"], ["c"], ["a"]]

    asyncio.run(test())


def test_without_a_size_everything_is_asked() -> None:
    async def test() -> None:
        known, seen = cache(0)
        model = Model()
        for _ in range(2):
            await known.answers("v1", texts("a", "a"), model)
        assert (model.asked, seen) == ([["a", "a"]] * 2, [])

    asyncio.run(test())


def test_what_several_ask_at_once_is_asked_once() -> None:
    async def test() -> None:
        known, _ = cache()
        model = Model()
        model.gate.clear()
        tasks = [
            asyncio.create_task(known.answers("v1", texts(*given), model))
            for given in ("ab", "bc", "ca", "bad")
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        model.gate.set()
        found = await asyncio.gather(*tasks)
        assert [[a["label"] for a in answers] for answers in found[:3]] == [
            ["a", "b"],
            ["b", "c"],
            ["c", "a"],
        ]
        assert model.asked == [["a", "b"], ["c"], ["d"]]

    asyncio.run(test())


@pytest.mark.parametrize("how", ["cancelled", "failed"])
def test_who_asked_first_may_go(how: str) -> None:
    async def test() -> None:
        known, _ = cache()
        gates = [asyncio.Event(), asyncio.Event()]
        asked = 0

        async def model(items: Sequence[Item]) -> list[Item]:
            nonlocal asked
            asked += 1
            await gates[asked - 1].wait()
            if asked == 1 and how == "failed":
                raise OSError("no")
            return [{"label": item["text"]} for item in items]

        first = asyncio.create_task(known.answers("v1", texts("a"), model))
        await asyncio.sleep(0)
        second = asyncio.create_task(known.answers("v1", texts("a"), model))
        await asyncio.sleep(0)
        if how == "cancelled":
            first.cancel()
        gates[0].set()
        with pytest.raises((OSError, asyncio.CancelledError)):
            await first
        gates[1].set()
        assert await second == [{"label": "a"}]
        assert asked == 2

    asyncio.run(test())
