"""How long a training stands still after one of its ranks was killed."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
_PATIENCE = 300  # seconds


def restarts(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds from the kill to new ranks, and to the first checkpoint that they save.

    Ranks save after each step, so the last is: found, started, loaded, a step done, saved.
    """
    found: dict[str, Any] = {"ranks": options.ranks, "started": [], "saved": []}
    for _ in tqdm(range(options.repeats), unit="kill"):
        with tempfile.TemporaryDirectory() as folder:
            started, saved = _restart(options, Path(folder))
        found["started"].append(started)
        found["saved"].append(saved)
    return found


def _restart(options: argparse.Namespace, folder: Path) -> tuple[float, float]:
    command = [
        *(sys.executable, str(ROOT / "train.py"), "cluster=torchrun", "features=headline"),
        *(f"cluster.processes={options.ranks}", "logger=none", "name=restart"),
        *("callbacks.last.every_n_train_steps=1", f"paths.root={folder}"),
        *options.override,
    ]
    with (folder / "log").open("wb") as log:
        job = subprocess.Popen(  # noqa: S603 our own command
            command,
            cwd=folder,
            stdout=log,
            stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        try:
            _wait(job, folder, lambda: _saved(folder) > 0)
            # The rank that saves, so the next checkpoint is of its successor.
            old = _ranks(job.pid)
            old[0].kill()
            killed, before = time.perf_counter(), _saved(folder)
            dead = {rank.pid for rank in old.values()}
            _wait(job, folder, lambda: any(r.pid not in dead for r in _ranks(job.pid).values()))
            started = time.perf_counter() - killed
            _wait(job, folder, lambda: _saved(folder) > before)
            return started, time.perf_counter() - killed
        finally:
            _end(job)


def _wait(job: "subprocess.Popen[bytes]", folder: Path, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not ready():
        if job.poll() is not None or time.monotonic() > deadline:
            sys.exit((folder / "log").read_text(encoding="utf-8") + "error: no such run")
        time.sleep(0.05)


def _saved(folder: Path) -> int:
    """When the last checkpoint was written; 0 before there is one."""
    return max((p.stat().st_mtime_ns for p in folder.rglob("last.ckpt")), default=0)


def _ranks(job: int) -> dict[int, psutil.Process]:
    """The processes of a job that torchrun has started, by rank."""
    found = {}
    for process in psutil.Process(job).children():
        try:
            rank = process.environ().get("RANK")
        except psutil.Error:
            continue
        if rank is not None:
            found[int(rank)] = process
    return found


def _end(job: "subprocess.Popen[bytes]") -> None:
    """End the job with all that it started."""
    try:
        every = [psutil.Process(job.pid), *psutil.Process(job.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    job.send_signal(signal.SIGKILL)
    for process in every:
        if process.is_running():
            process.kill()
    job.wait()
