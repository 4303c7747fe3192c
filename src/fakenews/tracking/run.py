"""One run: its folder and its MLflow run have one state, which is true to the end."""

import logging
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from lightning.pytorch.loggers import Logger
from optuna import TrialPruned

from fakenews.data.manifest import write_json
from fakenews.errors import FakeNewsError, TrackingError, interruption
from fakenews.provenance import all_packages, git
from fakenews.tracking.folder import RESULT, RunFolder
from fakenews.tracking.mlflow import MLflowTracker, Status

log = logging.getLogger(__name__)

# Names of the final metrics. Those of the best weights on validation must not mix with
# the curves of the epochs, which are `val/...`.
_FINAL = {"val": "best/val", "test": "test"}


class Run:
    """A run from its start, or its resumption, to its end, whatever the end is.

    As a context manager it ends as FINISHED after `finish`, as KILLED when it was
    interrupted or pruned (the tag `state` says which), and as FAILED otherwise; the folder's
    state says the same. Until `begin` nothing is written or tracked: a mistake that is found
    before leaves a new run nothing, and an earlier one as it was.

    Args:
        folder: Locked by this process.
        logger: Lightning logger, or None.
        config: The resolved configuration, without secrets.
        manifest: Of the data.
        audit: Of the data.
        root: The working copy, for its commit.
        tags: Of the MLflow run, beside those of every run.
    """

    def __init__(
        self,
        *,
        folder: RunFolder,
        logger: Logger | None,
        config: Mapping[str, Any],
        manifest: Mapping[str, Any],
        audit: Mapping[str, Any],
        root: Path,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.logger = logger
        self.tracker = logger if isinstance(logger, MLflowTracker) else None
        self.config = config
        self.manifest = manifest
        self.audit = audit
        self.tags = dict(tags or {})
        self.source = git(root)
        self.mlflow_id: str | None = None
        self._summary = ""
        self._described: list[Path] = []
        self._begun = self._finished = False

    @property
    def commit(self) -> str | None:
        """The commit that runs, marked when the working copy differs from it."""
        commit = self.source["commit"]
        return f"{commit}+changes" if commit and self.source["diff"] else commit

    def __enter__(self) -> Self:
        return self

    def begin(self) -> None:
        """Write and track what the run is; nothing when that is done already.

        Raises:
            TrackingError: The store refuses.
        """
        if self._begun:
            return
        path = self.folder.path
        # Apart first: a store that refuses must not cost a resumed run its files.
        with tempfile.TemporaryDirectory(prefix=".begin-", dir=path) as drafts:
            files = self._describe(Path(drafts))
            if self.tracker is not None:
                tags = self.tags | {
                    "data_hash": str(self.manifest["data_hash"]),
                    "folder": path.name,
                }
                if self.commit is not None:
                    tags["git_commit"] = self.commit
                self.mlflow_id = self.tracker.begin(
                    parameters=self.config, tags=tags, files=dict.fromkeys(files)
                )
            self._begun = True
            for file in files:
                file.replace(path / file.name)
        self.folder.note(
            state="running",
            **({} if self.mlflow_id is None else {"mlflow_run_id": self.mlflow_id}),
        )

    def _describe(self, folder: Path) -> list[Path]:
        """Write the files that say what the run is."""
        write_json(folder / "audit.json", self.audit)
        write_json(folder / "data.json", self.manifest)
        (folder / "config.yaml").write_text(yaml.safe_dump(dict(self.config), sort_keys=False))
        (folder / "packages.txt").write_text("\n".join(all_packages()) + "\n")
        if self.source["diff"]:
            (folder / "git.diff").write_text(self.source["diff"] + "\n")
        return sorted(folder.iterdir())

    def describe(self, summary: str, files: list[Path]) -> None:
        """Say what the run has made, in words.

        Args:
            summary: Description of the registered version, as Markdown.
            files: Logged as artefacts by `finish`.
        """
        self._summary, self._described = summary, files

    def finish(
        self,
        *,
        bundle: Path | None,
        metrics: Mapping[str, Mapping[str, float]],
        register: str | None,
        tags: Mapping[str, str],
    ) -> None:
        """Log what the run has made; after this it counts as done.

        Args:
            bundle: Folder; None where only the metrics were wanted.
            metrics: Of `val` and `test`; those that are undefined are left out.
            register: Name of the model to register the bundle under, or None.
            tags: Of the registered version.

        Raises:
            TrackingError: The store refuses; the run folder has everything.
        """
        path = self.folder.path
        result = {"bundle": None if bundle is None else "bundle", "metrics": metrics}
        write_json(path / RESULT, result)
        if self.logger is not None:
            self.logger.log_metrics(
                {
                    f"{_FINAL[split]}/{name}": value
                    for split, values in metrics.items()
                    for name, value in values.items()
                }
            )
            self.logger.save()
        if self.tracker is not None and bundle is not None:
            self.tracker.log_files(
                {
                    bundle: "bundle",
                    path / "plots": "plots",
                    path / "report.html": None,
                    path / "metrics.json": None,
                    path / "slices.csv": None,
                    **dict.fromkeys(self._described),
                }
            )
            if register is not None:
                version = self.tracker.register(
                    name=register, artifact="bundle", tags=tags, description=self._summary
                )
                log.info("registered %s version %d", register, version)
        self._finished = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        del kind, traceback
        try:
            if self._begun:
                self._end(error)
            elif "state" not in self.folder.record and not _to_be_mended(error):
                self.folder.note(state="failed")
        finally:
            self.folder.release()
            sys.stdout.flush()

    def _end(self, error: BaseException | None) -> None:
        stopped = error is not None and interruption(error) is not None
        state = "finished" if self._finished else "interrupted" if stopped else "failed"
        if isinstance(error, TrialPruned):
            state = "pruned"
        statuses: dict[str, Status] = {
            "finished": "FINISHED",
            "interrupted": "KILLED",
            # As MLflow's own integration of Optuna has it.
            "pruned": "KILLED",
            "failed": "FAILED",
        }
        try:
            if self.tracker is not None:
                self.tracker.end(statuses[state], tags={"state": state})
        except TrackingError:
            state = "failed"
            raise
        finally:
            self.folder.note(state=state)


def _to_be_mended(error: BaseException | None) -> bool:
    return isinstance(error, FakeNewsError | KeyboardInterrupt)
