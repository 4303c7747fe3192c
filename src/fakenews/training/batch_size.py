"""Finding the largest batch that memory holds, before a run begins.

Shapes: B batch, T tokens, F tabular features.
"""

import logging
import math
from collections.abc import Callable

import lightning as L
import torch
from lightning.fabric.strategies.ddp import DDPStrategy
from lightning.pytorch.utilities.memory import is_oom_error
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import DictConfig

from fakenews.config import plain
from fakenews.errors import ConfigError
from fakenews.launch import is_main_process, started
from fakenews.models.classifier import Batch, Classifier
from fakenews.rules import world_size
from fakenews.training import memory

log = logging.getLogger(__name__)

# Beyond, a search takes longer than what it may gain.
_MOST = 8192
# Of the memory that is available on a CPU: where the system would swap, or kill a process,
# nothing fails before.
_SHARE = 0.8


def find_batch_size(
    cfg: DictConfig,
    make_model: Callable[[], Classifier],
    *,
    tokens: int,
    tabular_dim: int,
    rows: int,
    share: float = _SHARE,
) -> int:
    """The largest `loader.batch_size` with which each rank can make a step.

    Steps are made as in the fit: on its device, in its precision, with its optimizer. All
    ranks try the same sizes at the same time, and what one cannot do is too large for all.

    Args:
        cfg: The composed configuration.
        make_model: Makes a model to try with.
        tokens: Of the longest text.
        tabular_dim: Number F of tabular features.
        rows: Of the training split.
        share: Most to take of the memory that is available, on a CPU.

    Raises:
        ConfigError: Memory does not hold a batch of one row.
    """
    wanted = _MOST if cfg.find_batch_size is True else cfg.find_batch_size
    most = max(min(wanted, rows // world_size(cfg)), 1)
    of = f" of texts of {tokens} tokens" if tokens else ""
    _say(f"looking for the largest batch{of}, up to {most}")
    memory.release()
    # The run is the one that would have been given this size.
    with isolate_rng():
        fits = _trials(
            _fabric(cfg), make_model(), tokens=tokens, tabular_dim=tabular_dim, share=share
        )
        found = _largest(fits, most)
    del fits  # and the model with it
    memory.release()
    if not found:
        raise ConfigError(
            f"memory does not hold one text of encoder.max_length={tokens} in training: lower "
            "it, add encoder.gradient_checkpointing=true, or choose a smaller encoder"
        )
    _say(f"loader.batch_size={found}")
    return found


def _fabric(cfg: DictConfig) -> L.Fabric:
    """What makes steps as the trainer does."""
    fabric = L.Fabric(
        accelerator=cfg.trainer.accelerator,
        devices=plain(cfg.trainer.devices),
        num_nodes=cfg.trainer.get("num_nodes") or 1,
        precision=cfg.trainer.precision,
        # Without buffers a step concerns no other rank, which would wait for one that failed.
        strategy=DDPStrategy(broadcast_buffers=False) if world_size(cfg) > 1 else "auto",
    )
    fabric.launch()
    return fabric


def _say(message: str) -> None:
    if is_main_process():
        log.info("find_batch_size: %s", message)


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest size that fits, to an eighth of a power of two; 0 if none does."""
    size, larger = 0, 1
    while size < most and fits(larger):
        size, larger = larger, min(2 * larger, most)
    for part in (size // 2, size // 4, size // 8):
        if part and size + part < larger and fits(size + part):
            size += part
    return size


def _trials(
    fabric: L.Fabric, model: Classifier, *, tokens: int, tabular_dim: int, share: float
) -> Callable[[int], bool]:
    """What tells whether a batch of some size fits, by making a step."""
    start = memory.held()
    limit = start + share * memory.available(processes=started()[0])
    guarded = fabric.device.type == "cpu"
    module, optimizer = fabric.setup(model, model.optimizer(list(model.parameter_groups())))
    # Rows and bytes of what was tried. A process keeps what it frees, until `release`, so what
    # it holds is the most that it needed.
    seen: list[tuple[int, int]] = []

    def expected(rows: int) -> float:
        """Bytes that the process would hold if each row took as much as those before."""
        if not seen:
            return 0
        (_, none), (last_rows, last) = seen[0], seen[-1]
        # A checkpoint is made in memory: weights and the optimizer's state, which is as much
        # as gradients and that state.
        return last + (last - none) / last_rows * (rows - last_rows) + none - start

    def step(rows: int) -> None:
        before = memory.held()
        batch: Batch = fabric.to_device(_batch(rows, tokens=tokens, tabular_dim=tabular_dim))
        with fabric.no_backward_sync(module, enabled=fabric.world_size > 1):
            loss = module.training_step(batch, 1)
            row = memory.held() - before
            # Not before: in the fit, too, those of the last step are there until now.
            optimizer.zero_grad()
            fabric.backward(loss)
        optimizer.step()
        after = memory.held()
        if not seen:
            # What is there without any row: gradients, too, and the optimizer's state.
            seen.append((0, after - row))
        seen.append((rows, after))

    def fits(size: int) -> bool:
        memory.release()
        # Somewhat larger: memory becomes fragmented, and others take some.
        rows = size + math.ceil(size / 8) if size > 1 else 1
        enough = not guarded or expected(rows) <= limit
        older = torch.zeros((), requires_grad=True) * 1
        try:
            if enough:
                step(rows)
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            enough = False
            # What a failed backward pass leaves in this thread's queue keeps all that the
            # forward pass saved. The queue serves the newest operation first: it is emptied
            # by waiting for one from before.
            torch.autograd.backward(older)
        told = torch.tensor(int(enough), device=fabric.device)
        enough = bool(fabric.all_reduce(told, reduce_op="min"))
        _say(f"a batch of {size} {'fits' if enough else 'does not fit'}")
        return enough

    return fits


def _out_of_memory(error: Exception) -> bool:
    # What oneDNN says when its buffers cannot be had.
    primitive = "could not create a primitive" in str(error)
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or primitive or is_oom_error(error)


def _batch(rows: int, *, tokens: int, tabular_dim: int) -> Batch:
    mask_BT = torch.ones(rows, tokens, dtype=torch.int64)
    # Without any padding, attention would do without a mask.
    mask_BT[0, 1:] = 0
    return Batch(
        rows=torch.arange(rows),
        input_ids=torch.ones_like(mask_BT),
        attention_mask=mask_BT,
        tabular=torch.zeros(rows, tabular_dim),
        labels=torch.zeros(rows, dtype=torch.int64),
    )
