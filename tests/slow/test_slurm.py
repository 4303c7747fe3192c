"""Jobs on a real SLURM: submitted, preempted, queued again, and done."""

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest

from fixtures.commands import Commands

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CORES = os.cpu_count() or 1
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Slurm:
    """Daemons, their configuration in a folder, and their commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.munge = folder / "munge"
        self.daemons: list[subprocess.Popen[bytes]] = []
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}

    def start(self) -> None:
        # munge wants folders that nobody else may write, and root owns.
        self.munge.mkdir(mode=0o755)
        key = self.munge / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self._daemon(
            *("munged", "--foreground", f"--key-file={key}"),
            *(f"--socket={self.munge}/socket", f"--pid-file={self.munge}/pid"),
            *(f"--log-file={self.munge}/log", f"--seed-file={self.munge}/seed", "--force"),
        )
        self.wait_for((self.munge / "socket").exists)
        host = socket.gethostname()
        for name in ("state", "spool", "logs"):
            (self.folder / name).mkdir()
        first = free_port()
        text = f"""
            ClusterName=test
            SlurmctldHost={host}(127.0.0.1)
            SlurmctldPort={free_port()}
            SlurmUser=root
            AuthType=auth/munge
            AuthInfo=socket={self.munge}/socket
            StateSaveLocation={self.folder}/state
            SlurmdSpoolDir={self.folder}/spool/%n
            SlurmctldPidFile={self.folder}/ctld.pid
            SlurmdPidFile={self.folder}/%n.pid
            SlurmctldLogFile={self.folder}/logs/ctld
            SlurmdLogFile={self.folder}/logs/%n
            ProctrackType=proctrack/linuxproc
            TaskPlugin=task/none
            SelectType=select/cons_tres
            SelectTypeParameters=CR_Core
            SchedulerParameters=sched_interval=1,batch_sched_delay=0
            PreemptType=preempt/partition_prio
            PreemptMode=REQUEUE
            MpiDefault=none
            ReturnToService=2
            KillWait=30
            MessageTimeout=30
            NodeName=node[0-1] NodeHostname={host} NodeAddr=127.0.0.1 CPUs={CORES} \
                Port=[{first}-{first + 1}]
            PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=60 State=UP
            PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF State=UP
        """
        (self.folder / "slurm.conf").write_text(
            "".join(f"{line.strip()}\n" for line in text.strip().splitlines())
        )
        self._daemon("slurmctld", "-D", "-c")
        for node in ("node0", "node1"):
            (self.folder / "spool" / node).mkdir()
            self._daemon("slurmd", "-D", "-N", node)
        self.wait_for(
            lambda: self("sinfo", "-h", "-o", "%T").split() in (["idle"], ["idle"] * 2)
        )

    def _daemon(self, program: str, *arguments: str) -> None:
        path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
        assert path is not None
        out = (self.folder / f"{program}{len(self.daemons)}.out").open("wb")
        self.daemons.append(
            subprocess.Popen([path, *arguments], env=self.environment, stdout=out, stderr=out)
        )
        out.close()

    def __call__(self, *command: str) -> str:
        done = subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.stdout.strip()

    def wait_for(self, condition: Callable[[], object], timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)

    def logs(self) -> str:
        return "\n".join(
            f"{path.name}:\n{path.read_text(errors='replace')[-2000:]}"
            for path in [*self.folder.glob("*.out"), *self.folder.glob("logs/*")]
        )

    def stop(self) -> None:
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing or os.geteuid() != 0:
        pytest.skip("needs the packages slurm-wlm and munge, and to be root")
    cluster = Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def submit(
    slurm: Slurm, command: Commands, folder: Path, *overrides: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(command.python, str(ROOT / "train.py"), *overrides),
            *("name=run", "data.fetch.rows=600", "encoder=tiny", "features=headline"),
            *("logger=none", "bootstrap=10", "loader.batch_size=16"),
            # The nodes' names are of this test, and no resolver knows them.
            *(
                ["cluster.setup=['export MASTER_ADDR=127.0.0.1']"]
                if "cluster=slurm" in overrides
                else []
            ),
            *(f"paths.root={folder}", f"paths.cache={folder}/cache"),
        ],
        cwd=folder,
        env=slurm.environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def number(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    found = re.match(r"job (\d+): squeue", done.stdout)
    assert found is not None, done.stdout
    return found[1]


def state(slurm: Slurm, job: str) -> str:
    found = re.search(r"JobState=(\w+)", slurm("scontrol", "show", "job", job))
    return found[1] if found else ""


def ends(slurm: Slurm, job: str) -> str:
    final = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL")
    slurm.wait_for(lambda: state(slurm, job) in final, timeout=240)
    return state(slurm, job)


def only_run(folder: Path) -> Path:
    (run,) = (folder / "runs" / "run").iterdir()
    return run


def run_state(folder: Path) -> object:
    return json.loads((only_run(folder) / "run.json").read_text())["state"]


def start_again(slurm: Slurm, job: str) -> None:
    """Start a job that went back to the queue, where SLURM holds it for two minutes."""
    slurm.wait_for(lambda: state(slurm, job) == "PENDING")
    # Not in the second in which it ended: a node takes the new start for the old one.
    slurm("scontrol", "update", f"JobId={job}", "StartTime=now+5")


def test_ranks_on_two_nodes_are_one_run(
    slurm: Slurm, command: Commands, tmp_path: Path
) -> None:
    job = number(
        submit(
            slurm, command, tmp_path, "cluster=slurm", "cluster.nodes=2", "trainer.max_epochs=2"
        )
    )
    output = tmp_path / f"run-{job}.out"
    assert ends(slurm, job) == "COMPLETED", output.read_text()
    assert run_state(tmp_path) == "finished"
    assert (only_run(tmp_path) / "bundle" / "manifest.json").is_file()
    assert output.read_text().count("start with report.html") == 1
    assert "[0/2]" in (only_run(tmp_path) / "train.log").read_text()


def said(folder: Path, job: str) -> str:
    """What a job has written: two processes do, and one may cut the other's character."""
    return (folder / f"run-{job}.out").read_text(errors="replace")


def test_preempted_job_saves_queues_again_and_completes(
    slurm: Slurm, command: Commands, tmp_path: Path
) -> None:
    job = number(
        submit(
            slurm,
            command,
            tmp_path,
            *("cluster=slurm", "cluster.partition=low", "cluster.nodes=2"),
            *("trainer.max_epochs=25", "callbacks.early_stopping.patience=100"),
        )
    )
    checkpoint = "runs/run/*/checkpoints/last.ckpt"
    slurm.wait_for(lambda: [*tmp_path.glob(checkpoint)], timeout=120)
    batch = (
        "--parsable",
        "--partition=high",
        "--nodes=2",
        "--exclusive",
        "--wrap",
        "sleep 1",
    )
    urgent = slurm("sbatch", *batch, f"--output={tmp_path}/urgent.out")
    assert ends(slurm, urgent) == "COMPLETED"
    # It was saved in the time that SLURM gives, not killed.
    assert "SIGTERM received: saved step" in said(tmp_path, job)
    start_again(slurm, job)
    assert ends(slurm, job) == "COMPLETED", said(tmp_path, job)
    assert "Restarts=1" in slurm("scontrol", "show", "job", job)
    assert run_state(tmp_path) == "finished"


def test_noticed_job_queues_again_and_a_cancelled_one_does_not(
    slurm: Slurm, command: Commands, tmp_path: Path
) -> None:
    job = number(
        submit(
            slurm,
            command,
            tmp_path,
            *("cluster=slurm", "trainer.max_epochs=100000"),
            "callbacks.early_stopping.patience=100000",
        )
    )
    slurm.wait_for(lambda: [*tmp_path.glob("runs/run/*/checkpoints/last.ckpt")], timeout=120)
    # As SLURM does `notice` seconds before the limit; waiting for that takes minutes.
    slurm("scancel", "--signal=TERM", job)
    slurm.wait_for(lambda: "Restarts=1" in slurm("scontrol", "show", "job", job))
    assert "SIGTERM received: saved step" in said(tmp_path, job)
    assert run_state(tmp_path) == "interrupted"
    start_again(slurm, job)
    slurm.wait_for(lambda: run_state(tmp_path) == "running", timeout=120)
    slurm("scancel", job)
    assert ends(slurm, job) == "CANCELLED"


def test_sweep_is_an_array_that_shares_a_study(
    slurm: Slurm, command: Commands, tmp_path: Path
) -> None:
    job = number(
        submit(
            slurm,
            command,
            tmp_path,
            *("-m", "sweep=random", "sweep.study=tiny", "sweep.n_trials=4"),
            *("cluster=slurm", "cluster.nodes=2", "trainer.max_epochs=1"),
        )
    )
    slurm.wait_for(lambda: not slurm("squeue", "-h", "--jobs", job), timeout=240)
    outputs = [path.read_text() for path in sorted(tmp_path.glob(f"run-{job}_*.out"))]
    assert len(outputs) == 2
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{tmp_path}/optuna.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4, outputs
    assert (tmp_path / "sweeps" / "tiny" / "report.html").is_file()


def test_runs_by_the_submitit_launcher(slurm: Slurm, command: Commands, tmp_path: Path) -> None:
    done = submit(
        slurm,
        command,
        tmp_path,
        *("-m", "seed=0,1", "trainer.max_epochs=1", "hydra/launcher=submitit_slurm"),
        *("hydra.launcher.timeout_min=5", "hydra.launcher.mem_gb=null"),
        "hydra.launcher.partition=low",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    runs = sorted((tmp_path / "runs" / "run").iterdir())
    assert len(runs) == 2
    assert all((run / "bundle" / "manifest.json").is_file() for run in runs)


def test_refusal_of_slurm_is_one_line(slurm: Slurm, command: Commands, tmp_path: Path) -> None:
    done = submit(slurm, command, tmp_path, "cluster=slurm", "cluster.partition=none")
    assert done.returncode == 1
    assert done.stderr.startswith("error: cluster=slurm: SLURM refuses the job: ")
    assert "invalid partition" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()
