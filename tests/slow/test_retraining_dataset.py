"""A process that makes training data, and is killed at any moment."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from fakenews.data.sample import write
from fakenews.retraining.manifest import read_dataset

pytestmark = pytest.mark.slow

MAKE = """
import sys
from fakenews.retraining.dataset import make_dataset

base, labels, out = sys.argv[1:]
print(make_dataset(base=base, labels=labels, out=out, audit="off").version)
"""


def start(*arguments: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAKE, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A version to start from, labels of a thousand more texts, and what they give."""
    root = tmp_path_factory.mktemp("killed")
    rows = pd.read_csv(write(root / "all.csv", rows=4000, seed=5))
    rows[:3000].to_csv(root / "base.csv", index=False)
    subprocess.run(
        [
            sys.executable,
            str(Path(__file__).parents[2] / "scripts" / "prepare.py"),
            "data=csv",
            f"data.path={root}/base.csv",
            f"out={root}/prepared",
            "features=headline",
            "encoder=tiny",
            f"paths.cache={root}/cache",
        ],
        check=True,
        timeout=300,
    )
    rows[3000:].to_csv(root / "labels.csv", index=False)
    process = start(root / "prepared", root / "labels.csv", root / "whole")
    version, _ = process.communicate(timeout=300)
    return root / "prepared", root / "labels.csv", version.strip()


@pytest.mark.parametrize("moment", [0.0, 0.3, 0.6, 1.0, 1.5, 2.0])
def test_killed_and_made_again_it_is_the_same(
    place: tuple[Path, Path, str], tmp_path: Path, moment: float
):
    base, labels, version = place
    out = tmp_path / "datasets"
    process = start(base, labels, out)
    while not list(out.glob(".draft-*")) and process.poll() is None:
        time.sleep(0.01)
    time.sleep(moment)
    process.kill()
    process.communicate(timeout=60)
    # Either all of it is there, or nothing that looks like a version.
    for found in out.glob("[!.]*"):
        assert read_dataset(found).version == found.name == version
    again = start(base, labels, out)
    said, _ = again.communicate(timeout=300)
    assert said.strip() == version
    assert {path.name for path in out.iterdir()} == {".lock", version}
    read_dataset(out / version)
