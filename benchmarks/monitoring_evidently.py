"""Evidently's drift report, as it comes; runs in Evidently's environment.

    python monitoring_evidently.py FOLDER

See `monitoring_peers.py`.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.legacy.utils import data_drift_utils
from evidently.presets import DataDriftPreset

_NOT_COMPARED = {"text", "prediction", "truth"}


def main(folder: Path) -> None:
    """Print a line for each window."""
    warnings.simplefilter("ignore")
    remember_chance()
    reference = pd.read_parquet(folder / "reference.parquet")
    pool = pd.read_parquet(folder / "pool.parquet")
    windows = json.loads((folder / "windows.json").read_text(encoding="utf-8"))["windows"]
    definition = DataDefinition(
        text_columns=["text"],
        numerical_columns=[name for name in reference if name not in _NOT_COMPARED],
        categorical_columns=["prediction"],
    )

    def made(frame: pd.DataFrame) -> Dataset:
        return Dataset.from_pandas(frame.drop(columns="truth"), data_definition=definition)

    known = made(reference)
    report = Report([DataDriftPreset()], include_tests=True)
    for index in windows:
        # Evidently draws from numpy's global generator.
        np.random.seed(0)  # noqa: NPY002
        found = report.run(made(pool.iloc[index].reset_index(drop=True)), known).dict()
        print(json.dumps(read(found)), flush=True)


def remember_chance() -> None:
    """Have the chance level of the text test computed once for each size of window.

    It is drawn with a fixed seed and depends on nothing else, three times in each report, which
    is nearly all that a report takes.
    """
    computed = data_drift_utils.roc_auc_random_classifier_percentile
    known: dict[tuple[bytes, float], float] = {}

    def remembered(y_test: Any, p_value: float = 0.05) -> float:
        key = (np.asarray(y_test).tobytes(), p_value)
        if key not in known:
            known[key] = computed(y_test, p_value=p_value)
        return known[key]

    data_drift_utils.roc_auc_random_classifier_percentile = remembered


def read(found: dict[str, Any]) -> dict[str, Any]:
    """Whether the data set has drifted, and the columns that have."""
    columns = []
    dataset = False
    for test in found["tests"]:
        failed = test["status"] == "FAIL"
        params = test["metric_config"]["params"]
        if "column" in params:
            columns += [params["column"]] * failed
        else:
            dataset |= failed
    return {"dataset": dataset, "columns": columns}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
