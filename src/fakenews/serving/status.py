"""What is deployed, and what TorchServe has of it, for people and for programs."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from fakenews.errors import ServingError
from fakenews.holding import at_it
from fakenews.serving.management import Management, Registered
from fakenews.serving.state import Aborted, Event, State
from fakenews.serving.steps import LOCK

_EVENTS = 5


@dataclass(frozen=True, kw_only=True)
class VersionStatus:
    """One version.

    Attributes:
        version: Of the model.
        roles: champion, canary, shadow, previous.
        share: Of the requests, if it is the canary.
        workers: That it should have.
        ready: That can answer.
        waiting: Requests in its queue.
        added: ISO time; None for one that TorchServe has and the state does not.
    """

    version: str
    roles: tuple[str, ...]
    share: float | None
    workers: int
    ready: int
    waiting: int
    added: str | None


@dataclass(frozen=True, kw_only=True)
class Status:
    """A deployment.

    Attributes:
        name: Of the model.
        folder: Of the deployment.
        torchserve: What it says of itself, or why it does not answer.
        answers: Whether it does.
        default: Version that answers where none is named.
        versions: Champion first.
        aborted: The last canary that was given up.
        under_way: Who changes it at this moment, if somebody does.
        events: The latest, oldest first.
    """

    name: str
    folder: str
    torchserve: str
    answers: bool
    default: str | None
    versions: tuple[VersionStatus, ...]
    aborted: Aborted | None
    under_way: str | None
    events: tuple[Event, ...]

    @property
    def faults(self) -> list[str]:
        """What is not as the state says; nothing while that is being changed."""
        if self.under_way is not None or not self.answers:
            return []
        found = []
        for version in self.versions:
            if version.added is None:
                found.append(f"version {version.version} should not be in TorchServe")
            elif version.ready != version.workers:
                found.append(
                    f"version {version.version} has {version.ready} workers ready, of "
                    f"{version.workers}"
                )
            if "champion" in version.roles and self.default != version.version:
                found.append(f"the default is {self.default}, not {version.version}")
        return found

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            **asdict(self),
            "versions": [asdict(version) for version in self.versions],
            "aborted": self.aborted.model_dump() if self.aborted else None,
            "events": [event.model_dump() for event in self.events],
            "faults": self.faults,
        }


def read_status(state: State, client: Management, folder: Path) -> Status:
    """Compare a deployment's state with TorchServe."""
    registered: dict[str, Registered] = {}
    default, answers = None, True
    try:
        torchserve = client.health()
        registered = client.versions(state.name)
        default = client.default(state.name)
    except ServingError as error:
        torchserve, answers = str(error), False
    names = sorted(state.versions.keys() | registered.keys())
    names.sort(key=lambda name: (name != state.champion, not state.roles(name)))
    return Status(
        name=state.name,
        folder=str(folder),
        torchserve=torchserve,
        answers=answers,
        default=default,
        versions=tuple(_version(state, name, registered.get(name)) for name in names),
        aborted=state.aborted,
        under_way=at_it(folder / LOCK),
        events=state.events[-_EVENTS:],
    )


def shown(status: Status) -> Group:
    """A status to print."""
    table = Table("version", "role", "workers", "waiting", "added", box=None, pad_edge=False)
    for version in status.versions:
        role = ", ".join(version.roles) or ("idle" if version.added else "not in the state")
        if version.share is not None:
            role += f" ({100 * version.share:g}%)"
        table.add_row(
            version.version,
            role,
            _workers(version) if status.answers else "?",
            str(version.waiting) if status.answers else "?",
            version.added or "",
        )
    parts: list[Text | Table] = [
        Text(f"{status.name} in {status.folder}; TorchServe: {status.torchserve}"),
        table if status.versions else Text("nothing is deployed"),
    ]
    if status.aborted is not None:
        parts.append(
            Text(
                f"canary {status.aborted.version} was given up at {status.aborted.time}: "
                f"{status.aborted.reason}"
            )
        )
    if status.under_way is not None:
        parts.append(Text(f"a deployment is under way: {status.under_way}"))
    parts += [Text(f"not as it should be: {fault}") for fault in status.faults]
    if status.events:
        parts.append(Text("latest events:"))
    parts += [
        Text(f"  {event.time}  {event.action} {event.version or ''}: {event.detail}")
        for event in status.events
    ]
    return Group(*parts)


def _workers(version: VersionStatus) -> str:
    if version.added is None:
        return f"{version.ready} ready"
    if version.workers or version.ready:
        return f"{version.ready} of {version.workers} ready"
    return "archive only"


def _version(state: State, name: str, found: Registered | None) -> VersionStatus:
    known = state.versions.get(name)
    canary = state.canary
    return VersionStatus(
        version=name,
        roles=tuple(state.roles(name)),
        share=canary.share if canary is not None and canary.version == name else None,
        workers=known.workers if known else 0,
        ready=found.ready if found else 0,
        waiting=found.waiting if found else 0,
        added=known.added if known else None,
    )
