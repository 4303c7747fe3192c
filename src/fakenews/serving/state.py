"""What is deployed, in a file: the gateway routes by it, and a restart is restored from it.

It is written whole or not at all, under a lock, so whoever reads it needs none.
"""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fakenews.errors import ServingError

STATE = "state.json"
"""The file, in the folder of the deployment."""

_LOCK = "state.lock"
# Seconds; whoever holds the lock only writes a file.
_PATIENCE = 10
_EVENTS = 100


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Version(_Record):
    """A version whose archive is in the model store.

    Attributes:
        archive: Name of the file.
        workers: Processes that answer for it; 0 when it is kept for a rollback only.
        added: ISO time.
    """

    archive: str
    workers: Annotated[int, Field(ge=0)]
    added: str


class Canary(_Record):
    """A version that answers a share of the requests.

    Attributes:
        version: Which.
        share: In (0, 1).
    """

    version: str
    share: Annotated[float, Field(gt=0, lt=1)]


class Aborted(_Record):
    """The last canary that the gateway gave up.

    Attributes:
        version: Which.
        reason: What was wrong with it.
        time: ISO time.
    """

    version: str
    reason: str
    time: str


class Event(_Record):
    """Something that was done.

    Attributes:
        time: ISO time.
        action: As in `deploy`.
        version: Of the model, if it was about one.
        detail: The rest.
    """

    time: str
    action: str
    version: str | None
    detail: str


class State(_Record):
    """What is deployed of one model.

    Attributes:
        format: Of the file.
        name: Of the model.
        versions: Those whose archives are in the store, by version.
        champion: The version that answers; None when nothing is deployed.
        previous: What a rollback brings back.
        canary: A version on trial, which answers some of the requests.
        shadow: A version on trial, whose answers nobody sees.
        aborted: The last canary that was given up.
        events: The latest, oldest first.
    """

    format: Literal[1] = 1
    name: str
    versions: dict[str, Version] = {}
    champion: str | None = None
    previous: str | None = None
    canary: Canary | None = None
    shadow: str | None = None
    aborted: Aborted | None = None
    events: tuple[Event, ...] = ()

    @model_validator(mode="after")
    def _known(self) -> Self:
        canary = self.canary.version if self.canary else None
        for version in (self.champion, self.previous, canary, self.shadow):
            if version is not None and version not in self.versions:
                raise ValueError(f"version {version} is not among its versions")
        return self

    @property
    def workers(self) -> dict[str, int]:
        """Of each version that TorchServe must have."""
        return {name: found.workers for name, found in self.versions.items() if found.workers}

    @property
    def routed(self) -> set[str]:
        """The versions that the gateway sends requests to."""
        canary = self.canary.version if self.canary else None
        return {version for version in (self.champion, canary, self.shadow) if version}

    def roles(self, version: str) -> list[str]:
        """What a version is: champion, canary, shadow, previous."""
        canary = self.canary.version if self.canary else None
        return [
            role
            for role, holder in (
                ("champion", self.champion),
                ("canary", canary),
                ("shadow", self.shadow),
                ("previous", self.previous),
            )
            if holder == version
        ]

    def but(self, **values: Any) -> "State":
        """The state with other values, checked."""
        content = {name: getattr(self, name) for name in type(self).model_fields}
        return State.model_validate({**content, **values})

    def noting(self, action: str, version: str | None, detail: str) -> "State":
        """The state with one more event."""
        event = Event(time=now(), action=action, version=version, detail=detail)
        return self.but(events=(*self.events, event)[-_EVENTS:])


def now() -> str:
    """The time, as it stands in a state."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_state(folder: Path, *, name: str) -> State:
    """The state of a deployment; that of nothing where there is none.

    Args:
        folder: Of the deployment.
        name: Of the model, if there is no state.

    Raises:
        ServingError: It is damaged, or of another version of this program.
    """
    path = folder / STATE
    try:
        return State.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return State(name=name)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ServingError(
            f"{path} is damaged ({where + ': ' if where else ''}{first['msg']}): restore it "
            "from a copy, or delete it and deploy again"
        ) from error


def change_state(folder: Path, *, name: str, change: Callable[[State], State]) -> State:
    """Change the state; who changes it at the same time waits.

    Args:
        folder: Of the deployment; made if there is none.
        name: Of the model, if there is no state yet.
        change: Gives the new state; the same object leaves the file as it is.

    Returns:
        The new state.

    Raises:
        ServingError: The file is damaged, or locked by a process that does not go on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / _LOCK, timeout=_PATIENCE):
            before = read_state(folder, name=name)
            after = change(before)
            if after is not before:
                _write(folder / STATE, after)
            return after
    except Timeout as error:
        raise ServingError(
            f"{folder / _LOCK} has been locked for {_PATIENCE} seconds: end the process "
            "that holds it"
        ) from error


def abort_canary(folder: Path, reason: str, *, version: str | None = None) -> bool:
    """Give up the canary: all the gateway may change.

    Args:
        folder: Of the deployment.
        reason: What was wrong with it.
        version: Give up only this one; None whichever there is.

    Returns:
        Whether there was such a canary.

    Raises:
        ServingError: The state cannot be changed.
    """
    given_up = False

    def change(state: State) -> State:
        nonlocal given_up
        canary = state.canary
        if canary is None or version not in (None, canary.version):
            return state
        given_up = True
        aborted = Aborted(version=canary.version, reason=reason, time=now())
        after = state.but(canary=None, aborted=aborted)
        return after.noting("abort", canary.version, reason)

    if (folder / STATE).exists():
        change_state(folder, name="", change=change)
    return given_up


def _write(path: Path, state: State) -> None:
    text = json.dumps(state.model_dump(mode="json"), indent=2, ensure_ascii=False)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    # The name must be on the disk too.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
