"""Runs of monitoring as runs of MLflow."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fakenews.monitoring.metrics import LEVELS
from fakenews.monitoring.verdict import Check, Verdict
from fakenews.tracking.store import check_store, impatient, refusals, sqlite_file

_TIMEOUT = 10.0
_MEASURES = ("value", "threshold", "p_value", "effect")


def track(
    verdict: Verdict,
    files: Sequence[Path],
    folder: Path,
    *,
    tracking_uri: str,
    experiment: str,
) -> str:
    """Log a verdict and its report as a run.

    Args:
        verdict: Of this run.
        files: Of the report.
        folder: That they lie in.
        tracking_uri: `sqlite:///FILE`, or the address of a server.
        experiment: Made if it does not exist.

    Returns:
        The run's id.

    Raises:
        TrackingError: The store is locked, unreachable or refuses us.
    """
    check_store(tracking_uri, timeout=_TIMEOUT, option="tracking_uri")
    from mlflow.entities import Metric, RunTag
    from mlflow.tracking import MlflowClient

    at = int(verdict.checked_at.timestamp() * 1000)
    tags = {
        "state": verdict.state,
        "model": verdict.model,
        "model_version": verdict.model_version,
        "mlflow.runName": f"{verdict.checked_at:%Y-%m-%d_%H-%M-%S}",
    }
    metrics = [
        Metric(f"{check.key}/{name}", float(number), at, 0)
        for check in verdict.checks
        for name, number in _numbers(check).items()
    ]
    with refusals(tracking_uri), impatient(_TIMEOUT):
        client = MlflowClient(tracking_uri=tracking_uri)
        run = client.create_run(_experiment(client, tracking_uri, experiment), start_time=at)
        run_id = str(run.info.run_id)
        client.log_batch(run_id, tags=[RunTag(*tag) for tag in tags.items()])
        for start in range(0, len(metrics), 1000):
            client.log_batch(run_id, metrics=metrics[start : start + 1000])
        for path in files:
            below = path.parent.relative_to(folder).as_posix()
            client.log_artifact(run_id, str(path), None if below == "." else below)
        client.set_terminated(run_id, "FINISHED")
    return run_id


def _experiment(client: Any, tracking_uri: str, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = None
    if tracking_uri.startswith("sqlite:"):
        location = str(sqlite_file(tracking_uri).absolute().parent / "mlartifacts" / name)
    return str(client.create_experiment(name, artifact_location=location))


def _numbers(check: Check) -> dict[str, float]:
    found = {name: getattr(check, name) for name in _MEASURES}
    found["state"] = LEVELS[check.state]
    return {
        name: number
        for name, number in found.items()
        if number is not None and math.isfinite(number)
    }
