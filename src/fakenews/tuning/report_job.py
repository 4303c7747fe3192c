"""The command `scripts/sweep_report.py`: report what a study has found by now."""

import contextlib
import logging
import sqlite3
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.storages import RDBStorage

from fakenews.config import CONF, check, closest, option_faults
from fakenews.errors import TuningError
from fakenews.terminal import show
from fakenews.tracking.store import public, sqlite_file
from fakenews.tuning.best import write_best
from fakenews.tuning.report import write_report
from fakenews.tuning.storage import UNREACHABLE, open_storage

log = logging.getLogger(__name__)


class ReportOptions(TypedDict):
    """The options of `conf/sweep_report.yaml`."""

    storage: str
    out: str


def report_sweep(cfg: DictConfig) -> None:
    """Write and show the report of a study, and its best trial as an experiment.

    Args:
        cfg: The composed `conf/sweep_report.yaml`.

    Raises:
        ConfigError: An option has no such value.
        TuningError: The storage cannot be read, or has no such study.
    """
    name = None if OmegaConf.is_missing(cfg, "study") else cfg.study
    if name is None:
        # With the studies there are, which `check` does not know.
        known = _names(_open(str(cfg.storage)))
        raise TuningError(f"study is not set: give study=NAME, of {_list(known)}")
    check(cfg, rules=_rules)
    storage = _open(cfg.storage)
    names = _names(storage)
    if str(name) not in names:
        near = closest(str(name), names)
        hint = f"did you mean {near}? " if near else ""
        raise TuningError(
            f"study={name} is not in {public(cfg.storage)}: {hint}it has {_list(names)}"
        )
    with _readable(cfg.storage):
        study = optuna.load_study(study_name=str(name), storage=storage)
        report = write_report(study, Path(cfg.out))
        best = write_best(study, CONF, root=Path(cfg.paths.root))
    show(report.summary)
    log.info("%s has it all", report.page)
    if best is not None:
        log.info("%s is the best trial: python train.py experiment=%s", best, best.stem)


def _rules(cfg: DictConfig) -> Iterator[str]:
    yield from option_faults(cfg, ReportOptions)


def _open(url: str) -> RDBStorage:
    """The storage, which is not made if there is none."""
    _check_file(url)
    return open_storage(url)


def _names(storage: RDBStorage) -> list[str]:
    with _readable(storage.url):
        return sorted(optuna.get_all_study_names(storage))


def _check_file(url: str) -> None:
    """Opening a SQLite file would make it, or add the tables of Optuna to another's."""
    if urllib.parse.urlsplit(url).scheme.partition("+")[0] != "sqlite":
        return
    path = sqlite_file(url)
    if not path.is_file():
        raise TuningError(
            f"storage={url}: there is no file {path}: start a sweep first, or correct the "
            "path (an absolute one has four slashes, as in sqlite:////data/optuna.db)"
        )
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        ) as database:
            tables = database.execute("SELECT name FROM sqlite_master").fetchall()
    except sqlite3.Error as error:
        raise TuningError(f"storage={url} cannot be read ({error}): give another") from error
    if ("studies",) not in tables:
        raise TuningError(f"storage={url} has no studies of Optuna: give another")


@contextlib.contextmanager
def _readable(url: str) -> Iterator[None]:
    try:
        yield
    except UNREACHABLE as error:
        reason = next(iter(str(error).splitlines()), repr(error))
        raise TuningError(
            f"storage={public(url)} cannot be read ({reason}): wait for the process that "
            "holds it, or give another"
        ) from error


def _list(names: list[str]) -> str:
    return ", ".join(names) or "none: no sweep was started there"
