"""The error rates of the promotion gate, by simulation and with real bundles.

    python benchmarks/gate.py
    python benchmarks/gate.py --rows 1000 --rates 0.1 --draws 1000
    python benchmarks/gate.py --runs RUN RUN RUN --test labelled.parquet

Many test sets are drawn, on which a champion and a challenger of known quality are seen; each
is judged by the statistical checks of `scripts/gate.py`. With --runs, trainings that differ in
their seed alone are the models, every ordered pair of them, and test sets are drawn from the
file. See README.md beside this file.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from gate_models import Model, World, seed_sd
from rich.console import Console
from rich.table import Table

from fakenews.evaluation.metrics import Sample
from fakenews.retraining.contestants import Contestant, read_rows
from fakenews.retraining.gate import Scored, size_check, statistical_checks
from fakenews.retraining.gate_policy import METRICS, GatePolicy
from fakenews.retraining.gate_verdict import Check, Outcome, State
from fakenews.retraining.paired import Pair

_SKILL = {0.05: 2.5, 0.1: 2.5, 0.3: 2.2}
_PILOT = 30


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, and write them as JSON."""
    options = _options(arguments)
    console = Console(width=None if sys.stdout.isatty() else 150)
    policy = GatePolicy(resamples=options.resamples)
    found: list[dict[str, Any]] = []
    lines = bundles(options, policy, console) if options.runs else simulated(options, policy)
    for line in lines:
        found.append(line)
        console.print("  ".join(f"{name} {value}" for name, value in shown(line).items()))
        if options.json is not None:
            options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    console.print(table(found))


def simulated(options: argparse.Namespace, policy: GatePolicy) -> Iterator[dict[str, Any]]:
    """A line for each kind of challenger in each world."""
    with ProcessPoolExecutor(options.workers) as pool:
        for rows in options.rows:
            for rate in options.rates:
                skill = _SKILL.get(rate, 2.5)
                world = World(rows=rows, rate=rate, skill=skill, shared=options.shared)
                yield from _world(world, options, policy, pool)


def _world(
    world: World, options: argparse.Namespace, policy: GatePolicy, pool: ProcessPoolExecutor
) -> Iterator[dict[str, Any]]:
    champion = Model(skill=world.skill)
    setting = {"rows": world.rows, "minority": world.rate, "window": options.window}

    def line(kind: str, own: str | None, challenger: Any, draws: int) -> dict[str, Any]:
        trial = partial(
            _drawn,
            world=world,
            champion=champion,
            challenger=challenger,
            policy=policy,
            window=options.window,
        )
        outcomes = list(pool.map(trial, range(draws), chunksize=5))
        return setting | {"challenger": kind} | summary(outcomes, own)

    yield line("equal", None, champion, options.draws)
    spreads = seed_sd(world)
    yield line("retrained", None, None, options.draws) | {"seed_sd": spreads}
    for metric in METRICS:
        # The margin in force depends on the challenger, so it is looked for in two steps.
        loss = policy.margins[metric] / 2
        for _ in range(2):
            worse = world.worse(metric, loss)
            loss = line("pilot", metric, worse, _PILOT)["margins"][f"test.{metric}"]
        worse = world.worse(metric, loss)
        lost = world.truth(worse)[metric] - world.truth(champion)[metric]
        yield line(f"worse: {metric} {lost:+.3f}", metric, worse, options.draws)
    much = world.worse("average_precision", 2 * policy.margins["average_precision"])
    yield line("much worse", None, much, options.draws)
    yield line("better", None, Model(skill=1.1 * world.skill), options.draws)


def _drawn(
    seed: int,
    *,
    world: World,
    champion: Model,
    challenger: Model | None,
    policy: GatePolicy,
    window: int,
) -> list[Check]:
    rng = np.random.default_rng((seed, 7))
    if challenger is None:  # both were trained by the same command, with other seeds
        champion, challenger = world.retrained(rng), world.retrained(rng)
    places = {"test": world.draw(rng, champion, challenger)}
    if window:
        other = World(rows=window, rate=world.rate, skill=world.skill, shared=world.shared)
        places["window"] = other.draw(rng, champion, challenger)
    return _judged(places, policy)


def _judged(places: dict[str, Scored], policy: GatePolicy) -> list[Check]:
    sizes = {name: size_check(name, one.pair, policy) for name, one in places.items()}
    if sizes["test"].outcome is not Outcome.PASSED:
        return list(sizes.values())
    enough = {n: one for n, one in places.items() if sizes[n].outcome is Outcome.PASSED}
    return statistical_checks(enough, policy)


def bundles(
    options: argparse.Namespace, policy: GatePolicy, console: Console
) -> Iterator[dict[str, Any]]:
    """A line for each size of test set, and what the seeds of real trainings change."""
    first, *others = [Contestant.load(run) for run in options.runs]
    rows = [
        read_rows(options.test, champion=first, challenger=other, name="test")
        for other in others
    ]
    samples = [rows[0].pair.champion, *(one.pair.challenger for one in rows)]
    whole = np.ones((1, len(rows[0].pair)))
    figures = [rows[0].pair.metrics(sample)(whole) for sample in samples]
    spreads = {
        name: float(np.std([one[name][0] for one in figures], ddof=1)) for name in METRICS
    }
    console.print("measured: policy.seed_sd=" + json.dumps(spreads))
    for known, name in ((policy, "default"), (_with(policy, spreads), "measured")):
        for size in options.rows:
            outcomes = [
                _judged({"test": part}, known)
                for old, new in permutations(range(len(samples)), 2)
                for part in _parts(rows[0], samples[old], samples[new], size, options)
            ]
            minority = float((rows[0].pair.labels == rows[0].pair.minority).mean())
            yield {
                "rows": size,
                "minority": round(minority, 3),
                "window": 0,
                "challenger": f"another seed ({name} seed_sd)",
                "seed_sd": known.seed_sd,
            } | summary(outcomes, None)


def _with(policy: GatePolicy, spreads: Mapping[str, float]) -> GatePolicy:
    return GatePolicy(resamples=policy.resamples, seed_sd=spreads)  # type: ignore[arg-type]


def _parts(
    rows: Any, old: Sample, new: Sample, size: int, options: argparse.Namespace
) -> Iterator[Scored]:
    rng = np.random.default_rng(options.seed)
    pair = rows.pair
    for _ in range(max(1, options.draws // (len(options.runs) * (len(options.runs) - 1)))):
        some = rng.choice(len(pair), size, replace=False)
        take: Callable[[Sample], Sample] = lambda sample, some=some: Sample.of(  # noqa: E731
            sample.probabilities[some],
            sample.labels[some],
            classes=sample.classes,
            positive=sample.positive,
            threshold=sample.threshold,
        )
        yield Scored(
            pair=Pair(
                labels=pair.labels[some],
                groups=pair.groups[some],
                champion=take(old),
                challenger=take(new),
                minority=pair.minority,
            ),
            masks={name: mask[some] for name, mask in rows.masks.items()},
            format_scores=None if rows.format_scores is None else rows.format_scores[some],
        )


def summary(outcomes: Sequence[Sequence[Check]], own: str | None) -> dict[str, Any]:
    """Shares of verdicts, and what the checks said.

    Args:
        outcomes: The checks of each draw.
        own: The metric that is worse by its margin, if one is.
    """
    states = Counter(str(_state(checks)) for checks in outcomes)
    failed = Counter(
        check.key
        for checks in outcomes
        for check in checks
        if check.outcome in (Outcome.FAILED, Outcome.UNDECIDED)
    )
    margins: dict[str, list[float]] = {}
    for checks in outcomes:
        for check in checks:
            if "margin_borne" in check.numbers:
                margins.setdefault(check.key, []).append(check.numbers["margin"])
    passed = None
    if own is not None:
        judged = [
            check for checks in outcomes for check in checks if check.key == f"test.{own}"
        ]
        passed = sum(check.outcome is Outcome.PASSED for check in judged) / len(judged)
    return {
        "draws": len(outcomes),
        **{str(state): states[str(state)] / len(outcomes) for state in State},
        "own_check_passed": passed,
        "margins": {key: float(np.median(values)) for key, values in margins.items()},
        "not_passed": {key: count / len(outcomes) for key, count in failed.items()},
    }


def _state(checks: Sequence[Check]) -> State:
    outcomes = {check.outcome for check in checks}
    if Outcome.FAILED in outcomes:
        return State.REFUSED
    return State.UNDECIDED if Outcome.UNDECIDED in outcomes else State.ACCEPTED


def shown(line: Mapping[str, Any]) -> dict[str, str]:
    """A line, for people."""
    own = line["own_check_passed"]
    margins = [line["margins"].get(f"test.{name}") for name in METRICS]
    return {
        "rows": f"{line['rows']:,}",
        "minority": f"{line['minority']:.0%}",
        "challenger": line["challenger"],
        "draws": f"{line['draws']}",
        "accepted": f"{line['accepted']:.1%}",
        "refused": f"{line['refused']:.1%}",
        "undecided": f"{line['undecided']:.1%}",
        "own check": "" if own is None else f"{own:.1%}",
        "margins": " ".join("-" if one is None else f"{one:.3f}" for one in margins),
    }


def table(found: Sequence[Mapping[str, Any]]) -> Table:
    """All lines."""
    title = f"The gate's verdicts; margins of {', '.join(METRICS)}"
    lines = Table(title=title, title_justify="left")
    for at, line in enumerate(found):
        if not at:
            for name in shown(line):
                lines.add_column(name, justify="left" if name == "challenger" else "right")
        lines.add_row(*shown(line).values())
    return lines


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[400, 1000, 2000])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.05, 0.1, 0.3])
    parser.add_argument("--window", type=int, default=0, help="rows of a window, too")
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--shared", type=float, default=0.88, help="correlation of two models")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=Path, nargs="+", default=[])
    parser.add_argument("--test", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.runs and (len(options.runs) < 2 or options.test is None):
        parser.error("--runs needs two runs or more, and --test")
    return options


if __name__ == "__main__":
    main()
