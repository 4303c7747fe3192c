"""A model that is split over two processes, on CPUs: no GPU is needed to see that it learns."""

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fixtures.commands import Commands

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
TRAIN = HERE.parents[1] / "train.py"
WHOLE = ["trainer=ddp", "trainer.accelerator=cpu"]
SPLIT = [
    "trainer=fsdp",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "loader.pin_memory=false",
]
# Of two epochs, each of 8.
STEPS = 16


def launch(
    command: Commands, script: Path, root: Path, *overrides: str, fate: str = "- 0 -1"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(command.python, str(script), "cluster=torchrun", "cluster.processes=2"),
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
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "FATE": fate},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def split(
    command: Commands, root: Path, *overrides: str, fate: str = "- 0 -1"
) -> subprocess.CompletedProcess[str]:
    return launch(command, HERE / "fsdp_on_cpu.py", root, *SPLIT, *overrides, fate=fate)


def folder(root: Path) -> Path:
    (run,) = (root / "runs" / "run").iterdir()
    return run


def weights(root: Path) -> dict[str, torch.Tensor]:
    return load_file(folder(root) / "bundle" / "weights.safetensors")


def checkpoint(root: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(
        folder(root) / "checkpoints" / name, weights_only=True, map_location="cpu"
    )
    return found


def assert_close(found: Path, expected: Path) -> None:
    assert weights(found).keys() == weights(expected).keys()
    for name, tensor in weights(expected).items():
        # Of sums of gradients that are made in another order.
        torch.testing.assert_close(weights(found)[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def assert_same_end(found: Path, expected: Path) -> None:
    """To the bit: sums are made in one order, whether the run was stopped or not."""
    exactly: dict[str, Any] = {"rtol": 0, "atol": 0}
    torch.testing.assert_close(weights(found), weights(expected), **exactly)
    for name in ("best.ckpt", "last.ckpt"):
        ours, theirs = checkpoint(found, name), checkpoint(expected, name)
        assert ours["global_step"] == theirs["global_step"]
        torch.testing.assert_close(ours["state_dict"], theirs["state_dict"], **exactly)
    # Of the last.
    assert ours["lr_schedulers"] == theirs["lr_schedulers"]
    (ours,), (theirs,) = ours["optimizer_states"], theirs["optimizer_states"]
    assert ours["param_groups"] == theirs["param_groups"]
    torch.testing.assert_close(ours["state"], theirs["state"], **exactly)
    results = [(folder(root) / "result.json").read_bytes() for root in (found, expected)]
    assert results[0] == results[1]


@pytest.fixture(scope="module")
def never_stopped(command: Commands, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fsdp")
    done = split(command, root)
    assert done.returncode == 0, done.stderr
    # Each of the two layers, and the rest.
    assert done.stdout.count("wrapped 3") == 2
    assert checkpoint(root, "last.ckpt")["global_step"] == STEPS
    return root


@pytest.fixture(scope="module")
def stopped(command: Commands, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was asked to stop in the fourth step."""
    root = tmp_path_factory.mktemp("stopped")
    done = split(command, root, fate="stop 1 3")
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "SIGTERM received: saved step" in done.stderr
    assert 4 <= checkpoint(root, "last.ckpt")["global_step"] < STEPS
    return root


def test_split_models_learn_what_whole_ones_do(
    command: Commands, never_stopped: Path, tmp_path: Path
):
    done = launch(command, TRAIN, tmp_path, *WHOLE)
    assert done.returncode == 0, done.stderr
    assert_close(never_stopped, tmp_path)


def test_terminated_and_resumed(
    command: Commands, stopped: Path, never_stopped: Path, tmp_path: Path
):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    done = split(command, tmp_path, "resume=auto")
    assert done.returncode == 0, done.stderr
    step = checkpoint(stopped, "last.ckpt")["global_step"]
    assert done.stdout.count(f"began at {step}\n") == 2
    assert_same_end(tmp_path, never_stopped)


def test_a_rank_is_killed_and_torchrun_starts_all_again(
    command: Commands, never_stopped: Path, tmp_path: Path
):
    often = "callbacks.last.every_n_train_steps=3"
    done = split(command, tmp_path, often, fate="kill 1 11")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("began at 0\n") == 2
    assert done.stdout.count("began at 9\n") == 2
    assert_same_end(tmp_path, never_stopped)


def test_whole_models_go_on_from_split_ones(
    command: Commands, stopped: Path, never_stopped: Path, tmp_path: Path
):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    done = launch(command, TRAIN, tmp_path, *WHOLE, "resume=auto")
    assert done.returncode == 0, done.stderr
    assert "resuming with another " in done.stderr + done.stdout
    assert_close(tmp_path, never_stopped)
