"""People who ask a served model about headlines, and say later what was true."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pandas as pd
from sklearn.metrics import average_precision_score, f1_score

from fakenews.data.sample import Drift, generate
from fakenews.errors import ServingError

_TOGETHER = 20  # headlines of a request
_TIMEOUT = 30.0
POSITIVE = "fake"


@dataclass(frozen=True, kw_only=True)
class Window:
    """Some headlines, and how well they were answered.

    Attributes:
        rows: How many.
        versions: That answered, with their shares, the largest first.
        average_precision: Of the class fake.
        macro_f1: Of what was decided.
        failed: Those that got no answer.
    """

    rows: int
    versions: dict[str, float]
    average_precision: float
    macro_f1: float
    failed: int


def ask(address: str, *, rows: int, seed: int, drift: Drift | None = None) -> Window:
    """Send headlines to the gateway, then what is true of each.

    Args:
        address: Of the gateway.
        rows: How many.
        seed: Of the headlines; another gives others.
        drift: What has changed in the world.

    Raises:
        ServingError: The gateway does not answer.
    """
    frame = pd.concat(generate(rows, seed=seed, drift=drift), ignore_index=True)
    answers: list[Mapping[str, Any]] = []
    with _client(address) as client:
        for start in range(0, rows, _TOGETHER):
            texts = frame["text"][start : start + _TOGETHER].tolist()
            response = client.post("/predict", json={"inputs": texts})
            response.raise_for_status()
            answers += response.json()["predictions"]
        for answer, label in zip(answers, frame["label"], strict=True):
            if "error" in answer:
                continue
            verdict = "correct" if answer["label"] == label else "wrong"
            said = {"id": answer["id"], "verdict": verdict, "label": label}
            client.post("/feedback", json=said).raise_for_status()
    return _measured(answers, frame["label"].tolist())


@contextmanager
def background(address: str, *, seed: int, drift: Drift | None) -> Iterator[None]:
    """People who go on asking while something else is done."""
    stop = threading.Event()

    def go_on() -> None:
        number = seed
        while not stop.is_set():
            texts = next(generate(20, seed=number, drift=drift))["text"].tolist()
            with _client(address) as client:
                for text in texts:
                    client.post("/predict", json={"text": text}).raise_for_status()
                    if stop.wait(0.05):
                        return
            number += 1

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _client(address: str) -> Iterator[httpx.Client]:
    try:
        with httpx.Client(base_url=address, timeout=_TIMEOUT) as client:
            yield client
    except httpx.HTTPError as error:
        raise ServingError(f"the gateway at {address} does not answer: {error}") from error


def _measured(answers: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Window:
    answered = [
        (answer, label)
        for answer, label in zip(answers, labels, strict=True)
        if "error" not in answer
    ]
    if not answered:
        raise ServingError("the gateway answered none of the headlines")
    truth = [label for _, label in answered]
    scores = [answer["probabilities"][POSITIVE] for answer, _ in answered]
    decided = [answer["label"] for answer, _ in answered]
    versions = pd.Series([answer["model_version"] for answer, _ in answered])
    shares = versions.value_counts(normalize=True)
    return Window(
        rows=len(answers),
        versions={str(name): float(share) for name, share in shares.items()},
        average_precision=float(
            average_precision_score([label == POSITIVE for label in truth], scores)
        ),
        macro_f1=float(f1_score(truth, decided, average="macro")),
        failed=len(answers) - len(answered),
    )
