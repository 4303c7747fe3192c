"""What is to be started, and what can start it."""

import re
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training that another program is to start.

    Args:
        name: Of its runs.
        run_id: Names the run folder, the same for all its processes.
        overrides: Of its command, without those of `cluster`.
        sweep: Whether it is a study, which several workers share.
    """

    name: str
    run_id: str
    overrides: tuple[str, ...]
    sweep: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """Arguments of `train.py` in each process."""
        return (*(["-m"] if self.sweep else []), *self.overrides)


def key_of(override: str) -> str:
    """The option that an override sets, as `data.path` of `+data.path=news.csv`."""
    return re.split("[=@]", override.lstrip("+~"))[0]


class Cluster(Protocol):
    """An option of `conf/cluster/` that starts jobs.

    Args:
        nodes: How many machines.
        processes: On each.
        dry_run: Whether to show what would be started, and start nothing.
    """

    nodes: int
    processes: int
    dry_run: bool

    def plan(self, job: Job) -> str:
        """What `submit` will start, as text: a command, a script, a manifest.

        Raises:
            ConfigError: The job does not go with the settings.
            ClusterError: A program that is needed does not work.
        """

    def submit(self, job: Job) -> int:
        """Start the job.

        Returns:
            Exit status: of the job, or 0 when it was handed over.

        Raises:
            ConfigError: The job does not go with the settings.
            ClusterError: It cannot be started.
        """
