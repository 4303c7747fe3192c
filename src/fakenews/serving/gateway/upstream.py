"""TorchServe's inference API, asked until it answers or a request's time is over."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import orjson

from fakenews.errors import ServingError
from fakenews.serving.details import Detail
from fakenews.serving.gateway.connections import Connections, Response
from fakenews.serving.gateway.problems import UpstreamProblem, error_body
from fakenews.serving.gateway.requests import Answer, Item

log = logging.getLogger(__name__)

_LONGEST_PAUSE = 20
# A worker that died under a batch is one; a batch under which workers die is several.
_FAILURES = 3
# Connections that are kept.
_CONNECTIONS = 100
_UNREACHABLE = "the model server cannot be reached: ask again later"
_BUSY = "the model server is busy: ask again later"
_FAILED = "the model server could not answer: ask again later"
_ABSENT = "the model is not being served just now: ask again later"


_INTERNAL: Answer = error_body("internal", "the model failed on this item")


class KeySource(Protocol):
    """Where TorchServe's keys come from."""

    def inference(self) -> str:
        """The key of the inference API."""

    def refresh(self, *, refused: str | None = None) -> None:
        """Have a new key made in place of one that is refused; blocks."""


class Upstream:
    """Asks TorchServe.

    Args:
        address: Of the inference API.
        keys: Of TorchServe; None where it asks for none.
        pause: Seconds before what failed is sent again; doubles, up to 20 times as long.
        patience: Share of the time for a prediction after which it may be lost, and is asked
            for again beside that.
        details: Asked for beside predictions; a handler that knows of none gives none.
        observe: Is told the kind of each failure.
    """

    def __init__(
        self,
        *,
        address: str,
        keys: KeySource | None,
        pause: float,
        patience: float,
        details: Sequence[Detail],
        observe: Callable[[str], None],
    ) -> None:
        self._keys = keys
        self._pause = pause
        self._patience = patience
        self._details = {"details": details} if details else {}
        self._observe = observe
        self._refreshing: asyncio.Future[None] | None = None
        self._connections = Connections(address=address, idle=_CONNECTIONS)

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    async def predict(
        self, name: str, version: str, items: Sequence[Item], deadline: float
    ) -> list[Answer]:
        """Ask about a batch.

        Args:
            name: Of the model.
            version: Of the model.
            items: At least one.
            deadline: Of the event loop's clock.

        Returns:
            An answer for each item, in order: a prediction or an error.

        Raises:
            UpstreamProblem: There was none before the deadline.
        """
        body = orjson.dumps({"inputs": items, **self._details})
        path = f"/predictions/{name}/{version}"
        found = await self._ask_twice(path, body, deadline)
        answers = found.get("predictions") if isinstance(found, dict) else None
        if not isinstance(answers, list) or len(answers) != len(items):
            self._observe("failed")
            raise UpstreamProblem("failed", _FAILED)
        return [answer if _sound(answer) else _INTERNAL for answer in answers]

    async def explain(self, name: str, version: str, item: Item, deadline: float) -> Answer:
        """Ask why; as `predict`, of one item."""
        # Details are asked for beside a list: what stands beside a text is a column of it.
        body = orjson.dumps({"inputs": [item], **self._details} if self._details else item)
        found = await self._ask(f"/explanations/{name}/{version}", body, deadline)
        if isinstance(found, dict) and isinstance(found.get("predictions"), list):
            found = next(iter(found["predictions"]), None)  # the error of an item in a list
        explained = isinstance(found, dict) and (
            isinstance(found.get("error"), dict) or _sound(found.get("prediction"))
        )
        if not explained:
            self._observe("failed")
            raise UpstreamProblem("failed", _FAILED)
        return dict(found)

    async def _ask_twice(self, path: str, body: bytes, deadline: float) -> Any:
        """Ask, and ask again beside that if it may be lost; the first answer counts."""
        loop = asyncio.get_running_loop()
        asked = [loop.create_task(self._ask(path, body, deadline))]
        try:
            await asyncio.wait(asked, timeout=(deadline - loop.time()) * self._patience)
            if not asked[0].done():
                self._observe("timeout")
                asked.append(loop.create_task(self._ask(path, body, deadline)))
                await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            return next(task for task in asked if task.done()).result()
        finally:
            for task in asked:
                if not task.cancel() and not task.cancelled():
                    task.exception()  # nobody else asks for it

    async def _ask(self, path: str, body: bytes, deadline: float) -> Any:
        loop = asyncio.get_running_loop()
        pause = self._pause
        refused: str | None = None
        failures = 0
        while True:
            key: str | None = None
            try:
                key = self._key()
                return await self._once(path, body, key, deadline - loop.time())
            except UpstreamProblem as problem:
                self._observe(problem.kind)
                if problem.kind == "refused" and key != refused:
                    refused = key
                    await self._refresh(key)
                    continue
                failures += problem.kind == "failed"
                # What would be too late anyway, or fail again, is answered now.
                hopeless = problem.kind in ("timeout", "refused") or failures > _FAILURES
                if hopeless or loop.time() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._pause * _LONGEST_PAUSE)

    def _key(self) -> str | None:
        if self._keys is None:
            return None
        try:
            return self._keys.inference()
        except ServingError as error:  # TorchServe has not started yet
            log.debug("%s", error)
            raise UpstreamProblem("unreachable", _UNREACHABLE) from None

    async def _once(self, path: str, body: bytes, key: str | None, seconds: float) -> Any:
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        try:
            async with asyncio.timeout(max(seconds, 0)):
                response = await self._connections.post(path, body, headers)
        except TimeoutError:
            raise UpstreamProblem("timeout", _BUSY) from None
        except OSError as error:
            log.debug("%s: %r", path, error)
            raise UpstreamProblem("unreachable", _UNREACHABLE) from None
        if response.status in (200, 422):  # 422: of the one item asked about
            try:
                return orjson.loads(response.content)
            except orjson.JSONDecodeError:
                raise UpstreamProblem("failed", _FAILED) from None
        raise _problem(path, response)

    async def _refresh(self, refused: str | None) -> None:
        """Get new keys; those who ask at the same time share them."""
        if self._keys is None or self._key() != refused:
            return
        if self._refreshing is None:
            work = asyncio.to_thread(self._keys.refresh, refused=refused)
            self._refreshing = asyncio.ensure_future(work)
            self._refreshing.add_done_callback(self._refreshed)
        try:
            await asyncio.shield(self._refreshing)
        except ServingError as error:  # the next attempt says whether that matters
            log.warning("TorchServe's keys cannot be renewed: %s", error)

    def _refreshed(self, done: "asyncio.Future[None]") -> None:
        self._refreshing = None
        if not done.cancelled():
            done.exception()  # whoever waits has it; nobody may


def _sound(answer: Any) -> bool:
    """Whether an answer has what is counted on."""
    if not isinstance(answer, dict):
        return False
    if "error" in answer:
        return isinstance(answer["error"], dict)
    probabilities = answer.get("probabilities")
    return (
        isinstance(answer.get("label"), str)
        and isinstance(answer.get("model_version"), str)
        and isinstance(probabilities, dict)
        and all(isinstance(value, float | int) for value in probabilities.values())
    )


def _problem(path: str, response: Response) -> UpstreamProblem:
    status = response.status
    # A key that is wrong or has expired is answered with 400.
    if status in (400, 401, 403) and b"InvalidKey" in response.content[:1000]:
        return UpstreamProblem(
            "refused", "the model server refuses the gateway: its keys expired"
        )
    if status == 404:
        return UpstreamProblem("unknown_model", _ABSENT)
    if status in (429, 503):
        return UpstreamProblem("overloaded", _BUSY)
    log.warning("TorchServe answers %s with status %d", path, status)
    return UpstreamProblem("failed", _FAILED)
