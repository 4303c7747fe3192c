"""The LightningDataModule of a prepared dataset: batches streamed from its shards.

Threads read and decode the next windows while the network trains on this one, so memory
holds a few windows whatever the size of the dataset. What is read, in which order and by
which rank, is planned in `fakenews.data.epoch`.
"""

import hashlib
import threading
import weakref
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import torch

from fakenews.bounds import PositiveCount
from fakenews.data import epoch as plans
from fakenews.data.dataset import Split
from fakenews.data.epoch import EpochPlan, Intervals, Window
from fakenews.data.prepared import PreparedDataset
from fakenews.errors import ConfigError, TrainingError
from fakenews.features.batching import plan_batches
from fakenews.features.pipeline import FeaturePipeline
from fakenews.models.classifier import Batch
from fakenews.models.encoder import Pretrained
from fakenews.training.prefetch import ahead, in_background, stop
from fakenews.training.reader import Reader, Rows

# Finished batches that wait for the network.
_DEPTH = 8
# Of the plan of an epoch: a change makes positions of older checkpoints mean other rows.
_PLAN = 1


class StreamingDataModule(L.LightningDataModule):
    """Streams each split in batches of like length.

    Every row is trained on once an epoch over all ranks, on any number of them: a
    checkpoint says which batches of the epoch are left, and whoever resumes shares them
    out anew. A rank that has fewer batches than the others gets *blank* ones, which count
    nothing. The order never depends on `num_workers`.

    Args:
        dataset: Prepared.
        features: Fitted by `reader.fit_features`; None when the network reads no features.
        pretrained: Has the tokenizer; None when the network reads no text.
        batch_size: Most rows of a batch.
        window_rows: Fewest rows that are shuffled together; memory holds a few times this.
        num_workers: Threads that read and decode.
        prefetch_windows: Windows that are read ahead.
        pin_memory: Assemble batches in page-locked memory, for a GPU.
        seed: Of the order of batches.

    Raises:
        ConfigError: A batch is larger than the training split.
    """

    def __init__(
        self,
        *,
        dataset: PreparedDataset,
        features: FeaturePipeline | None,
        pretrained: Pretrained | None,
        batch_size: PositiveCount = 32,
        window_rows: PositiveCount = 16384,
        num_workers: PositiveCount = 1,
        prefetch_windows: PositiveCount = 1,
        pin_memory: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        rows = dataset.prepared.rows("train")
        if batch_size > rows:
            raise ConfigError(
                f"loader.batch_size={batch_size} is more than the {rows} training rows: set "
                f"loader.batch_size={1 << (rows.bit_length() - 1)} or less"
            )
        self.dataset = dataset
        self.reader = Reader(dataset, features, pretrained)
        self.batch_size, self.window_rows = batch_size, window_rows
        self.num_workers, self.prefetch_windows = num_workers, prefetch_windows
        self.pin_memory, self.seed = pin_memory, seed
        self._resumed: tuple[int, Intervals] | None = None  # epoch, what is left of it
        self._loaders: dict[Split, StreamLoader] = {}

    def train_dataloader(self) -> "StreamLoader":
        """Batches of the training split, each row once an epoch over all ranks."""
        trainer = self._attached()
        return self._loader(
            "train", StreamLoader(self, length=plans.steps(self._whole(), trainer.world_size))
        )

    def val_dataloader(self) -> "StreamLoader":
        """Batches of the validation split, each row once over all ranks."""
        steps = plans.evaluation_steps(
            self.dataset.group_rows("val"),
            batch_size=self.batch_size * 2,
            window_rows=self.window_rows,
            ranks=self._attached().world_size,
        )
        return self._loader("val", StreamLoader(self, length=steps, split="val"))

    def _loader(self, split: Split, loader: "StreamLoader") -> "StreamLoader":
        self.close(split)
        self._loaders[split] = loader
        return loader

    def training_batches(self, epoch: int) -> Generator[Batch]:
        """What is left of an epoch for this rank; as many batches as every other rank has."""
        trainer: Any = self._attached()
        ranks, left = trainer.world_size, self._left(epoch)
        plan = self._plan(epoch)
        windows = plan.windows(plans.share(left, rank=trainer.global_rank, ranks=ranks))
        yield from self._batches("train", windows, plans.steps(left, ranks), epoch)

    def validation_batches(self, steps: int) -> Generator[Batch]:
        """The validation rows of this rank, filled up to so many batches."""
        trainer: Any = self._attached()
        windows = plans.evaluation_windows(
            self.dataset.group_rows("val"),
            batch_size=self.batch_size * 2,
            window_rows=self.window_rows,
            rank=trainer.global_rank,
            ranks=trainer.world_size,
        )
        wanted = ((window, list(range(window.batches))) for window in windows)
        yield from self._batches("val", wanted, steps, None)

    def _batches(
        self,
        split: Split,
        windows: Iterable[tuple[Window, list[int]]],
        steps: int,
        epoch: int | None,
    ) -> Generator[Batch]:
        """The wanted batches of each window, and blank ones up to `steps`."""
        pool = ThreadPoolExecutor(self.num_workers, thread_name_prefix="read")
        # A row group on the edge of two windows is read once.
        edge: dict[int, Future[Rows]] = {}
        failed = threading.Event()

        def read(group: int) -> Rows:
            # Otherwise each thread would wait for a dead store once more.
            if failed.is_set():
                raise CancelledError
            try:
                return self.reader.read(split, group)
            except BaseException:
                failed.set()
                raise

        def submit(job: tuple[Window, list[int]]) -> list[Future[Rows]]:
            groups = [piece.group for piece in job[0].pieces]
            found = [edge.get(group) or pool.submit(read, group) for group in groups]
            edge.clear()
            edge[groups[-1]] = found[-1]
            return found

        made = 0
        try:
            for (window, wanted), parts in ahead(windows, submit, count=self.prefetch_windows):
                rows = Rows.join(
                    [
                        part.slice(piece.start, piece.stop)
                        for part, piece in zip(parts, window.pieces, strict=True)
                    ]
                )
                parts.clear()
                cut = plan_batches(
                    rows.columns.lengths,
                    batch_size=self.batch_size if split == "train" else self.batch_size * 2,
                    generator=None if epoch is None else self._shuffler(epoch, window.number),
                )
                for batch in wanted:
                    yield self._placed(rows.batch(cut[batch]))
                made += len(wanted)
        finally:
            stop(pool)
        for _ in range(steps - made):
            yield self._placed(self.reader.blank())

    def _placed(self, batch: Batch) -> Batch:
        if self.pin_memory and torch.cuda.is_available():
            pinned: Any = (None if t is None else t.pin_memory() for t in batch)
            return Batch(*pinned)
        return batch

    def _shuffler(self, epoch: int, window: int) -> np.random.Generator:
        # From 1: NumPy takes [seed, epoch, 0] for [seed, epoch], which orders the windows.
        return np.random.default_rng([self.seed, self._shuffled_as(epoch), window + 1])

    def _shuffled_as(self, epoch: int) -> int:
        # To overfit, the same batches must come again and again.
        trainer: Any = self._attached()
        return epoch if trainer.overfit_batches == 0 else 0

    def _plan(self, epoch: int) -> EpochPlan:
        return EpochPlan(
            self.dataset.group_rows("train"),
            batch_size=self.batch_size,
            window_rows=self.window_rows,
            seed=self.seed,
            epoch=self._shuffled_as(epoch),
        )

    def _whole(self) -> Intervals:
        return [(0, self._plan(0).batches)]

    def _left(self, epoch: int) -> Intervals:
        if self._resumed is not None and self._resumed[0] == epoch:
            return self._resumed[1]
        return self._whole()

    @property
    def steps_of_epoch(self) -> int:
        """Batches of each rank in a whole epoch."""
        return plans.steps(self._whole(), self._attached().world_size)

    @property
    def steps_left(self) -> int:
        """Batches of each rank in what is left of the epoch that is resumed."""
        left = self._whole() if self._resumed is None else self._resumed[1]
        return plans.steps(left, self._attached().world_size)

    def _attached(self) -> L.Trainer:
        if self.trainer is None:
            raise TrainingError("the data module is not attached to a trainer")
        return self.trainer

    def state_dict(self) -> dict[str, Any]:
        """Position in the epoch, the same on every rank and for any number of them."""
        if self.trainer is None or not self._loaders:
            return {}
        epoch, ranks = self.trainer.current_epoch, self.trainer.world_size
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        batches = int(progress.processed)
        if batches >= self.trainer.num_training_batches:
            epoch, left = epoch + 1, self._whole()
        else:
            left = self._left(epoch)
            # A resumed epoch does not count from 0.
            done = batches - (self.steps_of_epoch - plans.steps(left, ranks))
            left = plans.after(left, done=done, ranks=ranks)
        return {
            "epoch": epoch,
            "samples_seen": self._rows_seen(epoch, left),
            "seed": self.seed,
            "hash": self._hash,
            "left": [list(interval) for interval in left],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a position.

        Raises:
            TrainingError: It is of other data or settings.
        """
        left = plans.as_intervals(state_dict.get("left"), plans.count(self._whole()))
        known = (state_dict.get("hash"), state_dict.get("seed"))
        if left is None or known != (self._hash, self.seed):
            raise TrainingError(
                "the run to resume was trained on other data, with another seed, batch size, "
                "window_rows or tokenizer: repeat its settings, or start without resume"
            )
        self._resumed = (int(state_dict["epoch"]), left)

    @property
    def _hash(self) -> str:
        parts = (
            _PLAN,
            self.dataset.prepared.data_hash,
            self.batch_size,
            self.window_rows,
            self.reader.tokens_of,
        )
        return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()[:16]

    def _rows_seen(self, epoch: int, left: Intervals) -> int:
        """Rows of the batches that are not left; no row is read for it."""
        plan = self._plan(epoch)
        rows_left, rest = plan.whole_windows(left)
        for window, wanted in plan.windows(rest):
            # How many rows a batch has depends on the window's rows alone.
            lengths = np.ones(window.rows, dtype=np.int64)
            cut = plan_batches(
                lengths,
                batch_size=self.batch_size,
                generator=self._shuffler(epoch, window.number),
            )
            rows_left += sum(len(cut[batch]) for batch in wanted)
        return self.dataset.prepared.rows("train") - rows_left

    def teardown(self, stage: str) -> None:
        """Stop the threads."""
        del stage
        self.close()

    def on_exception(self, exception: BaseException) -> None:
        """Stop the threads."""
        del exception
        self.close()

    def close(self, *splits: Split) -> None:
        """Stop the threads of these splits, or of all."""
        for split in splits or tuple(self._loaders):
            if (loader := self._loaders.get(split)) is not None:
                loader.close()


class StreamLoader:
    """What Lightning iterates over: each epoch's batches, made by threads.

    Args:
        module: Makes the batches.
        length: Batches of a whole epoch; a resumed epoch has fewer.
        split: `train` or `val`.
    """

    def __init__(
        self, module: StreamingDataModule, *, length: int, split: Split = "train"
    ) -> None:
        self._module, self._length, self._split = module, length, split
        self._epoch = 0
        # Weak: an iterator that nobody holds any more ends, and its threads with it.
        self._running: weakref.ref[Generator[Batch]] | None = None

    def __len__(self) -> int:
        return self._length

    @property
    def batch_sampler(self) -> SimpleNamespace:
        """Leads to itself: Lightning sets the epoch of a batch sampler's `sampler`."""
        return SimpleNamespace(sampler=self)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; Lightning calls this before each."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        self.close()
        running = self._run()
        self._running = weakref.ref(running)
        return running

    def _run(self) -> Generator[Batch]:
        # Lightning makes iterators before it sets the epoch: it is read at the first batch.
        yield from in_background(self._make, depth=_DEPTH)

    def _make(self) -> Generator[Batch]:
        if self._split == "train":
            return self._module.training_batches(self._epoch)
        return self._module.validation_batches(self._length)

    def close(self) -> None:
        """Stop the threads, if any run."""
        running = None if self._running is None else self._running()
        if running is not None:
            running.close()
        self._running = None

    # With these two Lightning knows that a resumed epoch continues where it was; the
    # position itself is the data module's.
    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing."""
