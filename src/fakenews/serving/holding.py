"""One deployment at a time in a folder, and who is at it."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from fakenews.errors import ServingError
from fakenews.serving.state import now

_LOCK = "deploy.lock"
_HOLDER = "deploy.json"


@contextlib.contextmanager
def holding(folder: Path, action: str, *, patience: float = 0) -> Iterator[None]:
    """Keep others from deploying in a folder.

    Args:
        folder: Of the deployment; made if there is none.
        action: What is done, for those who are kept from it.
        patience: Seconds to wait for who does so now.

    Raises:
        ServingError: Another process is at it; says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / _HOLDER
    try:
        lock = FileLock(folder / _LOCK)
        lock.acquire(timeout=patience)
    except Timeout as error:
        raise ServingError(
            f"another deployment is under way in {folder}: {_who(holder)}; wait for it, or "
            "end it"
        ) from error
    try:
        who = {
            "action": action,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": now(),
        }
        holder.write_text(json.dumps(who) + "\n", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _who(holder: Path) -> str:
    try:
        found = json.loads(holder.read_text(encoding="utf-8"))
        return "action={action} of process {pid} on {host}, since {since}".format(**found)
    except (OSError, ValueError, KeyError, TypeError):
        return "it has just begun"  # or just ended
