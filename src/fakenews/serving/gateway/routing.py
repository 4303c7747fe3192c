"""Which version of the model answers a request, as the deployment's state says."""

import hashlib
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fakenews.errors import ServingError
from fakenews.serving.gateway.canary import Watch
from fakenews.serving.state import STATE, read_state

log = logging.getLogger(__name__)

Route = Literal["champion", "canary", "shadow"]

# Seconds for which the state's file is not looked at again.
_FRESH = 0.2


@dataclass(frozen=True, kw_only=True)
class Routes:
    """What a deployment says of the versions of its model.

    Attributes:
        name: Of the model.
        champion: Version that answers; None when nothing is deployed.
        canary: Version that a share of the requests is sent to.
        share: That share.
        shadow: Version that gets copies of requests, and whose answers nobody sees.
        workers: Of each version.
    """

    name: str = ""
    champion: str | None = None
    canary: str | None = None
    share: float = 0.0
    shadow: str | None = None
    workers: dict[str, int] = field(default_factory=dict)


def read_routes(folder: Path) -> Routes:
    """The routes of a deployment; none where there is no state.

    Raises:
        ServingError: The state is damaged.
        OSError: It cannot be read.
    """
    state = read_state(folder, name="")
    return Routes(
        name=state.name,
        champion=state.champion,
        canary=state.canary.version if state.canary else None,
        share=state.canary.share if state.canary else 0.0,
        shadow=state.shadow,
        workers=state.workers,
    )


class Router:
    """Chooses a version for each request, and gives up a canary that fails.

    Args:
        folder: Of the deployment.
        by: `text` asks a text of the same version each time; `random` draws.
        watch: Compares a canary with the champion.
        abort: Notes in the state that a version was given up as canary, and why; may block.
    """

    def __init__(
        self,
        *,
        folder: Path,
        by: Literal["text", "random"],
        watch: Watch,
        abort: Callable[[str, str], None],
    ) -> None:
        self._folder = folder
        self._by = by
        self._abort = abort
        self.watch = watch
        self.aborted: str | None = None
        self.reason: str | None = None
        self._routes = Routes()
        self._seen: tuple[int, int, int] | None = None
        self._looked = -_FRESH
        self._told = False

    @property
    def routes(self) -> Routes:
        """As the state says now, without a canary that was given up."""
        now = time.monotonic()
        if now - self._looked >= _FRESH:
            self._looked = now
            self._look()
        return self._routes

    def choose(self, text: str) -> Route:
        """The route of a request.

        Args:
            text: Of it, or the first of them.
        """
        routes = self.routes
        if routes.canary is None:
            return "champion"
        if self._by == "random":
            drawn = random.random()
        else:
            key = f"{routes.canary}\n{text}".encode(errors="replace")
            digest = hashlib.blake2b(key, digest_size=8, usedforsecurity=False).digest()
            drawn = int.from_bytes(digest) / 2**64
        return "canary" if drawn < routes.share else "champion"

    def observe(self, route: Route, version: str, *, ok: bool, seconds: float) -> str | None:
        """Take note of a request to a version.

        Returns:
            Why the canary was given up, if that has just happened.
        """
        routes = self.routes
        expected = routes.canary if route == "canary" else routes.champion
        if routes.canary is None or version != expected:
            return None
        reason = self.watch.observe("canary" if route == "canary" else "champion", ok, seconds)
        if reason is None:
            return None
        # At once, whatever becomes of the note in the state.
        self.aborted, self.reason = routes.canary, reason
        self._routes = _without_canary(routes)
        log.warning("the canary %s is given up: %s", self.aborted, reason)
        return reason

    def tell(self, version: str, reason: str) -> None:
        """Note in the state that a canary was given up; blocks."""
        self._abort(version, reason)

    def _look(self) -> None:
        try:
            found = (self._folder / STATE).stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        except OSError:
            seen = (0, 0, 0)
        if seen == self._seen:
            return
        try:
            routes = read_routes(self._folder)
        except (OSError, ServingError) as error:
            if not self._told:
                log.error("the routes stay as they were: %s", error)  # noqa: TRY400
            self._told = True
            return
        self._told, self._seen = False, seen
        if routes.canary != self._routes.canary and routes.canary is not None:
            self.watch.reset()
        if routes.canary is None:
            # What was given up may be tried again.
            self.aborted = None
        elif routes.canary == self.aborted:
            routes = _without_canary(routes)
        self._routes = routes


def _without_canary(routes: Routes) -> Routes:
    return Routes(
        name=routes.name,
        champion=routes.champion,
        shadow=routes.shadow,
        workers=routes.workers,
    )
