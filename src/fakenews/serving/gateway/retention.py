"""Predictions, and what people said of them, are removed when they are too old."""

import re
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

_DATE = re.compile(r"date=(\d{4}-\d{2}-\d{2})")
_MONTH = re.compile(r"(\d{4}-\d{2})\.jsonl")


def remove_old(folder: Path, *, days: int | None, today: date | None = None) -> None:
    """Remove the dates of the prediction log that are too old, and the months of feedback.

    Nothing else is removed: no folder of another name, and nothing that a link points to.

    Args:
        folder: Of the deployment.
        days: After which a date is too old; None removes nothing.
        today: None takes the clock, in UTC.

    Raises:
        OSError: Something cannot be removed.
    """
    if days is None:
        return
    oldest = (today or datetime.now(UTC).date()) - timedelta(days=days)
    for path in sorted((folder / "predictions").glob("date=*")):
        day = _day(_DATE.fullmatch(path.name), "")
        if day is not None and day < oldest and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
    for path in sorted((folder / "feedback").glob("*.jsonl")):
        first = _day(_MONTH.fullmatch(path.name), "-01")
        # Its last day is at most 30 after the first.
        if first is not None and first + timedelta(days=30) < oldest and path.is_file():
            path.unlink(missing_ok=True)


def _day(found: "re.Match[str] | None", rest: str) -> date | None:
    try:
        return None if found is None else date.fromisoformat(found[1] + rest)
    except ValueError:  # as of month 13
        return None
