"""Where studies are kept: SQLite on one machine, PostgreSQL for several."""

import contextlib
import logging
import sqlite3
import time
import urllib.parse
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import optuna
import sqlalchemy
from filelock import FileLock
from optuna.exceptions import (
    ExperimentalWarning,
    StorageInternalError,
    UpdateFinishedTrialError,
)
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from fakenews.errors import TuningError, interruption
from fakenews.tracking.store import public, sqlite_file
from fakenews.tuning.retry import queue_again

log = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds to wait for another process that is writing, or for a server to answer.
_BUSY, _CONNECT = 60, 10
# Seconds between attempts to reach a storage that does not answer, doubled from the first.
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 30.0

MISSING_BEATS = 4
"""A trial that has given no sign of life for so many heartbeats counts as killed."""

UNREACHABLE = (SQLAlchemyError, StorageInternalError)
"""What Optuna raises when a storage does not answer."""

PATIENCE = 600.0
"""Seconds in which a storage that stops answering may come back."""


def open_storage(
    url: str,
    *,
    heartbeat: int | None = None,
    must_exist: bool = False,
    patience: float = 0.0,
) -> RDBStorage:
    """Open a storage of studies, and make it where there is none.

    Args:
        url: `sqlite:///FILE` or `postgresql://USER@HOST:PORT/DATABASE`.
        heartbeat: Seconds between signs of life of a running trial; None: none are given
            or looked for.
        must_exist: Do not make a new SQLite file.
        patience: Seconds in which a server that does not answer may come back.

    Raises:
        TuningError: It cannot be reached, read or written, and why.
    """
    dialect = url.partition(":")[0].partition("+")[0]
    if dialect not in ("sqlite", "postgresql"):
        raise TuningError(
            f"sweep.storage={public(url)}: use sqlite:///FILE, or "
            "postgresql://USER@HOST/DATABASE for several machines"
        )
    if urllib.parse.urlsplit(url).password is not None:
        raise TuningError(
            "sweep.storage holds a password, and a configuration is written to files: set "
            "PGPASSWORD in the environment instead"
        )
    if dialect == "sqlite":
        _check_file(sqlite_file(url), must_exist=must_exist)
    # What a sweep does is said by the sweep.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Known here: studies are asked and told, with heartbeats of our own.
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
    warnings.filterwarnings("ignore", "Heartbeat of storage is supposed")
    wait = {"timeout": _BUSY} if dialect == "sqlite" else {"connect_timeout": _CONNECT}
    # A connection that broke while nobody used it is made anew.
    engine = {"connect_args": wait, "pool_pre_ping": True}

    def create() -> RDBStorage:
        with _creation(url):
            if dialect == "sqlite":
                _check_tables(sqlite_file(url))
            if heartbeat is None:
                return RDBStorage(url, engine)
            return RDBStorage(
                url,
                engine,
                heartbeat_interval=heartbeat,
                grace_period=MISSING_BEATS * heartbeat,
                heartbeat_stale_trial_callback=queue_again,
            )

    try:
        return patiently(create, url, patience=patience) if patience else create()
    except ImportError as error:
        raise TuningError(
            "sweep.storage: PostgreSQL needs its driver: pip install -c requirements.lock -e "
            "'.[postgres]'"
        ) from error
    except (*UNREACHABLE, RuntimeError) as error:
        raise TuningError(f"{_explain(url, error)}: correct sweep.storage") from error


def release(storage: RDBStorage) -> None:
    """Close the connections: a server has only so many, and a sweep many trials."""
    storage.remove_session()
    storage.engine.dispose()


def _check_file(path: Path, *, must_exist: bool) -> None:
    """Find what would otherwise be found late, or make a folder by a slip in the path."""
    if not path.parent.is_dir():
        raise TuningError(
            f"sweep.storage: the folder {path.parent} does not exist: make it, or correct the "
            "path (an absolute one has four slashes, as in sqlite:////data/optuna.db)"
        )
    if not path.exists():
        if must_exist:
            raise TuningError(f"there are no studies: {path} does not exist")
        return
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=_CONNECT)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.OperationalError as error:
        raise TuningError(
            f"the studies in {path} cannot be written ({error}): end the process that holds "
            "the file, or choose another with sweep.storage"
        ) from error
    except sqlite3.Error as error:
        raise TuningError(
            f"sweep.storage: {path} is no database ({error}): choose another file"
        ) from error


def _check_tables(path: Path) -> None:
    """Refuse a database of something else, before tables are made in it."""
    with contextlib.closing(sqlite3.connect(path, timeout=_BUSY)) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = {name for (name,) in found}
    if tables and "studies" not in tables:
        raise TuningError(
            f"sweep.storage: {path} holds something else, as {min(tables)}: choose another file"
        )


@contextlib.contextmanager
def _creation(url: str) -> Iterator[None]:
    """Processes that start together must not make the tables at once."""
    if url.startswith("sqlite"):
        with FileLock(f"{sqlite_file(url)}.lock"):
            yield
        return
    engine = sqlalchemy.create_engine(url, connect_args={"connect_timeout": _CONNECT})
    try:
        with _advisory_lock(engine, "tables"):
            yield
    finally:
        engine.dispose()


@contextlib.contextmanager
def exclusive(storage: RDBStorage, study: str) -> Iterator[None]:
    """One process at a time decides about a study, whatever machine it runs on.

    The lock ends with the process that holds it.
    """
    if storage.engine.dialect.name == "sqlite":
        with FileLock(f"{sqlite_file(storage.url)}.lock"):
            yield
    else:
        with _advisory_lock(storage.engine, study):
            yield


@contextlib.contextmanager
def _advisory_lock(engine: sqlalchemy.Engine, name: str) -> Iterator[None]:
    key = {"key": zlib.crc32(f"fakenews/{name}".encode())}
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), key)
        try:
            yield
        finally:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), key)


def patiently(action: Callable[[], T], url: str, *, patience: float | None = None) -> T:
    """Do something with a storage, also when it does not answer for a while.

    Args:
        action: Done again until it succeeds: it must do no harm when it had succeeded
            although it failed.
        url: Of the storage.
        patience: Seconds after which it is given up; None: `PATIENCE`.

    Raises:
        TuningError: The storage has not come back.
    """
    patience = PATIENCE if patience is None else patience
    started, pause = time.monotonic(), _FIRST_PAUSE
    while True:
        try:
            result = action()
        except UNREACHABLE as error:
            # A signal is no trouble of the storage.
            if interruption(error) is not None:
                raise
            message = _explain(url, error)
            if time.monotonic() - started > patience:
                raise TuningError(
                    f"{message}: when it answers again, the same command continues"
                ) from error
            if pause == _FIRST_PAUSE:
                log.warning("%s; waiting for it", message)
            time.sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE)
        else:
            if pause > _FIRST_PAUSE:
                log.info("the storage of the study answers again")
            return result


def tell(
    study: Study, number: int, state: TrialState, values: Sequence[float] | None = None
) -> None:
    """End a trial, unless somebody has: so it may be told again, and by several at once."""
    with contextlib.suppress(UpdateFinishedTrialError):
        study.tell(number, values, state, skip_if_finished=True)


def _explain(url: str, error: BaseException) -> str:
    """One line for a storage's error, without passwords."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    reason = next(iter(lines), repr(cause)).rstrip(".,")[:200]
    return f"the storage of studies {public(url)} does not answer as it should ({reason})"
