"""Versions in TorchServe: started until they can answer, and ended when nobody waits."""

import logging
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fakenews.bounds import NonNegative, Positive
from fakenews.errors import ServingError
from fakenews.serving.keys import Refused
from fakenews.serving.management import Management, Registered
from fakenews.serving.state import State
from fakenews.serving.store import unpack

log = logging.getLogger(__name__)

# Seconds beyond the time to load a model: the worker is a process that must start.
_START = 60
# First lines of a Python error.
_ERROR = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Interrupt|Exit)\b")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long things take elsewhere.

    Attributes:
        settle: Seconds within which the gateway reads a new state.
        deadline: Seconds after which nobody waits for the answer to a request.
        poll: Seconds between looks at TorchServe.
    """

    settle: NonNegative
    deadline: NonNegative
    poll: Positive


class Versions:
    """The versions of one model in TorchServe.

    Args:
        name: Of the model.
        client: Of TorchServe.
        timing: How long things take.
        store: TorchServe's model store.
        log_file: What workers print, if it is on this machine.
    """

    def __init__(
        self, *, name: str, client: Management, timing: Timing, store: Path, log_file: Path
    ) -> None:
        self._name = name
        self._client = client
        self._timing = timing
        self._store = store
        self._log_file = log_file

    def registered(self) -> dict[str, Registered]:
        """What TorchServe has."""
        return self._client.versions(self._name)

    def start(self, version: str, archive: str, workers: int | None) -> int:
        """Register a version, unless it is, and wait until it can answer.

        Args:
            version: Of the model.
            archive: File in the model store.
            workers: How many; None for as many as the archive says.

        Returns:
            How many workers it has.

        Raises:
            ServingError: It cannot be loaded.
        """
        started, mark = time.monotonic(), self._log_size()
        found = self._client.describe(self._name, version)
        if found is None:
            found = self._register(version, archive)
        elif not found.ready:
            # TorchServe stops trying after five minutes; with new workers it tries again.
            self._client.scale(self._name, version, 0)
        wanted = workers or found.wanted or 1
        if found.wanted != wanted or not found.ready:
            self._client.scale(self._name, version, wanted)
        if found.ready == found.wanted == wanted:
            return wanted
        log.info("loading version %s, for at most %d s", version, found.startup_timeout)
        self._wait(version, wanted, mark)
        log.info(
            "version %s is ready: %d worker%s, after %.1f s",
            version,
            wanted,
            "s" if wanted > 1 else "",
            time.monotonic() - started,
        )
        return wanted

    def set_default(self, version: str) -> None:
        """Let a version answer where none is named."""
        if self._client.default(self._name) != version:
            self._client.set_default(self._name, version)

    def end(self, versions: Iterable[str], *, drain: bool) -> None:
        """Unregister versions.

        Args:
            versions: Which; the default version may only be among them with all others.
            drain: Wait first until nobody waits for their answers.
        """
        default = self._client.default(self._name)
        ending = sorted(versions, key=lambda version: version == default)
        if not ending:
            return
        if drain:
            self._drain(ending)
        for version in ending:
            self._client.unregister(self._name, version)
            log.info("version %s is unregistered", version)

    def restore(self, state: State, *, drain: bool) -> None:
        """Bring TorchServe to what a state says.

        Args:
            state: What should be.
            drain: Whether somebody may wait for answers of versions that should not be.

        Raises:
            ServingError: It cannot be done.
        """
        # The champion first: nobody is answered without.
        order = sorted(state.workers, key=lambda version: version != state.champion)
        for version in order:
            self.start(version, state.versions[version].archive, state.workers[version])
        if state.champion is not None:
            self.set_default(state.champion)
        self.end(self.registered().keys() - state.workers.keys(), drain=drain)

    def _register(self, version: str, archive: str) -> Registered:
        try:
            self._client.register(self._name, unpack(self._store, archive))
        except Refused as error:
            # Somebody else was faster.
            if error.status != 409:
                raise
        found = self._client.describe(self._name, version)
        if found is None:
            raise ServingError(f"TorchServe took {archive}, but has no version {version} since")
        return found

    def _wait(self, version: str, workers: int, mark: int) -> None:
        pids: dict[str, set[int]] = {}
        begun = time.monotonic()
        while True:
            found = self._client.describe(self._name, version)
            if found is None:
                raise ServingError(f"version {version} was unregistered by somebody else")
            # Until all are there that are wanted, and none that is not.
            if found.ready == workers == len(found.workers):
                return
            for worker in found.workers:
                if worker.pid > 0:
                    pids.setdefault(worker.name, set()).add(worker.pid)
            waited = time.monotonic() - begun
            if any(len(seen) > 1 for seen in pids.values()):
                raise ServingError(
                    f"a worker of version {version} ended while it loaded the model, after at "
                    f"most {waited:.0f} s: {self._reason(version, mark, found.startup_timeout)}"
                )
            if waited > found.startup_timeout + _START:
                raise ServingError(
                    f"version {version} is not ready after {waited:.0f} s "
                    f"({found.ready} of {workers} workers): see {self._log_file}"
                )
            time.sleep(self._timing.poll)

    def _drain(self, versions: list[str]) -> None:
        timing = self._timing
        log.info(
            "waiting %g s for requests to version %s",
            timing.settle + timing.deadline,
            ", ".join(versions),
        )
        # What the gateway sent before it read the state is answered or given up by then.
        time.sleep(timing.settle + timing.deadline)
        end = time.monotonic() + timing.deadline
        # Of programs that ask TorchServe itself.
        while any(self._waiting(version) for version in versions):
            if time.monotonic() > end:
                log.warning("requests to version %s are dropped", ", ".join(versions))
                return
            time.sleep(timing.poll)

    def _waiting(self, version: str) -> int:
        found = self._client.describe(self._name, version)
        # Without workers nothing will answer them.
        return found.waiting if found is not None and found.ready else 0

    def _log_size(self) -> int:
        try:
            return self._log_file.stat().st_size
        except OSError:
            return 0

    def _reason(self, version: str, mark: int, timeout: int) -> str:
        """Why a worker ended, as far as it has said so."""
        try:
            with self._log_file.open("rb") as file:
                # A log that was begun anew is read from its start.
                file.seek(mark if mark <= self._log_size() else 0)
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            lines = []
        worker = re.compile(
            rf"W-\d+-{re.escape(self._name)}_{re.escape(version)}-std\w+ \S+ - "
        )
        told = [line[found.end() :] for line in lines if (found := worker.search(line))]
        # What it was killed by is said nowhere; errors of errors follow the first.
        first = next((line for line in told if _ERROR.match(line)), None)
        return (
            first or f"it took longer than its {timeout} s, or was killed; see {self._log_file}"
        )
