"""The benchmark of monitoring: windows, figures, and a run with a tiny model."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fakenews.evaluation.calibration import Calibration
from fakenews.monitoring.checks import Policy
from fakenews.monitoring.judge import Judgement
from fakenews.monitoring.rows import Reference, Rows
from fakenews.monitoring.thresholds import Finding

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPT = BENCHMARKS / "monitoring.py"
# Everything once, and briefly.
SHORT = [
    *("--sizes", "50", "--windows", "4", "--references", "1", "--rows", "300"),
    *("--sequences", "1", "--length", "2", "--part-rows", "100"),
    *("policy.references=2", "policy.windows=50"),
]


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def finding(value: float, effect: float = 1.0, *, floor: float = 0.5) -> Finding:
    return Finding(
        value=value,
        threshold=1.0,
        p_value=0.5,
        effect=effect,
        exceeded=value > 1 and effect >= floor,
    )


def test_rates_have_exact_intervals(modules: Any) -> None:
    rate = modules("monitoring_ours").rate
    # With none of n the upper end is 1 - 0.025 ** (1 / n).
    assert rate(0, 300)["interval"] == pytest.approx([0, 0.01222], abs=1e-5)
    assert rate(300, 300)["interval"] == pytest.approx([1 - 0.01222, 1], abs=1e-5)
    low, high = rate(3, 300)["interval"]
    assert 0.002 < low < 0.01 < high < 0.03


def test_false_alarms_are_counted_by_window_and_by_comparison(modules: Any) -> None:
    ours, streams = modules("monitoring_ours"), modules("monitoring_streams")
    windows = [
        {"drift.a": finding(2), "drift.b": finding(2, 0.1), "decay.measured.accuracy": None},
        {"drift.a": finding(0), "drift.b": finding(2, 0.1), "decay.measured.accuracy": None},
        {"drift.a": finding(0), "drift.b": None, "decay.measured.accuracy": finding(3)},
        {"drift.a": finding(0), "drift.b": finding(0), "decay.measured.accuracy": finding(0)},
    ]
    split = streams.Split(name="bundle", reference=None, clean={})
    found = ours.false_alarms(split, 50, windows)
    assert (found["count"], found["windows"], found["rate"]) == (1, 4, 0.25)
    assert found["without_floors"]["count"] == 2
    assert found["measured"]["count"] == 1
    assert found["by_comparison"] == {"drift.a": 1}
    assert found["by_comparison_without_floors"] == {"drift.b": 2, "drift.a": 1}
    assert found["hits"] == [True, False, False, False]


def test_estimates_are_compared_with_the_truth(modules: Any) -> None:
    def window(value: float, true: float) -> Judgement:
        some = dict.fromkeys(("average_precision", "macro_f1", "accuracy"), (value, 0.6, 0.8))
        known = dict.fromkeys(some, (true, 0.0, 1.0))
        return Judgement(rows=9, labelled=9, estimated=some, measured=known)

    windows = [window(0.7, 0.75), window(0.7, 0.5), Judgement(rows=9, labelled=0)]
    found = modules("monitoring_ours").estimates(windows)["accuracy"]
    assert found["windows"] == 2
    assert found["error"] == pytest.approx(0.125)
    assert found["bias"] == pytest.approx(0.075)
    assert found["covered"] == 0.5


def test_drifted_windows_are_mixed_and_flipped(modules: Any, some_pool: Any) -> None:
    streams = modules("monitoring_streams")
    pool = some_pool(modules("monitoring_pools"))
    stream = streams.Stream(
        name="x", pool=pool, texts=None, splits=[], drifts=[], base=np.arange(500)
    )

    def drawn(**how: Any) -> Any:
        (window,) = stream.drifted(streams.Drift(kind="k", strength=0, **how), 400, 1, seed=0)
        return window

    mixed = drawn(others=np.arange(500, 1000), share=0.25)
    assert 0.15 < (mixed.index >= 500).mean() < 0.35
    assert len(set(mixed.index)) == 400
    np.testing.assert_array_equal(mixed.labels, pool.rows.labels[mixed.index])
    flipped = drawn(flipped=0.2)
    assert 0.1 < (flipped.labels != pool.rows.labels[flipped.index]).mean() < 0.3
    turned = drawn(labels=1 - pool.rows.labels)
    assert (turned.labels != pool.rows.labels[turned.index]).all()


@pytest.fixture
def some_pool() -> Any:
    rng = np.random.default_rng(0)
    labels = np.arange(1000) % 2
    seen = rng.normal(2.0 * labels)
    score = 1 / (1 + np.exp(2 - 2 * seen))
    words = rng.poisson(9, 1000).astype(float)
    words[500:] += 5  # the drift
    rows = Rows(
        columns={"tabular.words": words},
        embeddings=np.stack([seen, rng.normal(size=1000)], axis=1).astype(np.float32),
        probabilities=np.stack([1 - score, score], axis=1),
        decided=(score > 0.5).astype(np.int64),
        labels=labels,
    )

    def make(pools: Any) -> Any:
        return pools.Pool(rows=rows, texts=np.full(1000, "text", dtype=object))

    return make


def test_a_stream_is_measured_and_shown(modules: Any, some_pool: Any) -> None:
    ours, streams = modules("monitoring_ours"), modules("monitoring_streams")
    peers, tables = modules("monitoring_peers"), modules("monitoring_tables")
    pool = some_pool(modules("monitoring_pools"))
    known = Reference(
        rows=pool.take(np.arange(200)),
        classes=("fake", "real"),
        calibration=Calibration(threshold=0.5, positive="fake"),
        input_ids=None,
        offsets=None,
        features=("words",),
    )
    base = np.arange(200, 500)
    clean = streams.drawn(np.random.default_rng(0), base, pool.rows.labels, [60], 6)
    stream = streams.Stream(
        name="made up",
        pool=pool,
        texts=np.full(200, "text", dtype=object),
        splits=[streams.Split(name=n, reference=known, clean=clean) for n in ("bundle", "0")],
        drifts=[
            streams.Drift(kind="moved", strength=1.0, others=np.arange(500, 1000), share=1.0),
            streams.Drift(kind="labels", strength=0.4, flipped=0.4),
        ],
        base=base,
    )
    policy = Policy(references=8, windows=50)
    found = ours.ours(stream, policy=policy, sizes=[60], sequences=1, length=3, seed=0)
    assert [(one["reference"], one["windows"]) for one in found["clean"]] == [
        ("bundle", 6),
        ("0", 6),
    ]
    none, moved, labels = found["drift"]
    assert (none["kind"], moved["kind"], labels["kind"]) == ("none", "moved", "labels")
    assert (moved["rate"], moved["alarmed"]) == (1, 1)
    assert moved["delay"] in (1, 2)
    assert moved["by_comparison"]["drift.tabular.words"] == 1
    assert labels["measured"]["rate"] > 0.5
    assert none["estimates"]["accuracy"]["error"] < 0.1
    given = peers.cells(stream, sizes=[60], clean=4, drifted=2, seed=0)
    assert [(cell.kind, len(cell.windows)) for cell in given] == [("none", 4), ("moved", 2)]
    answer = {"dataset": True, "columns": [], "estimated": {"accuracy": 0.9}}
    found["peers"] = peers.compared(given, {"other": [answer] * 6}, found)
    assert found["peers"][1]["ours"] == 1
    assert found["peers"][1]["other"] == 1
    assert found["peers"][1]["other, any column"] == 0
    assert 0 < found["peers"][0]["other, error of accuracy"] < 0.3
    found["false_alarms"] = policy.false_alarms
    console = Console(width=150, record=True)
    for table in tables.tables("made up", found):
        console.print(table)
    assert "drift.tabular.words" in console.export_text()


def test_windows_reach_other_libraries_as_tables(
    modules: Any, some_pool: Any, tmp_path: Path
) -> None:
    """A worker that says what it was given."""
    peers, streams = modules("monitoring_peers"), modules("monitoring_streams")
    pool = some_pool(modules("monitoring_pools"))
    table = peers.table(pool.rows, pool.texts, ("fake", "real"))
    assert list(table) == ["text", "tabular.words", "prediction.score1", "prediction", "truth"]
    assert set(table["truth"]) == {"fake", "real"}
    stream = streams.Stream(
        name="x",
        pool=pool,
        texts=np.full(10, "text", dtype=object),
        splits=[
            streams.Split(
                name="bundle",
                reference=Reference(
                    rows=pool.take(np.arange(10)),
                    classes=("fake", "real"),
                    calibration=Calibration(threshold=0.5, positive="fake"),
                    input_ids=None,
                    offsets=None,
                    features=(),
                ),
                clean={},
            )
        ],
        drifts=[],
        base=np.arange(9),
    )
    window = streams.Window(index=np.array([900, 3]), labels=np.array([0, 1]))
    cell = peers.Cell(kind="none", strength=0, size=2, windows=[window])
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\n"
        "import json, pathlib, sys\n"
        "import pandas\n"
        "folder = pathlib.Path(sys.argv[2])\n"
        "pool = pandas.read_parquet(folder / 'pool.parquet')\n"
        "given = json.loads((folder / 'windows.json').read_text())\n"
        "rows = [pool['tabular.words'][window].tolist() for window in given['windows']]\n"
        "print(json.dumps({'rows': rows, 'columns': list(pool)}))\n",
        encoding="utf-8",
    )
    python.chmod(0o755)
    (found,) = peers.peer("evidently", str(python), stream, [cell])
    assert found["rows"] == [pool.rows.columns["tabular.words"][[900, 3]].tolist()]
    # Its texts are all the same.
    assert found["columns"] == list(table)[1:]
    python.write_text("#!/bin/sh\necho it is not installed >&2; exit 1\n", encoding="utf-8")
    assert peers.peer("evidently", str(python), stream, [cell]) == "it is not installed"
    assert "No such file" in peers.peer("evidently", "/nowhere/python", stream, [cell])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --bundle-sample or --bundle-covid"),
        (["--bundle-covid", "run"], "--bundle-covid needs --covid"),
        (["--bundle-sample", "run", "--sizes", "0"], "numbers are more than 0"),
        (["--bundle-sample", "run", "--windows", "2"], "--windows is at least --length"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    modules: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        modules("monitoring").main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_tiny_model_is_monitored(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = subprocess.run(
        [
            *(sys.executable, str(SCRIPT), "--bundle-sample", str(tiny_bundle), *SHORT),
            *("--json", str(out), "--folder", str(tmp_path / "kept")),
            *("--evidently-python", "/nowhere/python"),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text(encoding="utf-8"))["sample"]
    assert [one["reference"] for one in result["clean"]] == ["bundle", "0"]
    assert all(one["windows"] == 4 for one in result["clean"])
    kinds = {one["kind"] for one in result["drift"]}
    assert {"none", "new topics", "class rate", "label rule", "labels flipped"} <= kinds
    assert "not measured: evidently" in done.stdout
