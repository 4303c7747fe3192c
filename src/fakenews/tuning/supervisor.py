"""Several workers on one machine: the same command again, each on its share of it."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from fakenews.errors import TuningError
from fakenews.launch import core_share
from fakenews.tuning.queue import TrialQueue
from fakenews.tuning.table import Watch

log = logging.getLogger(__name__)

WORKER = "FAKENEWS_SWEEP_WORKER"
"""Number of this worker, in the environment of the processes that a sweep starts."""

_POLL = 0.5
# Seconds for a worker to save and end when asked to.
_GRACE = 30
# Deaths of workers in a row, without a trial that ended between them.
_MAX_DEATHS = 3


def supervise(queue: TrialQueue, watch: Watch, *, workers: int, folder: Path) -> None:
    """Run workers until the study has its trials; one that was killed is replaced.

    Args:
        queue: Of the study.
        watch: Is told what has changed.
        workers: How many.
        folder: Of the sweep; each worker has a log there.

    Raises:
        Interrupted: From outside.
        TuningError: Too much failed, or workers die again and again.
    """
    (folder / "workers").mkdir(parents=True, exist_ok=True)
    running: dict[int, subprocess.Popen[bytes]] = {}
    deaths, ended = 0, watch.ended
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: _stop(running))
        for number in range(workers):
            running[number] = _start(number, workers, folder)
        while running:
            time.sleep(_POLL)
            watch.update()
            if watch.ended > ended:
                deaths, ended = 0, watch.ended
            for number, process in list(running.items()):
                status = process.poll()
                if status is None:
                    continue
                _close(running.pop(number))
                if status == 0:
                    continue
                queue.queue_killed_again()
                queue.check_failures()
                deaths += 1
                reason = _last_line(folder / "workers" / f"{number}.log")
                if status > 0 or deaths > _MAX_DEATHS:
                    raise TuningError(f"worker {number} ended with status {status}: {reason}")
                log.warning(
                    "worker %d was killed (%s); another takes its place",
                    number,
                    signal.Signals(-status).name,
                )
                running[number] = _start(number, workers, folder)
    watch.update()
    queue.check_failures()


def _start(number: int, workers: int, folder: Path) -> "subprocess.Popen[bytes]":
    environment = {
        WORKER: str(number),
        "OMP_NUM_THREADS": str(core_share(workers)),
    }
    if (devices := _devices(number, workers)) is not None:
        environment["CUDA_VISIBLE_DEVICES"] = devices
    with (folder / "workers" / f"{number}.log").open("ab") as out:
        return subprocess.Popen(  # noqa: S603 our own command
            [sys.executable, *sys.argv],
            # Never written to: it ends when this process does, however that ends.
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            # A Ctrl-C comes to this process alone, which passes it on.
            start_new_session=True,
        )


def _devices(number: int, workers: int) -> str | None:
    """The GPUs of a worker, every n-th; None where there are none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        found = [device for device in visible.split(",") if device]
    else:
        import torch

        found = [str(device) for device in range(torch.cuda.device_count())]
    if not found:
        return None
    own = found[number::workers]
    # More workers than devices share them.
    return ",".join(own or [found[number % len(found)]])


def _stop(running: "dict[int, subprocess.Popen[bytes]]") -> None:
    for process in running.values():
        process.terminate()
    deadline = time.monotonic() + _GRACE
    for process in running.values():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(deadline - time.monotonic(), 0.1))
        if process.poll() is None:
            process.kill()
            process.wait()
        _close(process)


def _close(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None  # noqa: S101 it is a pipe
    process.stdin.close()


def _last_line(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 4096, 0))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.removeprefix("error: ") for line in reversed(lines) if line), "no output")


def follow_parent(pipe: int) -> None:
    """Ask this process to end when the one that started it is no more, however that ended.

    Args:
        pipe: Descriptor; the parent holds the other end, and never writes to it.
    """

    def wait() -> None:
        os.read(pipe, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
