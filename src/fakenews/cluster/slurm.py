"""Nodes of a SLURM cluster: a batch script whose tasks are the ranks."""

import logging
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

from fakenews.bounds import Count, PositiveCount
from fakenews.cluster.job import Job
from fakenews.config import RUN_ID
from fakenews.errors import ClusterError

log = logging.getLogger(__name__)

# srun does not know the script's option of that name.
_THREADS = ("SRUN_CPUS_PER_TASK", "OMP_NUM_THREADS")
# Of a script's options: a line of its own, or none.
_LINE = re.compile(r"[^\n\r]*")


class Slurm:
    """Submits the job with `sbatch`: one task a rank, and nothing else to install.

    The job goes back to the queue, and on from its last checkpoint, when it is preempted
    and when its time is nearly over. A sweep is an array of `nodes` jobs that share the
    study.

    Args:
        nodes: How many machines; for a sweep, how many workers.
        gpus: On each node.
        processes: On each node; None: one a GPU, or one.
        cpus: Cores of each process; None: as the cluster has it.
        memory: Of each node, as `32G`; None: as the cluster has it.
        time: Limit, as `12:00:00`; None: as the cluster has it.
        notice: Seconds before that limit at which the job saves and queues again.
        requeue: Whether it queues again at all.
        partition: Where to run; None: where the cluster does.
        account: Who pays; None: as the cluster has it.
        options: Others of `sbatch`, as `{constraint: a100}`.
        setup: Lines of shell before the job, as `module load cuda`.
        id: Names the run; None: the time. The same one continues it.
        dry_run: Show the script, and submit nothing.
    """

    def __init__(
        self,
        *,
        nodes: PositiveCount = 1,
        gpus: Count = 0,
        processes: PositiveCount | None = None,
        cpus: PositiveCount | None = None,
        memory: str | None = None,
        time: str | None = None,
        notice: PositiveCount = 120,
        requeue: bool = True,
        partition: str | None = None,
        account: str | None = None,
        options: Mapping[str, str | int | bool] | None = None,
        setup: Sequence[str] = (),
        id: str | None = None,  # noqa: A002 the name that users type
        dry_run: bool = False,
    ) -> None:
        self.nodes = nodes
        self.gpus = gpus
        self.processes = processes or gpus or 1
        self.cpus = cpus
        self.memory = memory
        self.time = time
        self.notice = notice
        self.requeue = requeue
        self.partition = partition
        self.account = account
        self.options = dict(options or {})
        self.setup = list(setup)
        self.id = id
        self.dry_run = dry_run

    def plan(self, job: Job) -> str:
        """The batch script.

        Raises:
            ClusterError: An option of it has a line break.
        """
        found = self._options(job)
        for name, value in found.items():
            if not _LINE.fullmatch(f"{name}{value}"):
                raise ClusterError(f"cluster.options: {name} has a line break")
        lines = [
            "#!/bin/bash",
            *(f"#SBATCH --{name}{_value(value)}" for name, value in found.items()),
            "",
            "# All ranks, and all starts of this job, work in one run folder.",
            f"export {RUN_ID}={shlex.quote(job.run_id)}",
            *(f"export {name}={self.cpus}" for name in _THREADS if self.cpus),
            *self.setup,
            "",
            *self._steps(job),
        ]
        return "\n".join(lines)

    def _options(self, job: Job) -> dict[str, str | int | bool]:
        """Of `sbatch`, by name; True stands for one without a value."""
        given = {
            "job-name": job.name,
            "nodes": 1 if job.sweep else self.nodes,
            "array": f"0-{self.nodes - 1}" if job.sweep else None,
            "ntasks-per-node": 1 if job.sweep else self.processes,
            "gpus-per-node": self.gpus or None,
            "cpus-per-task": self.cpus,
            "mem": self.memory,
            "time": self.time,
            "partition": self.partition,
            "account": self.account,
            # To the ranks, which save at the end of their step.
            "signal": f"TERM@{self.notice}",
            "requeue" if self.requeue else "no-requeue": True,
            "output": f"{job.name}-{'%A_%a' if job.sweep else '%j'}.out",
            "open-mode": "append",
        }
        found = {name: value for name, value in given.items() if value is not None}
        return found | {name.replace("_", "-"): value for name, value in self.options.items()}

    def _steps(self, job: Job) -> Iterator[str]:
        command = shlex.join([sys.executable, sys.argv[0], *job.arguments])
        yield "# One rank that fails ends the others."
        yield f"srun --kill-on-bad-exit=1 {command}"
        yield "status=$?"
        if self.requeue:
            yield "# 143: told to save and stop; 75: trainer.max_time. The rest is still to do."
            yield 'if [ "$status" -eq 143 ] || [ "$status" -eq 75 ]; then'
            yield '  scontrol requeue "$SLURM_JOB_ID"'
            yield "fi"
        yield 'exit "$status"'

    def submit(self, job: Job) -> int:
        """Hand the script to SLURM, and say how to follow it.

        Raises:
            ClusterError: There is no SLURM, or it refuses.
        """
        try:
            done = subprocess.run(
                ["sbatch", "--parsable"],  # noqa: S607 wherever SLURM is installed
                input=self.plan(job),
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError as error:
            raise ClusterError(
                "cluster=slurm: there is no sbatch here: start the command on a login node, or "
                "see the script with cluster.dry_run=true"
            ) from error
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["it does not say why"]
            reasons = [line.removeprefix("sbatch: error: ") for line in lines]
            raise ClusterError(f"cluster=slurm: SLURM refuses the job: {'; '.join(reasons)}")
        number = done.stdout.strip().partition(";")[0]
        output = f"{job.name}-{number}{'_0' if job.sweep else ''}.out"
        print(f"job {number}: squeue --jobs {number}, tail -F {output}, scancel {number}")  # noqa: T201
        return 0


def _value(value: str | int | bool) -> str:
    return "" if value is True else f"={value}"
