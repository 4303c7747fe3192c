"""The LightningDataModule: batches of a dataset that fits in memory.

Shapes: N rows of a split, B batch, T tokens, F tabular features.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from fakenews.bounds import Count, PositiveCount
from fakenews.data.checks import WEIGHT
from fakenews.data.dataset import Dataset, Split
from fakenews.errors import ConfigError, TrainingError
from fakenews.features.batching import Rows, plan_batches
from fakenews.features.pipeline import FeaturePipeline
from fakenews.features.text import Tokens, pad, tokenize
from fakenews.models.classifier import Batch
from fakenews.models.encoder import Pretrained


class HeadlineDataModule(L.LightningDataModule):
    """Tokenises each split once and serves it in batches of like length.

    The order of training batches follows from the seed and the epoch alone; how many
    rows were seen is part of a checkpoint, so an interrupted epoch continues with
    exactly the rows that are left.

    Args:
        dataset: Audited and split.
        features: Fitted on the training split; None when the network reads no features.
        pretrained: Has the tokenizer; None when the network reads no text.
        batch_size: Most rows of a batch.
        batch_tokens: Most tokens of a batch, padding included; None: no limit.
        num_workers: Processes that assemble batches; 0 does it in this process.
        pin_memory: Assemble batches in page-locked memory, for a GPU.
        seed: Of the order of batches.
        cache_dir: For tokens.

    Raises:
        ConfigError: A batch is larger than the training split.
    """

    def __init__(
        self,
        *,
        dataset: Dataset,
        features: FeaturePipeline | None,
        pretrained: Pretrained | None,
        batch_size: PositiveCount = 32,
        batch_tokens: PositiveCount | None = None,
        num_workers: Count = 0,
        pin_memory: bool = False,
        seed: int = 0,
        cache_dir: str | Path | None = None,
    ) -> None:
        super().__init__()
        rows = sum(dataset.class_counts("train").values())
        if batch_size > rows:
            raise ConfigError(
                f"loader.batch_size={batch_size} is more than the {rows} training rows: set "
                f"loader.batch_size={1 << (rows.bit_length() - 1)} or less"
            )
        self.dataset, self.features, self.pretrained = dataset, features, pretrained
        self.batch_size, self.batch_tokens = batch_size, batch_tokens
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self.seed = seed
        self.cache_dir = None if cache_dir is None else Path(cache_dir)
        self._columns: dict[Split, Columns] = {}
        self._resumed: dict[str, Any] | None = None
        self._train_sampler: LengthSampler | None = None

    def setup(self, stage: str) -> None:
        """Featurise and tokenise the splits that training needs, once."""
        del stage
        for split in ("train", "val"):
            if split not in self._columns:
                self._columns[split] = self._featurise(split)

    def _featurise(self, split: Split) -> "Columns":
        frame = self.dataset.part(split)
        tokens, pad_id = None, 0
        if self.pretrained is not None:
            pad_id = self.pretrained.encoder.pad_id
            tokens = tokenize(
                frame["text"].tolist(),
                self.pretrained.tokenizer,
                max_length=self.pretrained.max_length,
                cache_dir=self.cache_dir,
                progress=self.trainer is None or self.trainer.is_global_zero,
            )
        tabular = np.empty((len(frame), 0), dtype=np.float32)
        if self.features is not None:
            tabular = self.features.transform(frame)
        weights = None
        if split == "train" and WEIGHT in frame:
            weights = frame[WEIGHT].to_numpy(np.float64)
        return Columns(tokens, pad_id, tabular, self.dataset.codes(split), weights)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of the training split, each row once an epoch over all ranks.

        Raises:
            TrainingError: The position to resume from is of other data or settings.
        """
        trainer: Any = self._attached()
        sampler = LengthSampler(
            self._columns["train"].lengths,
            batch_size=self.batch_size,
            batch_tokens=self.batch_tokens,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            seed=self.seed,
            # To overfit, the same batches must come again and again.
            reshuffle=trainer.overfit_batches == 0,
        )
        if self._resumed is not None:
            sampler.resume(self._resumed)
        self._train_sampler = sampler
        return self._loader("train", sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Batches of the validation split, in length order."""
        trainer = self._attached()
        sampler = LengthSampler(
            self._columns["val"].lengths,
            batch_size=self.batch_size * 2,
            batch_tokens=None if self.batch_tokens is None else self.batch_tokens * 2,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            seed=None,
        )
        return self._loader("val", sampler)

    def _attached(self) -> L.Trainer:
        if self.trainer is None:
            raise TrainingError("the data module is not attached to a trainer")
        return self.trainer

    def _loader(self, split: Split, sampler: "LengthSampler") -> DataLoader[Batch]:
        return DataLoader(
            self._columns[split],
            batch_sampler=sampler,
            collate_fn=_as_is,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.num_workers > 0,
        )

    def state_dict(self) -> dict[str, Any]:
        """Position in the epoch, the same on every rank."""
        if self.trainer is None or self._train_sampler is None:
            return {}
        epoch = self.trainer.current_epoch
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        batches = int(progress.processed)
        if batches >= self.trainer.num_training_batches:
            epoch, batches = epoch + 1, 0
        return self._train_sampler.position(epoch=epoch, batches=batches)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a position; checked when the sampler is made."""
        self._resumed = state_dict


class Columns(TorchDataset[Batch]):
    """A split as columns; indexed by the rows of a batch.

    Args:
        tokens: Of N texts, or None when no text is read.
        pad_id: Token id of padding.
        tabular: [N, F].
        labels: [N] class codes.
        weights: [N]; None: all the same.
    """

    def __init__(
        self,
        tokens: Tokens | None,
        pad_id: int,
        tabular: NDArray[np.float32],
        labels: NDArray[np.int64],
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        self.tokens, self.pad_id = tokens, pad_id
        self.tabular, self.labels, self.weights = tabular, labels, weights

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row; ones when no text is read."""
        return np.ones(len(self), np.int64) if self.tokens is None else self.tokens.lengths

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, rows: list[int] | Rows) -> Batch:
        """The batch of these rows, padded to its longest."""
        index = np.asarray(rows)
        if self.tokens is None:
            ids = mask = np.zeros((len(index), 0), dtype=np.int64)
        else:
            ids, mask = pad(self.tokens, index, self.pad_id)
        return Batch(
            rows=torch.from_numpy(index),
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(mask),
            tabular=torch.from_numpy(self.tabular[index]),
            labels=torch.from_numpy(self.labels[index]),
            weights=None if self.weights is None else torch.from_numpy(self.weights[index]),
        )


class LengthSampler(Sampler[list[int]]):
    """Batches of like length, shared out over ranks.

    Args:
        lengths: Tokens of each row, [N].
        batch_size: Most rows of a batch.
        batch_tokens: Most tokens of a batch; None: no limit.
        rank: Of this process.
        world_size: Number of ranks; each gets equally many batches, without which they
            would wait for each other for ever.
        seed: Of the shuffling; None keeps length order.
        reshuffle: Whether each epoch has its own order; otherwise all have the first's.

    Raises:
        ConfigError: There are too few rows for all ranks to get as many batches.
    """

    def __init__(
        self,
        lengths: NDArray[np.int64],
        *,
        batch_size: int,
        batch_tokens: int | None,
        rank: int,
        world_size: int,
        seed: int | None,
        reshuffle: bool = True,
    ) -> None:
        self._lengths = lengths
        self._batch_size, self._batch_tokens = batch_size, batch_tokens
        self._rank, self._world_size, self._seed = rank, world_size, seed
        self._reshuffle = reshuffle
        self._epoch = 0
        self._skip: tuple[int, int] | None = None  # epoch, batches of this rank
        batches = len(self._plan(0))
        if batches % world_size:
            raise ConfigError(
                f"{len(lengths)} rows in batches of at most {batch_size} cannot be shared out "
                f"evenly over {world_size} ranks: start fewer, or raise loader.batch_size"
            )
        self._length = batches // world_size

    def __len__(self) -> int:
        return self._length

    @property
    def sampler(self) -> "LengthSampler":
        """Itself: of a batch sampler, Lightning sets the epoch of its `sampler` only."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; Lightning calls this before each."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._mine(self._epoch)
        if self._skip is not None and self._skip[0] == self._epoch:
            batches = batches[self._skip[1] :]
        for rows in batches:
            yield rows.tolist()

    def position(self, *, epoch: int, batches: int) -> dict[str, Any]:
        """What a checkpoint says of how far training is, after `batches` of this rank."""
        seen = sum(len(rows) for rows in self._plan(epoch)[: batches * self._world_size])
        return {
            "epoch": epoch,
            "samples_seen": seen,
            "seed": self._seed,
            "hash": self._hash,
        }

    def resume(self, position: dict[str, Any]) -> None:
        """Skip what was seen.

        Raises:
            TrainingError: The position is of other data, batches, seed or ranks.
        """
        if position["hash"] != self._hash or position["seed"] != self._seed:
            raise TrainingError(
                "the run to resume was trained on other data, with another seed, batch size "
                "or tokenizer: repeat its settings, or start without resume"
            )
        epoch, seen = int(position["epoch"]), int(position["samples_seen"])
        ends = np.cumsum([len(rows) for rows in self._plan(epoch)])
        batches = int(np.searchsorted(ends, seen, side="right"))
        if seen not in (0, *ends) or batches % self._world_size:
            raise TrainingError(
                f"{seen} rows of epoch {epoch} were seen, which is no whole number of steps "
                f"on {self._world_size} ranks: resume on as many ranks as before"
            )
        self._skip = (epoch, batches // self._world_size)
        # Lightning makes the iterator of a resumed epoch before it sets the epoch, and
        # worker processes are sent their first batches then.
        self._epoch = epoch

    @property
    def _hash(self) -> str:
        digest = hashlib.sha256(np.ascontiguousarray(self._lengths).tobytes())
        digest.update(f"{self._batch_size} {self._batch_tokens}".encode())
        return digest.hexdigest()[:16]

    def _plan(self, epoch: int) -> list[Rows]:
        generator = None
        if self._seed is not None:
            generator = np.random.default_rng([self._seed, epoch if self._reshuffle else 0])
        return plan_batches(
            self._lengths,
            batch_size=self._batch_size,
            batch_tokens=self._batch_tokens,
            multiple_of=self._world_size,
            generator=generator,
        )

    def _mine(self, epoch: int) -> list[Rows]:
        return self._plan(epoch)[self._rank :: self._world_size]


def _as_is(batch: Any) -> Any:
    return batch
