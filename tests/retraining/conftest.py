"""Runs and versions to start from, and logs of what was predicted and labelled since."""

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
from fakenews.retraining.dataset import make_dataset

START = datetime(2026, 3, 1, tzinfo=UTC)
DATA = {"_target_": "fakenews.data.dataset.load", "text": "text", "label": "label"}


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Dataset]:
    """Makes run folders: what a training leaves of its data in one."""
    return _make_run


def _make_run(folder: Path, **data: Any) -> Dataset:
    dataset = load(**{"text": "text", "label": "label", **data})
    folder.mkdir(parents=True)
    (folder / "data.json").write_text(json.dumps(dataset.manifest))
    config = {"name": "news", "data": {**DATA, **data}}
    (folder / "config.yaml").write_text(yaml.safe_dump(plain(config)))
    return dataset


@pytest.fixture(scope="session")
def headlines(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """600 generated rows, no text twice: 200 for a base, the others come later."""
    path = write(tmp_path_factory.mktemp("headlines") / "all.csv", rows=620, seed=11)
    found: pd.DataFrame = pd.read_csv(path).drop_duplicates("text").reset_index(drop=True)
    return found


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory, headlines: pd.DataFrame
) -> tuple[Path, Dataset]:
    """The folder of a run on the first headlines, and its data."""
    root = tmp_path_factory.mktemp("base")
    headlines[:200].to_csv(root / "news.csv", index=False)
    data = {"path": str(root / "news.csv"), "positive": "fake", "seed": 1}
    return root / "run", _make_run(root / "run", **data)


@pytest.fixture(scope="session")
def run(trained: tuple[Path, Dataset]) -> Path:
    """The folder of that run."""
    return trained[0]


@pytest.fixture(scope="session")
def first(
    tmp_path_factory: pytest.TempPathFactory, run: Path, headlines: pd.DataFrame
) -> tuple[Path, dict[str, Path]]:
    """A first version of that run with a hundred labels; and where these are read."""
    root = tmp_path_factory.mktemp("first")
    rows = headlines[200:300]
    sources = _label(root, rows["text"].tolist(), rows["label"].tolist())
    manifest = make_dataset(
        base=run, out=root / "datasets", **sources, window_rows=30, audit="off"
    )
    return root / "datasets" / manifest.version, sources


@pytest.fixture(scope="session")
def logged() -> Callable[..., pa.Table]:
    """Makes prediction logs: a text an hour, with the ids p0, p1, ..."""
    return _logged


def _logged(
    texts: Sequence[str | None],
    *,
    start: int = 0,
    columns: Sequence[dict[str, Any]] | None = None,
) -> pa.Table:
    numbers = range(start, start + len(texts))
    return pa.table(
        {
            "id": [f"p{number}" for number in numbers],
            "time": [START + timedelta(hours=number) for number in numbers],
            "model_version": ["1"] * len(texts),
            "label": ["fake"] * len(texts),
            "text": pa.array(texts, pa.string()),
            "columns": [json.dumps(given) for given in columns or [{}] * len(texts)],
        }
    )


@pytest.fixture
def label(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Writes such a log with labels of its rows; both as options of `make_dataset`."""

    def make(
        texts: Sequence[str | None], labels: Sequence[str], **more: Any
    ) -> dict[str, Path]:
        folder = tmp_path / f"labelled-{len(list(tmp_path.glob('labelled-*')))}"
        folder.mkdir()
        return _label(folder, texts, labels, **more)

    return make


def _label(
    folder: Path,
    texts: Sequence[str | None],
    labels: Sequence[str],
    *,
    start: int = 0,
    **more: Any,
) -> dict[str, Path]:
    pq.write_table(_logged(texts, start=start, **more), folder / "log.parquet")
    ids = [f"p{number}" for number in range(start, start + len(labels))]
    frame = pd.DataFrame({"id": ids, "label": labels})
    frame.to_csv(folder / "labels.csv", index=False)
    return {"log": folder / "log.parquet", "labels": folder / "labels.csv"}


@pytest.fixture(scope="session")
def read_part() -> Callable[[Path, str], pd.DataFrame]:
    """Reads the rows of a part of a version."""

    def read(folder: Path, part: str) -> pd.DataFrame:
        paths = sorted((folder / part).glob("*.parquet"))
        found: pd.DataFrame = pa.concat_tables(map(pq.read_table, paths)).to_pandas()
        return found

    return read
