"""Checkpoint files that are whole or not there."""

import re
import resource
from pathlib import Path

import pytest
import torch

from fakenews.errors import TrainingError
from fakenews.training.checkpoints import AtomicCheckpointIO, read_checkpoint

CONTENT = {"state_dict": {"weight": torch.arange(5.0)}, "epoch": 3}


def test_what_is_saved_is_loaded(tmp_path: Path):
    path = tmp_path / "new" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CONTENT, path)
    found = AtomicCheckpointIO().load_checkpoint(path)
    assert found["epoch"] == 3
    assert torch.equal(found["state_dict"]["weight"], CONTENT["state_dict"]["weight"])
    assert [each.name for each in path.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("size", [0, 1, 100, -1])
def test_a_truncated_file(tmp_path: Path, size: int):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CONTENT, path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(
        TrainingError, match=r"last\.ckpt cannot be read .*start a new"
    ) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path):
    path = tmp_path / "last.ckpt"
    torch.save({"callback": print}, path)
    with pytest.raises(TrainingError, match="cannot be read"):
        read_checkpoint(path)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(TrainingError, match=r"none\.ckpt cannot be read"):
        read_checkpoint(tmp_path / "none.ckpt")


def test_a_write_that_fails_leaves_the_earlier_checkpoint(tmp_path: Path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CONTENT, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match=re.escape(str(path))):
            AtomicCheckpointIO().save_checkpoint({"w": torch.zeros(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_checkpoint(path)["epoch"] == 3
    assert [each.name for each in tmp_path.iterdir()] == ["last.ckpt"]
