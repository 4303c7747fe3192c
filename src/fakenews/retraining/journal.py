"""What a promotion was about to do, in a file: if it is killed, the next command knows.

The file is there while registry and serving may differ, and at no other time.
"""

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fakenews.data.manifest import write_json
from fakenews.errors import RetrainingError
from fakenews.holding import holding
from fakenews.retraining.standing import Aliases
from fakenews.serving.state import Version

JOURNAL = "promotion.json"
_LOCK = "promotion.lock"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Half(_Record):
    """What is to change in serving.

    Attributes:
        archive: Version that answers, or is tried, in the end; None ends a trial.
        role: What it is then.
        champion: Version that answered before.
        trial: Version that was on trial before.
        known: The archive's entry in the state before, if it had one.
    """

    archive: str | None
    role: Literal["champion", "canary"]
    champion: str | None
    trial: str | None
    known: Version | None = None


class Entry(_Record):
    """What is to change.

    Attributes:
        format: Of the file.
        action: What was asked for.
        model: The registered model.
        version: Of it, that this is about; None for a trial of something unknown to it.
        before: Who was what.
        after: Who is to be what.
        tags: Of versions, by name: the value before, and the one that is to be.
        serving: The other half; None if there is none.
        time: When it began, in ISO form.
    """

    format: Literal[1] = 1
    action: Literal["promote", "rollback", "challenge"]
    model: str
    version: int | None
    before: Aliases
    after: Aliases
    tags: dict[int, dict[str, tuple[str | None, str | None]]] = {}
    serving: Half | None = None
    time: str


class Journal:
    """The file in a folder; who holds its lock is alone at work.

    Args:
        folder: Of the deployment; made if there is none.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL

    def held(self, action: str) -> AbstractContextManager[None]:
        """Keep others from promoting.

        Args:
            action: What is done, for those who are kept from it.

        Raises:
            RetrainingError: Another process is at it; says which.
        """
        lock = self.path.with_name(_LOCK)
        return holding(lock, work="promotion", action=action, error=RetrainingError)

    def read(self) -> Entry | None:
        """What was begun, and not ended; None if nothing was.

        Raises:
            RetrainingError: The file is damaged.
        """
        try:
            return Entry.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValidationError, OSError) as error:
            raise RetrainingError(
                f"{self.path} cannot be read: look with action=status at what is champion and "
                "what is served, remove the file, and promote the version that should answer"
            ) from error

    def write(self, entry: Entry) -> None:
        """Say what is begun; it is on the disk then."""
        write_json(self.path, entry.model_dump(mode="json"))
        for path in (self.path, self.path.parent):
            place = os.open(path, os.O_RDONLY)
            try:
                os.fsync(place)
            finally:
                os.close(place)

    def clear(self) -> None:
        """Say that it has ended."""
        self.path.unlink(missing_ok=True)
