"""An MLflow model of this project's predictor, from code: nothing is pickled.

    python benchmarks/serving_mlflow.py BUNDLE FOLDER

That writes the model; MLflow's server runs this file again to load it.
"""

import os
import sys
from pathlib import Path
from typing import Any

import mlflow

from fakenews.predictor import Predictor


class Headlines(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Texts in, their probabilities out."""

    def load_context(self, context: Any) -> None:
        """Load the bundle; engine and threads are the server's."""
        import torch

        threads = int(os.environ["THREADS"])
        torch.set_num_threads(threads)
        self.predictor = Predictor.load(
            context.artifacts["bundle"], engine=os.environ["ENGINE"], threads=threads
        )

    def predict(self, context: Any, model_input: list[str]) -> list[dict[str, float]]:
        """Probabilities of each text."""
        del context
        return [found.probabilities for found in self.predictor.predict(model_input)]


mlflow.models.set_model(Headlines())


if __name__ == "__main__":
    bundle, folder = sys.argv[1:]
    mlflow.pyfunc.save_model(
        folder,
        python_model=str(Path(__file__).resolve()),
        artifacts={"bundle": bundle},
        pip_requirements=["mlflow"],  # it is served where it is made
    )
