"""Asks the versions of the model: the one chosen, and the champion where a canary fails."""

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial

from fakenews.serving.gateway.batching import Lane
from fakenews.serving.gateway.cache import AnswerCache
from fakenews.serving.gateway.metrics import Metrics
from fakenews.serving.gateway.problems import Problem
from fakenews.serving.gateway.requests import Answer, Item
from fakenews.serving.gateway.routing import Route, Router
from fakenews.serving.gateway.settings import Settings
from fakenews.serving.gateway.upstream import Upstream

log = logging.getLogger(__name__)

# Seconds until the end of a canary is noted in the state again, if it could not be.
_AGAIN = 5.0


class Versions:
    """Asks versions of the model, each by a lane of its own.

    Args:
        settings: Of the gateway.
        router: Chooses versions.
        upstream: Asks TorchServe.
        metrics: Counts.
    """

    def __init__(
        self, *, settings: Settings, router: Router, upstream: Upstream, metrics: Metrics
    ) -> None:
        self.answered = -float("inf")
        """When the champion answered last, by the clock of the event loop."""
        self._settings = settings
        self._router = router
        self._upstream = upstream
        self._metrics = metrics
        self._lanes: dict[str, Lane] = {}
        self._telling: asyncio.Task[None] | None = None
        self._hits, self._misses = map(metrics.cache.labels, ("hit", "miss"))
        self._cache = AnswerCache(size=settings.cache_size, observe=self._observe_cache)

    @property
    def waiting(self) -> int:
        """Items in all queues."""
        return sum(lane.waiting for lane in self._lanes.values())

    async def close(self) -> None:
        """Leave what is under way: nobody waits for it any more."""
        for lane in self._lanes.values():
            await lane.close()
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)

    async def answers(
        self, items: Sequence[Item], deadline: float, route: Route | None = None
    ) -> list[tuple[Answer, Route]]:
        """The answer of each item, and who gave it.

        Args:
            items: At least one.
            deadline: Of the event loop's clock.
            route: Who answers; None leaves it to the deployment.

        Raises:
            Problem: There is none.
        """
        champion = self._champion()
        chosen = route or self._router.choose(items[0]["text"])
        canary = self._router.routes.canary
        if chosen == "canary" and canary is not None:
            return await self._by_canary(canary, items, deadline)
        given = await self._by("champion", champion, items, deadline)
        return [(answer, "champion") for answer in given]

    async def explain(self, item: Item, deadline: float) -> Answer:
        """The champion's explanation, or an error of the item.

        Raises:
            Problem: There is none.
        """
        version = self._champion()
        name = self._router.routes.name
        return await self._upstream.explain(name, version, item, deadline)

    async def probe(self, item: Item, deadline: float) -> None:
        """Ask the champion, and not what is remembered.

        Raises:
            Problem: It does not answer.
        """
        await self._ask("champion", self._champion(), deadline, [item])

    async def copy(self, version: str, items: Sequence[Item]) -> list[Answer]:
        """The answers of a shadow.

        Raises:
            Problem: There are none.
        """
        deadline = asyncio.get_running_loop().time() + self._settings.deadline
        async with asyncio.timeout_at(deadline):
            return await self._by("shadow", version, items, deadline)

    def _champion(self) -> str:
        champion = self._router.routes.champion
        if champion is None:
            raise Problem(503, "no_model", "no model is deployed", retry_after=5)
        return champion

    async def _by_canary(
        self, version: str, items: Sequence[Item], deadline: float
    ) -> list[tuple[Answer, Route]]:
        """By the canary; what it does not answer in its share of the time, by the champion."""
        now = asyncio.get_running_loop().time()
        soon = now + (deadline - now) * self._settings.canary.patience
        given: list[Answer | None] = [None] * len(items)
        try:
            async with asyncio.timeout_at(soon):
                given[:] = await self._by("canary", version, items, soon)
        except (Problem, TimeoutError):
            log.info("the canary %s did not answer", version)
        failed = [n for n, answer in enumerate(given) if answer is None or _failed(answer)]
        found: list[tuple[Answer, Route]] = [(answer or {}, "canary") for answer in given]
        if failed:
            self._metrics.canary_fallbacks.inc(len(failed))
            again = await self._by(
                "champion", self._champion(), [items[n] for n in failed], deadline
            )
            for n, answer in zip(failed, again, strict=True):
                found[n] = (answer, "champion")
        return found

    async def _by(
        self, route: Route, version: str, items: Sequence[Item], deadline: float
    ) -> list[Answer]:
        ask = partial(self._ask, route, version, deadline)
        return await self._cache.answers(version, items, ask)

    async def _ask(
        self, route: Route, version: str, deadline: float, items: Sequence[Item]
    ) -> list[Answer]:
        loop = asyncio.get_running_loop()
        start = time.perf_counter()
        ok: bool | None = None
        try:
            answers = await self._lane(version).ask(items, deadline)
            ok = not any(map(_failed, answers))
        except Problem:
            ok = False
            raise
        except asyncio.CancelledError:
            # Whoever asked has gone, or has waited long enough.
            ok = False if loop.time() >= deadline else None
            raise
        finally:
            seconds = time.perf_counter() - start
            if ok is not None:
                self._metrics.upstream.labels(route).observe(seconds)
                self._observe(route, version, ok=ok, seconds=seconds)
        if route == "champion":
            self.answered = loop.time()
        return answers

    def _lane(self, version: str) -> Lane:
        routes = self._router.routes
        workers = max(routes.workers.get(version, 1), 1)
        in_flight = workers * self._settings.batching.in_flight
        lane = self._lanes.get(version)
        if lane is None:
            self._forget()
            batching = self._settings.batching
            lane = Lane(
                send=partial(self._upstream.predict, routes.name, version),
                in_flight=in_flight,
                gather=batching.gather,
                batch_items=batching.batch_items,
                batch_characters=batching.batch_characters,
                queue_items=batching.queue_items,
                observe=self._metrics.batch.observe,
            )
            self._lanes[version] = lane
            self._metrics.waiting.labels(version).set_function(lambda: lane.waiting)
        lane.in_flight = in_flight
        return lane

    def _forget(self) -> None:
        """Leave the lanes of versions that are gone."""
        routes = self._router.routes
        kept = {routes.champion, routes.canary, routes.shadow}
        for version, lane in list(self._lanes.items()):
            if version not in kept and lane.idle:
                del self._lanes[version]
                self._metrics.waiting.remove(version)

    def _observe(self, route: Route, version: str, *, ok: bool, seconds: float) -> None:
        if route == "shadow":
            return
        reason = self._router.observe(route, version, ok=ok, seconds=seconds)
        if reason is not None:
            self._metrics.canary_aborts.inc()
            self._telling = asyncio.get_running_loop().create_task(self._tell(version, reason))

    async def _tell(self, version: str, reason: str) -> None:
        """Note the end of a canary in the state, for the next start and for other gateways."""
        while self._router.aborted == version:
            try:
                await asyncio.to_thread(self._router.tell, version, reason)
            except Exception as error:  # noqa: BLE001 here it is given up all the same
                log.error("the end of the canary %s cannot be noted: %s", version, error)  # noqa: TRY400
                await asyncio.sleep(_AGAIN)
            else:
                return

    def _observe_cache(self, hits: int, misses: int) -> None:
        if hits:
            self._hits.inc(hits)
        if misses:
            self._misses.inc(misses)


def _failed(answer: Answer) -> bool:
    """Whether the model failed, which is not the item's fault."""
    error = answer.get("error")
    return error is not None and error.get("code") == "internal"
