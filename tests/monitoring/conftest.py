"""Prediction logs in small, as the gateway writes them."""

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fakenews.serving.gateway.ids import new_id
from fakenews.serving.gateway.segments import SCHEMA

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
Row = dict[str, Any]


@pytest.fixture
def now() -> datetime:
    """When the logs of tests are read."""
    return NOW


@pytest.fixture
def row() -> Callable[..., Row]:
    """A record of the log, so many minutes before `now`; others of its values by name."""

    def make(n: int = 0, *, minutes: float = 1, **changes: Any) -> Row:
        when = NOW - timedelta(minutes=minutes)
        fake = 0.9 - (n % 9) / 10
        made = {
            "id": new_id(int(when.timestamp() * 1000)),
            "time": when,
            "model": "fakenews",
            "model_version": "v1",
            "route": "champion",
            "shadow_of": None,
            "label": "fake" if fake >= 0.5 else "real",
            "probabilities": [("fake", fake), ("real", 1 - fake)],
            "unsure": abs(fake - 0.5) < 0.1,
            "truncated": n % 4 == 0,
            "characters": 10 + n,
            "words": 2 + n,
            "has_num": n % 2 == 0,
            "columns": [],
            "text_sha256": hashlib.sha256(f"text {n}".encode()).hexdigest(),
            "text": None,
            "tokens": 4 + n,
            "unknown_tokens": n % 3,
            "tabular": [float(n), 0.5],
            "embedding": np.array([n, -1, 0.5], dtype="<f2").tobytes(),
            "latency_ms": float(n),
            "error": None,
        }
        made.update(changes)
        return made

    return make


@pytest.fixture
def refused(row: Callable[..., Row]) -> Callable[..., Row]:
    """A record of an item that was refused."""

    def make(error: str = "empty_text", **changes: Any) -> Row:
        seen = ("tokens", "unknown_tokens", "tabular", "embedding", "unsure", "truncated")
        return row(
            **{**dict.fromkeys(seen), "label": None, "probabilities": [], "error": error}
            | changes
        )

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows as Parquet, with the schema of the gateway's log but for some columns."""

    def write(
        rows: Sequence[Row], name: str = "log.parquet", without: Sequence[str] = ()
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(list(rows), SCHEMA).drop(list(without))
        pq.write_table(table, path)
        return path

    return write
