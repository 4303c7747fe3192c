"""The search space of a sweep, in Hydra's own syntax of overrides."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from fakenews.errors import ConfigError

# Of a parameter's choices, so many are tried before a sweep starts.
_CHECKED = 8


@dataclass(frozen=True, kw_only=True)
class Space:
    """What is searched, and what is the same in all trials.

    Args:
        distributions: Of each parameter, by its key in the configuration.
        when: Parameters that are searched only with certain values of others.
        fixed: Overrides of every trial, in the order given.
    """

    distributions: Mapping[str, BaseDistribution]
    when: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    fixed: Sequence[str] = ()

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """The trial's value of each parameter that is searched under its conditions."""
        values: dict[str, Any] = {}
        for name in self._ordered():
            if self._applies(name, values):
                # The only way to hand Optuna a distribution as it is.
                drawn = trial._suggest(name, self.distributions[name])  # noqa: SLF001
                values[name] = _neat(self.distributions[name], drawn)
        return values

    def points(self) -> Iterator[dict[str, Any]]:
        """Points of the space that together have its ends and its choices."""
        first = {name: _ends(found)[0] for name, found in self.distributions.items()}
        seen = set()
        for name in self._ordered():
            wanted = first | {
                other: self._allowed(other, conditions)
                for other, conditions in self._conditions(name)
            }
            for value in _ends(self.distributions[name]):
                wanted[name] = value
                point: dict[str, Any] = {}
                for other in self._ordered():
                    if self._applies(other, point):
                        point[other] = wanted[other]
                if (key := json.dumps(point, sort_keys=True)) not in seen:
                    seen.add(key)
                    yield point

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """The overrides of a trial."""
        return [*self.fixed, *(f"{name}={_written(value)}" for name, value in values.items())]

    def to_json(self) -> dict[str, str]:
        """Each parameter's distribution and conditions, to be compared and kept."""
        return {
            name: _described(distribution)
            + (f" when {json.dumps(dict(self.when[name]))}" if name in self.when else "")
            for name, distribution in sorted(self.distributions.items())
        }

    def grid(self) -> dict[str, list[Any]]:
        """Every value of each parameter.

        Raises:
            ConfigError: A parameter has more than can be listed, or conditions.
        """
        faults = [
            f"sweep=grid needs values to list, as in {name}=choice(...) or range(...)"
            for name, found in self.distributions.items()
            if not isinstance(found, CategoricalDistribution) and _step(found) is None
        ]
        if self.when:
            faults.append("sweep=grid has every point: drop sweep.when")
        if faults:
            raise ConfigError(faults)
        return {name: _values(found) for name, found in self.distributions.items()}

    def _ordered(self) -> list[str]:
        """Parameters, each after those that its conditions name."""
        ordered: list[str] = []

        def add(name: str) -> None:
            if name not in ordered:
                for other in self.when.get(name, {}):
                    add(other)
                ordered.append(name)

        for name in self.distributions:
            add(name)
        return ordered

    def _applies(self, name: str, values: Mapping[str, Any]) -> bool:
        return all(
            other in values and _written(values[other]) in allowed
            for other, allowed in self.when.get(name, {}).items()
        )

    def _conditions(self, name: str) -> Iterator[tuple[str, Sequence[str]]]:
        for other, allowed in self.when.get(name, {}).items():
            yield other, allowed
            yield from self._conditions(other)

    def _allowed(self, name: str, allowed: Sequence[str]) -> Any:
        values = _values(self.distributions[name])
        return next(value for value in values if _written(value) in allowed)


def read_space(
    params: Mapping[str, Any], when: Mapping[str, Any], arguments: Sequence[str]
) -> Space:
    """Read a search space from a configuration and a command line.

    Args:
        params: Distributions by parameter; a plain value is the same in all trials.
        when: Conditions by parameter.
        arguments: Overrides; those that are distributions are searched, and come before
            what `params` says of the same key.

    Raises:
        ConfigError: With all faults found.
    """
    faults: list[str] = []
    distributions: dict[str, BaseDistribution] = {}
    fixed: dict[str, str] = {}
    given = [f"{name}={_written(value)}" for name, value in params.items() if value is not None]
    for text in [*given, *arguments]:
        try:
            override = OverridesParser.create().parse_override(text)
            found = _distribution(override)
        except (
            HydraException,
            ValueError,
            TypeError,
            AssertionError,
            NotImplementedError,
        ) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            faults.append(f"the search space's {text} cannot be read: {reason}")
            continue
        name = override.get_key_element()
        key = name.lstrip("+~")
        for known in (key, f"+{key}", f"++{key}"):
            distributions.pop(known, None)
        fixed.pop(key, None)
        if found is None:
            fixed[key] = text
        else:
            distributions[name] = found
    conditions = {
        name: {other: _texts(allowed) for other, allowed in dict(found).items()}
        for name, found in when.items()
        if name in distributions
    }
    space = Space(distributions=distributions, when=conditions, fixed=list(fixed.values()))
    named = {*params, *(text.partition("=")[0].lstrip("+~") for text in arguments)}
    faults += [
        f"sweep.when.{name}: {name} is no parameter of the sweep"
        for name in when
        if name not in named | distributions.keys()
    ]
    faults += _condition_faults(space)
    if not distributions and not faults:
        faults.append("there is nothing to search: give sweep.params, or KEY=interval(a, b)")
    if faults:
        raise ConfigError(faults)
    return space


def _distribution(override: Override) -> BaseDistribution | None:
    if not override.is_sweep_override():
        return None
    found = create_optuna_distribution_from_override(override)
    if not isinstance(found, BaseDistribution):
        raise TypeError("it is no distribution")
    tags: set[str] = getattr(override.value(), "tags", set())
    if unknown := tags - {"log"}:
        raise ValueError(f"{', '.join(sorted(unknown))} is no tag of a distribution: write log")
    if isinstance(found, FloatDistribution):
        if not math.isfinite(found.low) or not math.isfinite(found.high):
            raise ValueError("its ends must be finite numbers")
        if found.step is not None and found.low == found.high:
            raise ValueError("it has one value: write range(first, end, step)")
    return found


def _condition_faults(space: Space) -> Iterator[str]:
    if len(circle := [name for name in space.when if name in _awaited(name, space)]) > 1:
        yield f"sweep.when: {', '.join(circle)} wait for each other"
    elif circle:
        yield f"sweep.when: {circle[0]} waits for itself"
    for name, conditions in space.when.items():
        for other, allowed in conditions.items():
            found = space.distributions.get(other)
            if found is None:
                yield f"sweep.when.{name}: {other} is not searched"
            elif isinstance(found, CategoricalDistribution) or _step(found) is not None:
                values = [_written(value) for value in _values(found)]
                if missing := [value for value in allowed if value not in values]:
                    yield (
                        f"sweep.when.{name}: {other} is never {', '.join(missing)}, but "
                        f"{', '.join(values)}"
                    )
            else:
                yield f"sweep.when.{name}: {other} must have values to list, as choice(...)"


def _awaited(name: str, space: Space) -> set[str]:
    """What a parameter waits for, and what that waits for, and so on."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        others = space.when.get(waiting.pop(), {}).keys() - found
        found |= others
        waiting += others
    return found


def _described(found: BaseDistribution) -> str:
    """A distribution as Hydra writes it."""
    if isinstance(found, CategoricalDistribution):
        return f"choice({', '.join(map(_written, found.choices))})"
    if not isinstance(found, IntDistribution | FloatDistribution):
        raise TypeError(f"{found} is no distribution of a search space")
    interval = f"interval({found.low}, {found.high})"
    if found.log:
        kind = interval if isinstance(found, FloatDistribution) else f"int({interval})"
        return f"tag(log, {kind})"
    if found.step in (None, 1):
        return interval if isinstance(found, FloatDistribution) else f"int({interval})"
    end = Decimal(str(found.high)) + Decimal(str(found.step))
    return f"range({found.low}, {end}, {found.step})"


def _step(found: BaseDistribution) -> float | None:
    if isinstance(found, IntDistribution):
        return None if found.log else found.step
    return found.step if isinstance(found, FloatDistribution) else None


def _values(found: BaseDistribution) -> list[Any]:
    if isinstance(found, CategoricalDistribution):
        return list(found.choices)
    step = _step(found)
    if not isinstance(found, IntDistribution | FloatDistribution) or step is None:
        raise TypeError(f"{found} has no list of values")
    count = round((found.high - found.low) / step) + 1
    return [_neat(found, found.low + number * step) for number in range(count)]


def _neat(found: BaseDistribution, value: Any) -> Any:
    """A value of a range as it is written: 0.3, and not 0.1 + 2 * 0.1."""
    if not isinstance(found, FloatDistribution) or found.step is None:
        return value
    low, step = Decimal(str(found.low)), Decimal(str(found.step))
    return float(low + round((value - found.low) / found.step) * step)


def _ends(found: BaseDistribution) -> list[Any]:
    if isinstance(found, CategoricalDistribution):
        return list(found.choices[:_CHECKED])
    if not isinstance(found, IntDistribution | FloatDistribution):
        raise TypeError(f"{found} is no distribution of a search space")
    # Between them too: what must be a whole number is one at neat ends.
    between = found.low + (found.high - found.low) / math.e
    inner = [between] if isinstance(found, FloatDistribution) and found.step is None else []
    return list(dict.fromkeys([found.low, found.high, *inner]))


def _texts(allowed: Any) -> list[str]:
    values = allowed if isinstance(allowed, list | tuple) else [allowed]
    return [_written(value) for value in values]


def _written(value: Any) -> str:
    """A value as an override has it; that of a choice is text already."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return str(value)
