"""The commands that a person runs, run as a step of a cycle: one process each.

A child says what it does where this process says it. Asked to end, this process asks the
child, which saves what it has; if it is killed, the system asks it. The same step then goes on
from there.
"""

import contextlib
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, TextIO

from fakenews.errors import RetrainingError
from fakenews.launch import CHILD

log = logging.getLogger(__name__)

_LAST = 20  # lines
_CHUNK = 65_536
# In the environment of a command: what it says comes to a terminal.
_TERMINAL = "FAKENEWS_TERMINAL"
# Seconds for a child to save and end.
_PATIENCE = 120.0


def run(
    command: str,
    options: Sequence[str],
    *,
    root: Path,
    log_file: Path,
    ends: Collection[int] = (0,),
) -> int:
    """Run a command of the project to its end.

    Args:
        command: As `train.py` or `scripts/gate.py`.
        options: Of it, as typed.
        root: The working copy.
        log_file: Gets all that it says, after what is there.
        ends: Exit statuses that are no error.

    Returns:
        The exit status.

    Raises:
        RetrainingError: It failed; with its own last word.
        Interrupted: This process was asked to end, and the child has ended.
    """
    arguments = [sys.executable, str(root / command), *options]
    shown = f"python {command} {shlex.join(options)}"
    log.info("%s", shown)
    last: deque[str] = deque(maxlen=_LAST)
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("a", encoding="utf-8") as kept:
        kept.write(f"$ {shown}\n")
        kept.flush()
        with _child(arguments) as child:
            assert child.stdout is not None  # noqa: S101 it is a pipe
            reader = threading.Thread(target=_pass_on, args=(child.stdout, kept, last))
            reader.start()
            try:
                status = child.wait()
            finally:
                _end(child)
                reader.join()
    if status in ends:
        return status
    errors = [line for line in last if line.startswith("error:")]
    word = (errors or list(last) or ["it said nothing"])[-1].removeprefix("error: ")
    raise RetrainingError(
        f"{command} ended with status {status}: {word} (all that it said is in {log_file})"
    )


@contextlib.contextmanager
def _child(arguments: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(  # noqa: S603 our own command
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        bufsize=0,
        # A Ctrl-C of the terminal would reach it twice.
        start_new_session=True,
        env=os.environ
        | {"PYTHONUNBUFFERED": "1", CHILD: str(os.getpid()), _TERMINAL: "1" * _shown()},
    ) as child:
        yield child


def _pass_on(source: IO[bytes], kept: TextIO, last: "deque[str]") -> None:
    """Show what comes, as it comes on a terminal; elsewhere, and in the log, whole lines.

    A progress bar writes over its line again and again: of that the last state is a line.
    """
    shows = _shown()
    begun = b""
    while chunk := source.read(_CHUNK):
        if shows:
            _say(chunk.decode("utf-8", errors="replace"))
        *lines, begun = (begun + chunk).split(b"\n")
        for line in lines:
            _keep(line, kept, last, shows=shows)
    if begun:
        _keep(begun, kept, last, shows=shows)


def _shown() -> bool:
    """Whether people see at once what is said: here, or by whoever passes it on."""
    return sys.stdout.isatty() or bool(os.environ.get(_TERMINAL))


def _keep(line: bytes, kept: TextIO, last: "deque[str]", *, shows: bool) -> None:
    text = line.decode("utf-8", errors="replace").rstrip("\r").rpartition("\r")[2]
    if not text.strip():
        return
    last.append(text.strip())
    if not shows:
        _say(f"{text}\n")
    with contextlib.suppress(OSError):  # a full disk
        kept.write(f"{text}\n")
        kept.flush()


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # a terminal that was closed
        sys.stdout.write(text)
        sys.stdout.flush()


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End a child that is still there, with all that it has started."""
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_PATIENCE)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
