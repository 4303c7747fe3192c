"""Runs to start from, and labels; a registered model, and a deployment; models to compare."""

import importlib.util
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from mlflow.tracking import MlflowClient

from fakenews.bundle import BundleContent, read_bundle, write_bundle
from fakenews.config import plain
from fakenews.data.dataset import Dataset, load
from fakenews.data.sample import generate, write
from fakenews.predictor import Predictor
from fakenews.retraining.contestants import Contestant, Rows, read_rows
from fakenews.retraining.dataset import make_dataset
from fakenews.retraining.halves import Halves
from fakenews.retraining.journal import Journal
from fakenews.retraining.promotion import Promotion
from fakenews.retraining.registry import Registry
from fakenews.retraining.served import Serving
from fakenews.retraining.standing import Gate
from fakenews.serving.archive import Made
from fakenews.serving.deployment import Deployment
from fakenews.serving.management import Management
from fakenews.serving.versions import Timing

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


MODEL = "news"
TIMING = Timing(settle=0, deadline=0, poll=0.001)


def _of_serving() -> ModuleType:
    path = Path(__file__).parents[1] / "serving" / "conftest.py"
    spec = importlib.util.spec_from_file_location("conftest_of_serving", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The stand-in for TorchServe is that of tests of deployments.
_serving = _of_serving()
make_mar, stand_in, client = _serving.make_mar, _serving.stand_in, _serving.client


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with four versions of `news`, all accepted but for the last, to be copied."""
    path = tmp_path_factory.mktemp("registered") / "mlflow.db"
    before = mlflow.get_tracking_uri()
    client = MlflowClient(f"sqlite:///{path}")
    experiment = client.create_experiment("e", artifact_location=str(path.parent / "e"))
    client.create_registered_model(MODEL)
    client.create_registered_model("other")
    registry = Registry(uri=f"sqlite:///{path}", model=MODEL)
    for number in (1, 2, 3, 4):
        run = client.create_run(experiment).info
        client.create_model_version(
            MODEL,
            source=f"{run.artifact_uri}/bundle",
            run_id=run.run_id,
            tags={"data_hash": f"d{number}", "test_macro_f1": f"0.8{number}"},
            description=f"The summary of {number}",
            await_creation_for=None,
        )
        if number < 4:
            registry.note_gate(number, Gate(accepted=True, summary="9 of 9 checks passed"))
    mlflow.set_tracking_uri(before)
    return path


@pytest.fixture
def uri(registered: Path, tmp_path: Path) -> str:
    """Of a store of one's own."""
    return f"sqlite:///{shutil.copy(registered, tmp_path / 'mlflow.db')}"


@pytest.fixture
def registry(uri: str) -> Registry:
    return Registry(uri=uri, model=MODEL, timeout=1)


@pytest.fixture
def exports() -> list[int]:
    """The versions whose archives were made, in order."""
    return []


@pytest.fixture
def serving(
    tmp_path: Path, client: Management, make_mar: Callable[..., Path], exports: list[int]
) -> Serving:
    """The deployment to the stand-in; version N has the archive vN."""
    archives = tmp_path / "archives"
    archives.mkdir()

    def export(version: int) -> Made:
        path = archives / f"fakenews-v{version}.mar"
        exports.append(version)
        shutil.copy(make_mar(f"v{version}"), path)
        return Made(path=path, version=f"v{version}", new=True)

    def deployment(*, confirm: Callable[[], None] | None = None) -> Deployment:
        return Deployment(
            folder=tmp_path, name="fakenews", client=client, timing=TIMING, confirm=confirm
        )

    return Serving(folder=tmp_path, deployment=deployment, export=export, archives=archives)


@pytest.fixture
def promotion(tmp_path: Path, registry: Registry, serving: Serving) -> Promotion:
    """Promotions of registry and serving."""
    return Promotion(Halves(registry=registry, serving=serving, journal=Journal(tmp_path)))


@pytest.fixture
def alone(tmp_path: Path, registry: Registry) -> Promotion:
    """Promotions of the registry alone."""
    return Promotion(Halves(registry=registry, serving=None, journal=Journal(tmp_path)))


@pytest.fixture
def look(registry: Registry, serving: Serving) -> Callable[[], dict[str, Any]]:
    """All that is to change in both halves, or in neither."""

    def found() -> dict[str, Any]:
        standing, state = registry.status(), serving.state
        return {
            "aliases": standing.aliases,
            "tags": {number: dict(of.tags) for number, of in standing.versions.items()},
            "state": state.but(events=(), aborted=None),
        }

    return found


Variant = Callable[..., Path]


def _odds(content: BundleContent, texts: pd.Series) -> np.ndarray:
    found = Predictor.from_content(content).predict(texts.tolist())
    fake = np.array([one.probabilities["fake"] for one in found])
    return np.log(fake / (1 - fake))


@pytest.fixture(scope="session")
def texts(fusion_bundle: Path) -> pd.DataFrame:
    """500 headlines with labels that `fusion_bundle` ranks well."""
    frame = pd.concat(list(generate(500, seed=9)), ignore_index=True)
    content = read_bundle(fusion_bundle)
    odds = _odds(content, frame["text"])
    noisy = odds + 0.4 * odds.std() * np.random.default_rng(0).normal(size=len(odds))
    frame["label"] = np.where(noisy >= np.quantile(noisy, 0.6), "fake", "real")
    return frame


@pytest.fixture(scope="session")
def variant(
    fusion_bundle: Path, texts: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> Variant:
    """Writes a bundle like `fusion_bundle`, but for noise on the weights of its last layer,
    their sign, and whatever is given. It calls two fifths of the texts fake.
    """

    def make(*, noise: float = 0.0, sign: float = 1.0, **changes: Any) -> Path:
        content = read_bundle(fusion_bundle)
        rng = np.random.default_rng(1)
        last = [
            name
            for name, array in content.weights.items()
            if array.shape[0] == 2 and not name.startswith("encoder")
        ]
        assert last, content.weights.keys()
        weights = dict(content.weights)
        for name in last:
            array = weights[name]
            moved = array * (1 + noise * rng.normal(size=array.shape))
            weights[name] = (sign * moved).astype(array.dtype)
        plain = {"temperature": 1.0, "threshold": None, "positive": "fake"}
        content = replace(content, weights=weights, calibration=plain)
        odds = _odds(content, texts["text"])
        (bias,) = (name for name in last if weights[name].ndim == 1)
        weights[bias][0] -= np.quantile(odds, 0.6)
        calibration = plain | {"temperature": float(odds.std() / 2), "threshold": 0.5}
        content = replace(content, calibration=calibration)
        folder = tmp_path_factory.mktemp("variant") / "bundle"
        return write_bundle(replace(content, **changes), folder)

    return make


@pytest.fixture(scope="session")
def champion(variant: Variant) -> Path:
    """A bundle that is good on `texts`."""
    return variant()


@pytest.fixture(scope="session")
def twin(variant: Variant) -> Path:
    """One that is as good, with other weights."""
    return variant(noise=0.03)


@pytest.fixture(scope="session")
def worse(variant: Variant) -> Path:
    """One that decides the other way round."""
    return variant(sign=-1.0)


@pytest.fixture(scope="session")
def sides(champion: Path, twin: Path) -> tuple[Contestant, Contestant]:
    """Both, loaded."""
    return Contestant.load(champion), Contestant.load(twin)


@pytest.fixture(scope="session")
def rows(
    sides: tuple[Contestant, Contestant],
    texts: pd.DataFrame,
    tmp_path_factory: pytest.TempPathFactory,
) -> Rows:
    """150 of the texts, which both have scored."""
    path = tmp_path_factory.mktemp("rows") / "test.csv"
    texts[:150].to_csv(path, index=False)
    return read_rows(path, champion=sides[0], challenger=sides[1], name="test")
