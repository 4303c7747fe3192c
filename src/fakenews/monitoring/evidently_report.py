"""The report that Evidently makes of the newest window, in an environment of its own."""

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fakenews.errors import MonitoringError
from fakenews.monitoring.account import Account
from fakenews.monitoring.rows import Rows

_PAGE = "evidently.html"
_SECONDS = 900


def write_evidently(account: Account, folder: Path, *, python: str) -> Path | None:
    """Write `evidently.html`: drift and summary of the features, scores and decided classes.

    Evidently needs versions of libraries that this project does not have, so it has an
    environment of its own.

    Args:
        account: Of the newest window.
        folder: Of the report; a page of an earlier window in it is removed at once.
        python: Interpreter of an environment with Evidently.

    Returns:
        The page; None where the window has too few rows to be judged.

    Raises:
        MonitoringError: It could not be made.
    """
    page = folder / _PAGE
    try:
        page.unlink(missing_ok=True)
        if account.rows is None or not account.judgements[-1].findings:
            return None
        _write(account, account.rows, page, python)
    except OSError as error:
        raise MonitoringError(f"{page}: cannot be written ({error.strerror})") from error
    return page


def _write(account: Account, new: Rows, page: Path, python: str) -> None:
    known = account.reference.rows
    with tempfile.TemporaryDirectory(dir=page.parent, prefix=".evidently-") as name:
        draft = Path(name)
        # What both have; a log may lack some of it.
        columns = [key for key in known.scored if key in new.scored]
        for part, rows in (("reference", known), ("window", new)):
            made = _table(rows, columns, account.reference.classes)
            made.to_parquet(draft / f"{part}.parquet")
        _run(python, draft)
        (draft / page.name).replace(page)


def _table(rows: Rows, columns: Sequence[str], classes: Sequence[str]) -> pd.DataFrame:
    decided = np.array(classes, dtype=object)[rows.decided]
    return pd.DataFrame({key: rows.scored[key] for key in columns} | {"prediction": decided})


def _run(python: str, folder: Path) -> None:
    worker = Path(__file__).with_name("evidently_worker.py")
    try:
        done = subprocess.run(  # noqa: S603
            # Isolated: the folder of the worker, and this project, are not on its path.
            [python, "-I", str(worker), str(folder)],
            env=os.environ | {"DO_NOT_TRACK": "1"},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except OSError as error:
        raise MonitoringError(
            f"evidently={python}: {error.strerror}; give the Python of an environment that has "
            "Evidently"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise MonitoringError(f"evidently={python}: no report after {_SECONDS} s") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise MonitoringError(f"evidently={python}: no report: {said[-1]}")
