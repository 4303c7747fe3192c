"""From a row group of a prepared dataset to what a batch is cut from.

Shapes: N rows, F tabular features.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from fakenews.data.checks import WEIGHT
from fakenews.data.dataset import Split
from fakenews.data.prepared import PreparedDataset
from fakenews.errors import ConfigError, DataError
from fakenews.features.pipeline import FeaturePipeline
from fakenews.features.raw import RawFeatures
from fakenews.features.state import EntityState
from fakenews.features.statistics import Statistics
from fakenews.features.tabular import HEADLINE_FEATURES
from fakenews.features.text import Tokens, tokenize
from fakenews.launch import is_main_process
from fakenews.models.classifier import Batch
from fakenews.models.encoder import Pretrained
from fakenews.training.loader import Columns

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, kw_only=True)
class Rows:
    """Rows of a split in memory.

    Attributes:
        ids: int64 [N], unique over all splits.
        columns: What a batch is cut from.
    """

    ids: NDArray[np.int64]
    columns: Columns

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """The batch of these rows, which names them by their ids."""
        return self.columns.__getitems__(rows)._replace(rows=torch.from_numpy(self.ids[rows]))

    def slice(self, start: int, stop: int) -> "Rows":
        """Some of the rows, one after another."""
        if (start, stop) == (0, len(self)):
            return self
        columns = self.columns
        return Rows(
            ids=self.ids[start:stop],
            columns=Columns(
                None if columns.tokens is None else columns.tokens.take(np.arange(start, stop)),
                columns.pad_id,
                columns.tabular[start:stop],
                columns.labels[start:stop],
                None if columns.weights is None else columns.weights[start:stop],
            ),
        )

    @classmethod
    def join(cls, parts: Sequence["Rows"]) -> "Rows":
        """The rows of all parts, one after another."""
        if len(parts) == 1:
            return parts[0]
        columns = [part.columns for part in parts]
        tokens = [column.tokens for column in columns if column.tokens is not None]
        weights = [column.weights for column in columns if column.weights is not None]
        return cls(
            ids=np.concatenate([part.ids for part in parts]),
            columns=Columns(
                _joined(tokens) if tokens else None,
                columns[0].pad_id,
                np.concatenate([column.tabular for column in columns]),
                np.concatenate([column.labels for column in columns]),
                np.concatenate(weights) if weights else None,
            ),
        )


class Reader:
    """Reads and decodes row groups; safe to use from several threads.

    Args:
        dataset: To read from.
        features: Fitted by `fit_features`; None when the network reads no features.
        pretrained: Has the tokenizer; None when the network reads no text.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        features: FeaturePipeline | None,
        pretrained: Pretrained | None,
    ) -> None:
        self.dataset, self.features, self.pretrained = dataset, features, pretrained
        self._stored = pretrained is not None and _tokens_fit(dataset, pretrained)
        self._classes = pa.array(dataset.classes, pa.string())
        self._labels = [] if features is None else _entity_labels(features)
        self._names = ["id", "label", *self._feature_columns()]
        self._weighted = dataset.prepared.settings.get("weight") is not None
        if pretrained is not None:
            self._names.append("input_ids" if self._stored else "text")
            # Sets truncation now: threads would do it all at once.
            tokenize([], pretrained.tokenizer, max_length=pretrained.max_length)
            if not self._stored and is_main_process():
                log.info(
                    "the dataset has no token ids of this tokenizer with encoder.max_length="
                    "%d, so texts are tokenised while they stream",
                    pretrained.max_length,
                )

    @property
    def tokens_of(self) -> str:
        """What the lengths of rows depend on: the tokenizer and where it cuts."""
        return (
            "" if self.pretrained is None else " ".join(map(str, _signature(self.pretrained)))
        )

    @property
    def dim(self) -> int:
        """Number of tabular features, F."""
        return 0 if self.features is None else self.features.dim

    def read(self, split: Split, group: int) -> Rows:
        """The rows of one row group.

        Raises:
            DataError: See `PreparedDataset.read_group`; or a value is none that preparation
                writes.
        """
        weighted = self._weighted and split == "train"
        names = [*self._names, WEIGHT] if weighted else self._names
        table = self.dataset.read_group(split, group, names).combine_chunks()
        codes = pc.index_in(table["label"], value_set=self._classes)
        if unwritten := [
            name
            for name, column in (("label", codes), ("id", table["id"]))
            if column.null_count
        ]:
            raise DataError(
                f"{self.dataset.storage.url}/{split}: row group {group} has values in "
                f"{', '.join(unwritten)} that no preparation writes: prepare the dataset again"
            )
        return Rows(
            ids=_numpy(table["id"], np.int64),
            columns=Columns(
                self._tokens(table),
                0 if self.pretrained is None else self.pretrained.encoder.pad_id,
                np.empty((table.num_rows, 0), dtype=np.float32)
                if self.features is None
                else self.features.apply(self._raw_features(table)),
                _numpy(codes, np.int64),
                _numpy(table[WEIGHT], np.float64) if weighted else None,
            ),
        )

    def blank(self) -> Batch:
        """A batch of no row, for a rank that has none left: `rows` is -1."""
        width = 0 if self.pretrained is None else 1
        pad_id = 0 if self.pretrained is None else self.pretrained.encoder.pad_id
        return Batch(
            rows=torch.full((1,), -1),
            input_ids=torch.full((1, width), pad_id),
            # One token is looked at: attention to nothing is not a number.
            attention_mask=torch.ones((1, width), dtype=torch.int64),
            tabular=torch.zeros((1, self.dim)),
            labels=torch.zeros(1, dtype=torch.int64),
            weights=torch.zeros(1, dtype=torch.float64) if self._weighted else None,
        )

    def _feature_columns(self) -> list[str]:
        if self.features is None:
            return []
        return [
            *(HEADLINE_FEATURES if self.features.headline else ()),
            *(f"entity_{label}" for label in self._labels),
            *self.features.numeric,
            *self.features.categorical,
        ]

    def _raw_features(self, table: pa.Table) -> RawFeatures:
        assert self.features is not None  # noqa: S101 - narrows the type
        features, rows = self.features, table.num_rows
        headline = HEADLINE_FEATURES if features.headline else ()
        return RawFeatures(
            headline=_stack(table, headline, rows, np.float32),
            entities=_stack(
                table, [f"entity_{label}" for label in self._labels], rows, np.int16
            ),
            numeric=_stack(table, features.numeric, rows, np.float64),
            categories={
                name: pc.fill_null(table[name], "").to_pylist() for name in features.categorical
            },
        )

    def _tokens(self, table: pa.Table) -> Tokens | None:
        if self.pretrained is None:
            return None
        if not self._stored:
            return tokenize(
                table["text"].to_pylist(),
                self.pretrained.tokenizer,
                max_length=self.pretrained.max_length,
            )
        ids = table["input_ids"]
        lengths = _numpy(pc.list_value_length(ids), np.int64)
        return Tokens(
            input_ids=_numpy(pc.list_flatten(ids), np.int32),
            offsets=np.concatenate(([0], np.cumsum(lengths))),
            # Of no use to training.
            truncated=np.zeros(table.num_rows, dtype=np.bool_),
        )


def fit_features(features: FeaturePipeline, dataset: PreparedDataset) -> FeaturePipeline:
    """Fit features with what the manifest says of the training rows; no row is read.

    Args:
        features: May ask for less than was prepared.
        dataset: Prepared.

    Raises:
        ConfigError: They ask for more than was prepared; all of it is named.
    """
    prepared = dataset.prepared
    entities = None if prepared.entities is None else dict(prepared.entities)
    wanted = None if features.counter is None else features.counter.model
    faults = []
    if wanted is not None and (entities is None or entities["model"] != wanted):
        has = "without entities" if entities is None else f"with those of {entities['model']}"
        faults.append(
            f"features.entities={wanted}: the dataset was prepared {has}; choose "
            f"features=headline, or prepare it again with features.entities={wanted} "
            "and overwrite=true"
        )
    for kind in ("numeric", "categorical"):
        faults += [
            f"features.{kind} names {name}, which data.{kind} does not: name it there, and "
            "prepare the dataset again if it was prepared without"
            for name in getattr(features, kind)
            if name not in getattr(dataset, kind)
        ]
    if faults:
        raise ConfigError(faults)
    state = None
    if wanted is not None and entities is not None:
        state = EntityState(**{**entities, "labels": tuple(entities["labels"])})
    names = [
        *(HEADLINE_FEATURES if features.headline else ()),
        *(f"entity_{label}" for label in (() if state is None else state.labels)),
        *features.numeric,
    ]
    known = prepared.statistics
    if missing := [name for name in names if name not in known["mean"]]:
        raise DataError(
            f"{dataset.storage.url}: the manifest has no statistics of {', '.join(missing)}: "
            "prepare the dataset again"
        )
    return features.fit_statistics(
        Statistics(
            count=np.full(len(names), prepared.rows("train")),
            mean=np.array([known["mean"][name] for name in names], dtype=np.float64),
            scale=np.array([known["scale"][name] for name in names], dtype=np.float64),
        ),
        missing=known["missing"],
        categories=known["categories"],
        entities=state,
    )


def _entity_labels(features: FeaturePipeline) -> list[str]:
    state = features.to_json()["entities"]
    return [] if state is None else list(state["labels"])


def _signature(pretrained: Pretrained) -> tuple[str, int]:
    # Also sets what the hash is of: truncation to max_length, and no padding.
    tokenize([], pretrained.tokenizer, max_length=pretrained.max_length)
    content = pretrained.tokenizer.to_str().encode()
    return hashlib.sha256(content).hexdigest(), pretrained.max_length


def _tokens_fit(dataset: PreparedDataset, pretrained: Pretrained) -> bool:
    stored = dataset.prepared.tokenizer
    return stored is not None and _signature(pretrained) == (
        stored["sha256"],
        stored["max_length"],
    )


def _joined(tokens: Sequence[Tokens]) -> Tokens:
    lengths = np.concatenate([part.lengths for part in tokens])
    return Tokens(
        input_ids=np.concatenate([part.input_ids for part in tokens]),
        offsets=np.concatenate(([0], np.cumsum(lengths))),
        truncated=np.concatenate([part.truncated for part in tokens]),
    )


def _stack(table: pa.Table, names: Sequence[str], rows: int, dtype: Any) -> NDArray[Any]:
    stacked = np.empty((rows, len(names)), dtype=dtype)
    for column, name in enumerate(names):
        stacked[:, column] = table[name].to_numpy()
    return stacked


def _numpy(column: Any, dtype: Any) -> NDArray[Any]:
    return np.asarray(column.to_numpy(), dtype=dtype)
