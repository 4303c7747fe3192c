"""The third pass: buckets to shards."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from fakenews.data.shards import Shard
from fakenews.data.storage import Storage
from fakenews.features.pipeline import FeaturePipeline
from fakenews.features.statistics import Statistics
from fakenews.features.tabular import HEADLINE_FEATURES
from fakenews.features.text import tokenize
from fakenews.preparation.grouping import assign
from fakenews.preparation.shards import Bucket, statistics_of, write_bucket
from fakenews.preparation.work import Work, read_json

ROWS = [
    (f"Topic {i}: {'!' * (i % 4)} {i * 37}", "ab"[i % 3 == 0], i % 7 or "") for i in range(400)
]


@pytest.fixture
def work(ingest: Callable[..., Work], write_csv: Callable[..., Path]) -> Work:
    path = write_csv("a.csv", ROWS, "text,label,age")
    found = ingest({"train": [path]}, numeric=["age"], near_duplicates=1.0)
    assign(found, memory="256MB")
    return found


def _write(work: Work, of: int) -> tuple[Path, list[Bucket]]:
    out = work.path.parent / f"out-{of}"
    buckets = [Bucket(work=work, storage=Storage(out), number=n, of=of) for n in range(of)]
    assert sum(map(write_bucket, buckets)) == len(ROWS)
    return out, buckets


def _frame(out: Path, split: str = "*") -> pd.DataFrame:
    paths = sorted(out.glob(f"{split}/*.parquet"), key=lambda path: (path.name, path))
    return pd.concat([pq.read_table(path).to_pandas() for path in paths], ignore_index=True)


def test_every_row_is_in_one_shard_with_what_training_needs(
    work: Work, tokenizer: Tokenizer
) -> None:
    out, _ = _write(work, 3)
    frame = _frame(out)
    assert sorted(frame["id"]) == list(range(1, 401))
    assert list(frame.columns) == [
        *("id", "text", "raw", "label", "group"),
        *HEADLINE_FEATURES,
        *("age", "input_ids", "truncated"),
    ]
    raw = FeaturePipeline(numeric=["age"]).extract(frame)
    np.testing.assert_array_equal(frame[list(HEADLINE_FEATURES)], raw.headline)
    tokens = tokenize(frame["text"].tolist(), tokenizer, max_length=64)
    np.testing.assert_array_equal(np.concatenate(frame["input_ids"]), tokens.input_ids)
    assert frame["age"].isna().sum() == sum(row[2] == "" for row in ROWS)


def test_the_number_of_buckets_changes_no_order_within_a_split(work: Work) -> None:
    whole, parts = _write(work, 1)[0], _write(work, 5)[0]
    pd.testing.assert_frame_equal(_frame(whole, "train"), _frame(parts, "train"))


def test_shards_are_described_as_they_are(work: Work) -> None:
    out, buckets = _write(work, 2)
    for bucket in buckets:
        for split, found in read_json(bucket.done)["shards"].items():
            shard = Shard(**(found | {"row_groups": tuple(found["row_groups"])}))
            metadata = pq.ParquetFile(out / shard.path).metadata
            groups = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
            assert shard.path == f"{split}/{bucket.number:05d}.parquet"
            assert groups == list(shard.row_groups)
            assert max(groups) == 16
            assert (shard.rows, shard.bytes) == (
                metadata.num_rows,
                (out / shard.path).stat().st_size,
            )
            assert shard.sha256 == Storage(out).sha256(shard.path)


def test_a_bucket_whose_shard_was_lost_is_not_done(work: Work) -> None:
    out, (first, second) = _write(work, 2)
    (out / "train" / "00001.parquet").unlink()
    stored = Storage(out).list()
    assert first.is_done(stored)
    assert not second.is_done(stored)


def test_statistics_are_of_the_training_rows(work: Work) -> None:
    out, buckets = _write(work, 4)
    done = [read_json(bucket.done) for bucket in buckets]
    merged = statistics_of(done)
    expected = Statistics.of(
        FeaturePipeline(numeric=["age"]).extract(_frame(out, "train")).unscaled
    )
    assert merged.count.tolist() == expected.count.tolist()
    np.testing.assert_allclose(merged.mean, expected.mean)
    np.testing.assert_allclose(merged.scale, expected.scale, rtol=1e-6, atol=1e-9)
    assert {name for one in done for name in one["missing"]} == {"age"}


def test_the_order_says_nothing_of_label_or_input(work: Work) -> None:
    frame = _frame(_write(work, 2)[0], "train")
    bound = 4 / np.sqrt(len(frame))
    position = np.arange(len(frame))
    assert abs(np.corrcoef(position, frame["label"] == "a")[0, 1]) < bound
    assert abs(np.corrcoef(position, frame["id"])[0, 1]) < bound
