"""A rank of `distributed.py`, started by torchrun: steps alone, synchronised, and not.

    torchrun --nproc-per-node=2 distributed_worker.py OPTIONS, as JSON

Rank 0 writes what all ranks measured.
"""

import contextlib
import copy
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from distributed_model import NODES
from hydra.utils import execution_whitelist, instantiate
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm
from training_ways import Job

from fakenews.config import TARGETS, register_resolvers
from fakenews.errors import FakeNewsError
from fakenews.models.classifier import Batch, Classifier
from fakenews.training.checkpoints import AtomicCheckpointIO
from fakenews.training.loader import LengthSampler
from fakenews.training.process import tune_process

ARMS = ("alone", "ddp", "no_sync", "all_reduce", "latency")
_WARM_UP = 2  # steps of a pass that do not count
_ALL_REDUCES, _SMALL = 3, 50  # in a pass
_EPOCH = 8  # steps


class Steps:
    """Optimizer steps by hand, as Lightning makes them for `train.py`.

    Args:
        job: Has the configuration.
        classifier: Its network is trained.
        total: Steps of the schedule.
        ddp: Whether all ranks train it together.
    """

    def __init__(self, job: Job, classifier: Classifier, *, total: int, ddp: bool) -> None:
        self.classifier = classifier
        self.clip = job.cfg.trainer.gradient_clip_val
        self.network: nn.Module = classifier.network.train()
        if ddp:
            self.network = DistributedDataParallel(classifier.network)
        self.optimizer = instantiate(job.cfg.optimizer)(list(classifier.parameter_groups()))
        self.scheduler = instantiate(job.cfg.scheduler)(self.optimizer, total_steps=total)

    def seconds(self, batches: list[Batch], *, synchronised: bool = True) -> float:
        """Mean seconds of a step, after a few that do not count."""
        for batch in batches[:_WARM_UP]:
            self._step(batch, synchronised=synchronised)
        start = time.perf_counter()
        for batch in batches:
            self._step(batch, synchronised=synchronised)
        return (time.perf_counter() - start) / len(batches)

    def _step(self, batch: Batch, *, synchronised: bool) -> None:
        # Ranks that do not synchronise drift apart, which changes no step's time.
        apart = contextlib.nullcontext() if synchronised else self.network.no_sync()
        with apart:
            logits = self.network(batch.input_ids, batch.attention_mask, batch.tabular)
            loss = self.classifier.loss(logits, batch.labels)
            self.optimizer.zero_grad()
            loss.backward()
        nn.utils.clip_grad_norm_(self.classifier.parameters(), self.clip)
        self.optimizer.step()
        self.scheduler.step()


def main() -> None:
    """Measure every arm in turns, as the options say."""
    options = json.loads(sys.argv[1])
    tune_process(threads=options["threads"])
    register_resolvers()
    distributed.init_process_group("gloo")
    first = distributed.get_rank() == 0
    try:
        with tempfile.TemporaryDirectory() as folder, execution_whitelist(TARGETS):
            with contextlib.nullcontext() if first else _silent():
                job = Job(
                    options["overrides"], rows=options["rows"] or None, folder=Path(folder)
                )
            found = measure(job, options, folder=Path(folder))
    except FakeNewsError as error:
        sys.exit(f"error: {error}" if first else 1)
    if first:
        Path(options["out"]).write_text(json.dumps(found), encoding="utf-8")
    distributed.destroy_process_group()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


def measure(job: Job, options: dict[str, Any], *, folder: Path) -> dict[str, Any]:
    """Seconds of every arm in each repeat on each rank, and sizes."""
    torch.manual_seed(job.cfg.seed)
    classifier = job.model()
    repeats = options["repeats"]
    # Few rows come again and again.
    rows = list(islice(cycle(sampler(job, rank=0, ranks=1)), options["steps"]))
    start = time.perf_counter()
    # The same on every rank: else ranks would wait for whoever has the longest texts, and
    # that would be taken for communication. `uneven` says how much it is.
    batches = [job.train.__getitems__(each) for each in rows]
    loader = (time.perf_counter() - start) / len(batches)
    total = 2 * (repeats + 1) * (len(batches) + _WARM_UP)
    alone = Steps(job, copy.deepcopy(classifier), total=total, ddp=False)
    together = Steps(job, classifier, total=total, ddp=True)
    size = sum(p.numel() for p in classifier.parameters() if p.requires_grad)
    gradients, nothing = torch.zeros(size), torch.zeros(1)
    arms: dict[str, Callable[[], float | None]] = {
        # Others wait at the barrier, and use no core.
        "alone": lambda: alone.seconds(batches) if distributed.get_rank() == 0 else None,
        "ddp": lambda: together.seconds(batches),
        "no_sync": lambda: together.seconds(batches, synchronised=False),
        "all_reduce": lambda: all_reduce_seconds(gradients, _ALL_REDUCES),
        "latency": lambda: all_reduce_seconds(nothing, _SMALL),
    }
    seconds: dict[str, list[list[float]]] = {name: [] for name in ARMS}
    silent = distributed.get_rank() != 0
    with tqdm(total=len(ARMS) * (repeats + 1), unit="pass", disable=silent) as bar:
        for repeat in range(repeats + 1):
            turn = repeat % len(ARMS)
            for name in [*ARMS[turn:], *ARMS[:turn]]:
                bar.set_description(name)
                found = on_every_rank(arms[name])
                # The first pass counts nowhere: DDP plans its buckets in it.
                if repeat > 0:
                    seconds[name].append(found)
                bar.update()
    return {
        "ranks": distributed.get_world_size(),
        "batch_size": job.cfg.loader.batch_size,
        "steps": len(batches),
        "tokens": [batch.input_ids.shape[1] for batch in batches],
        "seconds": seconds,
        "loader_seconds": loader,
        "parameters": size,
        "gradient_bytes": size * gradients.element_size(),
        "bucket_bytes": bucket_bytes(together.network),
        "uneven": uneven(job),
        "checkpoint": checkpoint(together, folder / "last.ckpt", repeats=repeats),
    }


def on_every_rank(arm: Callable[[], float | None]) -> list[float]:
    """What the arm gives on each rank that runs it, begun together."""
    distributed.barrier()
    one = arm()
    every: list[float | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(every, one)
    return [found for found in every if found is not None]


def all_reduce_seconds(tensor: torch.Tensor, times: int) -> float:
    """Mean seconds of a bare all-reduce."""
    distributed.all_reduce(tensor)
    start = time.perf_counter()
    for _ in range(times):
        distributed.all_reduce(tensor)
    return (time.perf_counter() - start) / times


def bucket_bytes(network: nn.Module) -> list[int]:
    """Sizes of the all-reduces of a step, as DDP made them."""
    # It has no public way to say so.
    data = network._get_ddp_logging_data()  # noqa: SLF001
    sizes = data.get("rebuilt_bucket_sizes") or data["bucket_sizes"]
    return [int(size) for size in str(sizes).split(",")]


def sampler(job: Job, *, rank: int, ranks: int) -> LengthSampler:
    """Which rows a rank trains on in each step of the first epoch."""
    return LengthSampler(
        job.train.lengths,
        batch_size=job.cfg.loader.batch_size,
        batch_tokens=job.cfg.loader.batch_tokens,
        rank=rank,
        world_size=ranks,
        seed=job.cfg.seed,
    )


def uneven(job: Job) -> dict[int, float]:
    """How many more tokens than the mean the longest batch of a step has, over an epoch.

    Nothing is trained for it: the plan of an epoch says what each of so many ranks gets. Where
    an epoch would have fewer than `_EPOCH` steps, the rows are too few to say.
    """
    lengths = job.train.lengths
    found = {}
    for ranks in NODES[1:]:
        if len(lengths) < ranks * job.cfg.loader.batch_size * _EPOCH:
            break
        samplers = [sampler(job, rank=rank, ranks=ranks) for rank in range(ranks)]
        cells = np.array([[len(r) * lengths[r].max() for r in one] for one in samplers])
        found[ranks] = float(cells.max(0).sum() / cells.mean(0).sum() - 1)
    return found


def checkpoint(steps: Steps, path: Path, *, repeats: int) -> dict[str, Any] | None:
    """Bytes of weights and optimizer, and the seconds that rank 0 takes to save them."""
    if distributed.get_rank() != 0:
        return None
    content = {
        "state_dict": steps.classifier.state_dict(),
        "optimizer_states": [steps.optimizer.state_dict()],
    }
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        AtomicCheckpointIO().save_checkpoint(content, path)
        seconds.append(time.perf_counter() - start)
    return {"bytes": path.stat().st_size, "seconds": seconds}


if __name__ == "__main__":
    main()
