"""How long one text takes, as a person who waits for the answer sees it."""

import statistics
import time

import numpy as np
import pandas as pd

from fakenews.predictor import Predictor

_TEXTS, _WARM_UP = 40, 5


def latency(predictor: Predictor, frame: pd.DataFrame) -> float:
    """Milliseconds from one text to its prediction, the median of 40 texts.

    Args:
        predictor: Calibrated.
        frame: Rows as for `Predictor.predict`; those measured are spread over it.
    """
    rows = np.linspace(0, len(frame) - 1, _TEXTS + _WARM_UP).astype(int)
    times = []
    for number in rows:
        row = frame.iloc[[number]].reset_index(drop=True)
        # Another text than in training, of which the entities are known already.
        row["text"] += f" {time.monotonic_ns()}"
        started = time.perf_counter()
        predictor.predict(row)
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times[_WARM_UP:])
