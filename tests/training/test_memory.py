import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fakenews.training.memory import available, held

MB = 2**20


def group(
    root: Path, folder: str, *, limit: str, used: int, files: int, version: int = 2
) -> None:
    """Write what a kernel shows of a control group."""
    path = root / "sys/fs/cgroup" / folder
    path.mkdir(parents=True, exist_ok=True)
    names, key = ("memory.max", "memory.current"), "inactive_file"
    if version == 1:
        names, key = ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file"
    for name, value in zip(names, (limit, used), strict=True):
        (path / name).write_text(f"{value}\n")
    (path / "memory.stat").write_text(f"anon 7\n{key} {files}\nactive_file 9\n")


def process(root: Path, *groups: str) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("".join(f"{line}\n" for line in groups))


def test_a_limit_of_the_group_or_of_one_above_it(tmp_path: Path):
    process(tmp_path, "0::/slurm/job/step")
    group(tmp_path, "slurm/job/step", limit="max", used=5 * MB, files=0)
    group(tmp_path, "slurm/job", limit=str(20 * MB), used=8 * MB, files=3 * MB)
    group(tmp_path, "slurm", limit=str(50 * MB), used=8 * MB, files=0)
    # Files that were read take memory that can be had.
    assert available(root=tmp_path) == 15 * MB
    assert available(processes=3, root=tmp_path) == 5 * MB
    (tmp_path / "sys/fs/cgroup/slurm/job/memory.current").write_text(f"{30 * MB}\n")
    assert available(root=tmp_path) == 0


def test_the_first_version_of_groups_in_a_container(tmp_path: Path):
    # The path is that of the host, and the container sees its own group on top.
    process(tmp_path, "4:memory:/docker/abc", "3:cpu:/docker/abc", "1:name=systemd:/", "0::/")
    group(tmp_path, "memory", limit=str(10 * MB), used=4 * MB, files=MB, version=1)
    group(tmp_path, "cpu", limit="1", used=0, files=0, version=1)
    assert available(root=tmp_path) == 7 * MB


def test_without_groups_it_is_the_machine(tmp_path: Path):
    assert MB < available(root=tmp_path) <= psutil.virtual_memory().total
    assert available() <= psutil.virtual_memory().total
    assert MB < held() < psutil.virtual_memory().total


def told(script: str) -> list[int]:
    """What a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return [int(float(word)) for word in done.stdout.split()]


@pytest.mark.slow
def test_a_limited_process():
    before, after = told(
        "import psutil, resource\n"
        "from fakenews.training.memory import available\n"
        "most = psutil.Process().memory_info().vms + 2**29\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "before = available()\n"
        "held = bytes(2**28)\n"
        "print(before, available())"
    )
    assert before == pytest.approx(512 * MB, abs=32 * MB)
    assert after == pytest.approx(256 * MB, abs=32 * MB)


@pytest.mark.slow
def test_what_was_freed_is_given_back():
    before, kept, after = told(
        "import torch\n"
        "from fakenews.training.memory import held, release\n"
        "from fakenews.training.process import tune_process\n"
        "tune_process()\n"
        "before = held()\n"
        "tensors = [torch.ones(2**18) for _ in range(200)]\n"  # 200 MB
        "del tensors\n"
        "kept = held()\n"
        "release()\n"
        "print(before, kept, held())"
    )
    assert kept - before > 150 * MB
    assert after - before < 50 * MB
