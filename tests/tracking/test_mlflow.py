import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mlflow.artifacts
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from fakenews.errors import TrackingError, interruption
from fakenews.tracking.mlflow import MLflowTracker, flat, valid_keys

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ..noload.. loader"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all tests; each has an experiment of its own."""
    return tmp_path_factory.mktemp("store") / "mlflow.db"


@pytest.fixture
def uri(store: Path) -> Iterator[str]:
    before = mlflow.get_tracking_uri()
    yield f"sqlite:///{store}"
    mlflow.set_tracking_uri(before)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.node.name).replace("[", "-").rstrip("]")


def tracker(uri: str, name: str, **options: object) -> MLflowTracker:
    settings: dict[str, object] = {"system_metrics": False, "timeout": 5.0} | options
    return MLflowTracker(tracking_uri=uri, experiment_name=name, **settings)  # type: ignore[arg-type]


def test_a_signal_is_no_refusal_of_the_store(
    uri: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        error = MlflowException("while it tidied up")
        error.__context__ = KeyboardInterrupt()
        raise error

    run = tracker(uri, name)
    run.begin(parameters={}, tags={})
    (tmp_path / "file").write_text("text")
    for call in ("log_artifact", "set_terminated"):
        monkeypatch.setattr(run.experiment, call, interrupted)
    for act in (lambda: run.log_files({tmp_path / "file": None}), lambda: run.end("KILLED")):
        with pytest.raises(MlflowException) as caught:
            act()
        assert isinstance(interruption(caught.value), KeyboardInterrupt)


def test_run_from_begin_to_end(uri: str, name: str, tmp_path: Path) -> None:
    long = "x" * 1000
    run = tracker(uri, name, run_name="first")
    run_id = run.begin(
        parameters={"model": {"dropout": 0.1, "path": long}, "seed": 0, "none": {}},
        tags={"data_hash": "abc"},
    )
    client = MlflowClient(uri)
    assert client.get_run(run_id).info.status == "RUNNING"
    run.log_metrics({"val/auroc": 0.5}, step=1)
    run.log_metrics({"val/auroc": 0.75}, step=2)
    (tmp_path / "config.yaml").write_text(f"path: {long}\n")
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "a.png").touch()
    run.log_files({tmp_path / "config.yaml": None, tmp_path / "plots": "plots"})
    run.log_hyperparams({"ignored": 1})
    run.finalize("success")
    assert client.get_run(run_id).info.status == "RUNNING"
    run.end("FINISHED")

    found = client.get_run(run_id)
    assert found.info.status == "FINISHED"
    assert found.info.end_time is not None
    assert found.info.run_name == "first"
    assert found.data.params == {
        "model.dropout": "0.1",
        "model.path": "x" * 250,
        "seed": "0",
        "none": "{}",
    }
    assert found.data.tags["data_hash"] == "abc"
    history = [(m.step, m.value) for m in client.get_metric_history(run_id, "val/auroc")]
    assert history == [(1, 0.5), (2, 0.75)]
    whole = mlflow.artifacts.download_artifacts(
        run_id=run_id, artifact_path="config.yaml", tracking_uri=uri
    )
    assert Path(whole).read_text() == f"path: {long}\n"
    assert [file.path for file in client.list_artifacts(run_id, "plots")] == ["plots/a.png"]


def test_nothing_is_tracked_before_it_begins(uri: str, name: str) -> None:
    run = tracker(uri, name)
    # Lightning asks for it, and for the run, when it sets up a fit.
    assert run.experiment is not None
    assert run.version is None
    run.log_metrics({"loss": 2.0}, step=0)
    run.end("FAILED")
    client = MlflowClient(uri)
    assert client.get_experiment_by_name(name) is None
    run_id = run.begin(parameters={}, tags={})
    run.log_metrics({"loss": 1.0}, step=1)
    run.end("FINISHED")
    assert [m.value for m in client.get_metric_history(run_id, "loss")] == [2.0, 1.0]


def test_artefacts_lie_beside_the_file(uri: str, name: str, store: Path) -> None:
    run = tracker(uri, name)
    run.begin(parameters={}, tags={})
    run.end("FINISHED")
    assert (store.parent / "mlartifacts" / name) == Path(
        MlflowClient(uri).get_experiment_by_name(name).artifact_location
    )


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_status_is_what_happened(status: str, uri: str, name: str) -> None:
    run = tracker(uri, name)
    run_id = run.begin(parameters={}, tags={})
    run.end(status)  # type: ignore[arg-type]
    assert MlflowClient(uri).get_run(run_id).info.status == status


def test_same_run_is_opened_again(uri: str, name: str) -> None:
    first = tracker(uri, name)
    run_id = first.begin(parameters={"seed": 0}, tags={"part": "one"})
    first.log_metrics({"loss": 2.0}, step=1)
    first.end("KILLED")
    second = tracker(uri, name, run_id=run_id)
    assert second.begin(parameters={"seed": 0, "new": 1}, tags={"part": "two"}) == run_id
    client = MlflowClient(uri)
    found = client.get_run(run_id)
    assert found.info.status == "RUNNING"
    assert found.data.params == {"seed": "0", "new": "1"}
    assert found.data.tags["part"] == "two"
    second.log_metrics({"loss": 1.0}, step=2)
    second.end("FINISHED")
    assert [m.value for m in client.get_metric_history(run_id, "loss")] == [2.0, 1.0]
    experiment = client.get_experiment_by_name(name).experiment_id
    assert len(client.search_runs([experiment])) == 1


def test_run_that_the_store_does_not_know(uri: str, name: str) -> None:
    run = tracker(uri, name, run_id="0" * 32)
    with pytest.raises(TrackingError, match="0000 not found"):
        run.begin(parameters={}, tags={})


def test_model_is_registered_where_its_files_are_found(
    uri: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / "model.json").write_text("{}")
    client = MlflowClient(uri)
    for expected in (1, 2):
        run = tracker(uri, name)
        run_id = run.begin(parameters={}, tags={})
        run.log_files({tmp_path: "bundle"})
        version = run.register(name=name, artifact="bundle", tags={"seed": str(expected)})
        run.end("FINISHED")
        assert version == expected
        found = client.get_model_version(name, str(version))
        assert found.run_id == run_id
        assert found.tags == {"seed": str(expected)}
        source = client.get_model_version_download_uri(name, str(version))
        local = mlflow.artifacts.download_artifacts(artifact_uri=source, tracking_uri=uri)
        assert Path(local, "model.json").read_text() == "{}"


def test_file_that_is_not_there_is_one_line(uri: str, name: str, tmp_path: Path) -> None:
    run = tracker(uri, name)
    run.begin(parameters={}, tags={})
    with pytest.raises(TrackingError, match="does not take our data") as caught:
        run.log_files({tmp_path / "nowhere.json": None})
    assert "\n" not in str(caught.value)
    run.end("FAILED")


def test_names_of_any_language_and_sign_are_logged(uri: str, name: str) -> None:
    run = tracker(uri, name)
    run_id = run.begin(parameters={"label_names": {"wahr & gut?": "x", "../up": "y"}}, tags={})
    run.log_metrics(
        {"test/f1/faux!": 0.1, "test/f1/faux?": 0.2, "test/f1/ложь": 0.3, "n//a": 0.4}
    )
    run.end("FINISHED")
    found = MlflowClient(uri).get_run(run_id).data
    assert sorted(found.metrics.values()) == [0.1, 0.2, 0.3, 0.4]
    assert found.metrics["test/f1/ложь"] == 0.3
    assert sorted(found.params.values()) == ["x", "y"]


def test_two_runs_may_make_the_experiment_at_once(uri: str, name: str) -> None:
    runs = [tracker(uri, name) for _ in range(4)]
    threads = [
        threading.Thread(target=run.begin, kwargs={"parameters": {}, "tags": {}})
        for run in runs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name).experiment_id
    assert len(client.search_runs([experiment])) == 4


def test_metrics_of_a_locked_store_are_sent_later(
    uri: str, name: str, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tracker(uri, name)
    run_id = run.begin(parameters={}, tags={})
    # The file is damaged for a while, as a full or vanished disk would have it.
    with closing(sqlite3.connect(store)) as other:
        other.execute("alter table metrics rename to hidden")
        other.commit()
    started = int(time.time() * 1000)
    run.log_metrics({"loss": 2.0}, step=1)
    run.log_metrics({"loss": 1.0}, step=2)
    logged = int(time.time() * 1000)
    with closing(sqlite3.connect(store)) as other:
        other.execute("alter table hidden rename to metrics")
        other.commit()
    warnings = [
        record.message for record in caplog.records if "training goes on" in record.message
    ]
    assert len(warnings) == 1
    assert "\n" not in warnings[0]
    run.end("FINISHED")
    client = MlflowClient(uri)
    history = client.get_metric_history(run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 2.0), (2, 1.0)]
    # When it was measured, not when it was sent.
    assert all(started <= m.timestamp <= logged for m in history)
    assert client.get_run(run_id).info.status == "FINISHED"


def test_end_says_when_a_finished_run_cannot_be_closed(
    uri: str, name: str, store: Path
) -> None:
    run = tracker(uri, name)
    run_id = run.begin(parameters={}, tags={})
    with closing(sqlite3.connect(store)) as other:
        other.execute("alter table runs rename to hidden")
        other.commit()
        try:
            with pytest.raises(TrackingError, match="does not take our data"):
                run.end("FINISHED")
            run.end("FAILED")  # another error is being reported already
        finally:
            other.execute("alter table hidden rename to runs")
            other.commit()
    assert MlflowClient(uri).get_run(run_id).info.status == "RUNNING"


def test_end_of_a_run_that_never_began_makes_none(uri: str, name: str) -> None:
    tracker(uri, name).end("FAILED")
    assert MlflowClient(uri).get_experiment_by_name(name) is None


def test_system_metrics_are_logged_and_stop(uri: str, name: str) -> None:
    run = tracker(uri, name, system_metrics=True)
    before = threading.active_count()
    run.begin(parameters={}, tags={})
    assert threading.active_count() > before
    run.end("FINISHED")
    assert threading.active_count() == before


def test_flat_joins_names_with_dots() -> None:
    assert flat({"a": {"b": 1, "c": {"d": [1, 2]}}, "e": {}}) == {
        "a.b": 1,
        "a.c.d": [1, 2],
        "e": {},
    }


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("val/average_precision", "val/average_precision"),
        ("f1/n/a", "f1/n/a"),
        ("f1/", "f1_"),
        ("../x", ".._x"),
        ("/x", "_x"),
        ("50% sure", "50_ sure"),
        ("é: x-1.0", "é: x-1.0"),
        ("x" * 300, "x" * 200),
    ],
)
def test_key_is_one_that_mlflow_takes(name: str, key: str) -> None:
    assert valid_keys([name]) == {name: key}


def test_keys_of_different_names_differ() -> None:
    assert valid_keys(["a!", "a?", "a_", "a__2"]) == {
        "a!": "a_",
        "a?": "a__2",
        "a_": "a__3",
        "a__2": "a__2_2",
    }
