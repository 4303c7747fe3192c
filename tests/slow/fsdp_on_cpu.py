"""`train.py` with FSDP on CPUs, which Lightning refuses by the name of its class.

All but the device is as on GPUs: how layers are wrapped, gradients clipped, parameters
grouped, checkpoints gathered and loaded.

`FATE="kill 1 11"` kills rank 1 in step 11 of the first start; `stop` asks all to stop.
"""

import os
import signal
import time
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from lightning.pytorch.strategies import FSDPStrategy, fsdp
from torch import Tensor, nn
from torch.distributed.fsdp import (
    FullOptimStateDictConfig,
    FullStateDictConfig,
    FullyShardedDataParallel,
    StateDictType,
)

from fakenews.models.classifier import Batch, Classifier
from fakenews.training import job, sharding


def _say(text: str) -> None:
    # In one write, which that of another rank cannot come into.
    os.write(1, f"{text}\n".encode())


class OnCpu(FSDPStrategy):
    def _setup_model(self, model: nn.Module) -> nn.Module:
        # What torch does on GPUs alone.
        assert self.kwargs["sync_module_states"]
        for tensor in [*model.parameters(), *model.buffers()]:
            torch.distributed.broadcast(tensor.data, 0)
        model = FullyShardedDataParallel(
            model,
            device_id=torch.device("cpu"),
            mixed_precision=self.mixed_precision_config,
            sharding_strategy=self.sharding_strategy,
            **self.kwargs | {"sync_module_states": False},
        )
        wrapped = [m for m in model.modules() if isinstance(m, FullyShardedDataParallel)]
        _say(f"wrapped {len(wrapped)}")
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


_step = Classifier.training_step
_first = True


def _fated(self: Classifier, batch: Batch, batch_idx: int) -> Tensor:
    global _first  # noqa: PLW0603 one process, one training
    if _first:
        _say(f"began at {self.global_step}")
        _first = False
    what, rank, step = os.environ["FATE"].split()
    here = (self.global_rank, self.global_step, os.environ["TORCHELASTIC_RESTART_COUNT"])
    if here == (int(rank), int(step), "0"):
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        os.kill(os.getppid(), signal.SIGTERM)
        # Until it has come here, as it should in this step.
        time.sleep(3)
    return _step(self, batch, batch_idx)


if __name__ == "__main__":
    Classifier.training_step = _fated  # type: ignore[method-assign]
    fsdp._get_full_state_dict_context = _whole  # type: ignore[assignment]
    sharding.FSDPStrategy = OnCpu  # type: ignore[misc]
    job.check_accelerator = lambda *_, **__: None
    train = Path(__file__).resolve().parents[2] / "train.py"
    # Not by runpy, which gives the name of this file away: `cluster=torchrun` starts it again.
    exec(compile(train.read_text(), train, "exec"))  # noqa: S102 that is the command
