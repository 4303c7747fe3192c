"""One process at a time at something, and who it is."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from fakenews.errors import FakeNewsError
from fakenews.provenance import stamp


@contextlib.contextmanager
def holding(
    lock: Path, *, work: str, action: str, error: type[FakeNewsError], patience: float = 0
) -> Iterator[None]:
    """Keep other processes from the same work. A killed process holds nothing.

    Args:
        lock: File to lock, in the folder that is worked on; that is made if there is none.
        work: What nobody else may do, as "deployment".
        action: What of it is done, for those who are kept from it.
        error: What is raised for them.
        patience: Seconds to wait for who does so now.

    Raises:
        FakeNewsError: Another process is at it; says which. Or the folder is a file.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as cause:
        raise error(f"{lock.parent} is a file, or lies below one: choose a folder") from cause
    holder = lock.with_suffix(".holder.json")
    held = FileLock(lock)
    try:
        held.acquire(timeout=patience)
    except Timeout as cause:
        raise error(
            f"another {work} is under way in {lock.parent}: {_who(holder)}; wait for it, or "
            "end it"
        ) from cause
    try:
        who = {
            "action": action,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": stamp(),
        }
        holder.write_text(json.dumps(who) + "\n", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        held.release()


def at_it(lock: Path) -> str | None:
    """Who holds a lock, as `holding` names them; None if nobody does.

    Args:
        lock: The file.
    """
    if not lock.is_file():
        return None
    try:
        with FileLock(lock, blocking=False):
            return None
    except Timeout:
        return _who(lock.with_suffix(".holder.json"))


def _who(holder: Path) -> str:
    try:
        found = json.loads(holder.read_text(encoding="utf-8"))
        return "action={action} of process {pid} on {host}, since {since}".format(**found)
    except (OSError, ValueError, KeyError, TypeError):
        return "it has just begun"  # or just ended
