"""What `monitoring.py` found, as tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table


def tables(name: str, result: Mapping[str, Any]) -> Iterator[Table]:
    """Of one stream."""
    yield clean_table(name, result)
    yield culprit_table(name, result)
    yield drift_table(name, result)
    yield estimate_table(name, result)
    yield effect_table(name, result)
    if result.get("peers"):
        yield peer_table(name, result)
        if any("error of" in key for row in result["peers"] for key in row):
            yield error_table(name, result)


def clean_table(name: str, result: Mapping[str, Any]) -> Table:
    """False alarms."""
    table = Table(title=f"{name}: clean windows in which something differs, %")
    _columns(
        table,
        ["reference"],
        ["rows", "windows", "differ", "95% interval", "floors off", "with labels"],
        ["alarm", "trend alarms"],
    )
    drawn: dict[int, list[Mapping[str, Any]]] = {}
    for one in result["clean"]:
        if one["reference"] != "bundle":
            drawn.setdefault(one["size"], []).append(one)
            continue
        alarms = result["alarms"][str(one["size"])]
        table.add_row(
            "bundle's",
            *_clean_cells(one),
            _percent(alarms["rate"]),
            f"{alarms['trend']['count']} of {alarms['trend']['windows']}",
        )
    for some in drawn.values():
        table.add_row(f"{len(some)} drawn", *_clean_cells(_pooled(some)), "", "")
        rates = sorted(one["rate"] for one in some)
        kept = sum(rate <= result["false_alarms"] for rate in rates)
        table.add_row(
            f"  of each: {_percent(rates[0])} to {_percent(rates[-1])}",
            *[""] * 2,
            f"kept by {kept}",
            *[""] * 5,
        )
    return table


def _clean_cells(one: Mapping[str, Any]) -> list[str]:
    low, high = one["interval"]
    return [
        f"{one['size']}",
        f"{one['windows']}",
        _percent(one["rate"]),
        f"{_percent(low)} to {_percent(high)}",
        _percent(one["without_floors"]["rate"]),
        _percent(one["measured"]["rate"]),
    ]


def _pooled(some: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    from monitoring_ours import rate

    windows = sum(one["windows"] for one in some)

    def together(count: int) -> dict[str, Any]:
        return rate(count, windows)

    return {
        "size": some[0]["size"],
        **together(sum(one["count"] for one in some)),
        "without_floors": together(sum(one["without_floors"]["count"] for one in some)),
        "measured": together(sum(one["measured"]["count"] for one in some)),
    }


def culprit_table(name: str, result: Mapping[str, Any]) -> Table:
    """What differs in clean windows."""
    table = Table(
        title=f"{name}: clean windows in which a comparison is beyond its threshold, floors off"
    )
    sizes = sorted({one["size"] for one in result["clean"]})
    _columns(table, ["comparison"], [f"{size} rows" for size in sizes])
    counts: dict[str, dict[int, int]] = {}
    for one in result["clean"]:
        for key, count in one["by_comparison_without_floors"].items():
            by_size = counts.setdefault(key, {})
            by_size[one["size"]] = by_size.get(one["size"], 0) + count
    for key, by_size in sorted(counts.items(), key=lambda item: -sum(item[1].values())):
        table.add_row(key, *(f"{by_size.get(size, 0) or ''}" for size in sizes))
    return table


def drift_table(name: str, result: Mapping[str, Any]) -> Table:
    """Detection."""
    table = Table(title=f"{name}: drifted windows")
    _columns(
        table,
        ["kind"],
        ["strength", "rows", "differ %", "floors off", "with labels", "alarmed %", "delay"],
        ["most often"],
    )
    for one in _by_kind(result["drift"]):
        if one["kind"] == "none":
            continue
        keys = list(one["by_comparison"].items())[:2]
        table.add_row(
            one["kind"],
            f"{one['strength']:g}",
            f"{one['size']}",
            _percent(one["rate"]),
            _percent(one["without_floors"]["rate"]),
            _percent(one["measured"]["rate"]),
            _percent(one["alarmed"]),
            "" if one["delay"] is None else f"{one['delay']:g}",
            ", ".join(f"{key.split('.', 1)[1]} {_percent(share)}" for key, share in keys),
        )
    return table


def estimate_table(name: str, result: Mapping[str, Any]) -> Table:
    """Estimated beside true performance."""
    table = Table(
        title=f"{name}: performance estimated without labels: true mean, mean absolute error, "
        "bias, % of windows whose truth is in the 95% interval"
    )
    _columns(table, ["kind"], ["strength", "rows", "average precision", "macro-F1", "accuracy"])
    for one in _by_kind(result["drift"]):
        cells = []
        for metric in ("average_precision", "macro_f1", "accuracy"):
            found = one["estimates"].get(metric)
            cells.append(
                ""
                if found is None
                else f"{found['true']:.3f} {found['error']:.3f} {found['bias']:+.3f} "
                f"{_percent(found['covered'])}"
            )
        table.add_row(one["kind"], f"{one['strength']:g}", f"{one['size']}", *cells)
    return table


def effect_table(name: str, result: Mapping[str, Any]) -> Table:
    """How large effects are without a drift, and with a mild one."""
    sizes = list(result["effects"])
    table = Table(title=f"{name}: effect in clean windows, 95th / 99th percentile, by rows")
    _columns(table, ["comparison"], sizes)
    for key in result["effects"][sizes[0]]:
        cells = [result["effects"][size].get(key) for size in sizes]
        table.add_row(key, *("" if c is None else f"{c[1]:.3f} / {c[2]:.3f}" for c in cells))
    return table


def peer_table(name: str, result: Mapping[str, Any]) -> Table:
    """Others on the same windows."""
    ways = [way for way in result["peers"][0] if way not in ("kind", "strength", "size")]
    ways = [w for w in ways if not any(word in w for word in ("windows", "error"))]
    table = Table(title=f"{name}: the same windows, in which something differs, %")
    _columns(table, ["kind"], ["strength", "rows", "windows", *ways])
    for row in _by_kind(result["peers"]):
        table.add_row(
            row["kind"],
            f"{row['strength']:g}",
            f"{row['size']}",
            f"{row['windows']}",
            *(_percent(row[way]) for way in ways),
        )
    return table


def error_table(name: str, result: Mapping[str, Any]) -> Table:
    """Errors of estimates, beside those of others."""
    ways = [key for key in result["peers"][0] if "error of" in key]
    table = Table(title=f"{name}: mean absolute error of estimates on the same windows")
    _columns(table, ["kind"], ["strength", "rows", *ways])
    for row in _by_kind(result["peers"]):
        table.add_row(
            row["kind"],
            f"{row['strength']:g}",
            f"{row['size']}",
            *(f"{row[way]:.3f}" if way in row else "" for way in ways),
        )
    return table


def _by_kind(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    return sorted(
        rows, key=lambda row: (kinds.index(row["kind"]), row["strength"], row["size"])
    )


def _columns(table: Table, left: Sequence[str], right: Sequence[str], *more: Any) -> None:
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right")
    for name in [name for names in more for name in names]:
        table.add_column(name)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
