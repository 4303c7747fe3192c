"""Whether the gateway answers, and what is wrong while it does."""

import asyncio
from dataclasses import dataclass, field

from fakenews.serving.gateway.problems import Problem
from fakenews.serving.gateway.service import Gateway

# An answer of the champion stands for so many seconds.
_FRESH = 5.0
_PATIENCE = 2.0
# Says nothing, and needs no column to be answered: an item's own error is an answer too.
_PROBE = {"text": "ready?"}


@dataclass(frozen=True, kw_only=True)
class State:
    """Of the gateway.

    Attributes:
        ready: Whether requests are answered.
        reasons: What is wrong, even if they are.
    """

    ready: bool
    reasons: list[str] = field(default_factory=list)

    @property
    def status(self) -> str:
        """In one word."""
        if not self.ready:
            return "unavailable"
        return "degraded" if self.reasons else "ok"


class Health:
    """Knows whether requests are answered.

    Args:
        gateway: That answers them.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.draining = False
        """Whether the gateway is about to stop, and wants no more requests."""
        self._gateway = gateway
        self._probing: asyncio.Task[str | None] | None = None

    async def state(self) -> State:
        """Ask the champion, unless it has answered a short time ago."""
        reasons = []
        gateway = self._gateway
        if self.draining:
            reasons.append("the gateway is stopping")
        elif gateway.router.routes.champion is None:
            reasons.append("no model is deployed")
        elif asyncio.get_running_loop().time() - gateway.versions.answered > _FRESH:
            if self._probing is None:
                self._probing = asyncio.ensure_future(self._probe())
            # One question for all who want to know.
            fault = await asyncio.shield(self._probing)
            if fault is not None:
                reasons.append(fault)
        ready = not reasons
        if gateway.log is not None and gateway.log.fault is not None:
            reasons.append(gateway.log.fault)
        if gateway.router.aborted is not None:  # until the state says so
            reasons.append(
                f"the canary {gateway.router.aborted} was given up: {gateway.router.reason}"
            )
        gateway.metrics.ready.set(ready)
        return State(ready=ready, reasons=reasons)

    async def _probe(self) -> str | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE
        try:
            async with asyncio.timeout_at(deadline):
                await self._gateway.versions.probe(_PROBE, deadline)
        except (Problem, TimeoutError) as problem:
            reason = problem.message if isinstance(problem, Problem) else "no answer in time"
            return f"the model does not answer: {reason}"
        finally:
            self._probing = None
        return None
