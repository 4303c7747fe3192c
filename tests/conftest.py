"""What tests of several packages share: one finished run of the real job."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: 400 generated rows, a random encoder, one epoch."""
    folder = tmp_path_factory.mktemp("tiny")
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "train.py"),
            "name=tiny",
            "data.fetch.rows=400",
            "encoder=tiny",
            "trainer.max_epochs=1",
            "logger=none",
            "bootstrap=10",
            f"paths.runs={folder}/runs",
            f"paths.cache={folder}/cache",
        ],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "runs" / "tiny").iterdir()
    return run


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run: Path) -> Path:
    """The bundle of `tiny_run`: classes fake and real, no columns beside the text."""
    return tiny_run / "bundle"
