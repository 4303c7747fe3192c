"""The sweep: one function for each of its paragraphs.

space -> study -> check -> search -> report
"""

import functools
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.plugins.launcher import Launcher
from hydra.utils import instantiate
from omegaconf import DictConfig
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import Trial

from fakenews.config import CONF, check, plain, set_output, task
from fakenews.errors import ConfigError, TuningError, resumable
from fakenews.launch import core_share
from fakenews.rules import sweep_rules, training_rules
from fakenews.terminal import show
from fakenews.tuning.best import write_best
from fakenews.tuning.queue import TrialQueue
from fakenews.tuning.report import summary, write_report
from fakenews.tuning.space import Space, read_space
from fakenews.tuning.storage import PATIENCE, open_storage, patiently
from fakenews.tuning.study import find_study, open_study
from fakenews.tuning.supervisor import WORKER, follow_parent, supervise
from fakenews.tuning.table import Watch
from fakenews.tuning.worker import Launch, launched, spawned, work

log = logging.getLogger(__name__)

_BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
# Samplers of which all trials must have the same seed: it orders their points.
_ONE_SEED = ("GridSampler", "QMCSampler", "BruteForceSampler")


def search(
    config: DictConfig, arguments: Sequence[str], *, launcher: Launcher, loader: ConfigLoader
) -> None:
    """Search a study until it has its trials, and report.

    Args:
        config: Composed, with Hydra's own part.
        arguments: Overrides of the command line.
        launcher: Runs jobs.
        loader: Composes the configuration of a trial.

    Raises:
        FakeNewsError: The sweep cannot start or go on, or was interrupted.
    """
    set_output(config, config.hydra.sweep.dir)
    cfg = task(config)
    _check_settings(cfg)
    sweep = cfg.sweep
    space = read_space(plain(sweep.params), plain(sweep.when), _arguments(cfg, arguments))
    values = space.grid() if sweep.sampler._target_.endswith("GridSampler") else None
    n_trials = sweep.n_trials or _points(values)
    folder = Path(config.hydra.sweep.dir)
    is_worker = WORKER in os.environ
    # Who starts a sweep is told at once that there is no storage; later it may come back.
    patience = PATIENCE if is_worker else 0
    storage = open_storage(sweep.storage, heartbeat=sweep.heartbeat, patience=patience)
    try:
        found = patiently(
            lambda: find_study(storage, cfg, space), sweep.storage, patience=patience
        )
    except TuningError:
        # A mistake differs from what was searched, too.
        _check_points(config, space, loader)
        raise
    queue = functools.partial(
        TrialQueue,
        storage=storage,
        n_trials=n_trials,
        max_failure_rate=sweep.max_failure_rate,
        sampler=functools.partial(_sampler, cfg, values),
        folder=folder.absolute(),
    )
    if found is not None and queue(found).is_done():
        log.info("the study %s has its %d trials: nothing to do", sweep.study, n_trials)
        if (folder / "report.html").is_file():
            show(summary(found))
        else:
            conclude(cfg, found, folder)
        return
    if not is_worker:
        _check_points(config, space, loader)
    folder.mkdir(parents=True, exist_ok=True)
    pruner = instantiate(sweep.pruner)
    trials = queue(
        patiently(lambda: open_study(storage, cfg, space, pruner=pruner), sweep.storage)
    )
    overrides = functools.partial(_overrides, space)
    launch = _launch(cfg, launcher, folder)
    if is_worker:
        follow_parent(sys.stdin.fileno())
        work(trials, launch, overrides)
        return
    from fakenews.tuning.parent import ParentRun  # not for a study that is done

    watch = Watch(trials, objectives=list(sweep.objectives))
    with ParentRun(cfg, trials.study) as parent:
        with (
            watch,
            resumable(
                "stopped: what ran is queued again, and the same command continues the sweep"
            ),
        ):
            if sweep.workers > 1 and _is_basic(config):
                supervise(trials, watch, workers=sweep.workers, folder=folder)
            else:
                batch = 1 if _is_basic(config) else sweep.workers
                work(trials, launch, overrides, watch=watch, batch=batch)
        patiently(lambda: parent.finish(conclude(cfg, trials.study, folder)), sweep.storage)


def conclude(cfg: DictConfig, study: Study, folder: Path) -> Path:
    """Report what was found, and write the best configuration.

    Returns:
        The sweep's folder.
    """
    report = write_report(study, folder)
    best = write_best(study, CONF, root=Path(cfg.paths.root))
    show(report.summary)
    log.info("report: %s", report.page)
    if best is not None:
        log.info("the best configuration: python train.py experiment=%s", best.stem)
    return folder


def _check_settings(cfg: DictConfig) -> None:
    if faults := list(sweep_rules(cfg)):
        raise ConfigError(faults)


def _arguments(cfg: DictConfig, arguments: Sequence[str]) -> list[str]:
    """Overrides of every trial: those given, and what a parameter must not change."""
    # A trial must find the study even if its own name follows from a parameter.
    fixed = [f"name={cfg.name}", f"sweep.study={cfg.sweep.study}"]
    if cfg.threads is None and cfg.sweep.workers > 1:
        fixed.append(f"threads={core_share(cfg.sweep.workers)}")
    return [*arguments, *fixed]


def _points(values: Mapping[str, Sequence[Any]] | None) -> int:
    return int(np.prod([len(found) for found in (values or {}).values()]))


def _sampler(
    cfg: DictConfig, values: Mapping[str, Sequence[Any]] | None, before: int
) -> BaseSampler:
    """The sampler of the trial that comes after `before` others."""
    node = cfg.sweep.sampler
    if values is not None:
        found: BaseSampler = instantiate(node, search_space=values, _partial_=False)
        return found
    seed = node.get("seed")
    arguments: dict[str, Any] = {}
    if seed is not None and not node._target_.endswith(_ONE_SEED):
        (own,) = np.random.SeedSequence([seed, before]).generate_state(1)
        arguments["seed"] = int(own)
    own_sampler: BaseSampler = instantiate(node, **arguments)
    return own_sampler


def _overrides(space: Space, trial: Trial) -> list[str]:
    return [*space.overrides(space.suggest(trial)), f"sweep.trial={trial.number}"]


def _is_basic(config: DictConfig) -> bool:
    return bool(config.hydra.launcher._target_ == _BASIC)


def _launch(cfg: DictConfig, launcher: Launcher, folder: Path) -> Launch:
    if cfg.sweep.ranks > 1:
        return functools.partial(spawned, ranks=cfg.sweep.ranks, folder=folder)
    return functools.partial(launched, launcher)


def _check_points(config: DictConfig, space: Space, loader: ConfigLoader) -> None:
    """Compose and check the ends of the search space, before any trial.

    Raises:
        ConfigError: A parameter is no option, or a value of it does not fit.
    """
    faults: dict[str, None] = {}
    try:
        for point in space.points():
            composed = loader.load_sweep_config(
                config, [*space.overrides(point), "sweep.trial=0"]
            )
            set_output(composed, config.hydra.sweep.dir)
            try:
                check(task(composed), rules=training_rules)
            except ConfigError as error:
                faults |= dict.fromkeys(error.faults)
    finally:
        HydraConfig.instance().set_config(config)
    if faults:
        raise ConfigError(list(faults))
