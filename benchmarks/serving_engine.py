"""The predictor alone, in a process that reads jobs and writes results, a line of JSON each.

    python benchmarks/serving_engine.py BUNDLE ENGINE THREADS

A job is {"texts": [...], "size": 64} with "seconds" and "warm_up", or without, to get the
probabilities of the texts. The result has a list of latencies, or of rows of probabilities.
"""

import json
import sys
import time
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import torch

from fakenews.predictor import Predictor


def _measure(predictor: Predictor, lists: Sequence[list[str]], job: dict[str, Any]) -> Any:
    """How long each list took, over and over, after some that do not count."""
    _time(predictor, lists, job["warm_up"])
    started, computed = time.perf_counter(), time.process_time()
    latencies = _time(predictor, lists, job["seconds"])
    return {
        "latencies": latencies,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - computed,
    }


def _time(predictor: Predictor, lists: Sequence[list[str]], seconds: float) -> list[float]:
    end = time.perf_counter() + seconds
    latencies: list[float] = []
    for texts in cycle(lists):
        started = time.perf_counter()
        predictor.predict(texts)
        ended = time.perf_counter()
        latencies.append(ended - started)
        if ended > end:
            break
    return latencies


def main() -> None:
    """Do jobs until there are no more."""
    bundle, engine, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    predictor = Predictor.load(bundle, engine=engine, threads=int(threads))
    answers = sys.stdout
    # Whatever a library prints is no result.
    sys.stdout = sys.stderr
    print(json.dumps({"classes": predictor.classes}), file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        texts, size = job["texts"], job["size"]
        lists = [texts[at : at + size] for at in range(0, len(texts), size)]
        if "seconds" in job:
            result = _measure(predictor, [part for part in lists if len(part) == size], job)
        else:
            result = [
                list(found.probabilities.values())
                for part in lists
                for found in predictor.predict(part)
            ]
        print(json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    main()
