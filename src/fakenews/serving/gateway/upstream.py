"""TorchServe's inference API, asked until it answers or a request's time is over."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import httpx
import orjson

from fakenews.serving.gateway.problems import UpstreamProblem
from fakenews.serving.gateway.requests import Answer, Item

log = logging.getLogger(__name__)

_LONGEST_PAUSE = 20
# Of connections, beside those of batches: explanations, shadows, health.
_CONNECTIONS = 100
_UNREACHABLE = "the model server cannot be reached: ask again later"
_BUSY = "the model server is busy: ask again later"
_FAILED = "the model server could not answer: ask again later"
_ABSENT = "the model is not being served just now: ask again later"


class KeySource(Protocol):
    """Where TorchServe's keys come from."""

    def inference(self) -> str:
        """The key of the inference API."""

    def refresh(self) -> None:
        """Get new keys, because the old ones are refused."""


class Upstream:
    """Asks TorchServe.

    Args:
        address: Of the inference API.
        keys: Of TorchServe; None where it asks for none.
        pause: Seconds before what failed is sent again; doubles, up to 20 times as long.
        observe: Is told the kind of each failure.
    """

    def __init__(
        self,
        *,
        address: str,
        keys: KeySource | None,
        pause: float,
        observe: Callable[[str], None] = lambda kind: None,
    ) -> None:
        self._keys = keys
        self._pause = pause
        self._observe = observe
        self._refreshing: asyncio.Future[None] | None = None
        self._client = httpx.AsyncClient(
            base_url=address,
            timeout=None,  # noqa: S113 each request has its own
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=_CONNECTIONS),
            trust_env=False,  # TorchServe is not behind a proxy
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

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
        body = orjson.dumps({"inputs": items})
        found = await self._ask(f"/predictions/{name}/{version}", body, deadline)
        answers = found.get("predictions") if isinstance(found, dict) else None
        if not isinstance(answers, list) or len(answers) != len(items):
            self._observe("failed")
            raise UpstreamProblem("failed", _FAILED)
        return answers

    async def explain(self, name: str, version: str, item: Item, deadline: float) -> Answer:
        """Ask why; as `predict`, of one item."""
        found = await self._ask(f"/explanations/{name}/{version}", orjson.dumps(item), deadline)
        if not isinstance(found, dict):
            self._observe("failed")
            raise UpstreamProblem("failed", _FAILED)
        return found

    async def _ask(self, path: str, body: bytes, deadline: float) -> Any:
        loop = asyncio.get_running_loop()
        pause = self._pause
        refreshed = False
        while True:
            try:
                return await self._once(path, body, deadline - loop.time())
            except UpstreamProblem as problem:
                self._observe(problem.kind)
                if problem.kind == "refused" and not refreshed:
                    refreshed = True
                    await self._refresh()
                    continue
                # What would be too late anyway is answered now.
                if problem.kind in ("timeout", "refused") or loop.time() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._pause * _LONGEST_PAUSE)

    async def _once(self, path: str, body: bytes, seconds: float) -> Any:
        headers = {"content-type": "application/json"}
        if self._keys is not None:
            headers["authorization"] = f"Bearer {self._keys.inference()}"
        try:
            async with asyncio.timeout(max(seconds, 0)):
                response = await self._client.post(path, content=body, headers=headers)
        except TimeoutError:
            raise UpstreamProblem("timeout", _BUSY) from None
        except httpx.HTTPError as error:
            log.debug("%s: %r", path, error)
            raise UpstreamProblem("unreachable", _UNREACHABLE) from None
        if response.status_code in (200, 422):  # 422: of the one item asked about
            try:
                return orjson.loads(response.content)
            except orjson.JSONDecodeError:
                raise UpstreamProblem("failed", _FAILED) from None
        raise _problem(response)

    async def _refresh(self) -> None:
        """Get new keys; those who ask at the same time share them."""
        if self._keys is None:
            return
        if self._refreshing is None:
            self._refreshing = asyncio.ensure_future(asyncio.to_thread(self._keys.refresh))
            self._refreshing.add_done_callback(self._refreshed)
        try:
            await asyncio.shield(self._refreshing)
        except Exception as error:  # noqa: BLE001 whatever it is, the keys stay
            log.warning("TorchServe's keys cannot be renewed: %s", error)

    def _refreshed(self, done: "asyncio.Future[None]") -> None:
        del done
        self._refreshing = None


def _problem(response: httpx.Response) -> UpstreamProblem:
    status = response.status_code
    # A key that is wrong or has expired is answered with 400.
    if status in (400, 401, 403) and "InvalidKey" in response.text[:1000]:
        return UpstreamProblem(
            "refused", "the model server refuses the gateway: its keys expired"
        )
    if status == 404:
        return UpstreamProblem("unknown_model", _ABSENT)
    if status in (429, 503):
        return UpstreamProblem("overloaded", _BUSY)
    log.warning("TorchServe answers %s with status %d", response.url.path, status)
    return UpstreamProblem("failed", _FAILED)
