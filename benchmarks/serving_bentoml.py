"""BentoML over this project's predictor, batches formed by BentoML.

    BUNDLE=... ENGINE=... THREADS=... WORKERS=... bentoml serve serving_bentoml:Headlines

BentoML imports this file, in an environment of its own.
"""

import os

import bentoml
import torch

from fakenews.predictor import Predictor


@bentoml.service(workers=int(os.environ["WORKERS"]), traffic={"timeout": 120})
class Headlines:
    """Texts in, their probabilities out."""

    def __init__(self) -> None:
        threads = int(os.environ["THREADS"])
        torch.set_num_threads(threads)
        self.predictor = Predictor.load(
            os.environ["BUNDLE"], engine=os.environ["ENGINE"], threads=threads
        )

    @bentoml.api(batchable=True, max_batch_size=64)  # type: ignore[untyped-decorator]
    def predict(self, texts: list[str]) -> list[dict[str, float]]:
        """Probabilities of each text."""
        return [found.probabilities for found in self.predictor.predict(texts)]
