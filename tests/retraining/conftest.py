"""Bundles with random weights, and rows on which they are good or bad."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fakenews.bundle import BundleContent, read_bundle, write_bundle
from fakenews.data.sample import generate
from fakenews.predictor import Predictor
from fakenews.retraining.contestants import Contestant, Rows, read_rows

Variant = Callable[..., Path]


def _odds(content: BundleContent, texts: pd.Series) -> np.ndarray:
    found = Predictor.from_content(content).predict(texts.tolist())
    fake = np.array([one.probabilities["fake"] for one in found])
    return np.log(fake / (1 - fake))


@pytest.fixture(scope="session")
def texts(fusion_bundle: Path) -> pd.DataFrame:
    """500 headlines with labels that `fusion_bundle` ranks well."""
    frame = pd.concat(list(generate(500, seed=9)), ignore_index=True)
    content = read_bundle(fusion_bundle)
    odds = _odds(content, frame["text"])
    noisy = odds + 0.4 * odds.std() * np.random.default_rng(0).normal(size=len(odds))
    frame["label"] = np.where(noisy >= np.quantile(noisy, 0.6), "fake", "real")
    return frame


@pytest.fixture(scope="session")
def variant(
    fusion_bundle: Path, texts: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> Variant:
    """Writes a bundle like `fusion_bundle`, but for noise on the weights of its last layer,
    their sign, and whatever is given. It calls two fifths of the texts fake.
    """

    def make(*, noise: float = 0.0, sign: float = 1.0, **changes: Any) -> Path:
        content = read_bundle(fusion_bundle)
        rng = np.random.default_rng(1)
        last = [
            name
            for name, array in content.weights.items()
            if array.shape[0] == 2 and not name.startswith("encoder")
        ]
        assert last, content.weights.keys()
        weights = dict(content.weights)
        for name in last:
            array = weights[name]
            moved = array * (1 + noise * rng.normal(size=array.shape))
            weights[name] = (sign * moved).astype(array.dtype)
        plain = {"temperature": 1.0, "threshold": None, "positive": "fake"}
        content = replace(content, weights=weights, calibration=plain)
        odds = _odds(content, texts["text"])
        (bias,) = (name for name in last if weights[name].ndim == 1)
        weights[bias][0] -= np.quantile(odds, 0.6)
        calibration = plain | {"temperature": float(odds.std() / 2), "threshold": 0.5}
        content = replace(content, calibration=calibration)
        folder = tmp_path_factory.mktemp("variant") / "bundle"
        return write_bundle(replace(content, **changes), folder)

    return make


@pytest.fixture(scope="session")
def champion(variant: Variant) -> Path:
    """A bundle that is good on `texts`."""
    return variant()


@pytest.fixture(scope="session")
def twin(variant: Variant) -> Path:
    """One that is as good, with other weights."""
    return variant(noise=0.03)


@pytest.fixture(scope="session")
def worse(variant: Variant) -> Path:
    """One that decides the other way round."""
    return variant(sign=-1.0)


@pytest.fixture(scope="session")
def sides(champion: Path, twin: Path) -> tuple[Contestant, Contestant]:
    """Both, loaded."""
    return Contestant.load(champion), Contestant.load(twin)


@pytest.fixture(scope="session")
def rows(
    sides: tuple[Contestant, Contestant],
    texts: pd.DataFrame,
    tmp_path_factory: pytest.TempPathFactory,
) -> Rows:
    """150 of the texts, which both have scored."""
    path = tmp_path_factory.mktemp("rows") / "test.csv"
    texts[:150].to_csv(path, index=False)
    return read_rows(path, champion=sides[0], challenger=sides[1], name="test")
