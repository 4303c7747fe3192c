"""Where the work of a preparation runs: the cores of this machine, or a Ray cluster.

An engine is given what to do as functions and plain values, and gives results back in
any order; what is done leaves its traces in the work folder, not in the engine.
"""

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from threading import RLock, Thread
from typing import Any, Literal, Protocol, TypeVar

from tqdm import tqdm

from fakenews.bounds import PositiveCount
from fakenews.errors import ConfigError, DataError, FakeNewsError
from fakenews.launch import core_share

# Seconds for a cluster to take a connection.
_PATIENCE = 5.0

Part = TypeVar("Part")
Task = TypeVar("Task")

# Each worker computes on one thread: there are as many workers as cores.
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class Engine(Protocol):
    """Runs tasks somewhere."""

    def run(
        self,
        parts: Iterable[Part],
        expand: Callable[[Part], Iterator[Task]],
        work: Callable[[Task], int],
    ) -> Iterator[int]:
        """Do the tasks of all parts.

        Args:
            parts: Plain values, few.
            expand: The tasks of a part, lazily; a module's function.
            work: Does a task; a module's function.

        Yields:
            What `work` returns, in any order.

        Raises:
            FakeNewsError: A task raised it.
            DataError: A worker died.
        """
        ...


def _follow_parent() -> None:
    """Leave signals to the parent, and end when it does."""
    # Ctrl-C reaches all processes of a terminal; one of them should answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Its own would be a semaphore of the system, which a worker that is stopped leaks.
    tqdm.set_lock(RLock())
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A parent that is killed says nothing, and its workers would wait for ever.
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def alone(part: Part) -> Iterator[Part]:
    """A part that is one task."""
    yield part


class LocalEngine:
    """Worker processes of this machine.

    Args:
        workers: How many; 1 is this process itself.
    """

    def __init__(self, *, workers: int) -> None:
        self.workers = workers

    def run(
        self,
        parts: Iterable[Part],
        expand: Callable[[Part], Iterator[Task]],
        work: Callable[[Task], int],
    ) -> Iterator[int]:
        """See `Engine`; parts are expanded here, a few tasks ahead of the workers."""
        if self.workers == 1:
            yield from (work(task) for part in parts for task in expand(part))
            return
        with _environment(_ONE_THREAD):
            # Spawned, not forked: a fork copies locks but not the threads that hold them.
            pool = ProcessPoolExecutor(
                self.workers, mp_context=get_context("spawn"), initializer=_follow_parent
            )
            pending: set[Future[int]] = set()
            try:
                for part in parts:
                    for task in expand(part):
                        pending.add(pool.submit(work, task))
                        # One waits: reading is faster than working, and tasks are large.
                        if len(pending) > self.workers:
                            done, pending = wait(pending, return_when=FIRST_COMPLETED)
                            yield from (future.result() for future in done)
                while pending:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            except BrokenProcessPool as error:
                raise DataError(
                    "a worker process died, perhaps for lack of memory: run again to go on, "
                    f"with fewer than prepare.workers={self.workers} or smaller shards.rows"
                ) from error
            except BaseException:
                # What a worker has not finished it has not written: nothing is lost.
                for worker in active_children():
                    worker.terminate()
                raise
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


class RayEngine:
    """The machines of a Ray cluster, through Ray Data.

    Args:
        workers: Most tasks at once; None as many as the cluster has cores.
        address: Of the cluster, as `ray.init` takes it; None finds or starts one.

    Raises:
        ConfigError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, *, workers: int | None, address: str | None) -> None:
        try:
            import ray
        except ImportError as error:
            raise ConfigError(
                "prepare.engine=ray needs Ray: pip install 'fakenews[ray]'"
            ) from error
        self.workers = workers
        if address is not None:
            _knock(address)
        try:
            ray.init(
                address=address,
                ignore_reinit_error=True,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _no_cluster(address, error) from error
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False

    def run(
        self,
        parts: Iterable[Part],
        expand: Callable[[Part], Iterator[Task]],
        work: Callable[[Task], int],
    ) -> Iterator[int]:
        """See `Engine`; parts are expanded and tasks done wherever there is a free core."""
        import ray

        rows = [{"part": part} for part in parts]
        if not rows:
            return
        environment = {"env_vars": _ONE_THREAD}
        done = (
            ray.data.from_items(rows, override_num_blocks=len(rows))
            .flat_map(
                lambda row: ({"task": task} for task in expand(row["part"])),
                runtime_env=environment,
            )
            .map(
                lambda row: {"done": work(row["task"])},
                runtime_env=environment,
                concurrency=self.workers,
            )
        )
        try:
            for row in done.iter_rows():
                yield int(row["done"])
        except ray.exceptions.RayError as error:
            cause: Any = error
            while cause is not None and not isinstance(cause, FakeNewsError):
                cause = getattr(cause, "cause", None) or cause.__cause__
            if cause is not None:
                raise cause from None
            raise


def _knock(address: str) -> None:
    """Notice within seconds that nobody is there; Ray would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:  # a name that Ray knows, as in `auto`
        return
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str | None, error: Exception) -> ConfigError:
    reason = (str(error).strip().splitlines() or [repr(error)])[0]
    return ConfigError(
        f"prepare.address={address}: no Ray cluster answers ({reason}); start one with "
        "`ray start --head`, or leave the address out"
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where a preparation runs and works; changes no byte of its result.

    Args:
        engine: `local`: processes of this machine; `ray`: a Ray cluster.
        workers: Tasks at once; None: one a core.
        address: Of the Ray cluster; None finds one, or starts one on this machine.
        work_dir: Where it works; None leaves the choice to the command.
        memory: Most that grouping takes before it goes to disk, as in `1GB`.
    """

    engine: Literal["local", "ray"] = "local"
    workers: PositiveCount | None = None
    address: str | None = None
    work_dir: str | None = None
    memory: str = "448MB"

    def start(self) -> Engine:
        """The engine.

        Raises:
            ConfigError: See `RayEngine`.
        """
        if self.engine == "ray":
            return RayEngine(workers=self.workers, address=self.address)
        return LocalEngine(workers=self.workers or core_share(1))


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables for the processes that are started in the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
