"""Several processes as one run: which one writes, and what all must agree on."""

import contextlib
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TextIO

from fakenews.errors import ConfigError

_WAIT = timedelta(minutes=5)


VERDICT = "FAKENEWS_VERDICT"
"""Names a file, in the environment of the ranks that `cluster=torchrun` starts."""

CHILD = "FAKENEWS_CHILD"
"""In the environment of a command: the process that has started it, and waits for it."""

# Of <sys/prctl.h>.
_PR_SET_PDEATHSIG = 1


def is_main_process() -> bool:
    """Whether this process writes the run's artefacts: rank 0, or the only process."""
    return _rank() == 0


def speaks() -> bool:
    """Whether this process says what all ranks of this machine would say."""
    return os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0"


def _rank() -> int:
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


def has_store() -> bool:
    """Whether torchrun keeps a store in which its ranks can agree on something."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def restarts() -> int:
    """How often torchrun has started all ranks again, since one of them died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def agreed(key: str, value: Callable[[], str]) -> str:
    """What rank 0 makes of `value`, on every rank that torchrun has started.

    A rank that reads the clock or looks at files for itself may see something else than
    its neighbour. Ranks that torchrun restarts find what was agreed before.

    Args:
        key: Names what is agreed on.
        value: Computed on rank 0 only, or where torchrun has started nothing.
    """
    if not has_store():
        return value()
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    # torchrun's own process keeps this store; the workers are its clients.
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        timeout=_WAIT,
    )
    key = f"fakenews/{key}"
    if is_main_process() and not store.check([key]):
        store.set(key, value())
    found: bytes = store.get(key)
    return found.decode()


def core_share(processes: int) -> int:
    """Cores that each of several processes on this machine has for itself, at least one."""
    return max(len(os.sched_getaffinity(0)) // processes, 1)


def started() -> tuple[int, int]:
    """Processes on each node, and nodes, as whatever started this process says.

    torchrun tells its children, `srun` its tasks, and an operator of Kubernetes its pods.
    """
    found = os.environ
    if "WORLD_SIZE" in found:
        world, local = int(found["WORLD_SIZE"]), int(found.get("LOCAL_WORLD_SIZE", "1"))
        return local, world // local
    # Of a step alone: a batch script is no rank of its own job.
    tasks = int(found.get("SLURM_STEP_NUM_TASKS", "1"))
    nodes = int(found.get("SLURM_STEP_NUM_NODES", "1"))
    return tasks // nodes, nodes


def check_world(devices: int, nodes: int) -> None:
    """Check that a launcher has started the processes that the trainer counts on.

    Args:
        devices: On each node, of the trainer.
        nodes: Of the trainer.

    Raises:
        ConfigError: It has not.
    """
    wanted, (local, others) = devices * nodes, started()
    if wanted == local * others:
        return
    said = f"trainer.devices={devices} and trainer.num_nodes={nodes} make {wanted} processes"
    if local * others == 1:
        raise ConfigError(
            f"{said}, and only one is running: leave both out, and start them with "
            f"cluster=torchrun cluster.processes={devices}"
        )
    raise ConfigError(
        f"{said}, and {local * others} were started ({local} on each of {others} nodes): leave "
        "both out, and the trainer counts on what was started"
    )


def final(status: int) -> bool:
    """Tell torchrun's starter that no restart will change how this process ends.

    Returns:
        Whether this process is the one to say why: the first on this machine.
    """
    path = os.environ.get(VERDICT)
    if path is None:
        return True
    try:
        with Path(path).open("x") as file:
            file.write(str(status))
    except FileExistsError:
        return False
    return True


def verdict() -> int | None:
    """The status of a rank before this one that no restart will change, if there was one."""
    path = os.environ.get(VERDICT)
    with contextlib.suppress(OSError, ValueError):
        return int(Path(path).read_text()) if path else None
    return None


def end_with_launcher() -> None:
    """Ask this process to save and end when what started it is killed, which cannot say so."""
    parent = os.environ.get(CHILD)
    is_child = "TORCHELASTIC_RUN_ID" in os.environ or parent is not None
    if is_child and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if parent:
            os.environ[CHILD] = ""  # what this process starts has another parent
            if os.getppid() != int(parent):
                # It was killed before this, which takes seconds to get here.
                os.kill(os.getpid(), signal.SIGTERM)


class RankFormatter(logging.Formatter):
    """Begins a line with the rank, where there are several."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = super().format(record)
        local, nodes = started()
        return f"[{_rank()}/{local * nodes}] {line}" if local * nodes > 1 else line


class OutputHandler(logging.StreamHandler[TextIO]):
    """Log lines on standard output, for as long as somebody reads it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 of logging
        """Go on without a reader; anything else is reported as usual."""
        if isinstance(sys.exception(), BrokenPipeError):
            without_reader()
        else:
            super().handleError(record)


def without_reader() -> None:
    """Let standard output, which nobody reads any more, lead nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
