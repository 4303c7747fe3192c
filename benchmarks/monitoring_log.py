"""How long a large prediction log takes to be judged, and how much memory.

    python benchmarks/monitoring_log.py --bundle RUN
    python benchmarks/monitoring_log.py --bundle RUN --rows 200000 --json out.json

The log is made of the bundle's reference rows, drawn again and again over 14 days, with all
that a gateway logs of a prediction but its text. Then `scripts/monitor.py` judges it, as a
process of its own; its memory is what it holds itself, with all its children.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from tqdm import tqdm
from watched import watched

from fakenews.bundle import BundleContent, read_bundle
from fakenews.monitoring.rows import Reference
from fakenews.serving.gateway.ids import new_id
from fakenews.serving.gateway.segments import SCHEMA

ROOT = Path(__file__).resolve().parents[1]
DAYS = 14
_CHUNK = 50_000


def main() -> None:
    """Make the log, judge it, and print what that took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True, help="of train.py")
    parser.add_argument("--rows", type=int, nargs="+", default=[200_000, 1_000_000])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the result to this file")
    options = parser.parse_args()
    content = read_bundle(options.bundle)
    table = Table("predictions", "days", "seconds", "peak memory", "verdict")
    found = []
    for rows in options.rows:
        with tempfile.TemporaryDirectory(prefix="fakenews-log-") as name:
            write_log(content, Path(name), rows=rows, seed=options.seed)
            found.append({"rows": rows} | judge(options.bundle, Path(name)))
        one = found[-1]
        memory = f"{one['peak_mib']:,.0f} MiB"
        table.add_row(f"{rows:,}", str(DAYS), f"{one['seconds']:.1f}", memory, one["state"])
    Console().print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def write_log(content: BundleContent, folder: Path, *, rows: int, seed: int) -> None:
    """Write a deployment's log of so many predictions, as gateways do.

    Args:
        content: Of the bundle.
        folder: Of the deployment.
        rows: Over all days.
        seed: Of the draws.
    """
    reference = Reference.of(content)
    tabular = content.reference.get("tabular")
    rng = np.random.default_rng(seed)
    first = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=DAYS)
    with tqdm(total=rows, desc="log", unit="row", disable=None) as bar:
        for day in range(DAYS):
            began = first + timedelta(days=day)
            share = rows * (day + 1) // DAYS - rows * day // DAYS
            for number, start in enumerate(range(0, share, _CHUNK)):
                drawn = rng.integers(len(reference.rows), size=min(_CHUNK, share - start))
                columns = dict(_columns(reference, tabular, drawn, began, rng))
                arrays = [columns.get(field.name) for field in SCHEMA]
                made = pa.Table.from_arrays(
                    [
                        pa.nulls(len(drawn), field.type)
                        if values is None
                        else pa.array(values, field.type)
                        for field, values in zip(SCHEMA, arrays, strict=True)
                    ],
                    schema=SCHEMA,
                )
                place = folder / "predictions" / f"date={began:%Y-%m-%d}"
                place.mkdir(parents=True, exist_ok=True)
                pq.write_table(made, place / f"{day}-{number}.parquet", compression="zstd")
                bar.update(len(drawn))


def _columns(
    reference: Reference,
    tabular: Any,
    drawn: Any,
    began: datetime,
    rng: np.random.Generator,
) -> Iterator[tuple[str, list[Any]]]:
    """What the log says of the drawn rows, by column."""
    rows, classes = reference.rows.take(drawn), reference.classes
    start = int(began.timestamp() * 1000)
    times = np.sort(rng.integers(start, start + 86_400_000, size=len(rows))).tolist()
    yield "id", [new_id(at) for at in times]
    yield "time", times
    yield "model", ["fakenews"] * len(rows)
    yield "model_version", ["a"] * len(rows)
    yield "route", ["champion"] * len(rows)
    yield "label", [classes[code] for code in rows.decided]
    yield (
        "probabilities",
        [list(zip(classes, each, strict=True)) for each in rows.probabilities.tolist()],
    )
    yield "unsure", [False] * len(rows)
    yield "truncated", [False] * len(rows)
    # Each text is another.
    yield "text_sha256", [os.urandom(32).hex() for _ in times]
    if (tokens := rows.columns.get("text.tokens")) is not None:
        yield "tokens", tokens.astype(int).tolist()
        unknown = rows.columns.get("text.unknown", np.zeros(len(rows))) * np.maximum(tokens, 1)
        yield "unknown_tokens", np.rint(unknown).astype(int).tolist()
    if tabular is not None and tabular.shape[1]:
        yield "tabular", list(tabular[drawn].astype(np.float32))
    if rows.embeddings is not None:
        yield "embedding", [each.tobytes() for each in rows.embeddings.astype("<f2")]
    yield "latency_ms", rng.gamma(2.0, 10.0, size=len(rows)).tolist()


def judge(bundle: Path, folder: Path) -> dict[str, Any]:
    """Judge a log by the command; what that took."""
    out = folder / "monitoring"
    command = [
        *(sys.executable, str(ROOT / "scripts" / "monitor.py")),
        *(f"bundle={bundle.absolute()}", f"log={folder}", f"out={out}"),
    ]
    # With 2 it tells of an alarm.
    found = watched(command, statuses=(0, 2))
    verdict = json.loads((out / "verdict.json").read_text(encoding="utf-8"))
    return {name: found[name] for name in ("seconds", "peak_mib")} | {"state": verdict["state"]}


if __name__ == "__main__":
    main()
