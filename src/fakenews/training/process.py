"""Settings of the whole process that make training faster."""

import ctypes
import platform
from typing import Literal

import torch

from fakenews.errors import ConfigError

# Of <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


MatmulPrecision = Literal["highest", "high", "medium"]


def tune_process(
    *, threads: int | None = None, matmul_precision: MatmulPrecision = "highest"
) -> None:
    """Set what makes a training step faster and its result no other.

    Args:
        threads: On the CPU, which sums are split over; None: as torch chooses.
        matmul_precision: Of products of float32 matrices; below `highest` the results
            are others.
    """
    torch.set_float32_matmul_precision(matmul_precision)
    if threads is not None:
        torch.set_num_threads(threads)
    # Numbers below 1e-38 cost hundreds of times as much to multiply, and say nothing.
    torch.set_flush_denormal(True)
    # Deterministic mode fills every new tensor, against code that reads memory it never
    # wrote; 5 to 9% of a step's time on a CPU.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Let the process keep the memory that it frees, to use it again.

    Otherwise glibc hands large blocks back to the system, which clears every page of
    them anew at the next step: a twentieth of the time of a step goes there on a CPU. The
    process then holds on to the most it ever needed.

    Returns:
        Whether it was set: False where the C library is another.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def check_accelerator(accelerator: str, *, sharded: bool) -> None:
    """Whether this machine has what the trainer wants.

    Args:
        accelerator: Of the trainer.
        sharded: Whether weights are split over GPUs.

    Raises:
        ConfigError: It has not.
    """
    if torch.cuda.is_available():
        return
    if sharded:
        raise ConfigError(
            "trainer=fsdp splits weights over GPUs and PyTorch sees none here: use trainer=ddp "
            "or trainer=cpu"
        )
    if accelerator in ("gpu", "cuda"):
        raise ConfigError(
            f"trainer.accelerator={accelerator}: PyTorch sees no GPU here; use trainer=cpu"
        )
