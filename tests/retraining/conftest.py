"""Runs to start from, and logs of what was predicted and labelled since."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from fakenews.config import plain
from fakenews.data.dataset import Dataset, load
from fakenews.data.sample import write

START = datetime(2026, 3, 1, tzinfo=UTC)
DATA = {"_target_": "fakenews.data.dataset.load", "text": "text", "label": "label"}


def _make_run(folder: Path, **data: Any) -> Dataset:
    """What a training leaves of its data in a run folder."""
    dataset = load(**{"text": "text", "label": "label", **data})
    folder.mkdir(parents=True)
    (folder / "data.json").write_text(json.dumps(dataset.manifest))
    config = {"name": "news", "data": {**DATA, **data}}
    (folder / "config.yaml").write_text(yaml.safe_dump(plain(config)))
    return dataset


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Dataset]:
    """Makes run folders."""
    return _make_run


@pytest.fixture(scope="session")
def headlines(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """600 generated rows: the first 300 for a base, the others come later."""
    path = write(tmp_path_factory.mktemp("headlines") / "all.csv", rows=600, seed=11)
    return pd.read_csv(path)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, headlines: pd.DataFrame) -> Path:
    """The folder of a run on the first headlines."""
    root = tmp_path_factory.mktemp("base")
    headlines[:300].to_csv(root / "news.csv", index=False)
    _make_run(root / "run", path=str(root / "news.csv"), positive="fake", seed=1)
    return root / "run"


@pytest.fixture(scope="session")
def logged() -> Callable[..., pa.Table]:
    """Makes prediction logs."""
    return _logged


def _logged(
    texts: Sequence[str | None],
    *,
    first: int = 0,
    columns: Sequence[dict[str, Any]] | None = None,
) -> pa.Table:
    """A prediction log: a text an hour, with the ids p0, p1, ..."""
    ids = [f"p{first + n}" for n in range(len(texts))]
    return pa.table(
        {
            "id": ids,
            "time": [START + timedelta(hours=first + n) for n in range(len(texts))],
            "model_version": ["1"] * len(texts),
            "label": ["real"] * len(texts),
            "text": pa.array(texts, pa.string()),
            "columns": [json.dumps(c) for c in columns or [{}] * len(texts)],
        }
    )


@pytest.fixture
def label(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Writes a log and labels of its rows; returns both as options of `make_dataset`."""

    def make(
        texts: Sequence[str | None], labels: Sequence[str], **more: Any
    ) -> dict[str, Path]:
        folder = tmp_path / f"labelled-{len(list(tmp_path.glob('labelled-*')))}"
        folder.mkdir()
        users = more.pop("users", None)
        pq.write_table(_logged(texts, **more), folder / "log.parquet")
        first = more.get("first", 0)
        frame = pd.DataFrame(
            {"id": [f"p{first + n}" for n in range(len(labels))], "label": labels}
        )
        if users is not None:
            frame["user"] = users
        frame.to_csv(folder / "labels.csv", index=False)
        return {"log": folder / "log.parquet", "labels": folder / "labels.csv"}

    return make
