"""Data larger than memory: flat memory, a loader that never waits, training as from memory.

    python benchmarks/streaming.py --rows 200000 2000000

Each part prints its figures beside what it should reach; `--json` keeps them. See README.md
beside this file.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from streaming_worker import entity_rates, loader_rate, training_rates
from watched import watched

from fakenews.data.sample import fetch

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("memory", "shuffle", "training", "entities")


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs=2, default=[200_000, 2_000_000])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=3, help="of training and entities")
    parser.add_argument("--folder", type=Path, help="for the datasets; else a temporary one")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(loader_rate(Path(options.worker))))
        return
    found: dict[str, Any] = {}
    with _folder(options.folder) as folder:
        if {"memory", "shuffle"} & set(options.parts):
            found["memory"] = [memory(folder, rows) for rows in options.rows]
            show_memory(found["memory"])
        if "shuffle" in options.parts:
            found["shuffle"] = shuffle(folder / f"{options.rows[1]}")
            show("shuffle, in standard deviations from chance", found["shuffle"])
        if "training" in options.parts:
            found["training"] = training(folder, options.repeats)
            if "memory" in found:
                loader = found["memory"][1]["loader"]["rows_per_second"]
                trained = median(found["training"]["shards_rows_per_second"])
                found["training"]["loader_to_training"] = loader / trained
            show("training from shards", found["training"])
        if "entities" in options.parts:
            found["entities"] = entity_rates(repeats=options.repeats)
            show("entities of headlines", found["entities"])
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def memory(folder: Path, rows: int) -> dict[str, Any]:
    """Prepare and read a generated corpus; most memory that each took, and how fast."""
    out = folder / f"{rows}"
    command = [
        *(sys.executable, str(ROOT / "scripts" / "prepare.py"), f"out={out}"),
        *(f"data.fetch.rows={rows}", f"paths.cache={folder / 'cache'}"),
        "features=headline",
    ]
    # Before the clock: making the corpus up is not what is measured.
    fetch(rows=rows, seed=0, positive_rate=0.3, label_noise=0.03, cache_dir=folder / "cache")
    preparation = watched(command)
    loader = watched([sys.executable, __file__, "--worker", str(out)])
    return {
        "rows": rows,
        "preparation": preparation | {"rows_per_second": rows / preparation["seconds"]},
        "loader": loader | json.loads(loader.pop("output").splitlines()[-1]),
    }


def shuffle(dataset: Path) -> dict[str, float]:
    """How far the order on disk is from chance; each figure has deviation 1 by chance."""
    labels, ids = [], []
    for path in sorted((dataset / "train").glob("*.parquet")):
        table = pq.read_table(path, columns=["label", "id"])
        labels.append(np.asarray(table["label"].to_pylist()) == "fake")
        ids.append(table["id"].to_numpy())
    y, origin = np.concatenate(labels).astype(float), np.concatenate(ids).astype(float)
    n, place = len(y), np.arange(len(y))
    p = y.mean()
    same = (y[1:] == y[:-1]).sum()
    expected = (n - 1) * (p**2 + (1 - p) ** 2)
    shards = np.array([part.mean() for part in labels])
    sizes = np.array([len(part) for part in labels])
    return {
        "label_and_place": float(np.corrcoef(place, y)[0, 1] * np.sqrt(n)),
        "input_order_and_place": float(np.corrcoef(place, origin)[0, 1] * np.sqrt(n)),
        "neighbours_of_one_label": float(
            (same - expected) / np.sqrt((n - 1) * 4 * (p * (1 - p)) * (1 - 3 * p * (1 - p)))
        ),
        "label_rate_of_shards_rms": float(
            np.sqrt(np.mean(((shards - p) / np.sqrt(p * (1 - p) / sizes)) ** 2))
        ),
    }


def training(folder: Path, repeats: int) -> dict[str, Any]:
    """Rows/s of the same training from memory and from shards, in turns."""
    out = folder / "training"
    rows = 2000
    overrides = [f"data.fetch.rows={rows}", f"paths.cache={folder / 'cache'}"]
    subprocess.run(  # noqa: S603
        [
            *(sys.executable, str(ROOT / "scripts" / "prepare.py"), f"out={out}"),
            *(*overrides, "features=headline"),
        ],
        check=True,
        cwd=ROOT,
    )
    rates = training_rates(out, overrides, repeats=repeats)
    ratios = [s / m for s, m in zip(rates["shards"], rates["memory"], strict=True)]
    return {
        "memory_rows_per_second": rates["memory"],
        "shards_rows_per_second": rates["shards"],
        "shards_to_memory": median(ratios),
        "range": [min(ratios), max(ratios)],
    }


def show_memory(found: Sequence[dict[str, Any]]) -> None:
    """A line for each size, and how much more the larger takes."""
    table = Table(title="peak memory and speed")
    for column in ("rows", "preparation", "rows/s", "loader", "rows/s", "padding"):
        table.add_column(column, justify="right")
    for one in found:
        table.add_row(
            f"{one['rows']:,}",
            f"{one['preparation']['peak_mib']:,.0f} MiB",
            f"{one['preparation']['rows_per_second']:,.0f}",
            f"{one['loader']['peak_mib']:,.0f} MiB",
            f"{one['loader']['rows_per_second']:,.0f}",
            f"{one['loader']['padding']:.1%}",
        )
    small, large = found
    growth = [
        f"{large[part]['peak_mib'] / small[part]['peak_mib'] - 1:+.1%}"
        for part in ("preparation", "loader")
    ]
    table.add_row("growth (aim: 10%)", growth[0], "", growth[1], "", "")
    Console().print(table)


def show(title: str, figures: dict[str, Any]) -> None:
    """A line for each figure."""
    table = Table("figure", "value", title=title)
    for name, value in figures.items():
        values = value if isinstance(value, list) else [value]
        table.add_row(
            name.replace("_", " "),
            ", ".join(f"{v:,.2f}" if isinstance(v, float) else str(v) for v in values),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
