"""Monitoring: false alarms, detection and estimates, beside other libraries.

    python train.py data=sample data.fetch.rows=6000 features=headline trainer.max_epochs=1
    python benchmarks/monitoring.py --bundle-sample RUN
    python train.py data=covid data.path=COVID_CSV
    python benchmarks/monitoring.py --bundle-covid RUN --covid COVID_CSV --constraint TWEETS_CSV

All texts are predicted once; windows are drawn from them, clean ones and drifted ones. Each is
judged as `scripts/monitor.py` judges it. Other libraries see the same windows and the same
reference, with the defaults that they come with. See README.md beside this file.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monitoring_ours import ours
from monitoring_peers import PEERS, cells, compared, peer
from monitoring_pools import Bundle
from monitoring_streams import Stream, covid_stream, sample_stream
from monitoring_tables import tables
from omegaconf import OmegaConf
from rich.console import Console

from fakenews.errors import FakeNewsError
from fakenews.monitoring.checks import Policy

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, and write them as JSON."""
    options = _options(arguments)
    console = Console(width=None if sys.stdout.isatty() else 150)
    policy = _policy(options.override)
    result: dict[str, Any] = {
        "setup": {k: v for k, v in vars(options).items() if isinstance(v, int | float | list)}
    }
    with _folder(options.folder) as folder:
        for stream in streams(options, folder):
            found = measured(options, stream, policy)
            result[stream.name] = found
            if options.json is not None:
                options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            for table in tables(stream.name, found):
                console.print(table)
            for name, error in found["errors"].items():
                console.print(f"{stream.name}: not measured: {name}: {error}", markup=False)


def streams(options: argparse.Namespace, folder: Path) -> Iterator[Stream]:
    """Those whose bundles are given."""
    common = {
        "windows": options.windows,
        "references": options.references,
        "sizes": options.sizes,
        "seed": options.seed,
    }
    if options.bundle_sample is not None:
        yield sample_stream(
            Bundle(options.bundle_sample, folder=folder),
            **common,
            rows=options.rows,
            part_rows=options.part_rows,
        )
    if options.bundle_covid is not None:
        yield covid_stream(
            Bundle(options.bundle_covid, folder=folder),
            **common,
            path=options.covid,
            constraint=options.constraint,
        )


def measured(options: argparse.Namespace, stream: Stream, policy: Policy) -> dict[str, Any]:
    """Everything of one stream."""
    result = ours(
        stream,
        policy=policy,
        sizes=options.sizes,
        sequences=options.sequences,
        length=options.length,
        seed=options.seed,
    )
    result["false_alarms"] = policy.false_alarms
    result["reference_rows"] = len(stream.splits[0].reference.rows)
    drifted = min(options.peer_drifted, options.sequences * options.length)
    given = cells(
        stream,
        sizes=options.sizes,
        clean=min(options.peer_windows, options.windows),
        drifted=drifted,
        seed=options.seed,
    )
    answers = {
        name: peer(name, python, stream, given)
        for name in PEERS
        if (python := getattr(options, f"{name}_python")) is not None
    }
    result["errors"] = {n: found for n, found in answers.items() if isinstance(found, str)}
    if len(result["errors"]) < len(answers):
        result["peers"] = compared(given, answers, result)
    return result


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Help)
    given = parser.add_argument_group("what is monitored")
    given.add_argument("--bundle-sample", type=Path, help="run with data=sample")
    given.add_argument("--bundle-covid", type=Path, help="run with data=covid")
    given.add_argument("--covid", type=Path, help="the CSV that it was trained on")
    given.add_argument("--constraint", type=Path, help="CSV of Constraint 2021 tweets")
    given.add_argument("--folder", type=Path, help="keeps predictions; else temporary")
    how = parser.add_argument_group("how")
    how.add_argument("--sizes", type=int, nargs="+", default=[100, 300, 1000])
    how.add_argument("--windows", type=int, default=300, help="clean ones of each size")
    how.add_argument("--references", type=int, default=5, help="drawn beside the bundle's")
    how.add_argument("--sequences", type=int, default=10, help="of drifted windows, each")
    how.add_argument("--length", type=int, default=6, help="windows of a sequence")
    how.add_argument("--rows", type=int, default=20_000, help="generated ones: clean")
    how.add_argument("--part-rows", type=int, default=4_000, help="and of each drift")
    how.add_argument("--seed", type=int, default=0)
    others = parser.add_argument_group("others, each in an environment: README.md")
    others.add_argument("--evidently-python")
    others.add_argument("--nannyml-python")
    others.add_argument(
        "--peer-windows", type=int, default=100, help="clean ones that they see"
    )
    others.add_argument("--peer-drifted", type=int, default=12, help="drifted ones of each")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("override", nargs="*", help="of conf/monitor.yaml: policy.KEY=VALUE")
    options = parser.parse_intermixed_args(arguments)
    if options.bundle_sample is None and options.bundle_covid is None:
        parser.error("give --bundle-sample or --bundle-covid")
    if options.bundle_covid is not None and options.covid is None:
        parser.error("--bundle-covid needs --covid")
    if min(options.windows, options.sequences, options.length, *options.sizes) < 1:
        parser.error("numbers are more than 0")
    if options.windows < options.length:
        parser.error("--windows is at least --length")
    return options


def _policy(overrides: Sequence[str]) -> Policy:
    """That of `scripts/monitor.py`, or another."""
    root = OmegaConf.load(ROOT / "conf" / "monitor.yaml")
    changed = OmegaConf.merge(root, OmegaConf.from_dotlist(list(overrides)))
    settings: Any = OmegaConf.to_container(changed.policy)
    return Policy(**{key: value for key, value in settings.items() if key != "_target_"})


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="monitoring-") as made:
        yield Path(made)


if __name__ == "__main__":
    try:
        main()
    except FakeNewsError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
