"""Splitting a model over GPUs, and resuming one that was split."""

from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.strategies import FSDPStrategy

from fakenews.errors import TrainingError
from fakenews.training.checkpoints import read_checkpoint

Sharding = Literal["FULL_SHARD", "SHARD_GRAD_OP", "HYBRID_SHARD"]


def fsdp(
    *, sharding_strategy: Sharding = "FULL_SHARD", cpu_offload: bool = False
) -> FSDPStrategy:
    """Split weights, gradients and the optimizer's state over GPUs, layer by layer.

    Source: Zhao et al. 2023, "PyTorch FSDP: Experiences on Scaling Fully Sharded Data
    Parallel". A checkpoint is one file, as without it.

    Args:
        sharding_strategy: As torch names it.
        cpu_offload: Whether what is split is kept in the machine's own memory.
    """
    # The base of the layers of every encoder that transformers has.
    from transformers.modeling_layers import GradientCheckpointingLayer

    return FSDPStrategy(
        auto_wrap_policy={GradientCheckpointingLayer},
        sharding_strategy=sharding_strategy,
        cpu_offload=cpu_offload,
        state_dict_type="full",
        # Random weights are those of rank 0, as with DDP.
        sync_module_states=True,
    )


class ResumeSplit(L.Callback):
    """Tells the data where a run goes on before their loader is made.

    FSDP loads a checkpoint after the optimizer was made. The schedule of that needs the
    number of steps, for which Lightning makes the loader and its iterator, and it keeps
    them: a position that came with the checkpoint came too late, and the epoch began anew.

    Args:
        checkpoint: To go on from.

    Raises:
        TrainingError: The checkpoint is damaged, or not one of a model that was split.
    """

    def __init__(self, checkpoint: Path) -> None:
        # FSDP's own reading would execute what is in the file: this one refuses it first.
        self._saved = read_checkpoint(checkpoint, mmap=True)
        for optimizer in self._saved["optimizer_states"]:
            groups = [group["params"] for group in optimizer["param_groups"]]
            numbers = [number for group in groups for number in group]
            # FSDP numbers parameters as the model has them, an optimizer as its groups do:
            # momenta would be given to other parameters.
            if len(groups) > 1 and numbers == list(range(len(numbers))):
                raise TrainingError(
                    f"trainer=fsdp cannot go on from {checkpoint}, which was saved without it: "
                    "resume with the trainer of before, or start without resume"
                )

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Hand the position over; one of other data is refused with the checkpoint."""
        del pl_module, stage
        module: Any = trainer.datamodule  # type: ignore[attr-defined]
        position = self._saved.get(type(module).__qualname__)
        if position is not None:
            module.load_state_dict(position)
        self._saved = {}
