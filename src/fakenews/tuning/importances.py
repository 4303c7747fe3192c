"""How much each parameter of a sweep matters."""

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import FanovaImportanceEvaluator
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, create_trial

_SEED = 0  # of the forest: the same trials give the same figures
# Judging a choice among n takes Optuna 2 ** n steps.
_CHOICES = 8


@dataclass(frozen=True, kw_only=True)
class Importances:
    """How much of an objective's variation each parameter explains.

    Attributes:
        shares: Of the parameters that can be judged, the largest first; they add up to 1.
        note: Why there are none, or which parameters are missing; empty otherwise.
    """

    shares: dict[str, float] = field(default_factory=dict)
    note: str = ""


def judge(trials: Sequence[FrozenTrial], objective: int) -> Importances:
    """Judge parameters by fANOVA (Hutter et al. 2014).

    Args:
        trials: Complete ones.
        objective: Its number among their values.
    """
    finite = [trial for trial in trials if math.isfinite(trial.values[objective])]
    values = {trial.values[objective] for trial in finite}
    if len(finite) < 2:
        return Importances(note="Parameters are judged when two trials are complete.")
    if len(values) == 1:
        return Importances(note="All complete trials have the same value.")
    space: dict[str, BaseDistribution] = {}
    for trial in finite:
        space |= trial.distributions
    varied = {name for name, distribution in space.items() if not distribution.single()}
    if not varied:
        return Importances(note="No parameter has more than one value.")
    try:
        found = FanovaImportanceEvaluator(seed=_SEED).evaluate(_simplified(finite, objective))
    except RuntimeError:  # no tree of the forest has seen two values
        return Importances(note="There are too few trials to judge parameters.")
    shares = {name: float(share) for name, share in found.items() if name in varied}
    missing = ", ".join(sorted(varied - shares.keys()))
    note = f"Not in every complete trial, so not judged: {missing}." if missing else ""
    total = sum(shares.values())
    if not total > 0:
        return Importances(note=note or "No parameter explains the values of the trials.")
    ordered = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    return Importances(shares={name: share / total for name, share in ordered}, note=note)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's remarks about its own plots and copies to itself."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _simplified(trials: Sequence[FrozenTrial], objective: int) -> optuna.Study:
    """The trials with one value, and each parameter as the forest judges it best."""
    with quiet():
        storage = InMemoryStorage()
        number = storage.create_new_study([StudyDirection.MINIMIZE], "importances")
        for trial in sorted(trials, key=lambda trial: trial.number):
            found = {
                name: _simple(trial.params[name], distribution)
                for name, distribution in trial.distributions.items()
            }
            simple = create_trial(
                value=trial.values[objective],
                params={name: value for name, (value, _) in found.items()},
                distributions={name: distribution for name, (_, distribution) in found.items()},
            )
            storage.create_new_trial(number, template_trial=simple)
        return optuna.load_study(study_name="importances", storage=storage)


def _simple(value: Any, distribution: BaseDistribution) -> tuple[Any, BaseDistribution]:
    if isinstance(distribution, CategoricalDistribution):
        last = len(distribution.choices) - 1
        if last < _CHOICES:
            return value, distribution
        # Trees grow until they tell every number from the others: nothing is lost.
        return int(distribution.to_internal_repr(value)), IntDistribution(0, last)
    if isinstance(distribution, FloatDistribution | IntDistribution) and distribution.log:
        # What is drawn evenly is to count evenly. Optuna's forest sees the plain values, of
        # which the highest decade is nine tenths.
        low, high = math.log(distribution.low), math.log(distribution.high)
        return min(max(math.log(value), low), high), FloatDistribution(low, high)
    return value, distribution
