"""How many threads a worker computes with, and telling every library so."""

import math
import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores(quota: Path = _QUOTA) -> int:
    """Cores that this process may use: those it may run on, and no more than its quota.

    Args:
        quota: Where Linux keeps a container's; `max` or a missing file is none.
    """
    allowed = len(os.sched_getaffinity(0))
    try:
        share, period = quota.read_text(encoding="ascii").split()
        return max(min(allowed, math.ceil(int(share) / int(period))), 1)
    except (OSError, ValueError):
        return allowed


def set_threads(threads: int) -> None:
    """Let torch and the tokenizers compute with this many threads.

    Before their first computation: they start their threads then.
    """
    import torch

    torch.set_num_threads(threads)
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
