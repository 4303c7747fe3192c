"""Answers that are remembered, and one question for texts asked about at the same time."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import orjson
from cachetools import LRUCache

from fakenews.serving.gateway.requests import Answer, Item

Ask = Callable[[Sequence[Item]], Awaitable[list[Answer]]]


class AnswerCache:
    """Remembers the answers of the texts asked about last.

    A text is remembered as a digest, so that memory is bounded by the number of answers.

    Args:
        size: Answers; 0 remembers none, and asks about each text for itself.
        observe: Is told how many items of a request were known, and how many were not.
    """

    def __init__(self, *, size: int, observe: Callable[[int, int], None]) -> None:
        self._answers: LRUCache[bytes, Answer] | None = LRUCache(size) if size else None
        self._asked: dict[bytes, asyncio.Future[Answer | None]] = {}
        self._observe = observe

    async def answers(self, version: str, items: Sequence[Item], ask: Ask) -> list[Answer]:
        """The answers of some items, from memory or asked for.

        Args:
            version: Of the model.
            items: As they are sent on.
            ask: Answers those that are neither known nor being asked about.
        """
        if self._answers is None:
            return await ask(items)
        keys = [_key(version, item) for item in items]
        wanted = dict(zip(keys, items, strict=True))
        found = {key: known for key in wanted if (known := self._answers.get(key)) is not None}
        self._observe(len(found), len(wanted) - len(found))
        while len(found) < len(wanted):
            own, others = self._share(key for key in wanted if key not in found)
            if own:
                found |= await self._ask({key: wanted[key] for key in own}, ask)
            if others:
                await asyncio.wait(others.values())
            for key, asked in others.items():
                # If those who asked have gone, it is asked again.
                if (answer := asked.result()) is not None:
                    found[key] = answer
        return [found[key] for key in keys]

    def _share(
        self, keys: Iterable[bytes]
    ) -> tuple[list[bytes], "dict[bytes, asyncio.Future[Answer | None]]"]:
        """Those to ask about, and those that others are asking about."""
        own: list[bytes] = []
        others: dict[bytes, asyncio.Future[Answer | None]] = {}
        for key in keys:
            if (asked := self._asked.get(key)) is not None:
                others[key] = asked
            else:
                own.append(key)
        for key in own:
            self._asked[key] = asyncio.get_running_loop().create_future()
        return own, others

    async def _ask(self, own: dict[bytes, Item], ask: Ask) -> dict[bytes, Answer]:
        answers: Sequence[Answer | None] = [None] * len(own)
        try:
            found = answers = await ask(list(own.values()))
        finally:
            for key, answer in zip(own, answers, strict=True):
                if answer is not None and "error" not in answer:
                    assert self._answers is not None  # noqa: S101 else there are no keys
                    self._answers[key] = answer
                self._asked.pop(key).set_result(answer)
        return dict(zip(own, found, strict=True))


def _key(version: str, item: Item) -> bytes:
    content: Any = item["text"] if len(item) == 1 else sorted(item.items())
    return hashlib.blake2b(
        orjson.dumps((version, content)), digest_size=16, usedforsecurity=False
    ).digest()
