"""The audit of a table that may be larger than memory: exact counts, the rest by sample."""

import dataclasses
from collections.abc import Mapping

import pandas as pd
import pyarrow.parquet as pq

from fakenews.data.audit import Audit, audit, warnings_of
from fakenews.data.shards import SPLITS, Manifest
from fakenews.data.sources import Table
from fakenews.data.storage import Storage

_ROWS = 50_000
_COLUMNS = ["text", "raw", "label", "group"]


def audit_sample(storage: Storage, manifest: Manifest, duplicates: Mapping[str, int]) -> Audit:
    """Audit a prepared dataset.

    Lengths, artefacts and probes are of a uniform sample of at most 50,000 rows; all counts
    are of the whole table.

    Args:
        storage: Has the shards.
        manifest: Not written yet.
        duplicates: Exact counts of repeats.
    """
    frame = _sample(storage, manifest)
    sample = Table(
        frame=frame.drop(columns="group"),
        files=[],
        dropped=pd.DataFrame({"reason": pd.Series(dtype="str")}),
        repaired=manifest.repaired,
        clipped=manifest.clipped,
    )
    found = audit(
        sample,
        frame["group"].to_numpy(),
        classes=manifest.classes,
        positive=manifest.positive,
        seed=manifest.settings["seed"],
    )
    rows = duplicates["rows"]
    per_class = {
        name: sum(counts[name] for counts in manifest.counts.values())
        for name in manifest.classes
    }
    encodings: dict[str, int] = {}
    for entry in manifest.inputs:
        encodings[entry["encoding"]] = encodings.get(entry["encoding"], 0) + 1
    return dataclasses.replace(
        found,
        rows=rows,
        rows_per_class=per_class,
        base_rate=per_class[manifest.positive] / sum(per_class.values()),
        exact_duplicates=duplicates["exact_duplicates"],
        near_duplicates=rows - duplicates["groups"] - duplicates["exact_duplicates"],
        groups=duplicates["groups"],
        largest_group=duplicates["largest_group"],
        conflicting_texts=duplicates["conflicting_texts"],
        conflicting_groups=duplicates["conflicting_groups"],
        encodings=encodings,
        dropped=manifest.dropped,
        warnings=warnings_of(
            found.probe_text,
            classes=manifest.classes,
            conflicting=duplicates["conflicting_groups"],
            largest=duplicates["largest_group"],
            rows=rows,
        ),
    )


def _sample(storage: Storage, manifest: Manifest) -> pd.DataFrame:
    """The first rows of the global order, whatever their split: a uniform sample."""
    parts: list[pd.DataFrame] = []
    # Shards of one bucket, of all splits, have the same file name.
    shards = sorted(
        (shard for split in SPLITS for shard in manifest.shards.get(split, [])),
        key=lambda shard: shard.path.rpartition("/")[2],
    )
    for shard in shards:
        if sum(map(len, parts)) >= _ROWS:
            break
        with storage.open(shard.path) as file, pq.ParquetFile(file) as parquet:
            parts.append(parquet.read(_COLUMNS).to_pandas())
    frame = pd.concat(parts, ignore_index=True).iloc[:_ROWS]
    return frame.assign(raw=frame["raw"].fillna(frame["text"]))
