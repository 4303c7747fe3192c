"""A command's time, and the memory of all its processes."""

import subprocess
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]


def watched(command: Sequence[str], *, statuses: Collection[int] = (0,)) -> dict[str, Any]:
    """Run a command; its time, and the most memory that all its processes took together.

    Memory is what the system cannot take back: anonymous and shared pages, without the
    pages of files that are mapped or cached.

    Args:
        command: Its words.
        statuses: With which it may end.
    """
    start, peak = time.perf_counter(), 0
    process = subprocess.Popen(  # noqa: S603
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    while process.poll() is None:
        peak = max(peak, sum(map(_unreclaimable, _tree(process.pid))))
        time.sleep(0.1)
    if process.returncode not in statuses:
        raise SystemExit(f"failed: {' '.join(command)}")
    return {
        "seconds": time.perf_counter() - start,
        "peak_mib": peak / 2**20,
        "output": process.stdout.read() if process.stdout else "",
    }


def _tree(pid: int) -> list[int]:
    try:
        root = psutil.Process(pid)
        return [pid, *(child.pid for child in root.children(recursive=True))]
    except psutil.Error:
        return []


def _unreclaimable(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return 1024 * sum(
        int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:"))
    )
