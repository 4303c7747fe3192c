"""MLflow as a Lightning logger that tells the truth about a run and survives its server.

Lightning's own logger marks a run FINISHED when fitting ends; here a run ends when its
work does: evaluated, bundled, registered.
"""

import contextlib
import logging
import posixpath
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

from fakenews.bounds import Positive
from fakenews.errors import TrackingError, interruption
from fakenews.tracking.store import check_store, explain, impatient, refusals, sqlite_file

log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]

# What the store takes: characters of a value, items of a batch.
_MAX_PARAM_LENGTH = 250
_MAX_PARAMS = 100
_MAX_METRICS = 1000

# Seconds before a store that did not answer is asked again: doubled from the first to
# the last.
_FIRST_PAUSE, _LAST_PAUSE = 10.0, 600.0


class MLflowTracker(MLFlowLogger):
    """Logs a run to MLflow; metrics that the store refuses are kept and sent later.

    Args:
        tracking_uri: `sqlite:///FILE`, or the address of a server.
        experiment_name: Made if it does not exist.
        run_name: Of a new run.
        run_id: Of a run to continue; None starts a new one.
        artifact_location: Of a new experiment; None puts it beside an SQLite file, or
            lets a server choose.
        timeout: Seconds in which the store must answer before any work starts, and
            when metrics are logged.
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
        # They announce what is expected, a new database, or what is said here in a line.
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        if artifact_location is None and tracking_uri.startswith("sqlite:"):
            beside = sqlite_file(tracking_uri).absolute().parent
            artifact_location = str(beside / "mlartifacts" / experiment_name)
        super().__init__(
            experiment_name=experiment_name,
            run_name=run_name,
            tracking_uri=tracking_uri,
            run_id=run_id,
            artifact_location=artifact_location,
        )
        self._begun = False
        self._timeout = timeout
        # Last step of each metric of a run that is continued: from its checkpoint on, a
        # run that was killed repeats steps that it has logged.
        self._logged: dict[str, int] = {}
        self._unsent: list[Any] = []  # mlflow.entities.Metric, in the order logged
        self._pause = 0.0  # 0 while the store answers
        self._retry_at = 0.0
        self._wants_system_metrics = system_metrics
        self._monitor: Any = None

    @property
    def experiment(self) -> Any:
        """MLflow's client. Lightning's makes a run when first asked, ours only in `begin`."""
        return super().experiment if self._begun else self._mlflow_client

    @rank_zero_only
    def begin(
        self,
        *,
        parameters: Mapping[str, Any],
        tags: Mapping[str, str],
        files: Mapping[Path, str | None] | None = None,
    ) -> str:
        """Start or re-open the run, and say what it is; all of it, or leave no run.

        Args:
            parameters: Nested; flattened with dots. Long values are cut, as MLflow
                demands: the whole configuration is an artefact.
            tags: Of the run.
            files: As for `log_files`.

        Returns:
            The run's id.

        Raises:
            TrackingError: The store refuses.
        """
        from mlflow.entities import Param, RunTag

        flattened = flat(parameters)
        keys = valid_keys(flattened)
        is_new = self._run_id is None
        self._begun = True
        try:
            with refusals(self._tracking_uri):
                if is_new:
                    self._experiment_id = self._find_experiment()
                run_id = str(self.run_id)
                self.experiment.update_run(run_id, status="RUNNING")
                earlier = self.experiment.get_run(run_id).data
                known = earlier.params
                self._logged = {key: self._last_step(run_id, key) for key in earlier.metrics}
                params = [
                    Param(keys[name], str(value)[:_MAX_PARAM_LENGTH])
                    for name, value in flattened.items()
                    if keys[name] not in known
                ]
                for start in range(0, len(params), _MAX_PARAMS):
                    self.experiment.log_batch(
                        run_id, params=params[start : start + _MAX_PARAMS]
                    )
                self.experiment.log_batch(
                    run_id, tags=[RunTag(name, value) for name, value in tags.items()]
                )
                self.log_files(files or {})
        except Exception:
            self._undo(is_new=is_new)
            raise
        if self._wants_system_metrics:
            self._start_monitor(run_id)
        return run_id

    def _undo(self, *, is_new: bool) -> None:
        """Take back what `begin` has done, as far as the store lets us."""
        self._begun = False
        if self._run_id is None:
            return
        with contextlib.suppress(Exception), impatient(self._timeout):
            if is_new:
                self._mlflow_client.delete_run(self._run_id)
            else:
                self._mlflow_client.set_terminated(self._run_id, status="KILLED")

    def _last_step(self, run_id: str, key: str) -> int:
        history = self.experiment.get_metric_history(run_id, key)
        return max(int(metric.step) for metric in history)

    def _find_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        client = self._mlflow_client
        name = self._experiment_name
        if (found := client.get_experiment_by_name(name)) is not None:
            return str(found.experiment_id)
        try:
            return str(
                client.create_experiment(name, artifact_location=self._artifact_location)
            )
        except MlflowException:
            # Another run of this name may have made it in the meantime.
            if (found := client.get_experiment_by_name(name)) is None:
                raise
            return str(found.experiment_id)

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
        from mlflow.entities import Metric

        keys = valid_keys(metrics)
        now = int(time.time() * 1000)
        self._unsent += [
            Metric(keys[name], float(value), now, step or 0)
            for name, value in metrics.items()
            if step is None or step > self._logged.get(keys[name], -1)
        ]
        if not self._begun or time.monotonic() < self._retry_at:
            return
        try:
            self._send()
        except Exception as error:  # noqa: BLE001 a dead store must not kill a training
            if not self._pause:
                log.warning(
                    "%s; training goes on, metrics are kept and sent when it answers",
                    explain(self._tracking_uri, error),
                )
            self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LAST_PAUSE)
            self._retry_at = time.monotonic() + self._pause
            return
        if self._pause:
            log.info("the MLflow store answers again: it has all metrics")
        self._pause = self._retry_at = 0.0

    def _send(self) -> None:
        with impatient(self._timeout):
            while self._unsent:
                batch = self._unsent[:_MAX_METRICS]
                self.experiment.log_batch(self.run_id, metrics=batch)
                del self._unsent[: len(batch)]

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
        with refusals(self._tracking_uri):
            for path, folder in paths.items():
                if path.is_dir():
                    self.experiment.log_artifacts(self.run_id, str(path), folder)
                else:
                    self.experiment.log_artifact(self.run_id, str(path), folder)

    @rank_zero_only
    def register(
        self, *, name: str, artifact: str, tags: Mapping[str, str], description: str = ""
    ) -> int:
        """Register an artefact of this run as a new version of a model.

        Args:
            name: Of the model, which is made if there is none.
            artifact: Its folder among those of the run.
            tags: Of the version.
            description: Of the version, as Markdown.

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
                name,
                source=source,
                run_id=self.run_id,
                tags=dict(tags),
                description=description or None,
                await_creation_for=None,
            )
        except MlflowException as error:
            if interruption(error) is not None:
                raise
            raise TrackingError(explain(self._tracking_uri, error)) from error
        return int(version.version)

    @rank_zero_only
    def end(self, status: Status, *, tags: Mapping[str, str] | None = None) -> None:
        """Send what is unsent and close the run with its true status.

        Args:
            status: Of the run.
            tags: Set with it.

        Raises:
            TrackingError: The store refuses, and the run was to be FINISHED.
        """
        if self._monitor is not None:
            self._monitor.finish()
        if not self._begun:
            return
        try:
            self._send()
            for name, value in (tags or {}).items():
                self.experiment.set_tag(self.run_id, name, value)
            self.experiment.set_terminated(self.run_id, status=status)
        except Exception as error:
            if interruption(error) is not None:
                raise
            message = explain(self._tracking_uri, error)
            if status == "FINISHED":
                raise TrackingError(message) from error
            # A failure is being reported already, and must not be hidden by this one.
            log.warning("%s; the run's status is not %s there", message, status)


def is_mlflow(logger: Mapping[str, Any]) -> bool:
    """Whether a logger's node makes an `MLflowTracker`."""
    return str(logger.get("_target_", "")).endswith(MLflowTracker.__name__)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def valid_keys(names: Iterable[str]) -> dict[str, str]:
    """A key that MLflow takes for each name of a metric or parameter, no two alike.

    MLflow takes letters, digits, `_-. :/`, and no key that reads as another path.
    """
    keys: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        plain = re.sub(r"[^\w\-. :/]", "_", name)[:200]
        if posixpath.normpath(plain) != plain or plain.startswith(("/", "..")):
            plain = plain.replace("/", "_")
        key, number = plain, 2
        while key in taken:
            key, number = f"{plain}_{number}", number + 1
        keys[name] = key
        taken.add(key)
    return keys
