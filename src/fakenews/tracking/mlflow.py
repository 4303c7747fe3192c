"""MLflow as a Lightning logger that tells the truth about a run and survives its server.

Lightning's own logger marks a run FINISHED when fitting ends; here a run ends when its
work does: evaluated, bundled, registered.
"""

import logging
import sqlite3
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

from fakenews.bounds import Positive
from fakenews.errors import TrackingError

log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]

_MAX_PARAM_LENGTH = 250


class MLflowTracker(MLFlowLogger):
    """Logs a run to MLflow; metrics that the store refuses are kept and sent later.

    Args:
        tracking_uri: `sqlite:///FILE`, or the address of a server.
        experiment_name: Made if it does not exist.
        run_name: Of a new run.
        run_id: Of a run to continue; None starts a new one.
        artifact_location: Of a new experiment; None lets the server choose.
        timeout: Seconds in which the store must answer before any work starts.
        system_metrics: Log use of processors, memory and disk.

    Raises:
        TrackingError: The store is locked, unreachable or refuses us.
    """

    def __init__(
        self,
        *,
        tracking_uri: str,
        experiment_name: str,
        run_name: str | None = None,
        run_id: str | None = None,
        artifact_location: str | None = None,
        timeout: Positive = 10.0,
        system_metrics: bool = True,
    ) -> None:
        check_store(tracking_uri, timeout=timeout)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        super().__init__(
            experiment_name=experiment_name,
            run_name=run_name,
            tracking_uri=tracking_uri,
            run_id=run_id,
            artifact_location=artifact_location,
        )
        self._unsent: list[tuple[dict[str, float], int | None]] = []
        self._retry_at = 0.0
        self._wants_system_metrics = system_metrics
        self._monitor: Any = None

    @rank_zero_only
    def begin(self, *, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Start or re-open the run, and say what it is.

        Args:
            parameters: Nested; flattened with dots. Long values are cut, as MLflow
                demands: the whole configuration is an artefact.
            tags: Of the run.

        Returns:
            The run's id.

        Raises:
            TrackingError: The store refuses.
        """
        from mlflow.entities import Param, RunTag
        from mlflow.exceptions import MlflowException

        try:
            run_id = str(self.run_id)
            self.experiment.update_run(run_id, status="RUNNING")
            known = self.experiment.get_run(run_id).data.params
            params = [
                Param(name, str(value)[:_MAX_PARAM_LENGTH])
                for name, value in flat(parameters).items()
                if name not in known
            ]
            for start in range(0, len(params), 100):
                self.experiment.log_batch(run_id, params=params[start : start + 100])
            self.experiment.log_batch(
                run_id, tags=[RunTag(name, value) for name, value in tags.items()]
            )
        except MlflowException as error:
            raise TrackingError(_explain(self._tracking_uri, error)) from error
        if self._wants_system_metrics:
            self._start_monitor(run_id)
        return run_id

    def _start_monitor(self, run_id: str) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        # The monitor logs each start and failure as news; it is not.
        logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
        self._monitor = SystemMetricsMonitor(  # type: ignore[no-untyped-call]
            run_id, resume_logging=True, tracking_uri=self._tracking_uri
        )
        self._monitor.start()

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: `begin` has logged the whole configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics; while the store does not answer, keep them for later."""
        self._unsent.append((dict(metrics), step))
        if time.monotonic() < self._retry_at:
            return
        try:
            while self._unsent:
                super().log_metrics(*self._unsent[0])
                self._unsent.pop(0)
        except Exception as error:  # noqa: BLE001 a dead store must not kill a training
            if not self._retry_at:
                log.warning(
                    "%s; training goes on, metrics are kept and sent when it answers",
                    _explain(self._tracking_uri, error),
                )
            self._retry_at = time.monotonic() + 30

    def finalize(self, status: str = "success") -> None:
        """Nothing: a run ends with `end`, not when Lightning is done with it."""

    @rank_zero_only
    def log_files(self, paths: Mapping[Path, str | None]) -> None:
        """Log files and folders as artefacts.

        Args:
            paths: Each with the artefact folder it goes to (None: the root).

        Raises:
            TrackingError: The store refuses.
        """
        try:
            for path, folder in paths.items():
                if path.is_dir():
                    self.experiment.log_artifacts(self.run_id, str(path), folder)
                else:
                    self.experiment.log_artifact(self.run_id, str(path), folder)
        except Exception as error:
            raise TrackingError(_explain(self._tracking_uri, error)) from error

    @rank_zero_only
    def register(self, *, name: str, artifact: str, tags: Mapping[str, str]) -> int:
        """Register an artefact of this run as a new version of a model.

        Returns:
            The version number.

        Raises:
            TrackingError: The store refuses.
        """
        from mlflow.exceptions import MlflowException

        client = self.experiment
        try:
            try:
                client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            source = f"{client.get_run(self.run_id).info.artifact_uri}/{artifact}"
            version = client.create_model_version(
                name, source=source, run_id=self.run_id, tags=dict(tags)
            )
        except MlflowException as error:
            raise TrackingError(_explain(self._tracking_uri, error)) from error
        return int(version.version)

    @rank_zero_only
    def end(self, status: Status) -> None:
        """Send what is unsent and close the run with its true status.

        Raises:
            TrackingError: The store refuses, and the run was to be FINISHED.
        """
        if self._monitor is not None:
            self._monitor.finish()
        self._retry_at = 0.0
        try:
            while self._unsent:
                super().log_metrics(*self._unsent[0])
                self._unsent.pop(0)
            self.experiment.set_terminated(self.run_id, status=status)
        except Exception as error:
            message = _explain(self._tracking_uri, error)
            if status == "FINISHED":
                raise TrackingError(message) from error
            # A failure is being reported already, and must not be hidden by this one.
            log.warning("%s; the run's status is not %s there", message, status)


def check_store(uri: str, *, timeout: float) -> None:
    """Check that a tracking store answers, before any work.

    Raises:
        TrackingError: It does not, and why.
    """
    parts = urllib.parse.urlsplit(uri)
    if parts.password is not None:
        raise TrackingError(
            "logger.tracking_uri holds a password, and a configuration is written to files: "
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
        )
    if parts.scheme == "file" or not parts.scheme:
        raise TrackingError(
            f"logger.tracking_uri={uri}: MLflow no longer writes plain folders; use "
            "sqlite:///FILE or a server"
        )
    if parts.scheme == "sqlite":
        _check_sqlite(Path(uri.removeprefix("sqlite:///")), timeout)
    elif parts.scheme in ("http", "https"):
        try:
            with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=timeout):  # noqa: S310
                pass
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                raise TrackingError(
                    f"the MLflow server {_public(uri)} refuses us ({error.code}): set "
                    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
                ) from error
        except (OSError, ValueError) as error:
            raise TrackingError(_explain(uri, error)) from error


def _check_sqlite(path: Path, timeout: float) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=timeout)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
        finally:
            connection.close()
    except (sqlite3.Error, OSError) as error:
        raise TrackingError(
            f"the MLflow store {path} cannot be written ({error}): end the process that "
            "holds it, or choose another with logger.tracking_uri, or logger=csv"
        ) from error


def _explain(uri: str, error: Exception) -> str:
    reason = next(iter(str(error).strip().splitlines()), repr(error))[:200]
    return f"the MLflow store {_public(uri)} does not take our data ({reason})"


def _public(uri: str) -> str:
    """The address without user and password."""
    parts = urllib.parse.urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
