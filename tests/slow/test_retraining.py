"""Cycles of retraining as cron and Airflow run them: whole, refused, killed at every step."""

import hashlib
import json
import os
import shlex
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import httpx
import pandas as pd
import psutil
import pytest

from fakenews.data.sample import Drift, generate
from fakenews.retraining.cycle import STEPS
from fakenews.retraining.manifest import read_dataset
from fakenews.retraining.registry import Registry
from fixtures.commands import Commands

ROOT = Path(__file__).resolve().parents[2]
VENV = Path(os.environ.get("AIRFLOW_VENV") or ROOT / ".venv-airflow")
DAGS = ROOT / "deploy" / "airflow" / "dags"
PORTS = (
    "serve.torchserve.inference_port",
    "serve.torchserve.management_port",
    "serve.torchserve.metrics_port",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ..noload.. loader"),
]

QUICK = ("encoder=tiny", "features=headline", "trainer.max_epochs=2", "bootstrap=10")
# What a random encoder learns in seconds differs more from seed to seed.
LENIENT = (
    "policy.margins={average_precision: 0.4, macro_f1: 0.4, minority_recall: 0.9, brier: 0.3}",
    "policy.recall_floor=0",
    "policy.failing=1",
    "policy.tolerance=1",
    "policy.artefact_margin=1",
    "policy.slice_margin=0.9",
    "policy.resamples=500",
)


@dataclass
class Place:
    """A folder in which a champion was trained, and later labels lie.

    Attributes:
        root: The folder.
        cache: Of downloads and tokens.
        command: Starts what is run there.
    """

    root: Path
    cache: Path
    command: Commands

    @property
    def paths(self) -> tuple[str, str]:
        return f"paths.root={self.root}", f"paths.cache={self.cache}"

    def run(self, script: str, *options: str, status: int = 0) -> str:
        process = self.command.start(script, *options, *self.paths, cwd=self.root)
        said, _ = process.communicate()
        assert process.returncode == status, said
        return said

    def options(self, *more: str) -> list[str]:
        return [
            "name=loop",
            "deployment=null",
            "data.log=null",
            f"data.labels={self.root}/labels.csv",
            f"commands.train={listed(*QUICK)}",
            f"commands.gate={listed(*LENIENT)}",
            "policy.new_labels=100",
            *more,
        ]

    def retrain(self, *options: str, status: int = 0) -> str:
        return self.run("scripts/retrain.py", *self.options(*options), status=status)

    @property
    def registry(self) -> Registry:
        return Registry(uri=f"sqlite:///{self.root}/mlflow.db", model="loop")

    def record(self, cycle: str, step: str) -> dict[str, Any]:
        content = (self.root / "retraining" / cycle / f"{step}.json").read_text()
        found: dict[str, Any] = json.loads(content)
        return found


class Servers:
    """TorchServe and the gateway of a place, on ports of their own, with the champion.

    Args:
        place: Whose deployment it is.
    """

    def __init__(self, place: Place) -> None:
        probes = [socket.socket() for _ in range(len(PORTS) + 1)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        ports = [int(probe.getsockname()[1]) for probe in probes]
        for probe in probes:
            probe.close()
        self.options = [
            "serve.torchserve.grpc_inference_port=0",
            "serve.torchserve.grpc_management_port=0",
            "serve.torchserve.heap=256m",
            "serve.deadline=60",
            *(f"{name}={port}" for name, port in zip(PORTS, ports[1:], strict=True)),
        ]
        self.place = place
        self.url = f"http://127.0.0.1:{ports[0]}"
        self._process = place.command.start(
            "scripts/serve.py",
            *(f"serve.gateway.port={ports[0]}", *self.options, *place.paths),
            cwd=place.root,
        )

    def __enter__(self) -> Self:
        deadline = time.monotonic() + 180
        while not self._open():
            assert self._process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        # The registry has a champion already: now it is served, too.
        self.place.run(
            "scripts/promote.py", "name=loop", "action=promote", "version=1", "force=true",
            *self.options,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=60)

    def _open(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/live").is_success
        except httpx.HTTPError:
            return False

    def ask(self) -> dict[str, Any]:
        answer = httpx.post(f"{self.url}/predict", json={"text": f"At {time.monotonic()}"})
        found: dict[str, Any] = answer.json()
        return found

    @contextmanager
    def asked(self) -> Iterator[list[int]]:
        """Somebody asks again and again; the statuses of the answers."""
        statuses: list[int] = []
        stop = threading.Event()

        def go_on() -> None:
            with httpx.Client(base_url=self.url, timeout=120) as client:
                while not stop.wait(0.1):
                    body = {"text": f"A headline at {time.monotonic()}"}
                    statuses.append(client.post("/predict", json=body).status_code)

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield statuses
        finally:
            stop.set()
            thread.join()


def listed(*options: str) -> str:
    return f"[{','.join(json.dumps(option) for option in options)}]"


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


def runs(process: psutil.Process) -> bool:
    """Whether it is there, and no zombie."""
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


class Airflow:
    """An Airflow of its own, whose DAGs run one at a time in its process.

    Args:
        place: What they work on.
        store: Its database, to be copied; None makes a new one, in some ten seconds.
    """

    def __init__(self, place: Place, store: Path | None = None) -> None:
        self.place = place
        self.home = place.root / "airflow"
        self.variables = {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW_VENV": str(VENV),
            "FAKENEWS_MODEL": "loop",
            "FAKENEWS_PYTHON": place.command.python,
            "FAKENEWS_RETRY_SECONDS": "1",
            "OMP_NUM_THREADS": "1",
        }
        if store is None:
            self.call("db", "migrate")
        else:
            self.home.mkdir()
            shutil.copy(store, self.store)

    @property
    def store(self) -> Path:
        return self.home / "airflow.db"

    def call(self, *command: str, statuses: Collection[int] = (0,), **variables: str) -> str:
        done = subprocess.run(
            [str(ROOT / "deploy" / "airflow" / "standalone"), *command],
            env=os.environ | self.variables | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode in statuses, done.stdout
        return done.stdout

    def options(self, *more: str) -> dict[str, str]:
        """What is typed for the DAG of retraining."""
        options = [*self.place.options(*more)[1:], *self.place.paths]
        return {"FAKENEWS_RETRAIN": shlex.join(options)}

    def retrain(self, *options: str, **variables: str) -> dict[str, str]:
        """Run the DAG of retraining; the state of each task, and of the run."""
        variables |= self.options(*options)
        said = self.call("dags", "test", "fakenews_retraining", statuses=(0, 1), **variables)
        (self.place.root / "airflow.log").write_text(said)
        return self.states("fakenews_retraining")

    @contextmanager
    def running(self, **variables: str) -> Iterator[str]:
        """Scheduler, page and executor, as `make airflow` starts them; the address."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        variables["AIRFLOW_PORT"] = str(port)
        with (self.place.root / "standalone.log").open("wb") as log:
            process = subprocess.Popen(
                [str(ROOT / "deploy" / "airflow" / "standalone")],
                env=os.environ | self.variables | variables,
                stdout=log,
                stderr=log,
            )
            try:
                self.first = psutil.Process(process.pid)
                yield f"http://127.0.0.1:{port}"
            finally:
                family = self.family()
                process.terminate()
                assert process.wait(60) == 143
                _, left = psutil.wait_procs(family, timeout=1)
                # Who has adopted what has ended may take its time to notice.
                left = [each for each in left if runs(each)]
                for each in left:
                    with suppress(psutil.NoSuchProcess):
                        each.kill()
        assert not left

    def family(self) -> list[psutil.Process]:
        """The processes of one that runs."""
        return [self.first, *self.first.children(recursive=True)]

    def states(self, dag: str) -> dict[str, str]:
        """Of the newest run and its tasks."""
        found = "SELECT run_id, state FROM dag_run WHERE dag_id = ? ORDER BY start_date DESC"
        run, state = self.query(found, dag)[0]
        found = "SELECT task_id, state FROM task_instance WHERE dag_id = ? AND run_id = ?"
        return dict(self.query(found, dag, run)) | {"run": state}

    def query(self, statement: str, *values: str) -> list[tuple[str, str]]:
        """Ask its database, where each of its commands would take seconds to begin."""
        with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True)) as store:
            return store.execute(statement, values).fetchall()


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
