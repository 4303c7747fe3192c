"""Where MLflow keeps runs: does it answer, does it take us, and what is wrong if not."""

import errno
import math
import os
import socket
import sqlite3
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fakenews.errors import FakeNewsError, TrackingError, interruption


def check_store(uri: str, *, timeout: float, option: str = "logger.tracking_uri") -> None:
    """Check that a tracking store answers and takes us, before any work.

    Args:
        uri: Of the store.
        timeout: Seconds in which it must answer.
        option: By which it was given, for messages.

    Raises:
        TrackingError: It does not, and why.
    """
    check_address(uri, option=option)
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme == "sqlite":
        _check_sqlite(sqlite_file(uri), timeout, option)
    elif parts.scheme in ("http", "https"):
        address = (parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        try:
            # Quicker, and clearer when it fails, than the client.
            with socket.create_connection(address, timeout=timeout):
                pass
        except OSError as error:
            raise TrackingError(
                f"the MLflow server {public(uri)} cannot be reached "
                f"({error.strerror or error}): start it, or {_other(option)}"
            ) from error
        _ask(uri, timeout, option)


def check_address(uri: str, *, option: str) -> None:
    """Check what no server need be asked for: that the address can be one of a store.

    Args:
        uri: Of the store.
        option: By which it was given, for messages.

    Raises:
        TrackingError: It cannot, it holds a password, or its folder does not exist.
    """
    try:
        parts = urllib.parse.urlsplit(uri)
        _ = parts.port
    except ValueError as error:
        raise TrackingError(f"{option} is no address: write http://HOST:PORT") from error
    if parts.password is not None:
        variables = (
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            if parts.scheme in ("http", "https")
            else "what the database reads, as PGPASSWORD,"
        )
        raise TrackingError(
            f"{option} holds a password, and a configuration is written to files: "
            f"set {variables} in the environment instead"
        )
    if parts.scheme in ("", "file"):
        raise TrackingError(
            f"{option}={uri}: MLflow no longer writes plain folders; use "
            "sqlite:///FILE or a server"
        )
    if parts.scheme == "sqlite" and not (folder := sqlite_file(uri).parent).is_dir():
        # A slip in the path would otherwise leave folders anywhere.
        raise TrackingError(
            f"{option}: the folder {folder} does not exist: make it, or "
            "correct the path (an absolute one has four slashes, as in sqlite:////data/m.db)"
        )


def _ask(uri: str, timeout: float, option: str) -> None:
    """Ask a server for something that needs its permission."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        with impatient(timeout):
            MlflowClient(uri).search_experiments(max_results=1)
    except MlflowException as error:
        status = error.get_http_status_code()  # type: ignore[no-untyped-call]
        if status in (401, 403):
            raise TrackingError(
                f"the MLflow server {public(uri)} refuses us: set MLFLOW_TRACKING_USERNAME "
                "and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to what it knows"
            ) from error
        raise TrackingError(
            f"{explain(uri, error)}: is it an MLflow server? {_other(option)}"
        ) from error


def sqlite_file(uri: str) -> Path:
    """The file of `sqlite:///FILE`."""
    return Path(urllib.parse.urlsplit(uri).path.removeprefix("/"))


def _check_sqlite(path: Path, timeout: float, option: str) -> None:
    try:
        if not path.exists():
            if not os.access(path.parent, os.W_OK):
                raise PermissionError(errno.EACCES, "the folder is not writable")
            return  # MLflow makes it
        connection = sqlite3.connect(path, timeout=timeout)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
        finally:
            connection.close()
    except (sqlite3.Error, OSError) as error:
        # As a locked one is, and not a damaged one.
        operational = isinstance(error, sqlite3.OperationalError | OSError)
        mend = "end the process that holds it" if operational else "restore it from a copy"
        raise TrackingError(
            f"the MLflow store {path} cannot be written ({error}): {mend}, or {_other(option)}"
        ) from error


@contextmanager
def refusals(uri: str) -> Iterator[None]:
    """What a store refuses, for whatever reason, as one error; a signal is none.

    Args:
        uri: Of the store.

    Raises:
        TrackingError: The store refuses.
    """
    try:
        yield
    except FakeNewsError:
        raise
    except Exception as error:
        if interruption(error) is not None:
            raise
        raise TrackingError(explain(uri, error)) from error


@contextmanager
def impatient(timeout: float) -> Iterator[None]:
    """MLflow's client asks twice, not for minutes; what the user has set stays."""
    wanted = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(math.ceil(timeout)),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    }
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def explain(uri: str, error: Exception) -> str:
    """One line for a store's error, without passwords."""
    reason = next(iter(str(error).strip().splitlines()), repr(error))[:200]
    return f"the MLflow store {public(uri)} does not take our data ({reason})"


def public(uri: str) -> str:
    """The address without user and password."""
    parts = urllib.parse.urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _other(option: str) -> str:
    """What else can be done: a training can do without a store."""
    instead = ", or choose logger=csv" if option.startswith("logger.") else ""
    return f"correct {option}{instead}"
