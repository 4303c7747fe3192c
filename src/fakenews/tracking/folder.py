"""Run folders: what state a run is in, and which one `resume` means.

A run folder holds everything a run leaves:

    run.json        state, MLflow run id
    config.yaml     resolved configuration
    checkpoints/    best-*.ckpt, last.ckpt
    audit.json, data.json, plots/, metrics.json, report.html, model_card.md, data_sheet.md
    bundle/         what predicts
"""

import contextlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from fakenews.errors import ConfigError, TrainingError

log = logging.getLogger(__name__)

State = Literal["running", "interrupted", "pruned", "failed", "finished"]

_RECORD = "run.json"
LAST = "checkpoints/last.ckpt"
RESULT = "result.json"
# What there is before a run begins; the last two are of loggers.
_STARTED = {".hydra", ".lock", "csv", "tensorboard"}

_held: set[Path] = set()  # folders that this process works in


class RunFolder:
    """One run's folder, locked while a process works in it.

    Args:
        path: Made if it does not exist.

    Raises:
        TrainingError: Another process works in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise TrainingError(
                f"{path} is in use by another process: wait for it, or start without resume"
            ) from error
        _held.add(path.resolve())

    @property
    def last_checkpoint(self) -> Path | None:
        """Where training can continue, if it was saved."""
        checkpoint = self.path / LAST
        return checkpoint if checkpoint.is_file() else None

    @property
    def record(self) -> dict[str, Any]:
        """What `note` has written so far."""
        return read_record(self.path)

    def note(self, **values: Any) -> None:
        """Add values to the folder's record; the change is all or nothing."""
        record = self.record | values
        temporary = self.path / f"{_RECORD}.tmp"
        temporary.write_text(json.dumps(record, indent=2) + "\n")
        temporary.replace(self.path / _RECORD)

    def release(self) -> None:
        """Let other processes work in the folder."""
        _held.discard(self.path.resolve())
        self._lock.release()


def find_run(runs: Path, resume: str) -> Path | None:
    """The run folder that `resume` means; None starts a new one.

    Args:
        runs: Folder of the runs of one name.
        resume: `auto` for the latest unfinished run that has a checkpoint, or a run
            folder.

    Raises:
        ConfigError: The folder has no checkpoint to continue from.
        TrainingError: Its run is finished, or another process works on it.
    """
    if resume != "auto":
        folder = Path(resume)
        if not (folder / LAST).is_file():
            raise ConfigError(
                f"resume={resume}: {folder / LAST} does not exist; give a run folder, or auto"
            )
        if read_record(folder).get("state") == "finished":
            raise TrainingError(
                f"resume={resume}: the run is finished, its bundle is {folder / 'bundle'}; "
                "start a new run without resume"
            )
        return folder
    for folder in sorted(runs.glob("*/"), key=lambda path: path.name, reverse=True):
        unfinished = read_record(folder).get("state") in ("running", "interrupted", "failed")
        if not unfinished or not (folder / LAST).is_file():
            continue
        if _in_use(folder):
            raise TrainingError(
                f"resume=auto: another process works on {folder}, the latest unfinished run: "
                "wait for it or stop it to continue it here, or start a new run without resume"
            )
        return folder
    return None


def latest_finished(runs: Path) -> Path:
    """The newest run with a bundle, of all names, as `bundle=latest` asks for.

    Args:
        runs: Folder of the names' folders.

    Raises:
        ConfigError: There is none.
    """
    folders = [path.parent.parent for path in runs.glob("*/*/bundle/manifest.json")]
    done = [path for path in folders if read_record(path).get("state") == "finished"]
    if not done:
        raise ConfigError(f"bundle=latest: {runs} has no finished run: train one first")
    newest = max(done, key=lambda path: (path / _RECORD).stat().st_mtime)
    log.info("the newest run is %s", newest)
    return newest


def discard_empty(folder: Path) -> None:
    """Remove a run folder in which no run began, as a user's mistake leaves.

    Only the files that every start writes are removed: if there are others, or if another
    process works there, the folder stays as it is.
    """
    found = {path.name for path in folder.glob("*")}
    logs = {name for name in found if name.endswith(".log")}
    # A lock alone is what ranks leave that discard it at once.
    if (".hydra" not in found and found != {".lock"}) or found - logs - _STARTED:
        return
    if folder.resolve() not in _held and _in_use(folder):
        return
    shutil.rmtree(folder, ignore_errors=True)
    # The folder of its name too, when it was the first run of that name.
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def read_record(folder: Path) -> dict[str, Any]:
    """What is noted of a run; nothing where there is none."""
    try:
        record = json.loads((folder / _RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _in_use(folder: Path) -> bool:
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return True
    lock.release()
    return False
