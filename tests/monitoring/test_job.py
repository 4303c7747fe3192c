"""A log is judged from end to end: files in, verdict, report, metrics, run and messages out."""

import html
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from prometheus_client.parser import text_string_to_metric_families

from fakenews.bundle import read_bundle, write_bundle
from fakenews.data.sample import Drift, generate
from fakenews.errors import BundleError, ConfigError, MonitoringError, TrackingError
from fakenews.holding import holding
from fakenews.monitoring.answering import Answering
from fakenews.monitoring.checks import Policy
from fakenews.monitoring.job import monitor
from fakenews.monitoring.quality import Limits
from fakenews.monitoring.verdict import State
from fakenews.predictor import Predictor

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
POLICY = {"references": 40, "windows": 100, "floors": {"drift": 0.02, "decay": 0.02}}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run on 3,000 generated rows, with a random encoder."""
    folder = tmp_path_factory.mktemp("monitored")
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "train.py"), "name=monitored", "encoder=tiny"),
            *("data.fetch.rows=3000", "features=headline", "trainer.max_epochs=1"),
            *("logger=none", "bootstrap=10"),
            *(f"paths.runs={folder}/runs", f"paths.cache={folder}/cache"),
        ],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "runs" / "monitored").iterdir()
    return run / "bundle"


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    return Predictor.load(bundle)


def headlines(
    rows: int, *, seed: int, drift: Drift | None = None, shouted: bool = False
) -> pd.DataFrame:
    """Generated ones; in capitals they are what the model was never asked."""
    frame = next(generate(rows, seed=seed, drift=drift))
    return frame.assign(text=frame["text"].str.upper()) if shouted else frame


def run(bundle: Path, log: Path, out: Path, **changed: Any) -> State:
    policy = Policy(**POLICY | changed.pop("policy", {}))
    arguments = {"limits": Limits(), "latest": 3} | changed
    return monitor(bundle=str(bundle), log=str(log), out=str(out), policy=policy, **arguments)


def checks(out: Path) -> dict[str, dict[str, Any]]:
    verdict = json.loads((out / "verdict.json").read_text())
    return {check["key"]: check for check in verdict["checks"]}


@pytest.fixture(scope="module")
def clean(
    predictor: Predictor, tmp_path_factory: pytest.TempPathFactory, write_log: Any
) -> tuple[Path, pd.DataFrame]:
    """Three days as the model knows them, and the truth."""
    folder = tmp_path_factory.mktemp("clean")
    windows = [headlines(200, seed=seed) for seed in (101, 102, 103)]
    return folder, write_log(predictor, folder, windows)


@pytest.fixture
def registry(bundle: Path, tmp_path: Path) -> str:
    """A store whose model `watched` has the bundle twice; version 1 is the champion."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    experiment = client.create_experiment("e", artifact_location=str(tmp_path / "artifacts"))
    client.create_registered_model("watched")
    for _ in range(2):
        made = client.create_run(experiment)
        client.log_artifacts(made.info.run_id, str(bundle), "bundle")
        client.create_model_version(
            "watched", f"{made.info.artifact_uri}/bundle", made.info.run_id
        )
    client.set_registered_model_alias("watched", "champion", "1")
    return uri


@pytest.mark.filterwarnings("ignore:The ..noload.. loader")
def test_a_registered_model_is_followed(
    registry: str, clean: tuple[Path, Any], tmp_path: Path
) -> None:
    state = monitor(
        registered="watched@champion",
        registry_uri=registry,
        log=str(clean[0]),
        out=str(tmp_path / "out"),
        policy=Policy(**POLICY),
        limits=Limits(),
        latest=3,
    )
    assert state is State.OK
    answering = Answering(
        bundle=None, registered="watched@champion", uri=registry, runs=tmp_path
    )
    first = answering.content()
    assert not answering.changed()
    MlflowClient(registry).set_registered_model_alias("watched", "champion", "2")
    assert answering.changed()
    assert answering.content().labels == first.labels
    assert not answering.changed()


@pytest.mark.parametrize("given", [{}, {"bundle": "b", "registered": "m@champion"}])
def test_one_bundle_is_meant(given: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one of bundle=FOLDER and registered=NAME@champion"):
        monitor(**given, log=str(tmp_path), policy=Policy(), limits=Limits())


def test_clean_windows_are_ok(bundle: Path, clean: tuple[Path, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(bundle, clean[0], out) is State.OK, checks(out)
    verdict = json.loads((out / "verdict.json").read_text())
    assert (verdict["model_version"], verdict["window"]["rows"]) == ("v1", 200)
    assert {"drift.embedding.mmd", "drift.text.unknown", "quality.errors"} <= checks(out).keys()
    assert "<html" in (out / "report.html").read_text()
    states = [
        sample.value
        for family in text_string_to_metric_families((out / "monitor.prom").read_text())
        if family.name == "fakenews_monitor_state"
        for sample in family.samples
    ]
    assert states == [0] * len(verdict["checks"])


@pytest.fixture(scope="module")
def drifted(
    predictor: Predictor, tmp_path_factory: pytest.TempPathFactory, write_log: Any
) -> Path:
    """A day as the model knows them, and two of another style; with texts."""
    days = [False, True, True]
    windows = [headlines(200, seed=110 + n, shouted=day) for n, day in enumerate(days)]
    folder = tmp_path_factory.mktemp("drifted")
    write_log(predictor, folder, windows, text=True)
    return folder


def test_another_style_alarms_and_is_explained(
    bundle: Path, drifted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run(bundle, drifted, out) is State.ALARM
    found = checks(out)
    assert found["drift.tabular.capital_share"]["state"] == "alarm"
    assert found["quality.errors"]["state"] == "ok"
    report = (out / "report.html").read_text()
    newest = headlines(200, seed=112, shouted=True)
    assert any(html.escape(text) in report for text in newest["text"])


def test_one_day_of_it_is_a_warning(
    bundle: Path, predictor: Predictor, tmp_path: Path, write_log: Any
) -> None:
    windows = [headlines(200, seed=101), headlines(200, seed=112, shouted=True)]
    write_log(predictor, tmp_path / "log", windows)
    state = run(bundle, tmp_path / "log", tmp_path / "out")
    assert state is State.WARNING, checks(tmp_path / "out")


def test_labels_that_came_later_show_the_decay(
    bundle: Path, predictor: Predictor, tmp_path: Path, write_log: Any
) -> None:
    turned = Drift(rule=1.0)
    windows = [headlines(200, seed=120 + n, drift=turned) for n in range(2)]
    truth = write_log(predictor, tmp_path / "log", windows)
    truth.to_csv(tmp_path / "labels.csv", index=False)
    state = run(bundle, tmp_path / "log", tmp_path / "out", labels=str(tmp_path / "labels.csv"))
    assert state is State.ALARM
    found = checks(tmp_path / "out")
    assert found["decay.measured.accuracy"]["state"] == "alarm"
    assert found["drift.embedding.classifier"]["state"] == "ok"


def test_what_is_not_logged_is_made_from_the_texts(
    bundle: Path, predictor: Predictor, tmp_path: Path, write_log: Any
) -> None:
    frame = headlines(150, seed=130)
    write_log(predictor, tmp_path / "with", [frame])
    write_log(predictor, tmp_path / "texts", [frame], text=True, features=False)
    for name in ("with", "texts"):
        run(bundle, tmp_path / name, tmp_path / f"out-{name}")
    logged, computed = checks(tmp_path / "out-with"), checks(tmp_path / "out-texts")
    for key, check in logged.items():
        # Which half a row is in follows from its id.
        if key.startswith("drift") and "classifier" not in key:
            assert computed[key]["value"] == pytest.approx(check["value"], abs=0.01), key


def test_what_cannot_be_known_is_not_passed_over(
    bundle: Path, predictor: Predictor, tmp_path: Path, write_log: Any
) -> None:
    write_log(predictor, tmp_path / "log", [headlines(150, seed=130)], features=False)
    out = tmp_path / "out"
    assert run(bundle, tmp_path / "log", out) is State.UNKNOWN
    found = checks(out)
    assert found["drift.embedding.mmd"]["state"] == "unknown"
    assert found["drift.prediction.label"]["state"] == "ok"
    # Unless that is what is wanted.
    skip = ["drift.embedding.*", "drift.tabular.*", "drift.text.*"]
    assert run(bundle, tmp_path / "log", out, policy={"skip": skip}) is State.OK


def test_one_process_tells_people_at_a_time(
    bundle: Path, clean: tuple[Path, Any], tmp_path: Path
) -> None:
    busy = holding(
        tmp_path / "monitor.lock", work="monitoring", action="judge", error=MonitoringError
    )
    with busy, pytest.raises(MonitoringError, match="another monitoring is under way in"):
        run(bundle, clean[0], tmp_path)
    assert not (tmp_path / "report.html").exists()
    assert run(bundle, clean[0], tmp_path) is State.OK


def test_a_log_without_rows_is_not_ok(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "log" / "predictions").mkdir(parents=True)
    out = tmp_path / "out"
    assert run(bundle, tmp_path / "log", out) is State.UNKNOWN
    verdict = json.loads((out / "verdict.json").read_text())
    assert any("there are no predictions" in notice for notice in verdict["notices"])
    assert (out / "report.html").is_file()


@pytest.mark.filterwarnings("ignore:The ..noload.. loader")
def test_a_run_is_logged(bundle: Path, clean: tuple[Path, Any], tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    run(bundle, clean[0], tmp_path / "out", tracking_uri=uri)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("monitoring")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.tags["state"] == "ok"
    assert found.data.metrics["drift.embedding.mmd/state"] == 0
    names = {file.path for file in client.list_artifacts(found.info.run_id)}
    assert names == {"verdict.json", "report.html", "plots", "monitor.prom"}


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("sqlite:///no/such/folder/m.db", "tracking_uri: the folder no/such/folder does not"),
        ("mlruns", "tracking_uri=mlruns: MLflow no longer writes plain folders"),
        ("http://user:secret@localhost:5000", "tracking_uri holds a password"),
        ("http://localhost:port", "tracking_uri is no address"),
    ],
)
def test_an_address_that_is_none_is_told_before_anything_is_judged(
    bundle: Path, clean: tuple[Path, Any], tmp_path: Path, uri: str, said: str
) -> None:
    with pytest.raises(TrackingError, match=f"^{said}") as caught:
        run(bundle, clean[0], tmp_path / "out", tracking_uri=uri)
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_dead_server_of_mlflow_keeps_nobody_from_being_told(
    bundle: Path, drifted: Path, tmp_path: Path, make_channel: Callable[..., Any]
) -> None:
    told, out = make_channel(), tmp_path / "out"
    with pytest.raises(
        MonitoringError, match=r"the MLflow server http://127\.0\.0\.1:9 cannot"
    ):
        run(bundle, drifted, out, alerts={"a": told}, tracking_uri="http://127.0.0.1:9")
    assert (out / "report.html").is_file()
    assert len(told.messages) == 1


@pytest.mark.filterwarnings("ignore:The ..noload.. loader")
def test_an_interpreter_without_evidently_fails_nothing_else(
    bundle: Path, drifted: Path, tmp_path: Path, make_channel: Callable[..., Any]
) -> None:
    told, uri, out = make_channel(), f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "out"
    with pytest.raises(MonitoringError, match="evidently=/bin/false: no report"):
        run(
            bundle,
            drifted,
            out,
            alerts={"a": told},
            tracking_uri=uri,
            evidently="/bin/false",
        )
    assert (out / "report.html").is_file()
    assert len(told.messages) == 1
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("monitoring")
    assert len(client.search_runs([experiment.experiment_id])) == 1


def test_labels_of_none_of_the_windows_are_not_passed_over(
    bundle: Path, clean: tuple[Path, Any], tmp_path: Path
) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("id,label\nnobody,fake\n")
    assert run(bundle, clean[0], tmp_path / "out", labels=str(labels)) is State.UNKNOWN
    check = checks(tmp_path / "out")["decay.measured"]
    assert (check["state"], check["message"]) == (
        "unknown",
        "labels: none is of a prediction of these windows",
    )


def test_a_log_of_which_nothing_can_be_used_is_an_error(bundle: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("text,prediction\na,fake\n")
    with pytest.raises(MonitoringError, match=r"log=.*log.csv has no column time: a log has"):
        run(bundle, log, tmp_path / "out")
    assert not (tmp_path / "out" / "verdict.json").exists()


def test_news_are_told_and_what_fails_is_an_error(
    bundle: Path,
    drifted: Path,
    tmp_path: Path,
    make_channel: Callable[..., Any],
) -> None:
    told, broken = make_channel(), make_channel(broken="no way out")
    with pytest.raises(MonitoringError, match="no way out"):
        run(bundle, drifted, tmp_path, alerts={"a": told, "b": broken})
    assert (tmp_path / "verdict.json").is_file()
    (message,) = told.messages
    assert "ALARM" in message.subject.upper()
    # Once is enough.
    run(bundle, drifted, tmp_path, alerts={"a": told})
    assert len(told.messages) == 1


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"rows": 100}, ConfigError, "give one of every and rows"),
        ({"every": None}, ConfigError, "give one of every and rows"),
        ({"schedule": 15}, ConfigError, "schedule=15: write a number with s, m, h or d"),
        ({"every": "soon"}, ConfigError, "every=soon"),
        ({"schedule": "often"}, ConfigError, "schedule=often: write a number"),
        ({"log": "absent"}, MonitoringError, "absent"),
        ({"bundle": "absent"}, BundleError, "there is no such folder"),
    ],
)
def test_mistakes(
    bundle: Path,
    clean: tuple[Path, Any],
    changed: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    out = clean[0] / "out"
    given = {"bundle": str(bundle), "log": str(clean[0])} | changed
    with pytest.raises(error, match=message):
        monitor(out=str(out), policy=Policy(), limits=Limits(), **given)
    assert not (out / "verdict.json").exists()


def test_an_archive_has_no_reference_to_compare_with(
    bundle: Path, clean: tuple[Path, Any], tmp_path: Path
) -> None:
    content = read_bundle(bundle)
    write_bundle(replace(content, reference={}), tmp_path / "bare")
    with pytest.raises(BundleError, match="reference rows cannot be compared with"):
        run(tmp_path / "bare", clean[0], tmp_path / "out")
