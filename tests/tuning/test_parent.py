"""The MLflow run of a sweep, in a real store."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pytest
from hydra.utils import execution_whitelist
from mlflow.tracking import MlflowClient
from omegaconf import DictConfig, OmegaConf
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import TrialState, create_trial

from fakenews.config import TARGETS
from fakenews.errors import DataError, Interrupted, TrackingError, TuningError
from fakenews.tuning.parent import ParentRun

pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader")

Config = Callable[..., DictConfig]


@pytest.fixture(autouse=True)
def allowed() -> Iterator[None]:
    """As for `train.py`."""
    with execution_whitelist(TARGETS):
        yield


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    before = mlflow.get_tracking_uri()
    yield f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    mlflow.set_tracking_uri(before)


@pytest.fixture
def config(uri: str, tmp_path: Path) -> Config:
    def make(**logger: Any) -> DictConfig:
        node = {
            "_target_": "fakenews.tracking.mlflow.MLflowTracker",
            "tracking_uri": uri,
            "experiment_name": tmp_path.name,
            "system_metrics": True,
        }
        made = {"seed": 0, "name": "news", "twice": "${seed}", "logger": node | logger}
        return OmegaConf.create(made | {"sweep": {"storage": f"sqlite:///{tmp_path}/o.db"}})

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a report leaves."""
    found = tmp_path / "sweep"
    (found / "plots").mkdir(parents=True)
    (found / "trial_0").mkdir()
    for name in ("report.html", "trials.csv", "sweep.log", "plots/history.png", "trial_0/x"):
        (found / name).touch()
    return found


def runs(uri: str, name: str) -> list[Any]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    return [] if experiment is None else client.search_runs([experiment.experiment_id])


def test_a_sweep_is_one_run_with_what_it_found(
    config: Config, study: Study, uri: str, folder: Path, tmp_path: Path
) -> None:
    study.set_user_attr("objectives", ["val/auroc"])
    with ParentRun(config(), study) as parent:
        (run,) = runs(uri, tmp_path.name)
        assert run.info.status == "RUNNING"
        assert study.user_attrs["mlflow_run_id"] == run.info.run_id
        for value in (0.5, 0.75, 0.25):
            study.add_trial(create_trial(value=value))
        study.add_trial(create_trial(state=TrialState.PRUNED))
        study.add_trial(create_trial(state=TrialState.FAIL))
        parent.finish(folder)
        assert runs(uri, tmp_path.name)[0].info.status == "RUNNING"
    (run,) = runs(uri, tmp_path.name)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "news"
    assert run.data.tags["optuna.study"] == "news"
    assert run.data.params["seed"] == run.data.params["twice"] == "0"
    assert run.data.metrics == {"trials": 4, "best/auroc": 0.75, "best_trial": 1}
    client = MlflowClient(uri)
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"report.html", "trials.csv", "plots"}
    plots = [file.path for file in client.list_artifacts(run.info.run_id, "plots")]
    assert plots == ["plots/history.png"]


def test_a_sweep_that_is_continued_is_the_same_run(
    config: Config, study: Study, uri: str, folder: Path, tmp_path: Path
) -> None:
    study.set_user_attr("objectives", ["val/auroc"])
    with suppress(Interrupted), ParentRun(config(), study):
        study.add_trial(create_trial(value=0.5))
        raise Interrupted("stopped")
    (first,) = runs(uri, tmp_path.name)
    assert first.info.status == "KILLED"
    for value in (0.75, 0.6):
        with ParentRun(config(), study) as parent:
            assert runs(uri, tmp_path.name)[0].info.status == "RUNNING"
            study.add_trial(create_trial(value=value))
            parent.finish(folder)
    (run,) = runs(uri, tmp_path.name)
    assert run.info.run_id == first.info.run_id == study.user_attrs["mlflow_run_id"]
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"trials": 3, "best/auroc": 0.75, "best_trial": 1}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Interrupted("stopped", status=143), "KILLED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(143), "KILLED"),
        (TuningError("too many trials have failed"), "FAILED"),
        (ZeroDivisionError(), "FAILED"),
        (None, "FAILED"),  # left without `finish`
    ],
    ids=repr,
)
def test_an_unfinished_sweep_says_how_it_ended(
    *,
    error: BaseException | None,
    status: str,
    config: Config,
    study: Study,
    uri: str,
    tmp_path: Path,
) -> None:
    with suppress(*([] if error is None else [type(error)])), ParentRun(config(), study):
        if error is not None:
            raise error
    (run,) = runs(uri, tmp_path.name)
    assert run.info.status == status


def test_without_a_trial_that_completed_there_is_no_best(
    config: Config, study: Study, uri: str, folder: Path, tmp_path: Path
) -> None:
    study.add_trial(create_trial(state=TrialState.PRUNED))
    with ParentRun(config(), study) as parent:
        parent.finish(folder)
    (run,) = runs(uri, tmp_path.name)
    assert run.data.metrics == {"trials": 1}


def test_of_several_objectives_all_values_are_logged(
    config: Config, storage: RDBStorage, uri: str, folder: Path, tmp_path: Path
) -> None:
    study = optuna.create_study(storage=storage, directions=["maximize", "minimize"])
    study.set_user_attr("objectives", ["val/auroc", "latency"])
    study.add_trial(create_trial(values=[0.5, 20.0]))
    study.add_trial(create_trial(values=[0.75, 12.5]))
    with ParentRun(config(), study) as parent:
        parent.finish(folder)
    (run,) = runs(uri, tmp_path.name)
    assert run.data.metrics == {
        "trials": 2,
        "best/auroc": 0.75,
        "best/latency": 12.5,
        "best_trial": 1,
    }


@pytest.mark.parametrize(
    "target", ["fakenews.tracking.none", "lightning.pytorch.loggers.CSVLogger"]
)
def test_without_mlflow_there_is_no_run(
    target: str, config: Config, study: Study, folder: Path, tmp_path: Path
) -> None:
    cfg = config()
    cfg.logger = {"_target_": target}
    before = sorted(tmp_path.rglob("*"))
    with ParentRun(cfg, study) as parent:
        parent.finish(folder)
    assert "mlflow_run_id" not in study.user_attrs
    assert sorted(tmp_path.rglob("*")) == before
    with suppress(DataError), ParentRun(cfg, study):
        raise DataError("a.csv: empty")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_store_that_does_not_answer_is_found_before_any_trial(
    config: Config, study: Study, tmp_path: Path
) -> None:
    with pytest.raises(TrackingError, match="slip does not exist: make it"):
        ParentRun(config(tracking_uri=f"sqlite:///{tmp_path}/slip/mlflow.db"), study)
    assert study.user_attrs == {}


@pytest.mark.parametrize("how", ["unknown", "deleted"])
def test_a_store_that_does_not_have_the_run_gets_a_new_one(
    how: str, config: Config, study: Study, uri: str, tmp_path: Path
) -> None:
    # Its file was deleted, or the study goes on with another.
    if how == "unknown":
        study.set_user_attr("mlflow_run_id", "0" * 32)
    else:
        with suppress(Interrupted), ParentRun(config(), study):
            raise Interrupted("stopped")
        MlflowClient(uri).delete_run(study.user_attrs["mlflow_run_id"])
    before = study.user_attrs["mlflow_run_id"]
    with suppress(Interrupted), ParentRun(config(), study):
        raise Interrupted("stopped")
    (run,) = runs(uri, tmp_path.name)
    assert study.user_attrs["mlflow_run_id"] == run.info.run_id != before
