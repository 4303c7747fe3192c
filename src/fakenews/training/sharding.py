"""Splitting a model over GPUs."""

from typing import Literal

from lightning.pytorch.strategies import FSDPStrategy

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
