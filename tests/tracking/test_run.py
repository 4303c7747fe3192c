import csv
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import mlflow
import pytest
import yaml
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from mlflow.tracking import MlflowClient

from fakenews.errors import DataError, Interrupted, TrackingError
from fakenews.tracking.folder import RunFolder
from fakenews.tracking.mlflow import MLflowTracker
from fakenews.tracking.run import Run

pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader")

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {"seed": 0, "resume": None, "data": {"path": "x" * 400}}


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    before = mlflow.get_tracking_uri()
    yield f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    mlflow.set_tracking_uri(before)


@pytest.fixture
def run(tmp_path: Path, uri: str) -> Callable[..., Run]:
    """Makes a run in `tmp_path/run`, tracked in MLflow as `train.py` does."""

    def make(*, logger: Logger | None = None, config: dict[str, object] = CONFIG) -> Run:
        folder = RunFolder(tmp_path / "run")
        if logger is None:
            logger = MLflowTracker(
                tracking_uri=uri,
                experiment_name=tmp_path.name,
                run_id=folder.record.get("mlflow_run_id"),
                system_metrics=False,
            )
        return Run(
            folder=folder,
            logger=logger,
            config=config,
            manifest={"data_hash": "abc"},
            audit={"rows": 1},
            root=ROOT,
        )

    return make


def work(folder: Path) -> Path:
    """What a job leaves for `finish`."""
    (folder / "bundle").mkdir()
    (folder / "bundle" / "model.json").write_text("{}")
    (folder / "plots").mkdir()
    (folder / "plots" / "pr.png").touch()
    for name in ("report.html", "metrics.json", "slices.csv"):
        (folder / name).touch()
    return folder / "bundle"


METRICS = {"val": {"auroc": 0.5}, "test": {"auroc": 0.75}}


def states(run: Run, uri: str) -> tuple[str, str]:
    """What the folder and MLflow say."""
    status = MlflowClient(uri).get_run(run.folder.record["mlflow_run_id"]).info.status
    return run.folder.record["state"], status


def test_finished_run_has_everything(run: Callable[..., Run], uri: str, tmp_path: Path) -> None:
    with run() as job:
        assert job.folder.record == {}
        job.begin()
        assert states(job, uri) == ("running", "RUNNING")
        bundle = work(job.folder.path)
        (job.folder.path / "card.md").touch()
        job.describe("It *works*", [job.folder.path / "card.md"])
        job.finish(bundle=bundle, metrics=METRICS, register=tmp_path.name, tags={"seed": "0"})
        assert states(job, uri) == ("running", "RUNNING")
    assert states(job, uri) == ("finished", "FINISHED")
    client = MlflowClient(uri)
    found = client.get_run(job.mlflow_id)
    assert found.data.metrics == {"best/val/auroc": 0.5, "test/auroc": 0.75}
    assert found.data.tags["data_hash"] == "abc"
    assert found.data.tags["git_commit"] == job.commit
    assert found.data.params["data.path"] == "x" * 250
    names = {file.path for file in client.list_artifacts(job.mlflow_id)}
    assert names >= {"config.yaml", "packages.txt", "bundle", "plots", "report.html"}
    assert names >= {"data.json", "audit.json", "card.md"}
    assert yaml.safe_load((job.folder.path / "config.yaml").read_text()) == CONFIG
    result = json.loads((job.folder.path / "result.json").read_text())
    assert result == {"bundle": "bundle", "metrics": METRICS}
    (version,) = client.search_model_versions(f"name='{tmp_path.name}'")
    assert (version.run_id, version.description) == (job.mlflow_id, "It *works*")
    RunFolder(job.folder.path).release()


def _hidden(stop: BaseException) -> AttributeError:
    """What a library raises when it is stopped, and fails to tidy up."""
    error = AttributeError("half a copy")
    error.__context__ = stop
    return error


@pytest.mark.parametrize(
    ("error", "state", "status"),
    [
        (DataError("a.csv: empty"), "failed", "FAILED"),
        (ZeroDivisionError(), "failed", "FAILED"),
        (SystemExit(1), "failed", "FAILED"),
        (Interrupted("saved", status=75), "interrupted", "KILLED"),
        (KeyboardInterrupt(), "interrupted", "KILLED"),
        (_hidden(KeyboardInterrupt()), "interrupted", "KILLED"),
        (None, "failed", "FAILED"),  # left without `finish`
    ],
    ids=repr,
)
def test_unfinished_run_says_how_it_ended(
    error: BaseException | None, state: str, status: str, run: Callable[..., Run], uri: str
) -> None:
    job = run()
    with suppress(*([] if error is None else [type(error)])), job:
        job.begin()
        if error is not None:
            raise error
    assert states(job, uri) == (state, status)
    RunFolder(job.folder.path).release()


def test_resumed_run_is_the_same_run(run: Callable[..., Run], uri: str) -> None:
    first = run()
    with suppress(KeyboardInterrupt), first:
        first.begin()
        raise KeyboardInterrupt
    with run(config=CONFIG | {"resume": "auto"}) as second:
        second.begin()
        second.begin()
        assert states(second, uri) == ("running", "RUNNING")
        bundle = work(second.folder.path)
        second.finish(bundle=bundle, metrics=METRICS, register=None, tags={})
    assert second.mlflow_id == first.mlflow_id
    assert states(second, uri) == ("finished", "FINISHED")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.mark.parametrize("error", [DataError("a.csv: empty"), KeyboardInterrupt()], ids=repr)
def test_before_it_begins_a_mistake_leaves_nothing(
    error: BaseException, run: Callable[..., Run], uri: str
) -> None:
    job = run()
    with pytest.raises(type(error)), job:
        raise error
    assert contents(job.folder.path) == {}
    assert MlflowClient(uri).get_experiment_by_name(job.folder.path.parent.name) is None


def test_before_it_begins_a_bug_is_a_failure(run: Callable[..., Run]) -> None:
    job = run()
    with suppress(ZeroDivisionError), job:
        raise ZeroDivisionError
    assert job.folder.record == {"state": "failed"}


def test_before_it_is_resumed_a_mistake_changes_nothing(
    run: Callable[..., Run], uri: str
) -> None:
    first = run()
    with suppress(KeyboardInterrupt), first:
        first.begin()
        raise KeyboardInterrupt
    before = contents(first.folder.path)
    second = run(config=CONFIG | {"seed": 1})
    with suppress(DataError), second:
        raise DataError("other data")
    assert contents(first.folder.path) == before
    assert states(second, uri) == ("interrupted", "KILLED")


def test_store_that_does_not_know_the_run_leaves_it_as_it_was(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.note(state="interrupted", mlflow_run_id="0" * 32)
    folder.release()
    before = contents(folder.path)
    job = run()
    with pytest.raises(TrackingError, match="not found"), job:
        job.begin()
    assert contents(folder.path) == before
    RunFolder(job.folder.path).release()


def test_store_that_takes_no_files_has_no_run(
    run: Callable[..., Run], uri: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    logger = MLflowTracker(
        tracking_uri=uri,
        experiment_name=tmp_path.name,
        artifact_location=f"{tmp_path}/file/below",
        system_metrics=False,
    )
    job = run(logger=logger)
    with pytest.raises(TrackingError, match="does not take our data"), job:
        job.begin()
    assert contents(job.folder.path) == {}
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(tmp_path.name)
    assert client.search_runs([experiment.experiment_id]) == []


def test_store_that_fails_at_the_end_fails_the_run(run: Callable[..., Run], uri: str) -> None:
    job = run()
    with suppress(TrackingError), job:
        job.begin()
        bundle = work(job.folder.path)
        (job.folder.path / "report.html").unlink()
        job.finish(bundle=bundle, metrics=METRICS, register=None, tags={})
        pytest.fail("a file that is not there was logged")
    assert states(job, uri) == ("failed", "FAILED")
    assert (job.folder.path / "result.json").is_file()


def test_csv_logger_writes_curves_and_results(run: Callable[..., Run], tmp_path: Path) -> None:
    logger = CSVLogger(save_dir=str(tmp_path / "run"), name="", version="csv")
    with run(logger=logger) as job:
        job.begin()
        logger.log_metrics({"train/loss": 2.0}, step=1)
        bundle = work(job.folder.path)
        job.finish(bundle=bundle, metrics=METRICS, register="ignored", tags={})
    text = (tmp_path / "run" / "csv" / "metrics.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert rows[0]["train/loss"] == "2.0"
    assert rows[-1]["test/auroc"] == "0.75"
    assert job.folder.record == {"state": "finished"}


def test_tensorboard_logger_writes_events(run: Callable[..., Run], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(save_dir=tmp_path / "run", name="", version="tensorboard")
    with run(logger=logger) as job:
        job.begin()
        logger.log_metrics({"train/loss": 2.0}, step=1)
        bundle = work(job.folder.path)
        job.finish(bundle=bundle, metrics=METRICS, register=None, tags={})
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "best/val/auroc", "test/auroc"}


def test_without_a_logger_the_folder_has_all(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    job = Run(
        folder=folder,
        logger=None,
        config=CONFIG,
        manifest={"data_hash": "a"},
        audit={},
        root=tmp_path,
    )
    with job:
        job.begin()
        bundle = work(folder.path)
        job.finish(bundle=bundle, metrics=METRICS, register="ignored", tags={})
    assert folder.record == {"state": "finished"}
    assert job.mlflow_id is None
    assert "numpy==" in (folder.path / "packages.txt").read_text()
