"""Processes of one machine, or of several that meet, by torchrun."""

import contextlib
import logging
import os
import re
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import psutil

from fakenews.bounds import Count, PositiveCount
from fakenews.cluster.job import Job
from fakenews.config import RUN_ID
from fakenews.errors import ClusterError, ConfigError
from fakenews.launch import VERDICT, core_share, verdict

log = logging.getLogger(__name__)

_PORTS = 65536
# Seconds in which machines must have met.
_MEET = 600
# Seconds in which ranks that are asked to stop save.
_GRACE = 110


class Torchrun:
    """Starts a process a device here; with several nodes, the same is done on each.

    A rank that dies is started again with all others, at most `max_restarts` times, and
    training goes on from the last checkpoint. Mistakes that a restart cannot mend end the
    job at once.

    Args:
        processes: On this machine.
        nodes: How many machines.
        min_nodes: Begin with so many, and let others come and go; None: all of `nodes`.
        endpoint: HOST:PORT where they meet; needed for more than one.
        backend: What keeps the rendezvous: `c10d` at HOST itself, or an etcd server.
        max_restarts: Of all ranks, after one has died.
        local_address: Under which others reach this machine; None: as it calls itself.
        id: Names the run, the same on every machine; None: the time, for one machine.
        dry_run: Show the command, and start nothing.

    Raises:
        ConfigError: Several nodes without a place to meet, or a name.
    """

    def __init__(
        self,
        *,
        processes: PositiveCount = 1,
        nodes: PositiveCount = 1,
        min_nodes: PositiveCount | None = None,
        endpoint: str | None = None,
        backend: Literal["c10d", "etcd-v2"] = "c10d",
        max_restarts: Count = 3,
        local_address: str | None = None,
        id: str | None = None,  # noqa: A002 the name that users type
        dry_run: bool = False,
    ) -> None:
        faults = []
        if nodes > 1 or endpoint is not None:
            place = re.fullmatch(r"\S+:(\d{1,5})", endpoint or "")
            if place is None or not 0 < int(place[1]) < _PORTS:
                said = "is not set" if endpoint is None else f"is {endpoint}"
                faults.append(
                    f"cluster.endpoint {said}: give HOST:PORT where the nodes meet, the same "
                    "on each"
                )
            if id is None:
                faults.append("cluster.id is not set: give a name, the same on each node")
        if min_nodes is not None and min_nodes > nodes:
            faults.append(f"cluster.min_nodes={min_nodes} is more than cluster.nodes={nodes}")
        if faults:
            raise ConfigError(faults)
        self.processes = processes
        self.nodes = nodes
        self.min_nodes = nodes if min_nodes is None else min_nodes
        self.endpoint = endpoint
        self.backend = backend
        self.max_restarts = max_restarts
        self.local_address = local_address
        self.id = id
        self.dry_run = dry_run

    def plan(self, job: Job) -> str:
        """The command that is run on each node.

        Raises:
            ConfigError: The job is a sweep.
        """
        variables = [f"{name}={value}" for name, value in self._environment(job).items()]
        return " \\\n  ".join(
            [
                " ".join([*variables, "torchrun"]),
                *map(shlex.quote, self._options(job)),
                shlex.join([sys.argv[0], *job.arguments]),
            ]
        )

    def submit(self, job: Job) -> int:
        """Run the job in the foreground.

        Returns:
            Exit status: 0 when it is done, otherwise that of the rank that ended it.

        Raises:
            ConfigError: The job is a sweep.
            ClusterError: The nodes do not meet.
        """
        from torch.distributed import run
        from torch.distributed.elastic.multiprocessing import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.elastic.rendezvous import RendezvousError

        arguments = run.parse_args(  # type: ignore[no-untyped-call]
            [*self._options(job), sys.argv[0], *job.arguments]
        )
        os.environ.update(self._environment(job))
        # Ranks say themselves what is wrong, and torchrun at length that they did.
        for name in ("torch.distributed.elastic", "torch.distributed.run", "torch.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if self.endpoint is not None:
            print(  # noqa: T201 it may take as long
                f"run {job.run_id}: meeting {self.nodes} nodes at {self.endpoint}, for "
                f"{_MEET} s at most; the node of rank 0 shows what it does",
                file=sys.stderr,
            )
        with _place_for_verdict():
            try:
                run.run(arguments)  # type: ignore[no-untyped-call]
            except SignalException as error:
                return 128 + int(error.sigval)
            except ChildFailedError as error:
                if (status := verdict()) is not None:
                    return status
                rank, failure = error.get_first_failure()
                raise ClusterError(_ended(rank, failure.exitcode, self.max_restarts)) from error
            except ModuleNotFoundError as error:
                raise ClusterError(
                    f"cluster.backend={self.backend} needs its client: "
                    "pip install -c requirements.lock -e '.[etcd]'"
                ) from error
            except (RendezvousError, OSError) as error:
                raise ClusterError(
                    f"cluster.endpoint={self.endpoint}: the nodes do not meet there "
                    f"({_reason(error)})"
                ) from error
        return 0

    def _options(self, job: Job) -> list[str]:
        if job.sweep:
            raise ConfigError(
                "a sweep starts its own processes: leave cluster=torchrun out, and give "
                "sweep.workers=N for trials beside each other, sweep.ranks=N for processes of "
                "each trial"
            )
        options = [
            f"--nproc-per-node={self.processes}",
            f"--max-restarts={self.max_restarts}",
            f"--shutdown-timeout={_GRACE}",
        ]
        if self.endpoint is None:
            return ["--standalone", *options]
        elastic = self.min_nodes < self.nodes
        options += [
            f"--nnodes={f'{self.min_nodes}:' if elastic else ''}{self.nodes}",
            f"--rdzv-backend={self.backend}",
            f"--rdzv-endpoint={self.endpoint}",
            f"--rdzv-id={job.run_id}",
        ]
        settings = [f"join_timeout={_MEET}"]
        if self.local_address is not None:
            host, _, _ = self.endpoint.rpartition(":")
            options.append(f"--local-addr={self.local_address}")
            # torch would look it up by this machine's name, which may stand for another.
            if self.backend == "c10d":
                settings.append(f"is_host={int(host == self.local_address)}")
        return [*options, f"--rdzv-conf={','.join(settings)}"]

    def _environment(self, job: Job) -> dict[str, str]:
        threads = os.environ.get("OMP_NUM_THREADS", str(core_share(self.processes)))
        found = {
            RUN_ID: job.run_id,
            "OMP_NUM_THREADS": threads,
            # Else ranks that are started again find the addresses of those before them in
            # torchrun's own store (pytorch/pytorch#135712).
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        }
        if (interface := _interface(self.local_address)) is not None:
            found |= {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface}
        return found


def _interface(address: str | None) -> str | None:
    """The network interface that has an address, if one has."""
    for name, found in psutil.net_if_addrs().items():
        if any(each.address == address for each in found):
            return name
    return None


@contextlib.contextmanager
def _place_for_verdict() -> Iterator[None]:
    """Where a rank writes the exit status that no restart will change."""
    with tempfile.TemporaryDirectory(prefix="fakenews-") as folder:
        os.environ[VERDICT] = str(Path(folder) / "status")
        try:
            yield
        finally:
            del os.environ[VERDICT]


def _ended(rank: int, status: int, restarts: int) -> str:
    how = f"ended with status {status}" if status >= 0 else f"was killed ({_signal(-status)})"
    after = f", and restarts were used up (cluster.max_restarts={restarts})"
    return f"rank {rank} {how}{after if restarts else ''}: the same command continues the run"


def _signal(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return str(number)


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
