"""Processes of servers: started, waited for, stopped while others are measured, ended."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, build_opener

import psutil

HOST = "127.0.0.1"
_LAST_LINES = 8
_opener = build_opener(ProxyHandler({}))


class ServerError(Exception):
    """A server could not be started, or is wrong; in few lines."""


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """A command, with all that it starts.

    Args:
        name: For messages.
        command: To run.
        log: Where its output goes.
        environment: Added to ours.
        cwd: Where it works; None: here.
        interactive: Whether we write to it and read from it; else its output is logged.
    """

    def __init__(
        self,
        *,
        name: str,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        interactive: bool = False,
    ) -> None:
        self.name = name
        self._log = log
        self._paused: list[psutil.Process] = []
        with log.open("wb") as out:
            self.popen = subprocess.Popen(  # noqa: S603
                list(command),
                cwd=cwd,
                env=dict(os.environ) | dict(environment or {}),
                stdin=subprocess.PIPE if interactive else subprocess.DEVNULL,
                stdout=subprocess.PIPE if interactive else out,
                stderr=out if interactive else subprocess.STDOUT,
                # Ctrl-C is for us: we end it.
                start_new_session=True,
            )

    def tree(self) -> list[psutil.Process]:
        """The process, and those that it started and that live."""
        try:
            root = psutil.Process(self.popen.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def wait(self, url: str, *, timeout: float) -> None:
        """Wait until the address answers with a status below 400.

        Raises:
            ServerError: It ended, or does not answer in time.
        """
        deadline = time.monotonic() + timeout
        while True:
            self.check()
            with contextlib.suppress(HTTPError, URLError, OSError):
                _opener.open(url, timeout=5).close()
                return
            if time.monotonic() > deadline:
                raise ServerError(
                    f"{self.name} does not answer at {url} after {timeout:g} s: {self.told()}"
                )
            time.sleep(0.1)

    def check(self) -> None:
        """Raise a ServerError if it has ended."""
        status = self.popen.poll()
        if status is not None:
            raise ServerError(f"{self.name} ended with status {status}: {self.told()}")

    def told(self) -> str:
        """The last lines of its log."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(["", *lines[-_LAST_LINES:]]) if lines else "it said nothing"

    def pause(self) -> None:
        """Stop it, so that it takes nothing of the machine until `resume`."""
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)
                self._paused.append(process)

    def resume(self) -> None:
        """Let it go on."""
        for process in reversed(self._paused):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
        self._paused.clear()

    def cpu_seconds(self) -> float:
        """What it and those that it started have computed, all threads together."""
        total = 0.0
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def memory(self) -> list[tuple[str, float]]:
        """Command line and resident MiB of each of its processes."""
        found = []
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                command = " ".join(process.cmdline())
                found.append((command, process.memory_info().rss / 2**20))
        return found

    def stop(self, *, timeout: float = 10) -> None:
        """End it with all that it started."""
        self.resume()
        tree = self.tree()
        with contextlib.suppress(ProcessLookupError):
            self.popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(timeout)
        for process in tree:
            # Those of its session, and those that made one of their own.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                pipe.close()
