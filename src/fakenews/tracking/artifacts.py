"""What the MLflow store keeps of a finished run: found by run or by registered model."""

from pathlib import Path

from fakenews.errors import TrackingError
from fakenews.tracking.store import check_store, explain, impatient

BUNDLE = "bundle"
"""Folder of the bundle among the artefacts of a run."""


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
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    check_store(uri, timeout=timeout)
    try:
        with impatient(timeout):
            found = download_artifacts(
                run_id=run, artifact_path=BUNDLE, dst_path=str(folder), tracking_uri=uri
            )
    except MlflowException as error:
        raise TrackingError(f"run={run}: {explain(uri, error)}") from error
    except OSError as error:
        raise TrackingError(f"run={run} has no bundle that can be read ({error})") from error
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

    check_store(uri, timeout=timeout)
    client = MlflowClient(uri)
    name, at, alias = model.rpartition("@")
    if not at:
        name, _, alias = model.rpartition("/")
    try:
        with impatient(timeout):
            found = (
                client.get_model_version_by_alias(name, alias)
                if at
                else client.get_model_version(name, alias)
            )
    except MlflowException as error:
        raise TrackingError(f"model={model}: {explain(uri, error)}") from error
    return str(found.run_id)
