"""Training speed: this project, a loop by hand, Hugging Face and the seed, side by side.

    python benchmarks/training.py --data news.csv --text headline --label outcome

All ways run on the same rows, from the same encoder weights, each in a process of its own,
one after the other in an order that rotates, several times over. See README.md beside this
file.
"""

import argparse
import importlib.util
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table
from tqdm import tqdm
from training_ways import WAYS, Pass
from training_worker import Facts, Worker, WorkerError

RATIOS = {
    "bare loop": 0.97,
    "HF, padded to 128": 4.0,
    "HF, dynamic padding": 2.0,
    "HF, grouped by length": 1.2,
    "seed tutorial": 4.0,
}
"""How many times as fast ours should be."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, and write them as JSON."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    console = Console()
    with _workers(options) as workers:
        result = speed(workers, options)
        if options.quality:
            add_quality(result, workers, epochs=options.epochs)
    console.print(_speed_table(result))
    if "ours" in options.ways:
        console.print(_ratio_table(result))
    if options.quality:
        console.print(_quality_table(result))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Help)
    parser.add_argument("--data", help="table with a text and a label column; else the sample")
    parser.add_argument("--text", default="text", help="column of the text")
    parser.add_argument("--label", default="label", help="column of the label")
    parser.add_argument("--rows", type=int, default=1024, help="training rows; 0: all")
    parser.add_argument("--repeats", type=int, default=3, help="timed passes of each way")
    parser.add_argument("--warmup", type=int, default=5, help="steps of each way before them")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY")
    parser.add_argument("--quality", action="store_true", help="average precision, too")
    parser.add_argument("--epochs", type=int, default=3, help="for --quality")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("override", nargs="*", help="of conf/train.yaml: KEY=VALUE")
    options = parser.parse_intermixed_args(arguments)
    theirs = [name for name in options.ways if name.startswith("HF")]
    if theirs and importlib.util.find_spec("accelerate") is None:
        parser.error(f"{theirs[0]} needs accelerate: pip install -e '.[bench]'")
    return options


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


def _overrides(options: argparse.Namespace) -> list[str]:
    if options.data is None:
        return options.override
    path = Path(options.data).resolve()
    columns = [f"data.text={options.text}", f"data.label={options.label}"]
    return ["data=csv", f"data.path={path}", *columns, *options.override]


@contextmanager
def _workers(options: argparse.Namespace) -> Iterator[dict[str, Worker]]:
    """A process for each way, started one after the other, as each uses all threads."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(
                Worker(
                    name,
                    overrides=_overrides(options),
                    rows=options.rows or None,
                    threads=options.threads,
                )
            )
            for name in tqdm(options.ways, "start", unit="process", leave=False)
        }


def speed(workers: dict[str, Worker], options: argparse.Namespace) -> dict[str, Any]:
    """Rows/s of each way in each repeat, and the share of the processor's peak."""
    facts = next(iter(workers.values())).facts
    passes: dict[str, list[Pass]] = {name: [] for name in options.ways}
    peaks = []
    with tqdm(total=len(passes) * (options.repeats + 1), unit="pass") as bar:
        for repeat in range(options.repeats + 1):
            peaks.append(matrix_product_peak())
            turn = repeat % len(passes)
            for name in [*options.ways[turn:], *options.ways[:turn]]:
                bar.set_description(name)
                if repeat == 0:
                    workers[name].run(steps=options.warmup)
                else:
                    passes[name].append(workers[name].run())
                bar.update()
    peak = max(peaks)
    real = training_flops(facts, [(1, length) for length in facts.lengths])
    ways = {}
    for name, found in passes.items():
        if any(one.rows != len(facts.lengths) for one in found):
            raise RuntimeError(f"{name} did not train on every row once")
        rates = [one.rows / one.seconds for one in found]
        padded = [training_flops(facts, one.shapes) / one.seconds for one in found]
        ways[name] = {
            "rows_per_second": rates,
            "rows_per_cpu_second": [one.rows / one.cpu_seconds for one in found],
            "padding": 1 - sum(facts.lengths) / sum(b * t for b, t in found[0].shapes),
            "peak_fraction_padded": median(padded) / peak,
            "peak_fraction_real": median(real / one.seconds for one in found) / peak,
        }
    return {
        "machine": machine(options.threads) | {"matrix_product_flops": peak},
        "rows": len(facts.lengths),
        "mean_tokens": sum(facts.lengths) / len(facts.lengths),
        "ways": ways,
    }


def add_quality(result: dict[str, Any], workers: dict[str, Worker], *, epochs: int) -> None:
    """Add to the speeds what each way reaches: average precision on the test split."""
    result["epochs"] = epochs
    result["test_rows"] = next(iter(workers.values())).facts.test_rows
    for name, worker in tqdm(workers.items(), unit="way"):
        found = worker.run(epochs=epochs, test=True)
        result["ways"][name]["average_precision"] = found.score


def matrix_product_peak(size: int = 2048, repeats: int = 10) -> float:
    """FLOP/s of the fastest float32 product of two square matrices."""
    a, b, c = (torch.randn(size, size) for _ in range(3))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(a, b, out=c)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def training_flops(facts: Facts, shapes: Sequence[tuple[int, int]]) -> float:
    """FLOPs of the encoder's matrix products, forward and backward.

    A multiplication with an addition counts as two; the backward pass makes two products
    for each of the forward pass. Embeddings, norms, softmax and the head are left out.

    Args:
        facts: Have the encoder's sizes.
        shapes: B and T of each batch.
    """
    width, inner = facts.width, facts.inner_width
    forward = 0
    for rows, tokens in shapes:
        projections = 2 * tokens * (4 * width * width + 2 * width * inner)
        attention = 2 * 2 * tokens * tokens * width
        forward += rows * facts.layers * (projections + attention)
    return 3.0 * forward


def machine(threads: int) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _speed_table(result: dict[str, Any]) -> Table:
    peak = result["machine"]["matrix_product_flops"] / 1e9
    table = Table(
        title=f"{result['rows']} rows of {result['mean_tokens']:.1f} tokens; "
        f"{result['machine']['threads']} threads, peak {peak:.0f} GFLOP/s"
    )
    for column in ("way", "rows/s", "min", "max", "padding", "of peak", "useful"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for name, way in result["ways"].items():
        rates = way["rows_per_second"]
        table.add_row(
            name,
            *(f"{rate:.1f}" for rate in (median(rates), min(rates), max(rates))),
            *(
                f"{way[key]:.0%}"
                for key in ("padding", "peak_fraction_padded", "peak_fraction_real")
            ),
        )
    return table


def _ratio_table(result: dict[str, Any]) -> Table:
    table = Table(title="ours, as a multiple of")
    for column in ("way", "median", "min", "max", "by CPU time", "target"):
        table.add_column(column, justify="left" if column == "way" else "right")
    ways = result["ways"]
    for name in [name for name in ways if name != "ours"]:
        wall, cpu = (
            [a / b for a, b in zip(ways["ours"][key], ways[name][key], strict=True)]
            for key in ("rows_per_second", "rows_per_cpu_second")
        )
        values = (median(wall), min(wall), max(wall), median(cpu), RATIOS[name])
        table.add_row(name, *(f"{value:.2f}" for value in values))
    return table


def _quality_table(result: dict[str, Any]) -> Table:
    table = Table(
        title=f"{result['epochs']} epochs of {result['rows']} rows, "
        f"{result['test_rows']} test rows"
    )
    table.add_column("way")
    table.add_column("average precision", justify="right")
    for name, way in result["ways"].items():
        table.add_row(name, f"{way['average_precision']:.4f}")
    return table


if __name__ == "__main__":
    try:
        main()
    except WorkerError as error:
        sys.exit(f"error: {error}")
