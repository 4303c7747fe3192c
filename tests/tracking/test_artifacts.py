"""Bundles are found in an MLflow store by run and by registered model."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from fakenews.errors import TrackingError
from fakenews.tracking.artifacts import download_bundle, run_of_model

pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader")


class Store(NamedTuple):
    uri: str
    run: str
    empty_run: str


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Two versions of the model news: of a run with a bundle, and of none."""
    folder = tmp_path_factory.mktemp("store")
    before = mlflow.get_tracking_uri()
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(uri)
    experiment = client.create_experiment("e", artifact_location=str(folder / "artifacts"))
    run, empty_run = (client.create_run(experiment).info.run_id for _ in range(2))
    (folder / "bundle" / "reference").mkdir(parents=True)
    (folder / "bundle" / "manifest.json").write_text("{}")
    (folder / "bundle" / "reference" / "data").write_text("rows")
    client.log_artifacts(run, str(folder / "bundle"), "bundle")
    client.create_registered_model("news")
    source = f"{client.get_run(run).info.artifact_uri}/bundle"
    for of_run in (run, None):
        client.create_model_version(
            "news", source=source, run_id=of_run, await_creation_for=None
        )
    client.set_registered_model_alias("news", "champion", "1")
    yield Store(uri, run, empty_run)
    mlflow.set_tracking_uri(before)


def test_the_bundle_of_a_run(store: Store, tmp_path: Path) -> None:
    found = download_bundle(uri=store.uri, run=store.run, folder=tmp_path)
    files = sorted(p.relative_to(found).as_posix() for p in found.rglob("*") if p.is_file())
    assert files == ["manifest.json", "reference/data"]
    assert tmp_path in found.parents


@pytest.mark.parametrize("model", ["news@champion", "news/1"])
def test_the_run_of_a_model(store: Store, model: str) -> None:
    assert run_of_model(uri=store.uri, model=model) == store.run


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("news", "registered=news: write NAME@ALIAS or NAME/VERSION"),
        ("news@nobody", "registered=news@nobody is not in the MLflow store sqlite:"),
        ("news/9", "registered=news/9 is not in the MLflow store sqlite:"),
        ("news/one", "registered=news/one is not in the MLflow store sqlite:"),
        ("other@champion", "registered=other@champion is not in the MLflow store sqlite:"),
        ("news/2", "registered=news/2 was registered without a run: give bundle=FOLDER"),
    ],
)
def test_models_that_are_not_there(store: Store, model: str, message: str) -> None:
    with pytest.raises(TrackingError) as caught:
        run_of_model(uri=store.uri, model=model)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_runs_that_are_not_there(store: Store, tmp_path: Path) -> None:
    for run in ("absent", store.empty_run):
        with pytest.raises(TrackingError) as caught:
            download_bundle(uri=store.uri, run=run, folder=tmp_path)
        assert str(caught.value).startswith(f"run={run}: the MLflow store sqlite:")
        assert "has no bundle of it: " in str(caught.value)
        assert "\n" not in str(caught.value)


def test_stores_that_are_not_there(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(TrackingError, match=rf"tracking_uri={uri}: there is no such file"):
        download_bundle(uri=uri, run="a", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TrackingError) as caught:
        run_of_model(uri="http://127.0.0.1:1", model="news@champion")
    message = str(caught.value)
    assert message.startswith("the MLflow server http://127.0.0.1:1 cannot be reached (")
    assert message.endswith("): start it, or correct tracking_uri")
