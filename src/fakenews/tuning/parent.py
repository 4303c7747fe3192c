"""The MLflow run of a sweep, of which its trials are children."""

from pathlib import Path
from types import TracebackType
from typing import Self

from hydra.utils import instantiate
from omegaconf import DictConfig
from optuna.study import Study

from fakenews.config import plain
from fakenews.errors import Interrupted
from fakenews.tracking.mlflow import MLflowTracker, is_mlflow
from fakenews.tracking.store import check_store
from fakenews.tuning.queue import is_counted
from fakenews.tuning.storage import patiently


class ParentRun:
    """A sweep's run while it lasts; nothing where the logger is another than MLflow.

    Started again, and on every machine, the sweep has the same run.

    Args:
        cfg: The composed configuration.
        study: Keeps the run's id.
    """

    def __init__(self, cfg: DictConfig, study: Study) -> None:
        self._study = study
        self._storage: str = cfg.sweep.storage
        self._finished = False
        self._tracker: MLflowTracker | None = None
        if is_mlflow(cfg.logger):
            before = patiently(lambda: study.user_attrs.get("mlflow_run_id"), self._storage)
            self._tracker = instantiate(
                cfg.logger,
                run_id=_known(cfg.logger, before),
                run_name=study.study_name,
                system_metrics=False,
            )
        self._config = plain(cfg)

    def __enter__(self) -> Self:
        if self._tracker is not None:
            run_id = self._tracker.begin(
                parameters=self._config, tags={"optuna.study": self._study.study_name}
            )
            patiently(lambda: self._study.set_user_attr("mlflow_run_id", run_id), self._storage)
        return self

    def finish(self, folder: Path) -> None:
        """Log what was found; after this the sweep counts as done.

        Args:
            folder: Of the report.
        """
        if self._tracker is not None:
            trials = self._study.get_trials(deepcopy=False)
            best = self._study.best_trials
            metrics = {"trials": float(sum(map(is_counted, trials)))}
            if best:
                names = self._study.user_attrs["objectives"]
                metrics |= {
                    f"best/{name.removeprefix('val/')}": value
                    for name, value in zip(names, best[0].values, strict=True)
                }
                metrics["best_trial"] = float(best[0].number)
            self._tracker.log_metrics(metrics)
            files: dict[Path, str | None] = {
                path: None
                for path in folder.iterdir()
                if path.is_file() and path.suffix != ".log"
            }
            if (plots := folder / "plots").is_dir():
                files[plots] = "plots"
            self._tracker.log_files(files)
        self._finished = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._tracker is None:
            return
        stopped = isinstance(error, Interrupted | KeyboardInterrupt | SystemExit)
        if self._finished:
            self._tracker.end("FINISHED")
        else:
            self._tracker.end("KILLED" if stopped else "FAILED")


def _known(logger: DictConfig, run_id: str | None) -> str | None:
    """The run, unless the store does not have it: a study may go on with another store."""
    if run_id is None:
        return None
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    check_store(logger.tracking_uri, timeout=logger.get("timeout", 10))
    try:
        run = MlflowClient(logger.tracking_uri).get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            return run_id  # whatever is wrong is said when the run begins
        return None
    return run_id if run.info.lifecycle_stage == "active" else None
