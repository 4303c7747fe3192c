"""The same window as Evidently's drift report, for those who know that one."""

import os
import warnings
from pathlib import Path

import pandas as pd

from fakenews.errors import ConfigError, MonitoringError
from fakenews.monitoring.rows import Rows

FILE = "evidently.html"


def write_evidently(
    rows: Rows, reference: Rows, folder: Path, *, classes: tuple[str, ...]
) -> Path:
    """Write Evidently's report with its own defaults; it decides nothing here.

    Args:
        rows: Of a window, at least one.
        reference: To compare with.
        folder: Of the report.
        classes: The sorted class names.

    Returns:
        The file, `evidently.html`.

    Raises:
        ConfigError: Evidently is not installed.
        MonitoringError: The report cannot be made or written.
    """
    # It would count its users.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    try:
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset
    except ImportError as error:
        raise ConfigError(
            "evidently=true needs Evidently: pip install 'fakenews[monitor]'"
        ) from error
    known, now = (_frame(some, classes) for some in (reference, rows))
    shared = [name for name in known if name in now]
    definition = DataDefinition(
        numerical_columns=[name for name in shared if name != "label"],
        categorical_columns=["label"],
    )
    path = folder / FILE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its statistics, about columns of one value
            before, current = (
                Dataset.from_pandas(frame[shared], data_definition=definition)
                for frame in (known, now)
            )
            Report([DataDriftPreset()]).run(current, before).save_html(str(path))
    except Exception as error:  # of whatever kind it is: ours is written already
        raise MonitoringError(f"Evidently's report cannot be written: {error}") from error
    return path


def _frame(rows: Rows, classes: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame(dict(rows.scored)).assign(
        label=[classes[code] for code in rows.decided]
    )
