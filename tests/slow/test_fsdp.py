"""A model that is split over two processes, on CPUs: no GPU is needed to see that it learns."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
TRAIN = HERE.parents[1] / "train.py"
SPLIT = [
    "trainer=fsdp",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "loader.pin_memory=false",
]


def launch(script: Path, root: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run"),
            *("--standalone", "--nproc-per-node=2", str(script)),
            "name=run",
            "data.fetch.rows=300",
            "encoder=tiny",
            "features=headline",
            "loader.batch_size=16",
            "trainer.max_epochs=2",
            "trainer.gradient_clip_val=0.1",
            "model.layer_decay=0.5",
            "logger=none",
            "bootstrap=10",
            f"paths.root={root}",
            f"paths.cache={root}/cache",
            *overrides,
        ],
        cwd=root,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def weights(root: Path) -> dict[str, torch.Tensor]:
    (run,) = (root / "runs" / "run").iterdir()
    return load_file(run / "bundle" / "weights.safetensors")


def test_split_models_learn_what_whole_ones_do(tmp_path: Path):
    whole, split = tmp_path / "ddp", tmp_path / "fsdp"
    whole.mkdir()
    split.mkdir()
    done = launch(TRAIN, whole, "trainer=ddp", "trainer.accelerator=cpu")
    assert done.returncode == 0, done.stderr
    done = launch(HERE / "fsdp_on_cpu.py", split, *SPLIT)
    assert done.returncode == 0, done.stderr
    # Each of the two layers, and the rest.
    assert done.stdout.count("wrapped 3") == 2
    expected, found = weights(whole), weights(split)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5, msg=name)
