"""Third pass: buckets of the shuffled rows, with features and tokens, to finished shards.

A bucket is a range of places in the global order. Its rows come from a slice of every
chunk; they are featurised by the code that serves, and written as one shard a split.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fakenews.data.manifest import write_json
from fakenews.data.shards import SPLITS, Shard
from fakenews.data.storage import Storage
from fakenews.features.pipeline import FeaturePipeline
from fakenews.features.raw import RawFeatures
from fakenews.features.statistics import Statistics
from fakenews.features.tabular import HEADLINE_FEATURES
from fakenews.features.text import Tokens, tokenize
from fakenews.preparation.recipe import Recipe
from fakenews.preparation.work import Work, read_json, told

_PLACES = 1 << 63


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A range of places in the global order.

    Attributes:
        work: Has the chunks and the assignment.
        storage: Where shards go.
        number: Of the bucket, from 0.
        of: How many buckets there are.
    """

    work: Work
    storage: Storage
    number: int
    of: int

    @property
    def range(self) -> tuple[int, int]:
        """First and last place; the last of all still fits into 63 bits."""
        return _PLACES * self.number // self.of, _PLACES * (self.number + 1) // self.of - 1

    @property
    def done(self) -> Path:
        """Says what the bucket gave."""
        return self.work.buckets / f"{self.number:07d}.json"

    def is_done(self, stored: Mapping[str, int]) -> bool:
        """Whether its shards are among the stored files, by path and size."""
        return self.done.exists() and all(
            stored.get(shard["path"]) == shard["bytes"]
            for shard in read_json(self.done)["shards"].values()
        )


def write_bucket(bucket: Bucket) -> int:
    """Make and publish the shards of a bucket.

    Returns:
        Rows written, for a progress bar.

    Raises:
        DataError: The work folder or the store cannot be written.
        FeatureError: The spaCy model cannot be loaded.
    """
    work, recipe = bucket.work, bucket.work.recipe()
    with told(work.path):
        rows = _gather(bucket)
        features = FeaturePipeline(
            entities=recipe.entities, numeric=recipe.numeric, categorical=recipe.categorical
        )
        frame = rows.to_pandas()
        raw = features.extract(frame)
        tokens = tokenize(
            frame["text"].tolist(), work.tokenizer(), max_length=recipe.max_length
        )
        labels = [] if features.counter is None else list(features.counter.labels)
        table = _table(rows, raw, tokens, labels)
        split = frame["split"].to_numpy()
        shards = {
            name: _publish(bucket, name, table.filter(pa.array(split == name)), recipe)
            for name in SPLITS
            if (split == name).any()
        }
        train = raw.unscaled[split == "train"]
        statistics = Statistics.of(train)
        write_json(
            bucket.done,
            {
                "shards": {name: asdict(shard) for name, shard in shards.items()},
                "statistics": {name: a.tolist() for name, a in vars(statistics).items()},
                "missing": [
                    name
                    for name, column in zip(recipe.numeric, raw.numeric.T, strict=True)
                    if np.isnan(column[split == "train"]).any()
                ],
                "entity_labels": labels,
            },
        )
    return len(frame)


def _gather(bucket: Bucket) -> pa.Table:
    """The bucket's rows in order, with their split and group."""
    first, last = bucket.range
    assigned = pq.read_table(
        bucket.work.assignment, filters=[("ord", ">=", first), ("ord", "<=", last)]
    )
    slices = []
    for path in sorted(bucket.work.rows.glob("*.arrow")):
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as reader:
            chunk = reader.read_all()
            places: NDArray[np.int64] = chunk["ord"].to_numpy()
            start = np.searchsorted(places, first, side="left")
            stop = np.searchsorted(places, last, side="right")
            # Copied: a slice would keep the whole chunk mapped.
            slices.append(chunk.take(pa.array(np.arange(start, stop))))
    rows = pa.concat_tables(slices).sort_by([("ord", "ascending"), ("id", "ascending")])
    place = pc.index_in(rows["id"], value_set=assigned["id"])
    kept = rows.filter(pc.is_valid(place))
    found = assigned.take(place.drop_null())
    return kept.append_column("split", found["split"]).append_column("group", found["grp"])


def _table(rows: pa.Table, raw: RawFeatures, tokens: Tokens, labels: Sequence[str]) -> pa.Table:
    """The columns of a shard, in order."""
    columns: dict[str, Any] = {
        name: rows[name] for name in ("id", "text", "raw", "label", "group")
    }
    columns |= dict(zip(HEADLINE_FEATURES, raw.headline.T, strict=True))
    columns |= {
        f"entity_{label}": counts for label, counts in zip(labels, raw.entities.T, strict=True)
    }
    columns |= {
        name: rows[name] for name in rows.column_names if name not in (*columns, "ord", "split")
    }
    columns["input_ids"] = pa.ListArray.from_arrays(
        pa.array(tokens.offsets, pa.int32()), pa.array(tokens.input_ids)
    )
    columns["truncated"] = tokens.truncated
    return pa.table({name: _array(values) for name, values in columns.items()})


def _array(values: Any) -> Any:
    # A column of a matrix is strided, which Arrow cannot take over.
    return pa.array(np.ascontiguousarray(values)) if isinstance(values, np.ndarray) else values


def _publish(bucket: Bucket, split: str, table: pa.Table, recipe: Recipe) -> Shard:
    path = f"{split}/{bucket.number:05d}.parquet"
    local = bucket.work.shards / path.replace("/", "-")
    with pq.ParquetWriter(
        local,
        table.schema,
        compression="zstd",
        write_page_checksum=True,
        # Token ids hardly repeat, so a dictionary of them gains nothing.
        use_dictionary=["label", *recipe.categorical],
    ) as writer:
        writer.write_table(table, row_group_size=recipe.sharding.row_group_rows)
    with local.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = local.stat().st_size
    bucket.storage.publish(local, path)
    local.unlink()
    return Shard(
        path=path,
        rows=table.num_rows,
        row_groups=_row_groups(table.num_rows, recipe.sharding.row_group_rows),
        bytes=size,
        sha256=digest,
    )


def _row_groups(rows: int, most: int) -> tuple[int, ...]:
    whole, rest = divmod(rows, most)
    return (most,) * whole + ((rest,) if rest else ())


def statistics_of(found: Sequence[Mapping[str, Any]]) -> Statistics:
    """The statistics of the training rows of all buckets, from what each left, in order."""
    return Statistics.merge(
        [
            Statistics(
                count=np.array(bucket["statistics"]["count"], dtype=np.int64),
                mean=np.array(bucket["statistics"]["mean"]),
                scale=np.array(bucket["statistics"]["scale"]),
            )
            for bucket in found
        ]
    )
