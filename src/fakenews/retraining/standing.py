"""What is known of the registered versions of a model, and which of them is champion.

Aliases say what a version is: `champion` answers, `challenger` wants to, `previous` answered
before. Tags say what is known of it.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Literal

from fakenews.errors import RetrainingError

Alias = Literal["champion", "challenger", "previous"]

ARCHIVE = "archive"
"""Tag: version of the archive that serves it, as the deployment names it."""

GATE, GATE_SUMMARY, GATE_AGAINST = "gate", "gate_summary", "gate_against"
"""Tags: what the gate has decided, `accepted` or `refused`; why; MLflow's run of the champion
that the version was compared with."""

DATA_HASH, DATA_VERSION = "data_hash", "data_version"
"""Tags: SHA-256 of what it was trained on; version of the retraining dataset."""

PROMOTED, ROLLED_BACK, FORCED = "promoted", "rolled_back", "forced"
"""Tags: ISO times, the last with what the gate had said."""


@dataclass(frozen=True, kw_only=True)
class Aliases:
    """Which version each alias names; None for none."""

    champion: int | None = None
    challenger: int | None = None
    previous: int | None = None

    def of(self, version: int) -> list[str]:
        """The aliases of a version."""
        return [name for name, holder in asdict(self).items() if holder == version]

    def between(self, one: "Aliases", other: "Aliases") -> bool:
        """Whether each is as in one of two: as when one is on its way to the other."""
        return all(
            holder in (getattr(one, name), getattr(other, name))
            for name, holder in asdict(self).items()
        )

    def __str__(self) -> str:
        return ", ".join(
            f"{name} {'none' if holder is None else holder}"
            for name, holder in asdict(self).items()
        )


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What the gate has decided about a version.

    Attributes:
        accepted: Whether it may be promoted.
        summary: Why, in a line.
        run: MLflow's run of what was judged, if that is not known otherwise.
        against: That of the champion it was compared with.
    """

    accepted: bool
    summary: str
    run: str | None = None
    against: str | None = None

    def __str__(self) -> str:
        word = "accepted" if self.accepted else "refused"
        return f"{word} ({self.summary})" if self.summary else word


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """A registered version.

    Attributes:
        version: Its number.
        run: MLflow's id of the run that made it; None if it was registered without.
        created: When.
        description: The short summary of its model card.
        tags: All of them.
    """

    version: int
    run: str | None
    created: datetime
    description: str
    tags: Mapping[str, str]

    @property
    def archive(self) -> str | None:
        """Version of the archive that serves it, if there was one."""
        return self.tags.get(ARCHIVE)

    @property
    def gate(self) -> Gate | None:
        """What the gate has decided; None if it was not asked."""
        decided = self.tags.get(GATE)
        if decided not in ("accepted", "refused"):
            return None
        return Gate(
            accepted=decided == "accepted",
            summary=self.tags.get(GATE_SUMMARY, ""),
            against=self.tags.get(GATE_AGAINST),
        )

    @property
    def metrics(self) -> dict[str, float]:
        """Those that training has noted, as `test_average_precision`."""
        found = {}
        for name, value in self.tags.items():
            if name.startswith(("val_", "test_")):
                with suppress(ValueError):
                    found[name] = float(value)
        return found


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The registered versions of a model, at one moment.

    Attributes:
        model: Its name.
        aliases: Who is what.
        versions: By number.
    """

    model: str
    aliases: Aliases
    versions: Mapping[int, ModelVersion]

    def find(self, version: int) -> ModelVersion:
        """A version.

        Raises:
            RetrainingError: There is none.
        """
        if version not in self.versions:
            known = ", ".join(map(str, sorted(self.versions))) or "none"
            raise RetrainingError(
                f"version={version}: {self.model} has no such version; there are {known}"
            )
        return self.versions[version]

    def held(self, alias: Alias) -> ModelVersion | None:
        """The version that an alias names."""
        holder: int | None = getattr(self.aliases, alias)
        return None if holder is None else self.find(holder)

    def objection(self, found: ModelVersion, gate: Gate | None) -> str | None:
        """Why a version may not answer in place of the champion; None if it may.

        Args:
            found: The version.
            gate: What the gate has decided about it; None if it was not asked.
        """
        if gate is None:
            return "the gate was not asked"
        if not gate.accepted:
            return f"the gate has it {gate}"
        champion = self.held("champion")
        if champion is None or champion.version == found.version:
            return None
        known = gate.against is not None and champion.run is not None
        if known and gate.against != champion.run:
            return f"the gate has not compared it with the champion, version {champion.version}"
        return None


def challenge(before: Aliases, version: int) -> Aliases:
    """Who is what when a version wants to answer.

    Raises:
        RetrainingError: It answers already.
    """
    if version == before.champion:
        raise RetrainingError(f"version {version} is the champion: it cannot challenge itself")
    return replace(before, challenger=version)


def crown(before: Aliases, version: int) -> Aliases:
    """Who is what when a version answers; as before, if it does already."""
    if version == before.champion:
        return before
    return Aliases(
        champion=version,
        challenger=None if before.challenger == version else before.challenger,
        previous=before.champion,
    )


def swap(before: Aliases) -> Aliases:
    """Who is what when the version before answers again.

    Raises:
        RetrainingError: There is none.
    """
    if before.previous is None:
        raise RetrainingError("there is no previous version to go back to")
    return replace(before, champion=before.previous, previous=before.champion)
