"""What the MLflow store keeps of a finished run: found by run or by registered model."""

import os
import shutil
import sys
import urllib.parse
from pathlib import Path

from fakenews.errors import TrackingError
from fakenews.tracking.store import check_store, impatient, public, sqlite_file

BUNDLE = "bundle"
"""Folder of the bundle among the artefacts of a run."""

# Of a run, beside its bundle.
_ABOUT = ("config.yaml", "data.json")

_OPTION = "tracking_uri"
_LITTLE = 10 << 20  # bytes, of which a bundle has more
_BAR = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"


def download_bundle(*, uri: str, run: str, folder: Path, timeout: float = 60) -> Path:
    """Download the bundle of a run.

    Args:
        uri: Of the tracking store.
        run: Id of the run.
        folder: Where to.
        timeout: Seconds in which the store must answer.

    Returns:
        The bundle's folder.

    Raises:
        TrackingError: The store cannot be used, or there is no such run or bundle.
    """
    return _download(BUNDLE, uri=uri, run=run, folder=folder, timeout=timeout)


def download_run(*, uri: str, run: str, folder: Path, timeout: float = 60) -> Path:
    """Download what a retraining starts from: bundle, configuration, and what the data were.

    Args:
        uri: Of the tracking store.
        run: Id of the run.
        folder: Where to; complete when its bundle is.
        timeout: Seconds in which the store must answer.

    Returns:
        The folder, which is like that of the run.

    Raises:
        TrackingError: As `download_bundle`.
    """
    for name in (*_ABOUT, BUNDLE):
        _download(name, uri=uri, run=run, folder=folder, timeout=timeout)
    return folder


def _download(name: str, *, uri: str, run: str, folder: Path, timeout: float) -> Path:
    # A log of its progress is none.
    os.environ.setdefault(_BAR, str(sys.stderr.isatty()).lower())
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    check_existing(uri, timeout)
    try:
        with impatient(timeout):
            found = download_artifacts(
                run_id=run, artifact_path=name, dst_path=str(folder), tracking_uri=uri
            )
    except (MlflowException, OSError) as error:
        # MLflow says the same, whatever it was.
        if shutil.disk_usage(folder.parent).free < _LITTLE:
            raise TrackingError(
                f"run={run}: {folder.parent} has no room for its {name}: free some space"
            ) from error
        raise TrackingError(
            f"run={run}: the MLflow store {public(uri)} has no {name} of it: {_reason(error)}"
        ) from error
    return Path(found)


def run_of_model(*, uri: str, model: str, timeout: float = 60) -> str:
    """The run that a registered version of a model came from.

    Args:
        uri: Of the tracking store.
        model: NAME@ALIAS or NAME/VERSION.
        timeout: Seconds in which the store must answer.

    Raises:
        TrackingError: The store cannot be used, or there is no such version.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    name, at, alias = model.rpartition("@")
    if not at:
        name, slash, alias = model.rpartition("/")
        if not slash:
            raise TrackingError(f"registered={model}: write NAME@ALIAS or NAME/VERSION")
    check_existing(uri, timeout)
    client = MlflowClient(uri)
    try:
        with impatient(timeout):
            found = (
                client.get_model_version_by_alias(name, alias)
                if at
                else client.get_model_version(name, alias)
            )
    except MlflowException as error:
        raise TrackingError(
            f"registered={model} is not in the MLflow store {public(uri)}: {_reason(error)}"
        ) from error
    if not found.run_id:
        raise TrackingError(
            f"registered={model} was registered without a run: give bundle=FOLDER"
        )
    return str(found.run_id)


def check_existing(uri: str, timeout: float) -> None:
    """Check that a tracking store is there, answers and takes us.

    Args:
        uri: Of the tracking store, as it was given by `tracking_uri`.
        timeout: Seconds in which it must answer.

    Raises:
        TrackingError: It does not, and why.
    """
    # MLflow would make one, to say that nothing is in it.
    if urllib.parse.urlsplit(uri).scheme == "sqlite" and not sqlite_file(uri).is_file():
        raise TrackingError(f"{_OPTION}={uri}: there is no such file: correct the path")
    check_store(uri, timeout=timeout, option=_OPTION)


def _reason(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), repr(error))[:200]
