"""The status of a registered model, for programs and for people."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from fakenews.retraining.journal import Entry
from fakenews.retraining.standing import (
    DATA_HASH,
    DATA_VERSION,
    ROLLED_BACK,
    ModelVersion,
    Standing,
)
from fakenews.serving.state import State

_SHOWN = 20  # versions; those with an alias are shown in any case
_METRICS = {"average_precision": "AP", "macro_f1": "macro-F1"}


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What is known of a registered model, and of what is served of it.

    Attributes:
        standing: In the registry.
        state: Of the deployment; None if that is no affair of ours.
        begun: What a killed process has left.
    """

    standing: Standing
    state: State | None
    begun: Entry | None

    @property
    def notices(self) -> list[str]:
        """What is not as it should be, as sentences."""
        return list(self._notices())

    def _notices(self) -> Iterator[str]:
        if self.begun is not None:
            yield (
                f"action={self.begun.action} of version {self.begun.version} has been under "
                f"way since {self.begun.time}, or was cut off: then the next command ends it"
            )
        champion = self.standing.held("champion")
        if champion is None:
            yield "no version is champion: make one with action=promote version=N"
        if self.state is None:
            return
        served = self.state.champion
        if champion is not None and champion.archive != served:
            yield (
                f"the champion is version {champion.version} (archive "
                f"{champion.archive or 'none yet'}), and {served or 'nothing'} is served: "
                "promote the version that should answer"
            )
        if (aborted := self.state.aborted) is not None:
            yield f"the gateway gave up the trial of {aborted.version}: {aborted.reason}"

    def roles(self, found: ModelVersion) -> list[str]:
        """What the archive of a version is in the deployment: champion, canary, ..."""
        if self.state is None or found.archive is None:
            return []
        return self.state.roles(found.archive)

    def plain(self) -> dict[str, Any]:
        """For programs: plain JSON, versions from the newest on."""
        return {
            "model": self.standing.model,
            "aliases": asdict(self.standing.aliases),
            "served": None if self.state is None else self.state.champion,
            "begun": None if self.begun is None else self.begun.model_dump(mode="json"),
            "notices": self.notices,
            "versions": [
                {
                    "version": found.version,
                    "aliases": self.standing.aliases.of(found.version),
                    "serving": self.roles(found),
                    "archive": found.archive,
                    "gate": None if found.gate is None else asdict(found.gate),
                    "metrics": found.metrics,
                    "data_hash": found.tags.get(DATA_HASH),
                    "data_version": found.tags.get(DATA_VERSION),
                    "run": found.run,
                    "created": found.created.isoformat(),
                    "description": found.description,
                    "tags": dict(found.tags),
                }
                for found in self._newest()
            ],
        }

    def _newest(self) -> list[ModelVersion]:
        return [found for _, found in sorted(self.standing.versions.items(), reverse=True)]

    def shown_versions(self) -> list[ModelVersion]:
        """The newest versions, and those with an alias."""
        newest = self._newest()
        named = {*asdict(self.standing.aliases).values()}
        return [
            found
            for place, found in enumerate(newest)
            if place < _SHOWN or found.version in named
        ]


def shown(overview: Overview) -> Group:
    """The status for people."""
    table = Table(
        *("version", "is", "served as", "gate", *_METRICS.values(), "archive"),
        title=Text(overview.standing.model),
        title_justify="left",
        box=box.SIMPLE,
    )
    versions = overview.shown_versions()
    for found in versions:
        gate = "" if found.gate is None else "accepted" if found.gate.accepted else "refused"
        taken_back = ["taken back"] if ROLLED_BACK in found.tags else []
        cells = [
            str(found.version),
            ", ".join([*overview.standing.aliases.of(found.version), *taken_back]),
            ", ".join(overview.roles(found)),
            gate,
            *(_figure(found, name) for name in _METRICS),
            found.archive or "",
        ]
        table.add_row(*map(Text, cells))
    left_out = len(overview.standing.versions) - len(versions)
    lines = [f"and {left_out} older versions"] if left_out else []
    return Group(table, *map(Text, [*lines, *overview.notices]))


def _figure(found: ModelVersion, name: str) -> str:
    """Of the test split, else of validation."""
    for split in ("test", "val"):
        if (value := found.metrics.get(f"{split}_{name}")) is not None:
            return f"{value:.3f}"
    return ""
