"""Keeps servers running: what ends by itself is started again."""

import logging
import threading
import time
from collections.abc import Callable

from fakenews.errors import FakeNewsError

log = logging.getLogger(__name__)

_POLL = 0.2
_SHORTEST = 1.0
_LONGEST = 30.0
# Seconds after which a server counts as one that runs well.
_WELL = 60.0


class Keeper:
    """Keeps one server running, in a thread of its own.

    Args:
        name: Of the server, for people.
        begin: Starts it and waits until it answers; `end` is called if that fails.
        alive: Whether it still runs.
        end: Ends it, and what is left of it; safe to call again.
        poll: Seconds between looks.
        pause: Seconds before it is started again; doubles while it ends at once.
    """

    def __init__(
        self,
        *,
        name: str,
        begin: Callable[[], None],
        alive: Callable[[], bool],
        end: Callable[[], None],
        poll: float = _POLL,
        pause: float = _SHORTEST,
    ) -> None:
        self._name = name
        self._begin = begin
        self._alive = alive
        self._end = end
        self._poll = poll
        self._pause = pause
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=name, daemon=True)

    def start(self) -> None:
        """Start the server for the first time, and keep it from then on.

        Raises:
            FakeNewsError: It does not start: a second time would not be another.
        """
        try:
            self._begin()
        except BaseException:
            self._end()
            raise
        self._thread.start()

    def stop(self) -> None:
        """End the server."""
        self._stopping.set()
        # A start that is under way ends when its server does.
        self._end()
        if self._thread.is_alive():
            self._thread.join()
        self._end()

    def _keep(self) -> None:
        pause, since = self._pause, time.monotonic()
        while not self._stopping.wait(self._poll):
            if self._alive():
                continue
            if time.monotonic() - since > _WELL:
                pause = self._pause
            log.warning("%s has ended: it is started again in %g s", self._name, pause)
            self._end()
            if self._stopping.wait(pause):
                return
            pause, since = min(pause * 2, _LONGEST), time.monotonic()
            try:
                self._begin()
            except Exception as error:
                if not self._stopping.is_set():
                    # One line says a mistake; a bug needs more.
                    traced = not isinstance(error, FakeNewsError)
                    log.error("%s cannot start: %s", self._name, error, exc_info=traced)  # noqa: TRY400
                self._end()
            else:
                log.info("%s answers again", self._name)
