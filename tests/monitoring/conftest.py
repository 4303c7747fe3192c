"""References and windows whose truth is known."""

from collections.abc import Callable

import numpy as np
import pytest

from fakenews.evaluation.calibration import Calibration
from fakenews.monitoring.rows import Reference, Rows

CLASSES = ("fake", "real")


def make_rows(
    count: int, *, seed: int, shift: float = 0.0, rate: float = 0.3, flipped: float = 0.0
) -> Rows:
    """Texts of two classes, whose embeddings and numbers follow the class.

    Args:
        count: How many.
        seed: Of the draws.
        shift: Of the embeddings and of a number, in a direction that says nothing of the class.
        rate: Share of the class fake.
        flipped: Share of true labels that are the other class.
    """
    rng = np.random.default_rng(seed)
    fake = rng.random(count) < rate
    embeddings = rng.normal(size=(count, 8)).astype(np.float32)
    embeddings[:, 0] += 1.5 * fake
    embeddings[:, 1] += shift
    # What a model that was trained at a rate of 0.3 knows of the first dimension.
    logit = 1.5 * embeddings[:, 0] - 1.5**2 / 2 + np.log(0.3 / 0.7)
    probability = 1 / (1 + np.exp(-logit.astype(np.float64)))
    probabilities = np.stack([probability, 1 - probability], axis=1)
    labels = np.where(fake ^ (rng.random(count) < flipped), 0, 1)
    return Rows(
        columns={
            "tabular.words": np.round(rng.gamma(9, 2, count) + 3 * shift),
            "tabular.has_num": (rng.random(count) < 0.4).astype(float),
            "tabular.constant": np.zeros(count),
            "text.tokens": np.round(rng.gamma(12, 2, count)),
        },
        embeddings=embeddings,
        probabilities=probabilities,
        decided=(probability < 0.5).astype(np.int64),
        labels=labels.astype(np.int64),
    )


def make_reference(count: int = 600, *, seed: int = 0) -> Reference:
    """A reference of such rows."""
    return Reference(
        rows=make_rows(count, seed=seed),
        classes=CLASSES,
        calibration=Calibration(threshold=0.5, positive="fake"),
        input_ids=None,
        offsets=None,
        features=("words", "has_num", "constant"),
    )


@pytest.fixture(scope="session")
def reference() -> Reference:
    """One for all tests."""
    return make_reference()


@pytest.fixture(scope="session")
def some_rows() -> Callable[..., Rows]:
    """Makes rows."""
    return make_rows


@pytest.fixture(scope="session")
def some_reference() -> Callable[..., Reference]:
    """Makes references."""
    return make_reference
