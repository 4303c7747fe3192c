"""Every manifest renders, is what its API takes, and keeps to the rules of the project."""

import copy
import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from fakenews.config import CONF, check, register_resolvers, set_output, task
from fakenews.monitoring import channels
from fakenews.rules import training_rules

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"

Manifest = dict[str, Any]
Templates = Callable[[Manifest], list[Manifest]]

BESIDE = Path(sys.executable).parent
KUBECTL = shutil.which("kubectl", path=f"{BESIDE}{os.pathsep}{os.environ['PATH']}")

FOLDERS = sorted(
    path.parent.relative_to(DEPLOY).as_posix()
    for path in DEPLOY.rglob("kustomization.yaml")
    if yaml.safe_load(path.read_text())["kind"] == "Kustomization"
)
TRAININGS = ["job", "trainjob", "pytorchjob", "sweep"]
SERVICES = ["local", "eks"]
SERVING = ["serving", "monitor"]


def _kustomize(folder: Path) -> subprocess.CompletedProcess[str]:
    assert KUBECTL is not None
    return subprocess.run(
        [KUBECTL, "kustomize", str(folder)], capture_output=True, text=True, check=False
    )


@functools.cache
def _rendered(folder: str) -> tuple[Manifest, ...]:
    done = _kustomize(DEPLOY / folder)
    assert done.returncode == 0, done.stderr
    # Kustomize says so when a field that it reads is deprecated.
    assert not done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def _together(services: str) -> list[Manifest]:
    """All that may run beside each other in one place."""
    folders = [f"kubernetes/overlays/{name}" for name in (services, *TRAININGS, *SERVING)]
    return [found for folder in folders for found in _rendered(folder)]


def _of(objects: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {found["metadata"]["name"]: found for found in objects if found["kind"] == kind}


def test_every_folder_was_found_however_deep() -> None:
    named = {*TRAININGS, *SERVICES, *SERVING}
    assert {f"kubernetes/overlays/{name}" for name in named} <= {*FOLDERS}
    assert {"kubernetes/base", "eks/autoscaler"} <= {*FOLDERS}
    overlays = {path.name for path in (DEPLOY / "kubernetes/overlays").iterdir()}
    assert overlays == named


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_object_is_what_its_api_takes(
    folder: str, validate: Callable[[Manifest], None]
) -> None:
    objects = _rendered(folder)
    assert objects
    for found in objects:
        validate(found)


def _set(path: str, value: Any) -> Callable[[Manifest], None]:
    *parents, last = path.split(".")

    def change(found: Any) -> None:
        for key in parents:
            found = found[int(key) if key.isdigit() else key]
        found[last] = value

    return change


def _drop(path: str) -> Callable[[Manifest], None]:
    *parents, last = path.split(".")

    def change(found: Any) -> None:
        for key in parents:
            found = found[int(key) if key.isdigit() else key]
        del found[last]

    return change


REPLICATED = "spec.template.spec.replicatedJobs.0.template.spec"


@pytest.mark.parametrize(
    ("folder", "kind", "change"),
    [
        ("base", "Deployment", _set("spec.replica", 1)),
        ("base", "Deployment", _drop("spec.selector")),
        ("base", "StatefulSet", _set("spec.replicas", "one")),
        ("base", "Service", _set("spec.ports.0.targetport", "http")),
        ("base", "NetworkPolicy", _set("spec.ingres", [])),
        ("base", "PersistentVolumeClaim", _set("spec.accessModes", "ReadWriteMany")),
        ("overlays/serving", "Deployment", _set("spec.strategy.maxSurge", 1)),
        ("overlays/serving", "PodDisruptionBudget", _set("spec.unavailable", 1)),
        (
            "overlays/serving",
            "Deployment",
            _set("spec.template.spec.containers.0.lifecycle.preStop.sleep.seconds", "35"),
        ),
        ("overlays/monitor", "CronJob", _set("spec.shedule", "* * * * *")),
        ("overlays/monitor", "CronJob", _drop("spec.jobTemplate")),
        ("overlays/monitor", "CronJob", _set("spec.jobTemplate.spec.backoffLimit", "1")),
        ("overlays/job", "Job", _set("spec.completions", "2")),
        ("overlays/job", "Job", _set("spec.template.spec.runAsNonRoot", True)),
        ("overlays/job", "Job", _drop("spec.template.spec.containers.0.name")),
        ("overlays/trainjob", "TrainJob", _set("spec.trainer.nodes", 2)),
        ("overlays/trainjob", "TrainJob", _set("spec.trainer.numNodes", "2")),
        ("overlays/trainjob", "TrainJob", _set("spec.trainer.numProcPerNode", "auto")),
        ("overlays/trainjob", "TrainJob", _drop("spec.runtimeRef")),
        ("overlays/trainjob", "TrainJob", _drop("spec")),
        ("overlays/trainjob", "TrainingRuntime", _set("spec.mlPolicy.torch.elastic", {})),
        ("overlays/trainjob", "TrainingRuntime", _set("spec.template.spec.replicas", 1)),
        ("overlays/trainjob", "TrainingRuntime", _set(f"{REPLICATED}.backoffLimit", "0")),
        (
            "overlays/trainjob",
            "TrainingRuntime",
            _set(f"{REPLICATED}.template.spec.containers.0.arguments", []),
        ),
        ("overlays/pytorchjob", "PyTorchJob", _set("spec.nprocPerNode", 1)),
        ("overlays/pytorchjob", "PyTorchJob", _set("spec.elasticPolicy.nodes", 2)),
        (
            "overlays/pytorchjob",
            "PyTorchJob",
            _set("spec.pytorchReplicaSpecs.Worker.template.spec.gracePeriod", 5),
        ),
        ("overlays/pytorchjob", "PyTorchJob", _drop("spec.pytorchReplicaSpecs")),
    ],
)
def test_a_broken_manifest_is_refused(
    folder: str,
    kind: str,
    change: Callable[[Manifest], None],
    validate: Callable[[Manifest], None],
) -> None:
    objects = _rendered(f"kubernetes/{folder}")
    found = copy.deepcopy(next(found for found in objects if found["kind"] == kind))
    validate(found)
    change(found)
    with pytest.raises(jsonschema.ValidationError):
        validate(found)


def test_a_broken_kustomization_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resource: []\n")
    assert _kustomize(tmp_path).returncode != 0


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_pod_can_do_little(folder: str, pod_templates: Templates) -> None:
    for found in _rendered(folder):
        for template in pod_templates(found):
            pod = template["spec"]
            context = pod["securityContext"]
            assert context["runAsNonRoot"] is True
            assert context["runAsUser"] > 0
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
            assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
            assert not any("hostPath" in volume for volume in pod.get("volumes", ()))
            for container in [*pod["containers"], *pod.get("initContainers", ())]:
                own = container["securityContext"]
                assert own["allowPrivilegeEscalation"] is False
                assert own["readOnlyRootFilesystem"] is True
                assert own["capabilities"] == {"drop": ["ALL"]}
                assert "privileged" not in own
                for amounts in ("requests", "limits"):
                    assert container["resources"][amounts].keys() >= {"cpu", "memory"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_images_have_a_version(folder: str, pod_templates: Templates) -> None:
    for found in _rendered(folder):
        for template in pod_templates(found):
            for container in template["spec"]["containers"]:
                tag = re.fullmatch(
                    r"[\w./-]+(?::(v?\w[\w.-]*\d[\w.-]*)|@sha256:\w{64})", container["image"]
                )
                assert tag, container["image"]
                assert tag[1] != "latest"


@pytest.mark.parametrize("folder", FOLDERS)
def test_mounts_and_volumes_belong_together(folder: str, pod_templates: Templates) -> None:
    for found in _rendered(folder):
        claims = found["spec"].get("volumeClaimTemplates", ()) if "spec" in found else ()
        for template in pod_templates(found):
            pod = template["spec"]
            volumes = {volume["name"] for volume in (*pod.get("volumes", ()),)}
            volumes |= {claim["metadata"]["name"] for claim in claims}
            mounted = {
                mount["name"]
                for container in pod["containers"]
                for mount in container.get("volumeMounts", ())
            }
            assert mounted == volumes


def test_no_secret_is_committed() -> None:
    for folder in FOLDERS:
        assert not _of([*_rendered(folder)], "Secret")
    for path in DEPLOY.rglob("*.yaml"):
        assert not re.search(r"secretGenerator|^kind: Secret$", path.read_text(), re.MULTILINE)
        assert not re.search(r"://[^/\s@:]+:[^/\s@]+@", path.read_text()), path


@pytest.mark.parametrize("services", SERVICES)
def test_what_a_pod_names_exists(services: str, pod_templates: Templates) -> None:
    objects = _together(services)
    accounts = _of(objects, "ServiceAccount")
    maps = _of(objects, "ConfigMap")
    claims = _of(objects, "PersistentVolumeClaim")
    # Made by hand, see deploy/kubernetes/README.md.
    secrets = {"fakenews-postgres", "fakenews-objects", "fakenews-alerts"}
    used = set()
    for template in [template for found in objects for template in pod_templates(found)]:
        pod = template["spec"]
        used.add(pod["serviceAccountName"])
        for volume in pod["volumes"]:
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
            if "configMap" in volume:
                assert volume["configMap"]["name"] in maps
        for container in pod["containers"]:
            for source in container.get("envFrom", ()):
                assert source.get("configMapRef", {}).get("name", "fakenews") in maps
                assert source.get("secretRef", {}).get("name", "fakenews-objects") in secrets
            for variable in container["env"]:
                origin = variable.get("valueFrom", {}).get("secretKeyRef")
                assert origin is None or origin["name"] in secrets
    # None is left over, none is missing, and none is given a token.
    assert used == accounts.keys()
    assert all(found["automountServiceAccountToken"] is False for found in accounts.values())


def _selects(selector: Manifest, labels: dict[str, str]) -> bool:
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for rule in selector.get("matchExpressions", ()):
        assert rule["operator"] == "In"
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return True


@pytest.mark.parametrize("services", SERVICES)
def test_selectors_match_pods(services: str, pod_templates: Templates) -> None:
    objects = _together(services)
    pods = [
        template["metadata"]["labels"] for found in objects for template in pod_templates(found)
    ]
    # Jobs label their pods themselves.
    pods += [{"batch.kubernetes.io/job-name": name} for name in _of(objects, "Job")]
    for policy in _of(objects, "NetworkPolicy").values():
        spec = policy["spec"]
        peers = [
            peer
            for rule in [*spec.get("ingress", ()), *spec.get("egress", ())]
            for peer in [*rule.get("from", ()), *rule.get("to", ())]
        ]
        selectors = [peer["podSelector"] for peer in peers if "podSelector" in peer]
        for selector in [spec["podSelector"], *selectors]:
            assert any(_selects(selector, labels) for labels in pods), selector
    for service in _of(objects, "Service").values():
        assert any(_selects({"matchLabels": service["spec"]["selector"]}, it) for it in pods)
    for kind in ("Deployment", "StatefulSet"):
        for found in _of(objects, kind).values():
            labels = found["spec"]["template"]["metadata"]["labels"]
            assert _selects(found["spec"]["selector"], labels)


@pytest.mark.parametrize("services", SERVICES)
def test_every_pod_is_closed_but_for_its_policies(
    services: str, pod_templates: Templates
) -> None:
    objects = _together(services)
    policies = _of(objects, "NetworkPolicy")
    assert policies["default-deny"]["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }
    named = {port["targetPort"]: port["port"] for port in _service_ports(objects)}
    for found in objects:
        for template in pod_templates(found):
            labels = template["metadata"]["labels"]
            opened = {
                port["port"]
                for policy in policies.values()
                if _selects(policy["spec"]["podSelector"], labels)
                for rule in policy["spec"].get("ingress", ())
                for port in rule["ports"]
            }
            listening = {
                port["containerPort"]
                for container in template["spec"]["containers"]
                for port in container.get("ports", ())
            }
            # Workers meet on any port from the first unprivileged one on.
            assert opened == {1024} or listening <= opened
            for container in template["spec"]["containers"]:
                for port in container.get("ports", ()):
                    if port["name"] in named:
                        assert named[port["name"]] == port["containerPort"]


def _service_ports(objects: list[Manifest]) -> list[Manifest]:
    services = _of(objects, "Service").values()
    ports = [port for service in services for port in service["spec"]["ports"]]
    return [port for port in ports if "targetPort" in port]


def _training_pod(name: str, pod_templates: Templates) -> Manifest:
    objects = _rendered(f"kubernetes/overlays/{name}")
    (template,) = [template for found in objects for template in pod_templates(found)]
    return template


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_has_time_memory_and_room(name: str, pod_templates: Templates) -> None:
    pod = _training_pod(name, pod_templates)["spec"]
    (container,) = pod["containers"]
    environment = {it["name"]: it.get("value") for it in container["env"]}
    assert pod["terminationGracePeriodSeconds"] == 120
    assert int(environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) < 120
    assert environment["OMP_NUM_THREADS"] == container["resources"]["limits"]["cpu"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"  # noqa: S108
    assert "persistentVolumeClaim" in volumes[mounts["/shared"]]
    assert not any("PASSWORD" in argument.upper() for argument in container["args"])


def test_preemption_is_no_failure() -> None:
    disrupted = [{"type": "DisruptionTarget", "status": "True"}]
    for name in ("job", "sweep"):
        (job,) = _of([*_rendered(f"kubernetes/overlays/{name}")], "Job").values()
        spec = job["spec"]
        assert spec["podFailurePolicy"]["rules"] == [
            {"action": "Ignore", "onPodConditions": disrupted}
        ]
        # What the API asks for beyond its schema.
        assert spec["template"]["spec"]["restartPolicy"] == "Never"
        assert spec["completionMode"] == "Indexed"
        assert "backoffLimit" not in spec
    runtime = _of([*_rendered("kubernetes/overlays/trainjob")], "TrainingRuntime")
    jobs = runtime["fakenews-train"]["spec"]["template"]["spec"]
    (node,) = jobs["replicatedJobs"]
    assert node["template"]["spec"]["podFailurePolicy"]["rules"] == [
        {"action": "FailJob", "onPodConditions": disrupted}
    ]
    assert jobs["failurePolicy"]["rules"][0]["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert node["template"]["spec"]["template"]["spec"]["containers"][0]["name"] == "node"


def test_the_monitor_runs_one_at_a_time_and_is_not_asked_again_about_an_alarm(
    pod_templates: Templates,
) -> None:
    (found,) = _of([*_rendered("kubernetes/overlays/monitor")], "CronJob").values()
    assert found["spec"]["concurrencyPolicy"] == "Forbid"
    job = found["spec"]["jobTemplate"]["spec"]
    (template,) = pod_templates(found)
    (container,) = template["spec"]["containers"]
    failing, passing = job["podFailurePolicy"]["rules"]
    # An alarm, and what could not be judged. An error (1) may pass.
    assert failing["action"] == "FailJob"
    assert failing["onExitCodes"] == {
        "containerName": container["name"],
        "operator": "In",
        "values": [2, 3],
    }
    assert passing["action"] == "Ignore"
    assert (job["backoffLimit"], template["spec"]["restartPolicy"]) == (1, "Never")
    # A channel of conf/alerts, and the secrets that channels ask the environment for.
    (alerts,) = [it for it in container["args"] if it.startswith("alerts=")]
    chosen = alerts.partition("=")[2].strip("[]").split(",")
    assert {f"{name}.yaml" for name in chosen} <= {it.name for it in CONF.glob("alerts/*")}
    names = {it["name"] for it in container["env"]}
    assert {channels.WEBHOOK_URL, channels.WEBHOOK_TOKEN, channels.SMTP_PASSWORD} <= names


def test_the_pods_of_a_job_meet_at_the_first() -> None:
    objects = [*_rendered("kubernetes/overlays/job")]
    (job,) = _of(objects, "Job").values()
    (service,) = _of(objects, "Service").values()
    pod = job["spec"]["template"]["spec"]
    environment = {it["name"]: it.get("value") for it in pod["containers"][0]["env"]}
    host, _, port = environment["PET_RDZV_ENDPOINT"].partition(":")
    assert host == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert {int(port)} == {port["port"] for port in service["spec"]["ports"]}
    assert environment["PET_NNODES"] == f"1:{job['spec']['completions']}"
    # One folder for all pods, and for those that replace them.
    assert any(it.startswith("hydra.run.dir=/shared/") for it in pod["containers"][0]["args"])


@pytest.mark.parametrize("name", TRAININGS)
def test_options_of_a_training_exist(
    name: str, pod_templates: Templates, tmp_path: Path
) -> None:
    (container,) = _training_pod(name, pod_templates)["spec"]["containers"]
    command, arguments = container["command"], container["args"]
    assert any(word.endswith("/app/train.py") or "/app/train.py " in word for word in command)
    assert ("-m" in command) == (name == "sweep") == ("sweep=optuna" in arguments)
    register_resolvers()
    with initialize_config_dir(str(CONF)):
        cfg = compose("train", overrides=arguments, return_hydra_config=True)
        set_output(cfg, str(tmp_path))
        try:
            job = task(cfg)
            check(job, rules=training_rules)
            assert job.paths.runs == "/shared/runs"
            assert job.logger.tracking_uri == "http://fakenews-mlflow:5000"
        finally:
            HydraConfig.instance().cfg = None
    if name == "sweep":
        assert job.sweep.storage == "postgresql://fakenews@fakenews-postgres:5432/optuna"
    else:
        assert job.trainer.strategy == "ddp"


@pytest.mark.parametrize("name", TRAININGS)
def test_a_queue_of_kueue_holds_back_the_job(
    name: str, tmp_path: Path, validate: Callable[[Manifest], None]
) -> None:
    shutil.copytree(DEPLOY / "kubernetes", tmp_path / "kubernetes")
    folder = tmp_path / "kubernetes/overlays" / name
    path = folder / "kustomization.yaml"
    path.write_text(
        path.read_text().replace(
            "  - ../../components/training\n",
            "  - ../../components/training\n  - ../../components/kueue\n",
        )
    )
    done = _kustomize(folder)
    assert done.returncode == 0, done.stderr
    queued = {}
    for found in yaml.safe_load_all(done.stdout):
        validate(found)
        queued[found["kind"]] = "kueue.x-k8s.io/queue-name" in found["metadata"]["labels"]
    assert [kind for kind, yes in queued.items() if yes] == [
        {"trainjob": "TrainJob", "pytorchjob": "PyTorchJob"}.get(name, "Job")
    ]


def test_services_and_trainings_agree() -> None:
    objects = _together("local")
    # Hosts that pods call, and names of services.
    text = yaml.safe_dump_all(objects)
    called = set(re.findall(r"(?:@|//)(fakenews-[a-z]+):\d+", text))
    assert called == {"fakenews-postgres", "fakenews-mlflow", "fakenews-objects"}
    assert called <= _of(objects, "Service").keys()
    (databases,) = [
        found for name, found in _of(objects, "ConfigMap").items() if "databases" in name
    ]
    assert "CREATE DATABASE optuna;" in databases["data"]["databases.sql"]
