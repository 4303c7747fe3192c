"""A prepared dataset, which may be larger than memory: read a row group at a time."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fakenews.bounds import PositiveCount
from fakenews.data.audit import Audit
from fakenews.data.cleaning import Cleaning
from fakenews.data.dataset import Split
from fakenews.data.shards import AUDIT, SPLITS, Manifest, read_manifest
from fakenews.data.shards import verify as verify_shards
from fakenews.data.storage import Storage
from fakenews.errors import ConfigError, DataError
from fakenews.launch import is_main_process

log = logging.getLogger(__name__)

_CONTINUE = "then resume=auto continues the run"


class PreparedDataset:
    """What `scripts/prepare.py` made, with the surface of a `Dataset`.

    Args:
        storage: Where it is.
        prepared: Its manifest.
        audit: Of a sample of its rows.
        numeric: The prepared numeric columns that are features; None takes all.
        categorical: The prepared categorical columns that are features; None takes all.
        evaluation_rows: Most rows of a `part`.

    Attributes:
        classes: Sorted class names; a row's class code is its label's place here.
        positive: The class of interest.
        numeric: Extra columns that are numeric features.
        categorical: Extra columns that are categorical features.
        cleaning: How `text` was made from `raw`.
        manifest: The manifest as JSON, with its `data_hash`.
    """

    def __init__(
        self,
        *,
        storage: Storage,
        prepared: Manifest,
        audit: Audit,
        numeric: Sequence[str] | None = None,
        categorical: Sequence[str] | None = None,
        evaluation_rows: int = 50_000,
    ) -> None:
        self.storage, self.prepared, self.audit = storage, prepared, audit
        self.classes, self.positive = prepared.classes, prepared.positive
        self.numeric = _chosen("numeric", numeric, prepared.numeric)
        self.categorical = _chosen("categorical", categorical, prepared.categorical)
        self.cleaning = _cleaning(storage, prepared.settings)
        self.evaluation_rows = evaluation_rows
        self.manifest: dict[str, Any] = {
            **prepared.to_json(),
            "data_hash": prepared.data_hash,
        }
        self._parts: dict[Split, pd.DataFrame] = {}
        self._groups = {split: _places(prepared, split) for split in SPLITS}

    def group_rows(self, split: Split) -> NDArray[np.int64]:
        """Rows of each row group of a split, in the manifest's order, [G]."""
        return self._groups[split][:, 2]

    def read_group(self, split: Split, group: int, columns: Sequence[str]) -> pa.Table:
        """These columns of one row group; page checksums are verified.

        Args:
            split: Of the dataset.
            group: Number of the row group in the split, as in `group_rows`.
            columns: Names.

        Raises:
            DataError: The shard is missing, damaged or none of this dataset, or the storage
                cannot be read.
        """
        shard_number, place, rows = self._groups[split][group].tolist()
        shard = self.prepared.shards[split][shard_number]
        at = f"{self.storage.url}/{shard.path}"
        try:
            with (
                self.storage.open(shard.path) as file,
                pq.ParquetFile(file, page_checksum_verification=True) as parquet,
            ):
                # Absent columns are left out without a word.
                missing = sorted(set(columns) - set(parquet.schema_arrow.names))
                groups = parquet.metadata.num_row_groups
                table = None
                if not missing and place < groups:
                    # Threads are the caller's: a storage's file is read by one.
                    table = parquet.read_row_group(place, columns=columns, use_threads=False)
        except DataError as error:
            raise DataError(f"{error}; once it can be read, resume=auto continues") from error
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = next(iter(str(error).strip().splitlines()), repr(error))[:120]
            raise DataError(
                f"{at}: row group {place} cannot be read ({reason}): restore the shard, "
                + _CONTINUE
            ) from error
        if missing:
            raise DataError(
                f"{at} has no column {', '.join(missing)}, so it is none of this dataset: "
                f"restore the shard, {_CONTINUE}"
            )
        if table is None or table.num_rows != rows:
            raise DataError(
                f"{at}: row group {place} has {0 if table is None else table.num_rows} rows, "
                f"not {rows} as in the manifest, so the shard was changed: restore it, "
                + _CONTINUE
            )
        return table

    def part(self, split: Split) -> pd.DataFrame:
        """The first rows of a split, at most `evaluation_rows`.

        Shards are shuffled globally, so these are a uniform sample.

        Returns:
            Columns `text`, `raw`, `label`, the extra columns, `id`, `group`, and, for
            messages, `file` (the dataset) and `row` (the id).

        Raises:
            DataError: The split is `train`, or cannot be read.
        """
        if split == "train":
            raise DataError(
                "the training rows of a prepared dataset are streamed and never held "
                "together: for a model that needs them in memory (model=tfidf) use data=csv"
            )
        if split not in self._parts:
            self._parts[split] = self._read_part(split)
        return self._parts[split].copy()

    def codes(self, split: Split) -> NDArray[np.int64]:
        """Class codes of the rows of `part`."""
        labels = pd.Categorical(self.part(split)["label"], categories=self.classes)
        return labels.codes.astype(np.int64)

    def class_counts(self, split: Split) -> dict[str, int]:
        """Rows of each class in one split, all of it."""
        counts = self.prepared.counts.get(split, {})
        return {name: counts.get(name, 0) for name in self.classes}

    def _read_part(self, split: Split) -> pd.DataFrame:
        columns = ["id", "text", "raw", "label", "group", *self.numeric, *self.categorical]
        tables: list[pa.Table] = []
        rows = 0
        for group, size in enumerate(self.group_rows(split).tolist()):
            if rows >= self.evaluation_rows:
                break
            tables.append(self.read_group(split, group, columns))
            rows += size
        table = pa.concat_tables(tables).slice(0, self.evaluation_rows)
        total = self.prepared.rows(split)
        if table.num_rows < total:
            log.info(
                "%s: the first %s of %s rows are evaluated in the report, a uniform sample "
                "(data.evaluation_rows)",
                split,
                f"{table.num_rows:,}",
                f"{total:,}",
            )
        frame = table.to_pandas(ignore_metadata=True)
        frame["raw"] = frame["raw"].where(frame["raw"].notna(), frame["text"])
        frame["file"], frame["row"] = self.storage.url, frame["id"]
        return cast("pd.DataFrame", frame)


def load(
    *,
    path: str | Path,
    numeric: Sequence[str] | None = None,
    categorical: Sequence[str] | None = None,
    verify: Literal["hash", "size"] = "hash",
    evaluation_rows: PositiveCount = 50_000,
    test: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> PreparedDataset:
    """Open a prepared dataset, after a check that its shards are those of its manifest.

    Args:
        path: Its folder or URL.
        numeric: The prepared numeric columns that are features; None takes all.
        categorical: The prepared categorical columns that are features; None takes all.
        verify: `hash` reads every byte first; `size` only compares the sizes.
        evaluation_rows: Most rows of validation and of test that are evaluated at the end.
        test: Whether test rows are needed.
        storage_options: Of the storage, as fsspec takes them; no credentials, because a
            run records its options.

    Raises:
        DataError: It is no prepared dataset, or damaged, or has no rows of a split.
        ConfigError: A column was not prepared.
    """
    storage = Storage(path, options=storage_options)
    manifest = read_manifest(storage)
    needed = SPLITS if test else SPLITS[:2]
    if empty := [split for split in needed if not manifest.rows(split)]:
        raise DataError(
            f"{storage.url} has no rows of {', '.join(empty)}: prepare it again with shares "
            "for these splits and overwrite=true"
            + ("; or add test=false" if empty == ["test"] else "")
        )
    # Every rank reads the same files: that one of them reads every byte is enough.
    main = is_main_process()
    verify_shards(storage, manifest, level=verify if main else "size", progress=main)
    return PreparedDataset(
        storage=storage,
        prepared=manifest,
        audit=read_audit(storage),
        numeric=numeric,
        categorical=categorical,
        evaluation_rows=evaluation_rows,
    )


def read_audit(storage: Storage) -> Audit:
    """The audit of a prepared dataset.

    Raises:
        DataError: It is missing or damaged, or cannot be read.
    """
    try:
        return Audit.from_json(json.loads(storage.read_bytes(AUDIT)))
    except ValueError as error:
        fault = str(error)
    except DataError as error:
        fault = str(error) if storage.size(AUDIT) is not None else "it is missing"
    raise DataError(
        f"{storage.url}/{AUDIT} is damaged ({fault}): restore it, or prepare again with "
        "overwrite=true"
    )


def _chosen(kind: str, wanted: Sequence[str] | None, prepared: Sequence[str]) -> list[str]:
    if wanted is None:
        return list(prepared)
    if missing := [name for name in wanted if name not in prepared]:
        raise ConfigError(
            f"data.{kind} names {', '.join(missing)}, and the dataset was prepared with "
            f"{', '.join(prepared) or 'none'}: prepare it again with data.{kind} "
            "and overwrite=true"
        )
    return list(wanted)


def _cleaning(storage: Storage, settings: Mapping[str, Any]) -> Cleaning:
    try:
        return Cleaning(
            normalise=bool(settings["normalise"]), max_chars=int(settings["max_chars"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{storage.url}: the manifest's settings have no usable {error}: prepare again "
            "with overwrite=true"
        ) from error


def _places(manifest: Manifest, split: str) -> NDArray[np.int64]:
    """Of each row group of a split: its shard's number, its place there, its rows; [G, 3]."""
    places = [
        (number, place, rows)
        for number, shard in enumerate(manifest.shards.get(split, []))
        for place, rows in enumerate(shard.row_groups)
    ]
    return np.array(places, dtype=np.int64).reshape(-1, 3)
