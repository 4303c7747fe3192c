"""Cycles of retraining as cron and Airflow run them: whole, refused, killed at every step."""

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pandas as pd
import psutil
import pytest

from fakenews.data.sample import Drift, generate
from fakenews.retraining.cycle import STEPS
from fakenews.retraining.manifest import read_dataset
from fixtures.commands import Commands
from fixtures.retraining import QUICK, VENV, Airflow, Place, Servers, listed

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "deploy" / "airflow" / "dags"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ..noload.. loader"),
]


@pytest.fixture(scope="module")
def champion(command: Commands, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Trained, registered, promoted; and later labels of headlines that have drifted."""
    root, cache = tmp_path_factory.mktemp("loop"), tmp_path_factory.mktemp("cache")
    place = Place(root, cache, command)
    place.run("train.py", "name=loop", "data.fetch.rows=2000", *QUICK)
    place.run(
        "scripts/promote.py", "name=loop", "action=promote", "version=1", "force=true",
        "serving=none",
    )  # fmt: skip
    frame = next(generate(600, seed=7, drift=Drift(topics=0.5, rule=0.3)))
    began = datetime(2026, 1, 1, tzinfo=UTC)
    frame["time"] = [(began + timedelta(minutes=at)).isoformat() for at in range(len(frame))]
    frame.to_csv(place.root / "labels.csv", index=False)
    return place


@pytest.fixture
def place(champion: Place, tmp_path: Path) -> Place:
    """A copy, whose store says where its files are now."""
    root = champion.root.parent / f"{tmp_path.name}-copy"
    shutil.copytree(champion.root, root)
    return replace(champion, root=root)


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "bundle" / "weights.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def whole(champion: Place) -> Place:
    """A cycle that nothing disturbed."""
    place = replace(champion, root=champion.root.parent / "whole")
    shutil.copytree(champion.root, place.root)
    place.retrain("cycle=one")
    return place


def test_a_cycle_ends_with_a_new_champion(whole: Place) -> None:
    assert whole.registry.aliases().champion == 2
    assert whole.registry.aliases().previous == 1
    version = whole.registry.status().versions[2]
    assert version.gate is not None
    assert version.gate.accepted
    dataset = whole.record("one", "prepare")["facts"]["dataset"]
    assert version.tags["data_version"] == dataset
    made = read_dataset(whole.root / "datasets" / dataset)
    assert made.count("window") == 200
    assert made.count("train", "feedback") > 300
    folder = whole.root / "datasets" / dataset
    texts = {
        part: set(pd.read_parquet(folder / part)["text"])
        for part in ("train", "test", "window")
    }
    assert not texts["train"] & (texts["test"] | texts["window"])
    records = {step: whole.record("one", step) for step in STEPS}
    assert all(record["outcome"] == "next" for record in records.values())
    assert "583 new labels" in records["decide"]["message"]
    assert (whole.root / "retraining" / "one" / "gate" / "gate.html").is_file()


def test_nothing_is_done_twice_and_the_next_finds_no_reason(whole: Place) -> None:
    said = whole.retrain("cycle=one")
    assert said.count("(was done before)") == len(STEPS)
    assert "train.py" not in said
    assert whole.registry.aliases().champion == 2
    said = whole.retrain(status=2)
    assert "do not retrain" in said
    assert "there is no reason to" in said


# Kills the first attempt of every step, some time after it began, but for the last one.
KILLER = """#!/bin/sh
for argument; do case $argument in step=*) step=${argument#step=};; esac; done
[ "$step" = notify ] || [ -e "$KILLED/$step" ] && exec "$PROGRAM" "$@"
touch "$KILLED/$step"
"$PROGRAM" "$@" &
sleep 1
kill -KILL $! 2>/dev/null && echo yes > "$KILLED/$step"
wait $!
"""


@pytest.fixture(scope="module")
def store(champion: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of Airflow in which nothing is."""
    return Airflow(replace(champion, root=tmp_path_factory.mktemp("empty"))).store


@pytest.fixture
def airflow(place: Place, store: Path) -> Airflow:
    return Airflow(place, store)


def test_tasks_that_are_killed_end_the_same_and_requests_are_answered(
    airflow: Airflow, whole: Place
) -> None:
    place = airflow.place
    killer, killed = place.root / "killer", place.root / "killed"
    killer.write_text(KILLER)
    killer.chmod(0o755)
    killed.mkdir()
    with Servers(place) as servers, servers.asked() as answers:
        states = airflow.retrain(
            f"deployment={place.root}/deployment",
            "trial.seconds=5",
            f"commands.promote={listed(*servers.options)}",
            FAKENEWS_PYTHON=str(killer),
            KILLED=str(killed),
            PROGRAM=place.command.python,
        )
        assert set(states.values()) == {"success"}, states
        (cycle,) = (path.name for path in (place.root / "retraining").iterdir())
        # What answers is what the registry says.
        version = place.registry.status().versions[2]
        assert servers.ask()["model_version"] == version.archive
    died = {path.name for path in killed.iterdir() if path.read_text()}
    # The longest ones; of others some end before.
    assert {"train", "gate", "deploy"} <= died
    assert set(answers) == {200}
    assert len(answers) > 20
    assert place.registry.aliases() == whole.registry.aliases()
    for step, fact in (("prepare", "dataset"), ("train", "metrics")):
        found = [
            other["facts"][fact]
            for other in (place.record(cycle, step), whole.record("one", step))
        ]
        assert found[0] == found[1]
    runs = place.root / "retraining" / cycle / "run", whole.root / "retraining" / "one" / "run"
    assert digest(runs[0]) == digest(runs[1])


def test_a_challenger_that_is_refused_is_no_failure(airflow: Airflow) -> None:
    place = airflow.place
    # What has not learnt anything.
    worse = listed(*QUICK[:2], "trainer.max_epochs=1", "optimizer.lr=1e-12", "bootstrap=10")
    states = airflow.retrain(
        f"commands.train={worse}",
        "commands.gate=[]",
        FAKENEWS_REASON="a try; $(false) 'x' \"y\"",
    )
    done = {"decide", "prepare", "train", "evaluate", "notify", "run"}
    assert {name for name, state in states.items() if state == "success"} == done
    assert {state for name, state in states.items() if name not in done} == {"skipped"}
    (cycle,) = (path.name for path in (place.root / "retraining").iterdir())
    assert place.record(cycle, "gate")["outcome"] == "end"
    assert place.registry.aliases().champion == 1
    gate = place.registry.status().versions[2].gate
    assert gate is not None
    assert not gate.accepted
    # Somebody clears the tasks after it.
    said = place.retrain(f"cycle={cycle}", "step=promote", status=2)
    assert "has ended at step=gate" in said


def test_what_fails_for_good_is_red_and_told(airflow: Airflow) -> None:
    states = airflow.retrain(
        f"tracking_uri=sqlite:///{airflow.place.root}/no.db", FAKENEWS_RETRY_SECONDS="0.1"
    )
    assert states["decide"] == "failed"
    assert states["notify"] == "failed"
    assert states["run"] == "failed"
    assert states["train"] == "upstream_failed"
    log = (airflow.place.root / "airflow.log").read_text()
    assert "has not ended: step=decide failed, or was ended" in log


def test_the_scheduler_runs_what_is_asked_for(airflow: Airflow) -> None:
    def healthy() -> bool:
        with suppress(httpx.HTTPError):
            found = httpx.get(f"{address}/api/v2/monitor/health").json()
            parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
            return all(found[part]["status"] == "healthy" for part in parts)
        return False

    def wait_for(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 180
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.5)

    dag = "fakenews_retraining"
    # There is no reason to retrain, and no hour for which a run was missed.
    settings = airflow.options("policy.new_labels=100000")
    settings["FAKENEWS_RETRAIN_SCHEDULE"] = "0 0 31 12 *"
    with airflow.running(**settings) as address:
        wait_for(healthy)
        connections = (
            found
            for each in airflow.family()
            for found in each.net_connections()
            if found.status == psutil.CONN_LISTEN
        )
        assert {found.laddr.ip for found in connections} == {"127.0.0.1"}
        assert httpx.get(f"{address}/api/v2/dags").status_code == 401
        wait_for(lambda: bool(airflow.query("SELECT 1 FROM dag WHERE dag_id = ?", dag)))
        airflow.call("dags", "unpause", dag)
        airflow.call("dags", "trigger", dag, "--run-id", "asked")
        told = airflow.place.root / "retraining"
        wait_for(lambda: bool(list(told.glob("*/notify.json"))))
        wait_for(lambda: airflow.states(dag)["run"] not in ("queued", "running"))
        states = airflow.states(dag)
    assert states.pop("notify") == states.pop("run") == "success", states
    assert set(states.values()) == {"skipped"}
    (cycle,) = (path.name for path in (airflow.place.root / "retraining").iterdir())
    assert airflow.place.record(cycle, "decide")["outcome"] == "end"


def test_dags_are_read_for_pods_too(airflow: Airflow) -> None:
    source = (
        "import sys; sys.path.insert(0, sys.argv[1]); import fakenews; "
        "print(type(fakenews.tasks[0]).__name__, [task.task_id for task in fakenews.tasks])"
    )
    done = subprocess.run(
        [str(VENV / "bin" / "python"), "-W", "ignore", "-c", source, str(DAGS)],
        env=os.environ | airflow.variables | {"FAKENEWS_RUNNER": "kubernetes"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == f"KubernetesPodOperator {list(STEPS)}", done.stderr


@pytest.fixture
def cluster(command: Commands, tmp_path: Path) -> Iterator[Path]:
    """The folder of a stand-in for Kubernetes, which no machine of tests has."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    node = subprocess.Popen(
        [command.python, str(ROOT / "tests" / "slow" / "kubernetes_stand_in.py"), str(folder)]
    )
    deadline = time.monotonic() + 60
    while not (folder / "kubeconfig").exists():
        assert node.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield folder
    node.kill()
    node.wait()


def test_tasks_are_pods(airflow: Airflow, cluster: Path) -> None:
    variables = {
        "FAKENEWS_RUNNER": "kubernetes",
        "FAKENEWS_IMAGE": "registry.example/retrain:1",
        "KUBECONFIG": str(cluster / "kubeconfig"),
        "AIRFLOW_CONN_KUBERNETES_DEFAULT": '{"conn_type": "kubernetes"}',
    }
    states = airflow.retrain("policy.new_labels=100000", **variables)
    assert states.pop("notify") == states.pop("run") == "success", states
    assert set(states.values()) == {"skipped"}
    (cycle,) = (path.name for path in (airflow.place.root / "retraining").iterdir())
    assert airflow.place.record(cycle, "decide")["outcome"] == "end"
    pods = [json.loads(path.read_text()) for path in cluster.glob("fakenews-*.json")]
    assert sorted(pod["metadata"]["labels"]["task_id"] for pod in pods) == ["decide", "notify"]
    for pod in pods:
        (container,) = pod["spec"]["containers"]
        assert container["image"] == "registry.example/retrain:1"
        assert container["volumeMounts"] == [{"name": "data", "mountPath": "/data"}]
        assert pod["spec"]["serviceAccountName"] == "training"
    # A pod that fails is tried again, as another pod.
    for pod in cluster.glob("fakenews-*.json"):
        pod.unlink()
    states = airflow.retrain(
        f"tracking_uri=sqlite:///{airflow.place.root}/no.db",
        FAKENEWS_RETRY_SECONDS="0.1",
        **variables,
    )
    assert states["decide"] == states["run"] == "failed", states
    assert len(list(cluster.glob("fakenews-decide-*.json"))) == 3
