"""Pairs of models of known quality, and test sets on which they are seen.

Binormal: a text's score is d for its class, a difficulty that all models share, and what each
model has of its own. Probabilities are the calibrated ones of such a score, so a larger d is a
better model in every way; a shifted threshold and biased probabilities are worse in one way.

Shapes: N rows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from fakenews.evaluation.calibration import choose_threshold
from fakenews.evaluation.metrics import Floats, Sample
from fakenews.retraining.gate import Scored
from fakenews.retraining.gate_policy import METRICS
from fakenews.retraining.paired import Pair

CLASSES = ["major", "minor"]
_MANY = 200_000
_SLICES = 10


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is known of a model.

    Attributes:
        skill: d.
        shift: Of its threshold, in log-odds.
        sharpness: Factor of its log-odds; 1 is calibrated.
        bias: That is added to its log-odds; 0 is calibrated.
    """

    skill: float
    shift: float = 0.0
    sharpness: float = 1.0
    bias: float = 0.0


@dataclass(frozen=True, kw_only=True)
class World:
    """What all test sets have in common.

    Attributes:
        rows: Of a test set.
        rate: Share of the minority.
        skill: Of the champion.
        shared: Correlation of two models' scores within a class.
    """

    rows: int
    rate: float
    skill: float
    shared: float

    def retrained(self, rng: np.random.Generator) -> Model:
        """A model as good as the champion but for the seed of its training."""
        return Model(
            skill=self.skill + rng.normal(scale=0.035),
            shift=rng.normal(scale=0.25),
            sharpness=float(np.exp(rng.normal(scale=0.08))),
        )

    def probabilities(self, model: Model, score: Floats) -> Floats:
        """Of the minority, [N]."""
        odds = model.skill * score - model.skill**2 / 2 + np.log(self.rate / (1 - self.rate))
        found: Floats = expit(model.sharpness * odds + model.bias)
        return found

    def threshold(self, model: Model) -> float:
        """That decides, chosen on many other rows and then shifted."""
        odds = np.log(self._best(model) / (1 - self._best(model)))
        return float(expit(model.sharpness * (odds + model.shift) + model.bias))

    def _best(self, model: Model) -> float:
        key = (self.rate, round(model.skill, 2))
        if key not in _THRESHOLDS:
            calibrated = Model(skill=key[1])
            labels, score = self._many(calibrated)
            found = choose_threshold(self.probabilities(calibrated, score), labels == 1)
            _THRESHOLDS[key] = min(max(found, 1e-4), 1 - 1e-4)
        return _THRESHOLDS[key]

    def _many(self, model: Model) -> tuple[np.ndarray, Floats]:
        rng = np.random.default_rng(1)
        labels = (rng.random(_MANY) < self.rate).astype(np.int64)
        return labels, model.skill * labels + rng.normal(size=_MANY)

    def truth(self, model: Model) -> dict[str, float]:
        """Its metrics on so many rows that they are no chance."""
        labels, score = self._many(model)
        sample = self._sample(model, labels, score)
        pair = _pair(labels, sample, sample)
        found = pair.metrics(sample)(np.ones((1, _MANY)))
        return {name: float(values[0]) for name, values in found.items()}

    def worse(self, metric: str, loss: float) -> Model:
        """A model whose metric is worse by `loss`: less skilled, or, for the recall and the
        Brier score, with a shifted threshold or biased probabilities.
        """
        change: Callable[[float], Model] = {
            "minority_recall": lambda x: Model(skill=self.skill, shift=6 * x),
            "brier": lambda x: Model(skill=self.skill, bias=6 * x),
        }.get(metric, lambda x: Model(skill=self.skill * (1 - x)))
        champion = self.truth(Model(skill=self.skill))[metric]
        low, high = 0.0, 1.0
        for _ in range(14):
            middle = (low + high) / 2
            lost = abs(self.truth(change(middle))[metric] - champion)
            low, high = (low, middle) if lost > loss else (middle, high)
        return change(high)

    def draw(self, rng: np.random.Generator, champion: Model, challenger: Model) -> Scored:
        """A test set that both have scored, with slices and scores by format."""
        labels = (rng.random(self.rows) < self.rate).astype(np.int64)
        difficulty = np.sqrt(self.shared) * rng.normal(size=self.rows)
        samples = [
            self._sample(
                model,
                labels,
                model.skill * labels
                + difficulty
                + np.sqrt(1 - self.shared) * rng.normal(size=self.rows),
            )
            for model in (champion, challenger)
        ]
        cuts = rng.random((_SLICES, self.rows))
        shares = np.linspace(0.15, 0.6, _SLICES)
        return Scored(
            pair=_pair(labels, *samples),
            masks={f"slice {n}": cuts[n] < share for n, share in enumerate(shares)},
            format_scores=expit(labels + difficulty / 2 + rng.normal(size=self.rows)),
        )

    def _sample(self, model: Model, labels: np.ndarray, score: Floats) -> Sample:
        found = self.probabilities(model, score)
        return Sample.of(
            np.stack([1 - found, found], axis=1),
            labels,
            classes=CLASSES,
            positive="minor",
            threshold=self.threshold(model),
        )


_THRESHOLDS: dict[tuple[float, float], float] = {}


def seed_sd(world: World, *, models: int = 60) -> dict[str, float]:
    """By how much the metrics of retrained models differ."""
    rng = np.random.default_rng(2)
    found = [world.truth(world.retrained(rng)) for _ in range(models)]
    return {name: float(np.std([one[name] for one in found], ddof=1)) for name in METRICS}


def _pair(labels: np.ndarray, champion: Sample, challenger: Sample) -> Pair:
    return Pair(
        labels=labels,
        groups=np.arange(len(labels)),
        champion=champion,
        challenger=challenger,
        minority=1,
    )
