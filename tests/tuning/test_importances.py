"""Parameters that matter are found, in every kind of space."""

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, create_trial

from fakenews.tuning.importances import judge

SPACE = {
    "lr": FloatDistribution(1e-6, 1e-2, log=True),
    "size": IntDistribution(1, 1024, log=True),
    "name": CategoricalDistribution([f"encoder {number}" for number in range(40)]),
    "kind": CategoricalDistribution(["a", None, True]),
    "rate": FloatDistribution(-1, 1),
}


def draw(generator: random.Random, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return generator.choice(distribution.choices)
    low, high = distribution.low, distribution.high
    if distribution.log:
        value = math.exp(generator.uniform(math.log(low), math.log(high)))
    else:
        value = generator.uniform(low, high)
    return round(value) if isinstance(distribution, IntDistribution) else value


def trials(
    quality: Callable[[dict[str, Any]], float], count: int = 120, without: str = ""
) -> list[FrozenTrial]:
    generator = random.Random(0)
    found = []
    for number in range(count):
        params = {name: draw(generator, distribution) for name, distribution in SPACE.items()}
        value = quality(params)
        if number % 2:
            params.pop(without, None)
        trial = create_trial(
            values=[0.0, value], params=params, distributions={n: SPACE[n] for n in params}
        )
        trial.number = number
        found.append(trial)
    return found


@pytest.mark.parametrize(
    ("name", "quality"),
    [
        ("lr", lambda params: abs(math.log10(params["lr"]) + 4)),
        ("size", lambda params: math.log(params["size"])),
        # Optuna alone would need 2 ** 40 steps.
        ("name", lambda params: float(params["name"][8:])),
        ("kind", lambda params: ["a", None, True].index(params["kind"]) / 2),
        ("rate", lambda params: params["rate"] ** 2),
    ],
)
def test_what_decides_is_found(name: str, quality: Callable[..., float]) -> None:
    found = judge(trials(quality), 1)
    assert next(iter(found.shares)) == name
    assert found.shares[name] > 0.9
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.shares.keys() == SPACE.keys()
    assert found.note == ""


def test_each_decade_counts_alike() -> None:
    # Only the lowest of four decades differs: on a plain scale, a thousandth of the range.
    found = judge(trials(lambda params: float(params["lr"] < 1e-5)), 1)
    assert found.shares["lr"] > 0.9


def test_shares_are_the_same_each_time_and_in_any_order() -> None:
    some = trials(lambda params: params["rate"] + math.log(params["lr"]), count=20)
    assert judge(some, 1) == judge(some[::-1], 1)


def test_what_only_some_trials_have_is_named() -> None:
    found = judge(trials(lambda params: params["rate"], without="kind"), 1)
    assert found.note == "Not in every complete trial, so not judged: kind."
    assert "kind" not in found.shares


def test_why_there_are_none() -> None:
    def note(*found: FrozenTrial) -> str:
        assert judge(found, 1).shares == {}
        return judge(found, 1).note

    some = trials(lambda params: params["rate"], count=3)
    assert "two trials" in note()
    assert "two trials" in note(some[0])
    assert "same value" in note(some[0], some[0])
    infinite = trials(lambda params: math.inf, count=3)
    assert "two trials" in note(some[0], *infinite)
