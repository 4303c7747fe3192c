"""A retraining cycle: a folder in which every step that is done has left a record.

    retraining/ID/
      cycle.json       what is retrained, and why
      STEP.json        of each step that is done, see `Record`
      run/             of train.py;  gate/, evaluation/: of those commands

A record is written whole or not at all, after all that its step has made. So a step that has
one is not done again, whoever asks for it, and one that was killed is.
"""

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from fakenews.errors import ConfigError, RetrainingError
from fakenews.holding import holding

Step = Literal[
    "decide",
    "prepare",
    "train",
    "evaluate",
    "gate",
    "register",
    "deploy",
    "watch",
    "promote",
    "notify",
]

STEPS: tuple[Step, ...] = get_args(Step)
"""In their order; `notify` is done at the end, however that comes."""

_Content = TypeVar("_Content", bound=BaseModel)

_CYCLE = "cycle.json"
_LOCK = "cycle.lock"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")


class Outcome(StrEnum):
    """What a step means for those after it."""

    NEXT = "next"
    """They are to be done."""
    END = "end"
    """Nothing is left to do: no need, a challenger that was refused, a trial that was given
    up. No error."""


EXIT = {Outcome.NEXT: 0, Outcome.END: 2}
"""Exit status of the command; 1 is an error."""


class Record(BaseModel):
    """What a step that is done has left.

    Attributes:
        step: Which.
        outcome: Whether the cycle goes on.
        message: What happened, as a sentence.
        at: When, with a zone.
        facts: For later steps and for programs; plain JSON.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: Step
    outcome: Outcome
    message: str
    at: AwareDatetime
    facts: dict[str, Any] = {}


class Origin(BaseModel):
    """What a cycle is about.

    Attributes:
        name: Of the registered model.
        began: When, with a zone.
        reason: Of a person who asked for it; None where nobody did.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    name: str
    began: AwareDatetime
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """A cycle that has begun.

    Attributes:
        folder: Its own.
        origin: What it is about.
    """

    folder: Path
    origin: Origin
    _done: dict[Step, Record] = field(default_factory=dict, repr=False)

    @classmethod
    def begin(cls, folder: Path, *, name: str, reason: str | None = None) -> Self:
        """Begin a cycle, or go on with it where its folder is there.

        Args:
            folder: Of the cycle.
            name: Of the registered model.
            reason: See `Origin`; of a cycle that was decided on, what was said then counts.

        Raises:
            ConfigError: The cycle is another model's.
            RetrainingError: The folder is damaged, or cannot be written.
        """
        if not (folder / _CYCLE).is_file():
            origin = Origin(name=name, began=datetime.now(UTC), reason=reason)
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder / _CYCLE, origin)
        cycle = cls(folder=folder, origin=_read(folder / _CYCLE, Origin))
        if cycle.origin.name != name:
            raise ConfigError(
                f"{folder} is a cycle of name={cycle.origin.name}, not of {name}: give another "
                "cycle"
            )
        for step in STEPS:
            if (path := folder / f"{step}.json").is_file():
                cycle._done[step] = _read(path, Record)
        if reason is not None and cycle.origin.reason is None and STEPS[0] not in cycle:
            origin = cycle.origin.model_copy(update={"reason": reason})
            _write(folder / _CYCLE, origin)
            cycle = replace(cycle, origin=origin)
        return cycle

    def __getitem__(self, step: Step) -> Record:
        """The record of a step that is done.

        Raises:
            RetrainingError: It is not, and what to do first.
        """
        if step not in self._done:
            raise RetrainingError(f"{self.folder} has not done step={step}: do that first")
        return self._done[step]

    def __contains__(self, step: Step) -> bool:
        return step in self._done

    @property
    def end(self) -> Record | None:
        """What ended the cycle, before or at its last step; None while it goes on."""
        for step in STEPS[:-1]:
            found = self._done.get(step)
            if found is not None and (found.outcome is Outcome.END or step == STEPS[-2]):
                return found
        return None

    def write(self, step: Step, outcome: Outcome, message: str, **facts: Any) -> Record:
        """Record that a step is done.

        Raises:
            RetrainingError: The folder cannot be written.
        """
        record = Record(
            step=step, outcome=outcome, message=message, at=datetime.now(UTC), facts=facts
        )
        _write(self.folder / f"{step}.json", record)
        self._done[step] = record
        return record

    def held(self, step: str) -> AbstractContextManager[None]:
        """Keep other processes from working on the cycle.

        Args:
            step: What is done, for those who are kept from it.

        Raises:
            RetrainingError: Another one does; says which.
        """
        lock = self.folder / _LOCK
        return holding(lock, work="cycle", action=step, error=RetrainingError)


def find(cycles: Path, cycle: str | None, *, name: str, reason: str | None = None) -> Path:
    """The folder of the cycle that is meant.

    Args:
        cycles: Folder of all.
        cycle: Its name; None: the newest of the model that is unfinished, or else a new one.
        name: Of the registered model.
        reason: See `Origin`; who has one is not served by a cycle that had none, and ended.

    Raises:
        ConfigError: A cycle cannot have that name.
        RetrainingError: A cycle is damaged.
    """
    if cycle is not None:
        if not _NAME.fullmatch(cycle):
            raise ConfigError(f"cycle={cycle} is no name: give letters, digits and ._+-")
        return cycles / cycle
    for folder in sorted(_all(cycles), reverse=True):
        if (folder / f"{STEPS[-1]}.json").is_file():
            continue
        if _read(folder / _CYCLE, Origin).name != name:
            continue
        decided = folder / f"{STEPS[0]}.json"
        if reason and decided.is_file() and _read(decided, Record).outcome is Outcome.END:
            continue
        return folder
    return cycles / f"{datetime.now(UTC):%Y-%m-%d_%H-%M-%S}"


def last_trained(cycles: Path, *, name: str) -> datetime | None:
    """When the newest cycle of a model that has trained began; None if there was none."""
    found = [
        origin.began
        for folder in _all(cycles)
        if (folder / "train.json").is_file()
        and (origin := _read(folder / _CYCLE, Origin)).name == name
    ]
    return max(found, default=None)


def _all(cycles: Path) -> list[Path]:
    return [path.parent for path in cycles.glob(f"*/{_CYCLE}")]


def _write(path: Path, content: BaseModel) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(content.model_dump_json(indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise RetrainingError(f"{path} cannot be written: {error}") from error


def _read(path: Path, kind: type[_Content]) -> _Content:
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise RetrainingError(
            f"{path} is damaged: remove it to do its step again, or give another cycle"
        ) from error
