"""Checkpoint files that are whole or not there, and clear words when one is damaged."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from fakenews.errors import TrainingError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there when it is whole.

    Lightning's own goes through the system's temporary folder, which is often another
    disk: moving is then copying, and a full disk or a killed process destroys the
    earlier checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Save to a local path.

        Raises:
            OSError: It cannot be written; an earlier checkpoint is intact.
        """
        del storage_options
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        torch.save(checkpoint, content)
        draft = path.with_name(f".{path.name}.part")
        try:
            with draft.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            # A failed write does not know its file.
            raise OSError(error.errno, error.strerror, str(path)) from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, _: storage,
        weights_only: bool | None = None,  # noqa: ARG002 Lightning's signature
    ) -> dict[str, Any]:
        """Load tensors and plain values; nothing in the file is executed.

        Raises:
            TrainingError: The file is damaged.
        """
        return read_checkpoint(path, map_location)


def epochs_done(path: Path) -> int:
    """Whole epochs of training that a checkpoint stands for.

    Raises:
        TrainingError: The file is missing or damaged.
    """
    checkpoint = read_checkpoint(path, mmap=True)
    return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])


def read_checkpoint(
    path: str | Path,
    map_location: Callable[..., Any] | str | None = "cpu",
    *,
    mmap: bool = False,
) -> dict[str, Any]:
    """Read what `AtomicCheckpointIO` wrote.

    Args:
        path: The file.
        map_location: As for `torch.load`.
        mmap: Read of a tensor what is used of it.

    Raises:
        TrainingError: The file is missing or damaged.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(
            path, map_location=map_location, weights_only=True, mmap=mmap
        )
    # torch raises RuntimeError, EOFError, UnpicklingError, KeyError and more for one
    # cause: this is no checkpoint, or not the whole of one.
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), repr(error))[:100]
        raise TrainingError(
            f"the checkpoint {path} cannot be read ({reason}): restore it from a copy, or "
            "start a new run, without resume"
        ) from error
    return checkpoint
