"""Looks for batch sizes in a process of its own, whose memory may be limited.

Each argument is the settings of a search, in JSON, as is what is told of it. Started by tests,
alone or by torchrun.
"""

import json
import os
import resource
import sys
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from omegaconf import OmegaConf

from fakenews.errors import ConfigError
from fakenews.launch import started
from fakenews.models.classifier import Classifier
from fakenews.models.encoder import TextEncoder
from fakenews.models.networks import TextNet
from fakenews.models.schedules import warmup_then
from fakenews.training import batch_size, memory
from fakenews.training.process import tune_process

MB = 2**20


def make_model(*, checkpointing: bool) -> Classifier:
    config = {
        "model_type": "bert",
        "vocab_size": 50,
        "hidden_size": 128,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "intermediate_size": 512,
    }
    encoder = TextEncoder.from_architecture({"config": config, "pooling": "mean"})
    if checkpointing:
        encoder.save_memory()
    return Classifier(
        network=TextNet,
        encoder=encoder.train(),
        tabular_dim=0,
        classes=["fake", "real"],
        positive="fake",
        class_counts={"fake": 10, "real": 10},
        optimizer=partial(torch.optim.AdamW, lr=1e-3),
        scheduler=warmup_then,
    )


def peak() -> int:
    """Most bytes that the process ever held."""
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def learn(rows: int, tokens: int) -> None:
    """Make steps with full batches."""
    model = make_model(checkpointing=False)
    optimizer = model.optimizer(list(model.parameters()))
    for _ in range(3):
        batch = batch_size._batch(rows, tokens=tokens, tabular_dim=0)
        logits = model.network(batch.input_ids, batch.attention_mask, batch.tabular)
        optimizer.zero_grad()
        model.loss(logits, batch.labels).backward()
        optimizer.step()


def search(
    *,
    limit: int | None = None,
    limited_rank: int = 0,
    budget: int | None = None,
    guarded: bool = True,
    tokens: int = 128,
    checkpointing: bool = False,
) -> dict[str, Any]:
    """Look for the largest size.

    Args:
        limit: MB that the system gives to a rank, beside what it has.
        limited_rank: Its number.
        budget: MB that the search may take; None: as in a run.
        guarded: Whether it looks at what is available; else memory really ends.
        tokens: Of the longest text.
        checkpointing: Of gradients.
    """
    torch.manual_seed(0)
    tune_process(threads=1)
    cfg = OmegaConf.create(
        {
            "find_batch_size": 1024,
            "trainer": {
                "accelerator": "cpu",
                "devices": started()[0],
                "num_nodes": started()[1],
                "precision": "32-true",
            },
        }
    )
    process = psutil.Process()
    if limit is not None and int(os.environ.get("RANK", "0")) == limited_rank:
        most = process.memory_info().vms + limit * MB
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    start = memory.held()
    share = batch_size._SHARE if guarded else 1000.0
    if budget is not None:
        share = budget * MB / memory.available()
    state = torch.get_rng_state()
    found = batch_size.find_batch_size(
        cfg,
        partial(make_model, checkpointing=checkpointing),
        tokens=tokens,
        tabular_dim=0,
        rows=5000,
        share=share,
    )
    told = {
        "found": found,
        "grown": (peak() - start) // MB,
        "left": (memory.held() - start) // MB,
        "seeds_are_as_before": torch.equal(state, torch.get_rng_state()),
    }
    if guarded:
        learn(found, tokens)
    return told


if __name__ == "__main__":
    for settings in sys.argv[1:]:
        try:
            told = search(**json.loads(settings))
        except ConfigError as error:
            told = {"error": str(error)}
        print(json.dumps(told), flush=True)  # noqa: T201 for the test
