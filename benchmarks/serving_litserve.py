"""LitServe over this project's predictor, batches formed by LitServe.

    python benchmarks/serving_litserve.py BUNDLE ENGINE PORT THREADS WORKERS

Runs until it is killed.
"""

import sys
from typing import Any

import litserve as ls
import torch

from fakenews.predictor import Predictor

# Seconds that a batch is waited for. A lone client waits as long; without any, LitServe asks
# its queue again and again, on a core that the model needs.
_BATCH_TIMEOUT = 0.005


class Headlines(ls.LitAPI):  # type: ignore[misc]
    """A text in, its probabilities out."""

    def __init__(self, bundle: str, engine: str, threads: int) -> None:
        super().__init__(max_batch_size=64, batch_timeout=_BATCH_TIMEOUT)
        self._arguments = bundle, engine, threads

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        del device
        bundle, engine, threads = self._arguments
        torch.set_num_threads(threads)
        self.predictor = Predictor.load(bundle, engine=engine, threads=threads)

    def decode_request(self, request: dict[str, str], **_: Any) -> str:
        """The text of a request."""
        return request["text"]

    def predict(self, x: list[str], **_: Any) -> list[dict[str, float]]:
        """Probabilities of each text of a batch."""
        return [found.probabilities for found in self.predictor.predict(x)]


def main() -> None:
    """Serve until killed."""
    bundle, engine, port, threads, workers = sys.argv[1:]
    server = ls.LitServer(
        Headlines(bundle, engine, int(threads)),
        accelerator="cpu",
        workers_per_device=int(workers),
        timeout=False,
    )
    server.run(
        host="127.0.0.1",
        port=int(port),
        log_level="warning",
        generate_client_file=False,
        num_api_servers=1,
    )


if __name__ == "__main__":
    main()
