"""Memory that is freed is used again."""

import platform
import subprocess
from pathlib import Path

import pytest

from fixtures.commands import Commands

# In a process of its own, as the setting is for the whole process.
FAULTS = """
import resource
import torch
from fakenews.training.process import keep_freed_memory

if {keep}:
    assert keep_freed_memory()
# The allocator makes room for a few blocks before it goes round in them.
for _ in range(20):
    torch.ones(16_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(16_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is set")
def test_a_block_that_was_freed_needs_no_new_pages(command: Commands, tmp_path: Path) -> None:
    faults = {}
    for keep in (True, False):
        program = tmp_path / "program.py"
        program.write_text(FAULTS.format(keep=keep))
        done = subprocess.run([command.python, program], check=True, capture_output=True)
        faults[keep] = int(done.stdout)
    # 64 MB are 15,625 pages of 4 kB.
    assert faults[True] < 100 < faults[False]
