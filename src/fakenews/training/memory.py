"""Memory of this process: how much it holds, and how much it may still take."""

import ctypes
import platform
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
from lightning.pytorch.utilities.memory import garbage_collection_cuda

# Limit, use and reclaimable use of a control group: of version 2, then of version 1.
_GROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def held() -> int:
    """Bytes of memory that this process has."""
    return int(psutil.Process().memory_info().rss)


def available(*, processes: int = 1, root: Path = Path("/")) -> int:
    """Bytes that this process may still take without swapping, or being killed for it.

    A container, a pod or a job of SLURM is a control group, whose limit the machine's own
    numbers do not show. `ulimit -v` is another limit.

    Args:
        processes: That share the machine, or the group, and take as much each.
        root: Of the file system.
    """
    found = int(psutil.virtual_memory().available)
    for folder in _groups(root):
        for limit, used, reclaimable in _GROUP_FILES:
            # A group without a limit says so by a word, or has no such file.
            with suppress(OSError, ValueError, KeyError):
                most = int((folder / limit).read_text())
                pairs = map(str.split, (folder / "memory.stat").read_text().splitlines())
                files = int(dict(pairs)[reclaimable])
                found = min(found, most - int((folder / used).read_text()) + files)
    found //= processes
    if (most := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
        found = min(found, most - int(psutil.Process().memory_info().vms))
    return max(found, 0)


def _groups(root: Path) -> Iterator[Path]:
    """Folders of the control groups that this process is in, each with those above it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return  # no Linux
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / controllers
        group = top / path.strip("/")
        # In a container the path may be the host's, and the top is the container's own.
        yield from (group, *group.parents[: len(group.parts) - len(top.parts)])


def release() -> None:
    """Give back what was freed, to the device and to the system."""
    garbage_collection_cuda()
    if platform.libc_ver()[0] == "glibc":
        # The process keeps it otherwise: see `keep_freed_memory`.
        ctypes.CDLL(None).malloc_trim(0)
