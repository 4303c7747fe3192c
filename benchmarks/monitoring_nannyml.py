"""NannyML's univariate drift and its estimated performance, as they come.

    python monitoring_nannyml.py FOLDER

Runs in NannyML's environment. See `monitoring_peers.py`.
"""

import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"

import nannyml
import pandas as pd

_METRICS = ("average_precision", "accuracy")


def main(folder: Path) -> None:
    """Print a line for each window."""
    warnings.simplefilter("ignore")
    given = json.loads((folder / "windows.json").read_text(encoding="utf-8"))
    positive = given["positive"]
    reference = prepared(pd.read_parquet(folder / "reference.parquet"), positive)
    pool = prepared(pd.read_parquet(folder / "pool.parquet"), positive)
    # Windows of one size are chunks of one table.
    for size, group in groupby(given["windows"], key=len):
        for line in results(reference, pool, size, list(group)):
            print(json.dumps(line), flush=True)


def prepared(frame: pd.DataFrame, positive: str) -> pd.DataFrame:
    """With the columns that estimation needs."""
    (score,) = [name for name in frame if name.startswith("prediction.score")]
    code = sorted(frame["truth"].unique()).index(positive)
    return frame.drop(columns="text").assign(
        y=(frame["truth"] == positive).astype(int),
        called=(frame["prediction"] == positive).astype(int),
        chance=frame[score] if code == 1 else 1 - frame[score],
    )


def results(
    reference: pd.DataFrame, pool: pd.DataFrame, size: int, windows: Sequence[list[int]]
) -> Iterator[dict[str, Any]]:
    """What is found of each window."""
    chunker = nannyml.SizeBasedChunker(chunk_size=size)
    rows = [row for window in windows for row in window]
    analysed = pool.iloc[rows].reset_index(drop=True)
    compared = [n for n in reference if n not in ("truth", "y", "called", "chance")]
    drift = nannyml.UnivariateDriftCalculator(
        column_names=compared, treat_as_categorical=["prediction"], chunker=chunker
    )
    drifted = drift.fit(reference).calculate(analysed).filter(period="analysis").to_df()
    estimator = nannyml.CBPE(
        y_pred_proba="chance",
        y_pred="called",
        y_true="y",
        problem_type="classification_binary",
        metrics=list(_METRICS),
        chunker=chunker,
    )
    # The true labels of windows are not known to it.
    hidden = analysed.drop(columns=["y", "truth"])
    estimates = estimator.fit(reference).estimate(hidden).filter(period="analysis").to_df()
    alerts = drifted.xs("alert", axis=1, level=-1).droplevel(1, axis=1)
    for at in range(len(windows)):
        columns = [name for name in compared if alerts[name].iloc[at]]
        yield {
            # NannyML itself does not put columns together: as Evidently does it.
            "dataset": len(columns) >= len(compared) / 2,
            "columns": columns,
            "estimated": {name: float(estimates[name, "value"].iloc[at]) for name in _METRICS},
            "alerts": [name for name in _METRICS if estimates[name, "alert"].iloc[at]],
        }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
