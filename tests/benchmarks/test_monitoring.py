"""The benchmark of monitoring: windows, figures, and a run with a tiny model."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakenews.monitoring.judge import Judgement
from fakenews.monitoring.thresholds import Finding

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPT = BENCHMARKS / "monitoring.py"
# Everything once, and briefly.
SHORT = [
    *("--sizes", "50", "--windows", "4", "--references", "1", "--rows", "300"),
    *("--sequences", "1", "--length", "2", "--part-rows", "100"),
    *("--threshold-references", "2", "--threshold-windows", "50"),
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
    assert (found["count"], found["windows"], found["rate"]) == (2, 4, 0.5)
    assert found["with_floors"]["count"] == 1
    assert found["measured"]["count"] == 1
    assert found["by_comparison"] == {"drift.b": 2, "drift.a": 1}
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


def test_drifted_windows_are_mixed_flipped_and_repeated(modules: Any, some_pool: Any) -> None:
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
    repeated = drawn(repeated=0.3)
    assert 0.6 < len(set(repeated.index)) / 400 < 0.8
    turned = drawn(labels=1 - pool.rows.labels)
    assert (turned.labels != pool.rows.labels[turned.index]).all()


@pytest.fixture
def some_pool() -> Any:
    from fakenews.monitoring.rows import Rows

    def make(pools: Any) -> Any:
        labels = np.arange(1000) % 2
        rows = Rows(
            columns={},
            embeddings=None,
            probabilities=np.full((1000, 2), 0.5),
            decided=labels,
            labels=labels,
        )
        return pools.Pool(rows=rows, texts=np.full(1000, "text", dtype=object))

    return make


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
