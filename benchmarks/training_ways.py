"""The ways of training that `training.py` compares, each over the same rows.

Shapes: B batch, T tokens, F tabular features, C classes.
"""

import dataclasses
import importlib.util
import io
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
import transformers
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from torch.nn import functional

from fakenews.config import register_resolvers
from fakenews.data.dataset import Dataset, Split
from fakenews.features.pipeline import FeaturePipeline
from fakenews.features.text import pad, tokenize
from fakenews.models.classifier import Batch, Classifier
from fakenews.models.encoder import Pretrained
from fakenews.models.networks import SeedNet
from fakenews.training.loader import Columns, HeadlineDataModule, LengthSampler

CONF = Path(__file__).resolve().parents[1] / "conf"

_VALIDATION_ROWS = 256
_HUGGING_FACE_LENGTH = 128

Logits = Callable[[Batch], Tensor]
Padding = Literal["max_length", "longest"]


@dataclass
class Pass:
    """What a training took, and what it left.

    Attributes:
        seconds: From the start of the last epoch to the end of its last step;
            validation and checkpoints come after.
        cpu_seconds: Of all threads, in the same time.
        shapes: B and T of each batch that the encoder was trained on in that epoch.
        logits: Logits [B, C] of a batch by the trained model.
        score: Average precision on the test split, if asked for.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    shapes: list[tuple[int, int]] = field(default_factory=list)
    logits: Logits | None = None
    score: float | None = None
    _started: tuple[float, float] = (0.0, 0.0)

    @property
    def rows(self) -> int:
        """Rows trained on."""
        return sum(rows for rows, _ in self.shapes)

    def start(self) -> None:
        """An epoch starts."""
        self.shapes = []
        self._started = time.perf_counter(), time.process_time()

    def step(self) -> None:
        """A step ended."""
        wall, cpu = self._started
        self.seconds = time.perf_counter() - wall
        self.cpu_seconds = time.process_time() - cpu

    def watch(self, backbone: nn.Module) -> None:
        """Note the shape of each batch that `backbone` is trained on."""

        def note(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            if module.training:
                rows, tokens = (args[0] if args else kwargs["input_ids"]).shape
                self.shapes.append((rows, tokens))

        backbone.register_forward_pre_hook(note, with_kwargs=True)


class Job:
    """What all ways share: rows, features and tokens, made once as `train.py` makes them.

    Args:
        overrides: Of `conf/train.yaml`.
        rows: Training rows to keep, drawn at random; None keeps all.
        folder: For what a run writes.
    """

    def __init__(self, overrides: Sequence[str], *, rows: int | None, folder: Path) -> None:
        self.folder = folder
        register_resolvers()
        with initialize_config_dir(str(CONF)):
            self.cfg: DictConfig = compose(
                "train",
                ["logger=none", f"hydra.runtime.output_dir={folder}", *overrides],
                return_hydra_config=True,
            )
        HydraConfig.instance().set_config(self.cfg)
        self.dataset = _fewer(instantiate(self.cfg.data), rows, self.cfg.seed)
        self.features: FeaturePipeline = instantiate(self.cfg.features)
        self.features.fit(self.dataset.part("train"), progress=True)
        self.pretrained: Pretrained = instantiate(self.cfg.encoder)
        self.loader: HeadlineDataModule = instantiate(
            self.cfg.loader,
            dataset=self.dataset,
            features=self.features,
            pretrained=self.pretrained,
        )
        self.train = self.columns("train")

    def columns(self, split: Split) -> Columns:
        """Tokens, features and labels of a split."""
        frame = self.dataset.part(split)
        tokens = tokenize(
            frame["text"].tolist(),
            self.pretrained.tokenizer,
            max_length=self.pretrained.max_length,
        )
        tabular = self.features.transform(frame)
        return Columns(
            tokens, self.pretrained.encoder.pad_id, tabular, self.dataset.codes(split)
        )

    def model(self) -> Classifier:
        """The configured model, with the pretrained weights."""
        model: Classifier = instantiate(
            self.cfg.model,
            encoder=instantiate(self.cfg.encoder).encoder,
            tabular_dim=self.features.dim,
            classes=self.dataset.classes,
            positive=self.dataset.positive,
            class_counts=self.dataset.class_counts("train"),
        )
        return model

    @property
    def packaged(self) -> Path:
        """Folder of the package's model and tokenizer, as Hugging Face reads them."""
        spec = importlib.util.find_spec(self.cfg.encoder.package)
        if spec is None or spec.origin is None:
            raise RuntimeError(f"{self.cfg.encoder.package} is not installed")
        return Path(spec.origin).parent / "model"

    def weights(self) -> Path:
        """Folder of the encoder's weights, as Hugging Face reads them."""
        if "sha256" in self.cfg.encoder:
            return self.packaged
        folder = self.folder / "encoder"
        self.pretrained.encoder.backbone.save_pretrained(folder)
        return folder


def _fewer(dataset: Dataset, rows: int | None, seed: int) -> Dataset:
    if rows is None:
        return dataset
    shuffled = dataset.frame.sample(frac=1, random_state=seed)
    limits = {"train": rows, "val": _VALIDATION_ROWS, "test": len(shuffled)}
    kept = shuffled[shuffled.groupby("split").cumcount() < shuffled["split"].map(limits)]
    return dataclasses.replace(dataset, frame=kept.sort_index().reset_index(drop=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Progress bars and log lines go to memory: they are made, and not seen."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


class _Clock(L.Callback):
    def __init__(self, found: Pass) -> None:
        self.found = found

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        del trainer, pl_module
        self.found.start()

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        del args, kwargs
        self.found.step()


def ours(job: Job, *, epochs: int, steps: int | None = None) -> Pass:
    """The project's own training, as `python train.py` composes it."""
    model = job.model()
    found = Pass(logits=lambda batch: model.network(*batch[1:4]))
    found.watch(model.network.encoder.backbone)
    callbacks = dict(instantiate(job.cfg.callbacks))
    callbacks.pop("learning_rate", None)  # as train.py does where there is no logger
    # To the last epoch, as every other way.
    callbacks.pop("early_stopping")
    with _quiet():
        trainer: L.Trainer = instantiate(
            job.cfg.trainer,
            max_epochs=epochs,
            limit_train_batches=1.0 if steps is None else steps,
            callbacks=[*callbacks.values(), _Clock(found)],
            logger=False,
        )
        trainer.fit(model, job.loader)
    model.eval()
    return found


def bare(job: Job, *, epochs: int, steps: int | None = None) -> Pass:
    """A loop by hand over the same batches, made beforehand."""
    model = job.model()
    network = model.network.train()
    found = Pass(logits=lambda batch: network(*batch[1:4]))
    found.watch(network.encoder.backbone)
    sampler = LengthSampler(
        job.train.lengths,
        batch_size=job.cfg.loader.batch_size,
        batch_tokens=job.cfg.loader.batch_tokens,
        rank=0,
        world_size=1,
        seed=job.cfg.seed,
    )
    optimizer = instantiate(job.cfg.optimizer)(list(model.parameter_groups()))
    scheduler = instantiate(job.cfg.scheduler)(optimizer, total_steps=epochs * len(sampler))
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        batches = [job.train.__getitems__(rows) for rows in list(sampler)[:steps]]
        found.start()
        for batch in batches:
            loss = model.loss(
                network(batch.input_ids, batch.attention_mask, batch.tabular), batch.labels
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), job.cfg.trainer.gradient_clip_val)
            optimizer.step()
            scheduler.step()
            found.step()
    network.eval()
    return found


class _HuggingFaceClock(transformers.TrainerCallback):
    def __init__(self, found: Pass) -> None:
        self.found = found

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        del args, kwargs
        self.found.start()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        del args, kwargs
        self.found.step()


def hugging_face(
    job: Job,
    *,
    epochs: int,
    steps: int | None = None,
    padding: Padding,
    sampling: str = "random",
) -> Pass:
    """Hugging Face's `Trainer`, set up as its text-classification example does.

    Args:
        job: The rows.
        epochs: Passes over them.
        steps: Stop after so many.
        padding: To 128 tokens beforehand, or each batch to its longest row.
        sampling: `TrainingArguments.train_sampling_strategy`.
    """
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        job.weights(), num_labels=len(job.dataset.classes)
    )
    found = Pass(
        logits=lambda batch: (
            model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        )
    )
    found.watch(model.base_model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(job.packaged)
    texts = job.dataset.part("train")["text"].tolist()
    encoded = tokenizer(
        texts,
        padding="max_length" if padding == "max_length" else False,
        max_length=_HUGGING_FACE_LENGTH,
        truncation=True,
    )
    rows = [
        {"input_ids": ids, "attention_mask": mask, "label": int(label)}
        for ids, mask, label in zip(
            encoded["input_ids"], encoded["attention_mask"], job.train.labels, strict=True
        )
    ]
    arguments = transformers.TrainingArguments(
        output_dir=str(job.folder / "hugging_face"),
        per_device_train_batch_size=32,
        num_train_epochs=epochs,
        max_steps=-1 if steps is None else steps,
        train_sampling_strategy=sampling,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        seed=job.cfg.seed,
    )
    with _quiet():
        transformers.Trainer(
            model=model,
            args=arguments,
            train_dataset=rows,
            data_collator=transformers.default_data_collator
            if padding == "max_length"
            else transformers.DataCollatorWithPadding(tokenizer),
            processing_class=tokenizer,
            callbacks=[_HuggingFaceClock(found)],
        ).train()
    model.eval()
    return found


def seed_tutorial(job: Job, *, epochs: int, steps: int | None = None) -> Pass:
    """The tutorial this project grew from: 100 tokens, batches of 16, Adam, BCE."""
    length, batch_size = 100, 16
    network = SeedNet(
        instantiate(job.cfg.encoder).encoder, tabular_dim=job.features.dim, num_classes=1
    ).train()

    def both(batch: Batch) -> Tensor:
        logit_B1 = network(*batch[1:4])
        return torch.cat([torch.zeros_like(logit_B1), logit_B1], dim=1)

    found = Pass(logits=both)
    found.watch(network.encoder.backbone)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    labels = torch.from_numpy(job.train.labels > 0).float()
    ids, mask = _padded(job.train, length)
    tabular = torch.from_numpy(job.train.tabular)
    for _ in range(epochs):
        order = torch.randperm(len(labels)).split(batch_size)
        found.start()
        for rows in order[:steps]:
            probability_B = torch.sigmoid(network(ids[rows], mask[rows], tabular[rows]))[:, 0]
            loss = functional.binary_cross_entropy(probability_B, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.step()
    network.eval()
    return found


def _padded(columns: Columns, length: int) -> tuple[Tensor, Tensor]:
    """All rows, padded on the right to at least `length` tokens."""
    if columns.tokens is None:
        raise ValueError("the columns hold no tokens")
    ids, mask = pad(columns.tokens, np.arange(len(columns)), columns.pad_id, multiple_of=length)
    return torch.from_numpy(ids), torch.from_numpy(mask)


WAYS: dict[str, Callable[..., Pass]] = {
    "ours": ours,
    "bare loop": bare,
    "HF, padded to 128": partial(hugging_face, padding="max_length"),
    "HF, dynamic padding": partial(hugging_face, padding="longest"),
    "HF, grouped by length": partial(
        hugging_face, padding="longest", sampling="group_by_length"
    ),
    "seed tutorial": seed_tutorial,
}


TUNED = ("ours", "bare loop")
"""Those that run in a process as `train.py` sets it up."""


def average_precision(job: Job, found: Pass) -> float:
    """Of the trained model, on the test split."""
    if found.logits is None:
        raise ValueError("the pass has no model")
    test = job.columns("test")
    positive = job.dataset.classes.index(job.dataset.positive)
    order = np.argsort(test.lengths, kind="stable")
    parts = np.split(order, range(64, len(order), 64))
    with torch.inference_mode():
        scores = torch.cat([found.logits(test.__getitems__(rows)).softmax(1) for rows in parts])
    return float(
        average_precision_score(test.labels[order] == positive, scores[:, positive].numpy())
    )


def run(
    name: str, job: Job, *, threads: int, epochs: int = 1, steps: int | None = None
) -> Pass:
    """Train in one way, from the same start whatever way came before.

    Args:
        name: In `WAYS`.
        job: The rows.
        threads: For torch.
        epochs: Passes over the rows.
        steps: Stop each epoch after so many; None: all.
    """
    torch.set_num_threads(threads)
    # Lightning sets it for the whole process.
    torch.use_deterministic_algorithms(mode=False)
    random.seed(job.cfg.seed)
    np.random.seed(job.cfg.seed)  # noqa: NPY002  what libraries draw from
    torch.manual_seed(job.cfg.seed)
    return WAYS[name](job, epochs=epochs, steps=steps)
