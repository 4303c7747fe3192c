"""The search space: what is read, what is searched when, and what is checked before."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.trial import Trial

from fakenews.errors import ConfigError
from fakenews.tuning.space import Space, read_space


def space(
    params: Mapping[str, Any] | None = None,
    when: Mapping[str, Any] | None = None,
    arguments: Sequence[str] = (),
) -> Space:
    return read_space(params or {}, when or {}, arguments)


def faults(
    params: Mapping[str, Any] | None = None,
    when: Mapping[str, Any] | None = None,
    arguments: Sequence[str] = (),
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_space(params or {}, when or {}, arguments)
    assert not any("\n" in fault for fault in caught.value.faults)
    return caught.value.faults


def trials(number: int) -> list[Trial]:
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    return [study.ask() for _ in range(number)]


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


KINDS = [
    ("interval(0, 1)", FloatDistribution(0, 1), "interval(0.0, 1.0)"),
    ("interval(-2.5, 1e-3)", FloatDistribution(-2.5, 0.001), "interval(-2.5, 0.001)"),
    (
        "tag(log, interval(1e-5, 0.1))",
        FloatDistribution(1e-5, 0.1, log=True),
        "tag(log, interval(1e-05, 0.1))",
    ),
    ("int(interval(1, 10))", IntDistribution(1, 10), "int(interval(1, 10))"),
    (
        "tag(log, int(interval(32, 512)))",
        IntDistribution(32, 512, log=True),
        "tag(log, int(interval(32, 512)))",
    ),
    ("range(3)", IntDistribution(0, 2), "int(interval(0, 2))"),
    ("range(0, 10, 3)", IntDistribution(0, 9, step=3), "range(0, 12, 3)"),
    ("range(5, 1, -2)", IntDistribution(3, 5, step=2), "range(3, 7, 2)"),
    ("range(0.5, 2, 0.5)", FloatDistribution(0.5, 1.5, step=0.5), "range(0.5, 2.0, 0.5)"),
    ("range(0.1, 0.4, 0.1)", FloatDistribution(0.1, 0.3, step=0.1), "range(0.1, 0.4, 0.1)"),
    ("choice(a, b)", CategoricalDistribution(["a", "b"]), "choice(a, b)"),
    ("choice(no, 2, 1e-5)", CategoricalDistribution(["no", 2, 1e-5]), "choice(no, 2, 1e-05)"),
    ("choice(true, false)", CategoricalDistribution([True, False]), "choice(true, false)"),
    ("a,b", CategoricalDistribution(["a", "b"]), "choice(a, b)"),
    ("choice([1, 2], [3])", CategoricalDistribution(["[1,2]", "[3]"]), "choice([1,2], [3])"),
    ("sort(choice(b, a))", CategoricalDistribution(["a", "b"]), "choice(a, b)"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "distribution", "written"), KINDS)
def test_a_distribution_is_read_and_written_as_hydra_does(
    text: str, distribution: Any, written: str
) -> None:
    found = space({"a.x": text})
    assert found.distributions == {"a.x": distribution}
    assert found.to_json() == {"a.x": written}


@pytest.mark.parametrize("text", [text for text, _, _ in KINDS])
def test_what_is_written_reads_as_the_same(text: str) -> None:
    found = space({"x": text})
    assert space(found.to_json()) == found
    assert space({}, arguments=[f"x={text}"]) == found


def test_a_group_and_its_package_are_parameters() -> None:
    found = space({"model": "choice(fusion, text)"}, arguments=["data@other=choice(a, b)"])
    assert list(found.distributions) == ["model", "data@other"]
    assert found.overrides({"model": "text", "data@other": "b"}) == [
        "model=text",
        "data@other=b",
    ]


def test_an_option_that_is_added_stays_so() -> None:
    found = space({"x": "range(2)", "y": 1}, arguments=["+x=choice(a, b)", "++y=choice(c, d)"])
    assert found.overrides({"+x": "a", "++y": "d"}) == ["+x=a", "++y=d"]
    assert list(found.distributions) == ["+x", "++y"]


def test_arguments_come_before_the_configuration() -> None:
    found = space(
        {"a": "interval(0, 1)", "b": "choice(x, y)", "c": 3},
        arguments=["a=0.5", "b=range(2)", "c=choice(1, 2)", "seed=1", "~callbacks.ema"],
    )
    assert found.distributions == {
        "b": IntDistribution(0, 1),
        "c": CategoricalDistribution([1, 2]),
    }
    assert found.fixed == ["a=0.5", "seed=1", "~callbacks.ema"]


def test_the_last_of_two_arguments_counts() -> None:
    found = space(arguments=["x=choice(1, 2)", "a=1", "a=2", "x=range(4)"])
    assert found.fixed == ["a=2"]
    assert found.distributions == {"x": IntDistribution(0, 3)}


def test_plain_values_of_the_configuration_are_fixed() -> None:
    found = space({"x": "range(2)", "flag": True, "sizes": [1, 2], "word": "a", "gone": None})
    assert found.fixed == ["flag=true", "sizes=[1, 2]", "word=a"]


def test_overrides_have_values_as_hydra_reads_them() -> None:
    found = space({"x": "range(2)"}, arguments=["name=n"])
    values = {"a": True, "b": 1e-5, "c": 3, "d": "[1,2]", "e": None}
    assert found.overrides(values) == [
        "name=n", "a=true", "b=1e-05", "c=3", "d=[1,2]", "e=null",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("interval(1,", "no viable alternative"),
        ("interval(2, 1)", "low"),
        ("tag(log, interval(0, 1))", "low"),
        ("choice()", "empty choice"),
        ("range(1, 1)", "at least one value"),
        ("range(1, 2, 0)", ""),
        ("glob(*)", "AssertionError"),
        ("tag(lgo, interval(1e-5, 1e-3))", "lgo is no tag of a distribution: write log"),
        ("interval(1e-5, inf)", "its ends must be finite numbers"),
        ("interval(nan, 1.0)", "its ends must be finite numbers"),
        ("range(1e-5, 1e-3)", "it has one value: write range(first, end, step)"),
    ],
)
def test_what_cannot_be_read_is_one_line(text: str, reason: str) -> None:
    (found,) = faults({"x": text})
    assert found.startswith(f"the search space's x={text} cannot be read: ")
    assert reason in found


def test_all_faults_are_reported_together() -> None:
    found = faults(
        {"a": "interval(2, 1)", "b": "choice(x, y)", "c": "range(3)"},
        {"b": {"nothing": "x"}, "c": {"b": "z"}},
        ["d=choice()"],
    )
    assert [fault.partition(":")[0] for fault in found] == [
        "the search space's a=interval(2, 1) cannot be read",
        "the search space's d=choice() cannot be read",
        "sweep.when.b",
        "sweep.when.c",
    ]


@pytest.mark.parametrize("arguments", [[], ["seed=1"], ["~x"]])
def test_nothing_to_search_is_a_fault(arguments: list[str]) -> None:
    assert faults(arguments=arguments) == [
        "there is nothing to search: give sweep.params, or KEY=interval(a, b)"
    ]


CHAIN = {
    "hidden": {"model": "fusion"},
    "depth": {"hidden": [2, 3], "flag": True},
}
CHAINED = {
    # Before what it waits for.
    "depth": "range(5)",
    "hidden": "range(4)",
    "model": "choice(text, fusion)",
    "flag": "choice(true, false)",
}


def test_a_parameter_is_searched_only_under_its_conditions() -> None:
    found = space(CHAINED, CHAIN)
    seen = set()
    for trial in trials(200):
        values = found.suggest(trial)
        assert values == trial.params
        assert ("hidden" in values) == (values["model"] == "fusion")
        expected = values.get("hidden") in (2, 3) and values["flag"] is True
        assert ("depth" in values) == expected
        seen.add(frozenset(values))
    assert len(seen) == 3


def test_conditions_are_kept_with_the_space() -> None:
    found = space(CHAINED, CHAIN)
    assert found.to_json()["hidden"] == 'int(interval(0, 3)) when {"model": ["fusion"]}'
    assert space(CHAINED).to_json() != found.to_json()


def test_conditions_of_what_is_fixed_are_dropped() -> None:
    found = space(CHAINED, CHAIN, ["depth=1"])
    assert list(found.when) == ["hidden"]
    assert found.fixed == ["depth=1"]


@pytest.mark.parametrize(
    ("params", "when", "fault"),
    [
        ({}, {"x": {"y": 1}}, "sweep.when.x: y is not searched"),
        ({}, {"x": {"x": 1}}, "sweep.when: x waits for itself"),
        ({}, {"x": {"a": "z"}}, "sweep.when.x: a is never z, but p, q"),
        ({}, {"x": {"a": ["p", "r", "s"]}}, "sweep.when.x: a is never r, s, but p, q"),
        ({}, {"x": {"n": 7}}, "sweep.when.x: n is never 7, but 0, 2, 4"),
        ({}, {"x": {"f": 0.4}}, "sweep.when.x: f is never 0.4, but 0.1, 0.2, 0.3"),
        (
            {"c": None},
            {"c": {"a": "z"}, "x": {"a": "z"}},
            "sweep.when.x: a is never z, but p, q",
        ),
        ({}, {"x": {"r": 0.5}}, "sweep.when.x: r must have values to list, as choice(...)"),
        ({}, {"x": {"l": 8}}, "sweep.when.x: l must have values to list, as choice(...)"),
        ({}, {"slip": {"a": "p"}}, "sweep.when.slip: slip is no parameter of the sweep"),
    ],
)
def test_a_condition_that_cannot_be_is_a_fault(
    params: dict[str, Any], when: dict[str, Any], fault: str
) -> None:
    base = {
        "x": "range(2)",
        "a": "choice(p, q)",
        "n": "range(0, 6, 2)",
        "f": "range(0.1, 0.4, 0.1)",
        "r": "interval(0, 1)",
        "l": "tag(log, int(interval(1, 64)))",
    }
    assert faults(base | params, when) == [fault]


@pytest.mark.parametrize("length", [2, 3, 4])
def test_parameters_that_wait_for_each_other_are_a_fault(length: int) -> None:
    names = [f"p{number}" for number in range(length)]
    pairs = itertools.pairwise([*names, names[0]])
    (found,) = faults(
        dict.fromkeys([*names, "free"], "choice(1, 2)"),
        {name: {other: 1} for name, other in pairs} | {"free": {"p0": 1}},
    )
    assert found.startswith("sweep.when: ")
    assert found.endswith("wait for each other")
    assert all(name in found for name in names)
    assert "free" not in found


def test_values_of_a_range_are_neat() -> None:
    found = space({"f": "range(0.1, 0.4, 0.1)", "x": "range(2)"}, {"x": {"f": 0.3}})
    drawn = {tuple(found.overrides(found.suggest(trial))) for trial in trials(60)}
    assert drawn == {("f=0.1",), ("f=0.2",), ("f=0.3", "x=0"), ("f=0.3", "x=1")}


def test_points_have_all_ends_and_choices() -> None:
    found = space(
        {
            "i": "interval(0, 1)",
            "n": "int(interval(1, 9))",
            "c": "choice(a, b, d)",
            "one": "choice(z)",
        }
    )
    points = list(found.points())
    assert {point["n"] for point in points} == {1, 9}
    assert {point["c"] for point in points} == {"a", "b", "d"}
    values = {point["i"] for point in points}
    assert {0.0, 1.0} < values
    # A whole number would hide that an option takes no other.
    assert not all(value.is_integer() for value in values)
    assert all(set(point) == set(found.distributions) for point in points)


def test_points_are_few_and_no_two_are_alike() -> None:
    many = ", ".join(f"v{number}" for number in range(1000))
    found = space({"c": f"choice({many})"} | {f"x{n}": "interval(0, 1)" for n in range(10)})
    points = list(found.points())
    assert len(points) < 40
    assert len({tuple(point.items()) for point in points}) == len(points)


def test_points_obey_conditions_and_reach_behind_them() -> None:
    found = space(CHAINED, CHAIN)
    points = list(found.points())
    for point in points:
        assert ("hidden" in point) == (point["model"] == "fusion")
        assert ("depth" in point) == (point.get("hidden") in (2, 3) and point["flag"])
    assert {point["depth"] for point in points if "depth" in point} == {0, 4}
    assert {point["hidden"] for point in points if "hidden" in point} >= {0, 3}
    assert {point["model"] for point in points} == {"text", "fusion"}


def test_points_follow_a_chain_to_its_end() -> None:
    params = {"a": "choice(off, on)", "b": "range(2)", "c": "range(2)", "d": "range(2)"}
    found = space(params, {"b": {"a": "on"}, "c": {"b": 0}, "d": {"c": 0}})
    points = list(found.points())
    for point in points:
        assert ("c" in point) == (point.get("b") == 0)
        assert ("d" in point) == (point.get("c") == 0)
    assert {"a": "off"} in points
    assert {"a": "on", "b": 0, "c": 0, "d": 1} in points


def test_a_grid_has_every_value() -> None:
    found = space(
        {
            "c": "choice(a, b)",
            "n": "range(0, 5, 2)",
            "f": "range(0.1, 0.4, 0.1)",
            "t": "choice(true)",
        }
    )
    assert found.grid() == {"c": ["a", "b"], "n": [0, 2, 4], "f": [0.1, 0.2, 0.3], "t": [True]}

    found = space(
        {"a": "interval(0, 1)", "b": "tag(log, int(interval(1, 8)))", "c": "choice(x, y)"},
        {"a": {"c": "x"}},
    )
    with pytest.raises(ConfigError) as caught:
        found.grid()
    assert caught.value.faults == [
        "sweep=grid needs values to list, as in a=choice(...) or range(...)",
        "sweep=grid needs values to list, as in b=choice(...) or range(...)",
        "sweep=grid has every point: drop sweep.when",
    ]
