"""A disk that fills up in the middle of a run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("small_disk", ["22m"], indirect=True)
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
