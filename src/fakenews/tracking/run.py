"""One run: its folder and its MLflow run have one state, which is true to the end."""

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from lightning.pytorch.loggers import Logger

from fakenews.data.manifest import write_json
from fakenews.errors import Interrupted, TrackingError
from fakenews.provenance import all_packages, git
from fakenews.tracking.folder import RunFolder
from fakenews.tracking.mlflow import MLflowTracker, Status, flat

log = logging.getLogger(__name__)

# Names of the final metrics. Those of the best weights on validation must not mix with
# the curves of the epochs, which are `val/...`.
_FINAL = {"val": "best/val", "test": "test"}

# What may differ when a run is resumed without a word.
_FREE = ("resume", "trainer.max_time", "callbacks.stop.max_time")


class Run:
    """A run from its start, or its resumption, to its end, whatever the end is.

    As a context manager it ends as FINISHED after `finish`, as KILLED when it was
    interrupted, and as FAILED otherwise; the folder's state says the same.

    Args:
        folder: Locked by this process.
        logger: Lightning logger, or None.
        config: The resolved configuration, without secrets.
        manifest: Of the data.
        root: The working copy, for its commit.
    """

    def __init__(
        self,
        *,
        folder: RunFolder,
        logger: Logger | None,
        config: Mapping[str, Any],
        manifest: Mapping[str, Any],
        root: Path,
    ) -> None:
        self.folder = folder
        self.logger = logger
        self.tracker = logger if isinstance(logger, MLflowTracker) else None
        self.config = config
        self.manifest = manifest
        self.source = git(root)
        self.mlflow_id: str | None = None
        self._finished = False

    @property
    def commit(self) -> str | None:
        """The commit that runs, marked when the working copy differs from it."""
        commit = self.source["commit"]
        return f"{commit}+changes" if commit and self.source["diff"] else commit

    def __enter__(self) -> Self:
        self.folder.note(state="running")
        try:
            self._begin()
        except BaseException as error:
            # Python does not call __exit__ for an error in __enter__.
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _begin(self) -> None:
        path = self.folder.path
        self._warn_of_changes(path / "config.yaml")
        (path / "config.yaml").write_text(yaml.safe_dump(dict(self.config), sort_keys=False))
        (path / "packages.txt").write_text("\n".join(all_packages()) + "\n")
        if self.source["diff"]:
            (path / "git.diff").write_text(self.source["diff"] + "\n")
        if self.tracker is None:
            return
        tags = {"data_hash": str(self.manifest["data_hash"]), "folder": path.name}
        if self.commit is not None:
            tags["git_commit"] = self.commit
        self.mlflow_id = self.tracker.begin(parameters=self.config, tags=tags)
        self.folder.note(mlflow_run_id=self.mlflow_id)
        names = ("config.yaml", "packages.txt", "git.diff", "data.json", "audit.json")
        files = [path / name for name in names if (path / name).is_file()]
        self.tracker.log_files(dict.fromkeys(files))

    def _warn_of_changes(self, earlier: Path) -> None:
        if not earlier.is_file():
            return
        try:
            before = flat(yaml.safe_load(earlier.read_text()) or {})
        except yaml.YAMLError:
            return  # cut off when the run was killed
        now = flat(json.loads(json.dumps(self.config)))
        changed = [
            name
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name) and name not in _FREE
        ]
        if changed:
            log.warning("resuming with another %s than before", ", ".join(changed))

    def finish(
        self,
        *,
        bundle: Path,
        metrics: Mapping[str, Mapping[str, float]],
        register: str | None,
        tags: Mapping[str, str],
    ) -> None:
        """Log what the run has made; after this it counts as done.

        Args:
            bundle: Folder.
            metrics: Of `val` and `test`; those that are undefined are left out.
            register: Name of the model to register the bundle under, or None.
            tags: Of the registered version.

        Raises:
            TrackingError: The store refuses; the run folder has everything.
        """
        path = self.folder.path
        write_json(path / "result.json", {"bundle": "bundle", "metrics": metrics})
        if self.logger is not None:
            self.logger.log_metrics(
                {
                    f"{_FINAL[split]}/{name}": value
                    for split, values in metrics.items()
                    for name, value in values.items()
                }
            )
            self.logger.save()
        if self.tracker is not None:
            self.tracker.log_files(
                {
                    bundle: "bundle",
                    path / "plots": "plots",
                    path / "report.html": None,
                    path / "metrics.json": None,
                    path / "slices.csv": None,
                }
            )
            if register is not None:
                version = self.tracker.register(name=register, artifact="bundle", tags=tags)
                log.info("registered %s version %d", register, version)
        self._finished = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        del kind, traceback
        stopped = isinstance(error, Interrupted | KeyboardInterrupt)
        state = "finished" if self._finished else "interrupted" if stopped else "failed"
        statuses: dict[str, Status] = {
            "finished": "FINISHED",
            "interrupted": "KILLED",
            "failed": "FAILED",
        }
        try:
            if self.tracker is not None:
                self.tracker.end(statuses[state])
        except TrackingError:
            state = "failed"
            raise
        finally:
            self.folder.note(state=state)
            self.folder.release()
            sys.stdout.flush()
