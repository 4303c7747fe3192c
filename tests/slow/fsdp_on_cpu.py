"""`train.py` with FSDP on CPUs, which Lightning refuses by the name of its class.

All but the device is as on GPUs: how layers are wrapped, gradients clipped, parameters
grouped, checkpoints gathered and loaded.
"""

import runpy
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from lightning.pytorch.strategies import FSDPStrategy, fsdp
from torch import nn
from torch.distributed.fsdp import (
    FullOptimStateDictConfig,
    FullStateDictConfig,
    FullyShardedDataParallel,
    StateDictType,
)

from fakenews.training import job, sharding


class OnCpu(FSDPStrategy):
    def _setup_model(self, model: nn.Module) -> nn.Module:
        # What torch does on GPUs alone.
        assert self.kwargs["sync_module_states"]
        for tensor in [*model.parameters(), *model.buffers()]:
            torch.distributed.broadcast(tensor.data, 0)
        model = FullyShardedDataParallel(
            model,
            device_id=torch.device("cpu"),
            sharding_strategy=self.sharding_strategy,
            **self.kwargs | {"sync_module_states": False},
        )
        wrapped = [m for m in model.modules() if isinstance(m, FullyShardedDataParallel)]
        print(f"wrapped {len(wrapped)}", flush=True)  # noqa: T201 for the test
        return model


def _whole(
    module: nn.Module, world_size: int, *, rank0_only: bool = True
) -> AbstractContextManager[None]:
    del world_size
    # torch frees what it is to bring to the CPU, and here that is what it has.
    options = {"offload_to_cpu": False, "rank0_only": rank0_only}
    return FullyShardedDataParallel.state_dict_type(  # type: ignore[return-value]
        module,
        StateDictType.FULL_STATE_DICT,
        FullStateDictConfig(**options),
        FullOptimStateDictConfig(**options),
    )


if __name__ == "__main__":
    fsdp._get_full_state_dict_context = _whole  # type: ignore[assignment]
    sharding.FSDPStrategy = OnCpu  # type: ignore[misc]
    job.check_accelerator = lambda *_, **__: None
    train = str(Path(__file__).resolve().parents[2] / "train.py")
    sys.argv[0] = train
    runpy.run_path(train, run_name="__main__")
