"""What people say of predictions, by their ids.

    feedback/YYYY-MM.jsonl    a line each; of several about one prediction the last counts

Only predictions that were made here can be judged: what is learnt from feedback must not be
filled by whoever makes up ids.
"""

import functools
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import orjson

from fakenews.serving.gateway.problems import Problem
from fakenews.serving.gateway.segments import MODE, Found, find, write_all

Verdict = Literal["correct", "wrong", "unsure"]


class RecentIds:
    """The ids of the last predictions, and what was predicted.

    Args:
        size: How many.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._found: OrderedDict[str, Found] = OrderedDict()
        self._classes: dict[str, tuple[str, ...]] = {}

    def add(self, identifier: str, version: str, label: str, classes: Sequence[str]) -> None:
        """Remember a prediction."""
        self._found[identifier] = Found(version, label)
        if version not in self._classes:
            self._classes[version] = tuple(classes)
        if len(self._found) > self._size:
            self._found.popitem(last=False)

    def get(self, identifier: str) -> Found | None:
        """What was predicted, if it is remembered."""
        return self._found.get(identifier)

    def classes(self, version: str) -> tuple[str, ...]:
        """Of a version that has predicted; nothing of others."""
        return self._classes.get(version, ())


class Feedback:
    """Stores feedback.

    Args:
        folder: For it.
        predictions: Folder of the prediction log, where older predictions are looked up.
        recent: Predictions of this process.
    """

    def __init__(self, *, folder: Path, predictions: Path, recent: RecentIds) -> None:
        self._folder = folder
        self._predictions = predictions
        self._recent = recent
        self._lock = threading.Lock()

    def store(self, identifier: str, verdict: Verdict, label: str | None) -> None:
        """Store what someone says of a prediction; blocks.

        Args:
            identifier: Of the prediction.
            verdict: Whether it was right.
            label: The class it should have been, if they say so.

        Raises:
            Problem: The prediction is not known, the label is no class of its model, or the
                disk is full.
        """
        found = self._recent.get(identifier) or find(self._predictions, identifier)
        if found is None:
            raise Problem(404, "unknown_id", "no prediction with this id is known")
        classes = self._recent.classes(found.model_version)
        if label is not None and classes and label not in classes:
            raise Problem(
                422, "unknown_label", f"the label should be one of {', '.join(classes)}"
            )
        now = datetime.now(UTC)
        line = orjson.dumps(
            {
                "id": identifier,
                "time": now.isoformat(timespec="milliseconds"),
                "verdict": verdict,
                "label": label,
                "predicted": found.label,
                "model_version": found.model_version,
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        try:
            with self._lock:
                self._append(self._folder / f"{now:%Y-%m}.jsonl", line)
        except OSError as error:
            raise Problem(
                503,
                "not_stored",
                f"the feedback cannot be stored: {error.strerror}",
                retry_after=60,
            ) from error

    def _append(self, path: Path, line: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        opener = functools.partial(os.open, mode=MODE)
        with open(path, "ab+", buffering=0, opener=opener) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            if file.read(1) not in (b"\n", b""):
                line = b"\n" + line  # after one that a crash cut short
            try:
                write_all(file.fileno(), line)
                # It is rare, and nobody can say it again.
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)
                raise


def read_feedback(folder: Path) -> dict[str, dict[str, str | None]]:
    """The last word on each prediction, by its id.

    Args:
        folder: Of the feedback; a line cut short by a crash is left out.
    """
    found: dict[str, dict[str, str | None]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                try:
                    content = orjson.loads(line)
                    found[content["id"]] = content
                except (orjson.JSONDecodeError, TypeError, KeyError):
                    continue
    return found
