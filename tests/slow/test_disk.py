"""A disk that fills up in the middle of a run."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for one checkpoint of the tiny encoder, and no more."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=22m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_one_line_and_the_earlier_checkpoint_is_whole(small_disk: Path, tmp_path: Path):
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "train.py"),
            "name=run",
            "data.fetch.rows=300",
            "encoder=tiny",
            "features=headline",
            "trainer.max_epochs=3",
            "logger=none",
            "register=null",
            "bootstrap=10",
            "callbacks.last.every_n_train_steps=1",
            f"paths.runs={small_disk}",
            f"paths.cache={tmp_path}/cache",
        ],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 1
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("error")]
    assert "No space left on device" in line
    assert "free some space" in line
    assert "Traceback" not in done.stderr
    (folder,) = (small_disk / "run").iterdir()
    assert json.loads((folder / "run.json").read_text())["state"] == "failed"
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] >= 1
    assert not list(folder.rglob("*.part"))
