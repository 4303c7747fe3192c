"""Several processes as one run: which one writes, and what all must agree on."""

import os
from collections.abc import Callable, Mapping
from datetime import timedelta

from fakenews.errors import ConfigError

_WAIT = timedelta(minutes=5)


def is_main_process() -> bool:
    """Whether this process writes the run's artefacts: rank 0, or the only process."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def agreed(key: str, value: Callable[[], str]) -> str:
    """What rank 0 makes of `value`, on every rank that torchrun has started.

    A rank that reads the clock or looks at files for itself may see something else than
    its neighbour. Ranks that torchrun restarts find what was agreed before.

    Args:
        key: Names what is agreed on.
        value: Computed on rank 0 only, or where torchrun has started nothing.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
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


def check_world(world_size: int, environment: Mapping[str, str]) -> None:
    """Check that a launcher has started the processes that the trainer counts on.

    Args:
        world_size: Of the trainer.
        environment: Of this process.

    Raises:
        ConfigError: It has not.
    """
    if world_size > 1 and "RANK" not in environment and "SLURM_PROCID" not in environment:
        raise ConfigError(
            f"trainer.devices and trainer.num_nodes make {world_size} processes, and only one "
            f"is running: start it with torchrun --standalone --nproc-per-node={world_size} "
            "train.py trainer=ddp ..."
        )
