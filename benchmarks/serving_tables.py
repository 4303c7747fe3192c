"""What `serving.py` found, as tables."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.table import Table
from serving_ways import PEERS

LISTS = "lists"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two ways, and what the first should be as a multiple of the second.

    Attributes:
        of: A way.
        to: Another.
        load: Of both; None: all that both have.
        target: Least ratio of their texts/s; None: there is none.
        latency: Whether the first should have no longer 99th percentile of latency, too.
    """

    of: str
    to: str
    load: str | None = None
    target: float | None = None
    latency: bool = False


def comparisons(ways: Sequence[str]) -> Iterator[Comparison]:
    """Those of the ways that say something, as far as there are both."""
    wanted = [
        Comparison(of="ours", to="engine", load=LISTS, target=0.8),
        Comparison(of="ours/torch", to="engine/torch", load=LISTS, target=0.8),
        Comparison(of="ours", to="engine", load="1"),
        Comparison(of="ours", to="example", target=8, latency=True),
        Comparison(of="gateway", to="example", latency=True),
        Comparison(of="ours/torch", to="example", latency=True),
        *(
            Comparison(of=of, to=peer, target=1, latency=True)
            for peer in PEERS
            if peer != "example"
            for of in ("ours", "gateway")
        ),
        # Without the features, of which they have none.
        Comparison(of="ours/plain", to="example/plain", target=8, latency=True),
        Comparison(of="gateway/plain", to="example/plain", latency=True),
        Comparison(of="ours/plain", to="pipeline", target=1, latency=True),
        Comparison(of="gateway/plain", to="pipeline", target=1, latency=True),
        Comparison(of="ours/torch/plain", to="pipeline", target=1, latency=True),
        # What each thing costs or gains.
        Comparison(of="gateway", to="ours"),
        Comparison(of="gateway/torch", to="ours/torch"),
        Comparison(of="ours", to="ours/torch"),
        Comparison(of="ours", to="ours/plain"),
        Comparison(of="engine", to="engine/plain"),
    ]
    for one in wanted:
        if one.of in ways and one.to in ways:
            yield one


def facts_table(result: dict[str, Any]) -> Table:
    """What each way is."""
    setup, data = result["setup"], result["data"]
    table = Table(
        title=f"{data['texts']} texts of {data['mean_words']:.1f} words; {setup['workers']} "
        f"worker(s) of {setup['threads']} thread(s) each, {result['machine']['cores']} cores"
    )
    for column in ("way", "what", "engine", "features"):
        table.add_column(column)
    table.add_column("off by", justify="right")
    for name, way in result["ways"].items():
        off = way.get("largest_difference")
        table.add_row(
            name,
            "NOT MEASURED" if "error" in way else way["title"],
            way.get("engine", ""),
            way.get("features", ""),
            "" if off is None else f"{off:.1e}",
        )
    return table


def load_table(result: dict[str, Any], load: str) -> Table:
    """Rates and latencies of the ways under one load."""
    table = Table(title=_title(result, load))
    table.add_column("way", no_wrap=True)
    for column in ("texts/s", "min", "max", "p50 ms", "p99 ms", "CPU ms", "cores"):
        table.add_column(column, justify="right")
    for name, way in result["ways"].items():
        repeats = way.get("loads", {}).get(load)
        if not repeats or "error" in way:
            continue
        rates = [one["texts_per_second"] for one in repeats]
        pooled = way["pooled"][load]
        cpu, cores = (
            median(one[key] for one in repeats) for key in ("cpu_seconds_per_text", "cores")
        )
        table.add_row(
            name,
            *(f"{rate:.1f}" for rate in (median(rates), min(rates), max(rates))),
            f"{1000 * pooled['p50']:.1f}",
            f"{1000 * pooled['p99']:.1f}",
            f"{1000 * cpu:.2f}",
            f"{cores:.2f}",
        )
    return table


def _title(result: dict[str, Any], load: str) -> str:
    setup = result["setup"]
    if load == LISTS:
        return f"{setup['list_clients']} client(s) with lists of {setup['list_size']}"
    return f"{load} client(s), a text a request"


def ratio_table(found: Sequence[dict[str, Any]]) -> Table:
    """Ours beside the others."""
    table = Table(title="as multiples: texts/s of each repeat, p99 of all together")
    for column in ("way", "of", "load", "median", "min", "max", "CPU", "p99", "target", ""):
        side = "left" if column in ("way", "of", "load", "") else "right"
        table.add_column(column, justify=side, no_wrap=True)  # type: ignore[arg-type]
    for one in found:
        target = "" if one["target"] is None else f"{one['target']:g}"
        table.add_row(
            *(one[key] for key in ("of", "to", "load")),
            *(f"{one[key]:.2f}" for key in ("median", "min", "max", "by_cpu_time", "p99")),
            target + (", p99 1" if one["latency"] and one["target"] else ""),
            "" if one["met"] is None else "yes" if one["met"] else "NO",
        )
    return table


def ratios(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The comparisons in figures."""
    ways = {name: way for name, way in result["ways"].items() if "error" not in way}
    found = []
    for one in comparisons(list(ways)):
        a, b = ways[one.of], ways[one.to]
        loads = [one.load] if one.load else [load for load in a["loads"] if load in b["loads"]]
        for load in loads:
            if load not in a["loads"] or load not in b["loads"]:
                continue
            pairs = list(zip(a["loads"][load], b["loads"][load], strict=True))
            rates = [x["texts_per_second"] / y["texts_per_second"] for x, y in pairs]
            p99 = a["pooled"][load]["p99"] / b["pooled"][load]["p99"]
            met = None
            if one.target is not None:
                met = median(rates) >= one.target and (not one.latency or p99 <= 1)
            found.append(
                {
                    "of": one.of,
                    "to": one.to,
                    "load": load,
                    "median": median(rates),
                    "min": min(rates),
                    "max": max(rates),
                    "by_cpu_time": median(
                        y["cpu_seconds_per_text"] / x["cpu_seconds_per_text"] for x, y in pairs
                    ),
                    "p99": p99,
                    "target": one.target,
                    "latency": one.latency,
                    "met": met,
                }
            )
    return found
