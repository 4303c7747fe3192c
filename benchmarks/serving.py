"""Serving: this project beside other servers, with the same model, texts and cores.

    python benchmarks/serving.py --bundle BUNDLE --plain-bundle BUNDLE_WITHOUT_ENTITIES
    python benchmarks/serving.py --bundle BUNDLE --data news.csv --text headline
    python benchmarks/serving.py --bundle BUNDLE --memory 100000

All servers are started first, and their answers compared with the predictor's. Then they are
asked in turns; those that are not are stopped as they are, and take nothing of the machine.
A way is SERVER[/ENGINE][/plain], as in ours/torch/plain; plain ways serve --plain-bundle. See
README.md beside this file.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from serving_measure import LISTS, Plan, measure
from serving_memory import memory, memory_table
from serving_process import ServerError
from serving_server import Setup
from serving_tables import facts_table, load_table, ratio_table, ratios
from serving_ways import parse

WAYS = (
    *("engine", "ours", "gateway", "engine/torch", "ours/torch", "gateway/torch"),
    *("example", "litserve", "bentoml", "mlflow", "pipeline"),
    *("engine/plain", "ours/plain", "gateway/plain", "ours/torch/plain", "example/plain"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, and write them as JSON."""
    options = _options(arguments)
    # As Ctrl-C does it: servers are ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    texts = _texts(options)
    # Tables are wider than a terminal that is none.
    console = Console(width=None if sys.stdout.isatty() else 110)
    if options.memory:
        with _folder(options.folder) as folder:
            way = parse(options.memory_way)
            found = memory(way, _setup(options, folder), texts, requests=options.memory)
        _write(options, _about(options, texts) | {"memory": found})
        console.print(memory_table(found))
        return
    with _folder(options.folder) as folder:
        result = speed(options, texts, folder)
    console.print(facts_table(result))
    for table in [load_table(result, load) for load in [*map(str, options.clients), LISTS]]:
        if table.row_count:
            console.print(table)
    if result["ratios"]:
        console.print(ratio_table(result["ratios"]))
    failed = [name for name, way in result["ways"].items() if "error" in way]
    if failed:
        sys.exit(f"error: not measured: {', '.join(failed)}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Help)
    given = parser.add_argument_group("what is served")
    given.add_argument("--bundle", type=Path, required=True, help="of train.py")
    given.add_argument("--plain-bundle", type=Path, help="the same with features=headline")
    given.add_argument("--data", type=Path, help="CSV of texts; else generated headlines")
    given.add_argument("--text", default="text", help="column of the text")
    given.add_argument("--texts", type=int, default=512, help="different texts to send")
    how = parser.add_argument_group("how")
    how.add_argument("--ways", nargs="+", metavar="WAY", help="default: all that can be had")
    how.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    how.add_argument("--list-size", type=int, default=64, help="texts of a list")
    how.add_argument("--list-clients", type=int, default=2, help="that send lists")
    how.add_argument("--seconds", type=float, default=3.0, help="of a load in a repeat")
    how.add_argument("--warm-up", type=float, default=1.0, help="seconds before each")
    how.add_argument("--repeats", type=int, default=3, help="of everything, in turns")
    how.add_argument("--workers", type=int, default=1, help="processes that compute")
    how.add_argument("--threads", type=int, help="of each worker; default: cores / workers")
    how.add_argument("--bentoml-python", help="of an environment with BentoML: README.md")
    how.add_argument("--folder", type=Path, help="for what servers write; else temporary")
    other = parser.add_argument_group("memory, in place of speed")
    other.add_argument("--memory", type=int, metavar="N", help="send N requests")
    other.add_argument("--memory-way", default="gateway", help="a gateway")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("override", nargs="*", help="of conf/serve/: serve.KEY=VALUE")
    options = parser.parse_intermixed_args(arguments)
    options.threads = options.threads or max((os.cpu_count() or 1) // options.workers, 1)
    numbers = [*options.clients, options.list_size, options.list_clients, options.repeats]
    if min(*numbers, options.workers, options.threads, options.seconds) <= 0:
        parser.error("numbers are more than 0")
    if options.texts < options.list_size:
        parser.error("--texts is at least --list-size")
    try:
        options.ways = [parse(text) for text in options.ways or _possible(options)]
    except ValueError as error:
        parser.error(str(error))
    for way in options.ways:
        if way.features == "plain" and options.plain_bundle is None:
            parser.error(f"{way.name} needs --plain-bundle")
        if way.server == "bentoml" and options.bentoml_python is None:
            parser.error("bentoml needs --bentoml-python")
    return options


def _possible(options: argparse.Namespace) -> list[str]:
    return [
        way
        for way in WAYS
        if (options.plain_bundle is not None or "plain" not in way)
        and (options.bentoml_python is not None or way != "bentoml")
    ]


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


def _texts(options: argparse.Namespace) -> list[str]:
    """Different texts, in an order that is always the same."""
    import pandas as pd

    from fakenews.data.sample import generate

    if options.data is None:
        column = next(generate(2 * options.texts, seed=1))["text"]
    else:
        table = pd.read_csv(options.data)
        if options.text not in table:
            sys.exit(f"error: {options.data} has no column {options.text!r}: give --text")
        column = table[options.text]
    column = column.dropna().astype(str)
    different = column[column.str.strip() != ""].drop_duplicates()
    if len(different) < options.list_size:
        sys.exit(f"error: there are {len(different)} texts, and a list has {options.list_size}")
    found: list[str] = different.sample(
        min(options.texts, len(different)), random_state=0
    ).tolist()
    return found


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="serving-") as made:
        yield Path(made)


def _setup(options: argparse.Namespace, folder: Path) -> Setup:
    from fakenews.bundle import find_bundle

    sources = {"full": find_bundle(options.bundle).resolve()}
    if options.plain_bundle is not None:
        sources["plain"] = find_bundle(options.plain_bundle).resolve()
    labels = json.loads((sources["full"] / "labels.json").read_text(encoding="utf-8"))
    return Setup(
        folder=folder,
        sources=sources,
        classes=labels["classes"],
        threads=options.threads,
        workers=options.workers,
        bentoml_python=options.bentoml_python,
        overrides=options.override,
    )


def _about(options: argparse.Namespace, texts: Sequence[str]) -> dict[str, Any]:
    """What the figures depend on."""
    from training import machine

    return {
        "machine": machine(options.threads),
        "data": {
            "texts": len(texts),
            "mean_words": sum(len(text.split()) for text in texts) / len(texts),
        },
        "setup": {
            name: getattr(options, name)
            for name in (
                *("workers", "threads", "clients", "list_size", "list_clients"),
                *("seconds", "warm_up", "repeats", "override"),
            )
        },
    }


def _write(options: argparse.Namespace, result: dict[str, Any]) -> None:
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def speed(options: argparse.Namespace, texts: Sequence[str], folder: Path) -> dict[str, Any]:
    """Rates and latencies of all ways, and how they compare."""
    about = _about(options, texts)

    def save(found: dict[str, Any]) -> dict[str, Any]:
        result = about | found | {"ratios": ratios(found)}
        _write(options, result)
        return result

    plan = Plan(
        ways=options.ways,
        clients=options.clients,
        list_size=options.list_size,
        list_clients=options.list_clients,
        seconds=options.seconds,
        warm_up=options.warm_up,
        repeats=options.repeats,
        texts=texts,
    )
    return save(measure(plan, _setup(options, folder), save=save))


if __name__ == "__main__":
    try:
        main()
    except ServerError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
