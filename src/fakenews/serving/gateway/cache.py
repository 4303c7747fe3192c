"""Answers that are remembered, and one question for texts asked about at the same time."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
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

    def __init__(
        self, *, size: int, observe: Callable[[int, int], None] = lambda hits, misses: None
    ) -> None:
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
        found: dict[bytes, Answer] = {}
        hits: int | None = None
        while True:
            own: dict[bytes, Item] = {}
            others: dict[bytes, asyncio.Future[Answer | None]] = {}
            for key, item in zip(keys, items, strict=True):
                if key in found:
                    continue
                if (known := self._answers.get(key)) is not None:
                    found[key] = known
                elif (asked := self._asked.get(key)) is not None and key not in own:
                    others[key] = asked
                elif key not in own:
                    own[key] = item
                    self._asked[key] = asyncio.get_running_loop().create_future()
            if hits is None:
                hits = sum(key in found for key in keys)
                self._observe(hits, len(keys) - hits)
            if own:
                found |= await self._ask(own, ask)
            if len(found) == len(set(keys)):
                return [found[key] for key in keys]
            # If those who asked have gone, what they asked about is asked again.
            await asyncio.wait(others.values())
            given = {key: asked.result() for key, asked in others.items()}
            found |= {key: answer for key, answer in given.items() if answer is not None}

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
