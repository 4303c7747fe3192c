"""Handing a job over to what starts it, before anything is written or imported."""

import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from fakenews.cluster.job import Cluster, Job, key_of
from fakenews.config import check, name_faults, run_id, set_output, task
from fakenews.errors import ConfigError

_LOCAL = "fakenews.cluster.local.Local"


class StartElsewhere(Callback):
    """Hydra callback that hands the job to `cluster`, and ends this process with its status."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """A single run."""
        del kwargs
        _start(config, sweep=False)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """A sweep."""
        del kwargs
        _start(config, sweep=True)


def _start(config: DictConfig, *, sweep: bool) -> None:
    if OmegaConf.select(config, "cluster._target_") in (None, _LOCAL):
        return
    # torch prints the stack of each attempt to meet others; read when it loads.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    try:
        status = start(config, sweep=sweep)
    except Exception as error:  # noqa: BLE001 Hydra would make a warning of it
        status = _reported(error)
    sys.exit(status)


def _reported(error: Exception) -> int:
    """Say what is wrong, as every command does."""
    from fakenews import cli

    try:
        cli.report(error)
    except SystemExit as stop:
        return int(stop.code or 0)
    traceback.print_exception(error)
    return 1


def start(config: DictConfig, *, sweep: bool) -> int:
    """Check the job, and start it, or show what would be started.

    Args:
        config: Composed, with Hydra's own part.
        sweep: Whether it was started with `-m`.

    Returns:
        Exit status.

    Raises:
        FakeNewsError: The job has a mistake, or cannot be started.
    """
    from hydra.utils import instantiate

    from fakenews.rules import training_rules
    from fakenews.tracking.folder import discard_empty, find_run

    set_output(config, str(Path(config.paths.runs) / "to-start"))
    cfg = task(config)
    check(cfg, rules=training_rules)
    if sweep and cfg.get("sweep") is None:
        raise ConfigError(
            "cluster: -m without sweep=... is several runs, each to be started alone: add "
            "sweep=grid, or choose hydra/launcher=submitit_slurm"
        )
    cluster: Cluster = instantiate(cfg.cluster)
    if faults := list(_mismatches(config, cluster)):
        raise ConfigError(faults)
    overrides = _overrides(config)
    if cfg.resume is not None:
        # Decided here, once: ranks that look for it would find each other at work there.
        found = find_run(Path(cfg.paths.runs) / cfg.name, str(cfg.resume))
        overrides = [text for text in overrides if key_of(text) != "resume"]
        overrides += [] if found is None else [f"resume={found}"]
    given = cfg.cluster.get("id")
    if faults := list(name_faults(given, key="cluster.id")) if given is not None else []:
        raise ConfigError(faults)
    job = Job(
        name=cfg.name,
        run_id=run_id() if given is None else given,
        overrides=tuple(overrides),
        sweep=sweep,
    )
    if cluster.dry_run:
        print(cluster.plan(job))  # noqa: T201
        return 0
    status = cluster.submit(job)
    if status != 0:
        # Ranks that end each other leave what one alone would have removed.
        discard_empty(Path(config.paths.runs) / job.name / job.run_id)
    return status


def _overrides(config: DictConfig) -> list[str]:
    """What was given on the command line, but for what concerns this start alone."""
    given = [*config.hydra.overrides.task, *config.hydra.overrides.hydra]
    found = [
        text
        for text in given
        if key_of(text).partition(".")[0] != "cluster" and key_of(text) != "hydra.mode"
    ]
    if config.cluster.get("gpus") and "trainer" not in map(key_of, given):
        found.append("trainer=gpu")
    return found


def _mismatches(config: DictConfig, cluster: Cluster) -> Iterator[str]:
    """Numbers of processes that were given twice, and differ."""
    given = set(map(key_of, config.hydra.overrides.task))
    for key, name, count in (
        ("trainer.devices", "cluster.processes", cluster.processes),
        ("trainer.num_nodes", "cluster.nodes", cluster.nodes),
    ):
        value = OmegaConf.select(config, key)
        if key in given and value != count:
            yield f"{key}={value} and {name}={count} differ: leave the first out"
