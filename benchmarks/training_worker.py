"""A process that trains in one way when it is told to; else it waits and uses no core."""

import dataclasses
import logging
import multiprocessing
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import transformers
from hydra.utils import execution_whitelist
from training_ways import TUNED, Job, Pass, average_precision, run

from fakenews.config import TARGETS
from fakenews.errors import FakeNewsError
from fakenews.training.process import tune_process

_LIBRARIES = ["accelerate", "fakenews.training.job", "transformers.models.bert.modeling_bert"]


class WorkerError(Exception):
    """What went wrong in the process, in one line."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What there is to train on, the same in every process.

    Attributes:
        lengths: Tokens of each training row.
        test_rows: Rows of the test split.
        width: Size of the encoder's states.
        inner_width: Size of its feed-forward layers.
        layers: Their number.
    """

    lengths: list[int]
    test_rows: int
    width: int
    inner_width: int
    layers: int


class Worker:
    """Trains in one way, in a process of its own.

    What `train.py` sets for its process (freed memory is kept, denormal numbers are 0) is
    set for this project's ways alone: nobody else's user has it.

    Args:
        name: In `training_ways.WAYS`.
        overrides: Of `conf/train.yaml`.
        rows: Training rows to keep; None keeps all.
        threads: For torch.

    Raises:
        WorkerError: The process could not do it.
    """

    def __init__(
        self, name: str, *, overrides: Sequence[str], rows: int | None, threads: int
    ) -> None:
        # Forked from a process that has loaded the libraries, once for all ways, and no more.
        # It does not find the modules of this folder.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_LIBRARIES)
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_work, args=(theirs, name, list(overrides), rows, threads), daemon=True
        )
        self._process.start()
        theirs.close()
        self.facts: Facts = self._answer()

    def run(self, **options: Any) -> Pass:
        """Train, as `training_ways.run` does; with `test`, the pass has a score too."""
        self._connection.send(options)
        found: Pass = self._answer()
        return found

    def _answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError as error:
            raise WorkerError(f"the process of {self._process.name} died") from error
        if isinstance(answer, str):
            raise WorkerError(answer)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        # Without a listener it ends by itself, unless it is in the middle of a pass.
        self._connection.close()
        self._process.join(timeout=5)
        self._process.terminate()
        self._process.join()


def _work(
    connection: Connection, name: str, overrides: list[str], rows: int | None, threads: int
) -> None:
    """Answer with the facts, then with a pass for each request."""
    if name in TUNED:
        tune_process()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    with tempfile.TemporaryDirectory() as folder, execution_whitelist(TARGETS):
        try:
            job = Job(overrides, rows=rows, folder=Path(folder))
            config = job.pretrained.encoder.backbone.config
            facts = Facts(
                lengths=job.train.lengths.tolist(),
                test_rows=sum(job.dataset.class_counts("test").values()),
                width=config.hidden_size,
                inner_width=config.intermediate_size,
                layers=config.num_hidden_layers,
            )
            connection.send(facts)
            while True:
                options = connection.recv()
                test = options.pop("test", False)
                found = run(name, job, threads=threads, **options)
                score = average_precision(job, found) if test else None
                # Of what was trained, only figures can leave the process.
                connection.send(dataclasses.replace(found, score=score, logits=None))
        except FakeNewsError as error:
            connection.send(str(error))
        except EOFError:
            return
