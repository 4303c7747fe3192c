"""Evidently's report on two tables; runs in its own environment, without this project.

    python evidently_worker.py FOLDER

FOLDER has reference.parquet and window.parquet; evidently.html is written beside them.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset, DataSummaryPreset

_PREDICTION = "prediction"


def main(folder: Path) -> None:
    """Write the report."""
    warnings.simplefilter("ignore")
    # Evidently draws from numpy's global generator.
    np.random.seed(0)  # noqa: NPY002
    frames = [pd.read_parquet(folder / f"{name}.parquet") for name in ("window", "reference")]
    definition = DataDefinition(
        numerical_columns=[name for name in frames[0] if name != _PREDICTION],
        categorical_columns=[_PREDICTION],
    )
    window, reference = (
        Dataset.from_pandas(frame, data_definition=definition) for frame in frames
    )
    report = Report([DataDriftPreset(), DataSummaryPreset()], include_tests=True)
    report.run(window, reference).save_html(str(folder / "evidently.html"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
