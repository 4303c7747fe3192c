"""The benchmark of ranks: its model against values by hand, and a run with a tiny encoder."""

import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPT = BENCHMARKS / "distributed.py"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import distributed_model

    return distributed_model


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import distributed

    return distributed


@pytest.mark.parametrize(
    ("ranks", "ring"),
    # 125 MB are 1 Gbit: on 10 Gbit/s 0.1 s. A message takes 1 ms, a step sends 3 buckets.
    [(1, 0), (2, 0.1 + 0.006), (4, 0.15 + 0.018), (64, 2 * 63 / 64 * 0.1 + 0.378)],
)
def test_a_step_is_what_its_parts_are(model: ModuleType, ranks: int, ring: float) -> None:
    constants = model.Constants(
        compute=0.5, gradient_bytes=125e6, latency=1e-3, buckets=3, loader=0.1
    )
    assert math.isclose(
        model.ring_seconds(constants, ranks=ranks, gbits=10), ring, abs_tol=1e-12
    )
    assert math.isclose(model.step_seconds(constants, ranks=ranks, gbits=10), 0.6 + ring)
    assert math.isclose(model.efficiency(constants, ranks=ranks, gbits=10), 0.6 / (0.6 + ring))


def test_what_is_hidden_costs_nothing_and_gives_nothing_back(model: ModuleType) -> None:
    constants = model.Constants(compute=0.5, gradient_bytes=125e6, overlap=0.12)
    assert model.step_seconds(constants, ranks=1, gbits=10) == 0.5
    assert model.step_seconds(constants, ranks=2, gbits=10) == 0.5
    assert math.isclose(model.step_seconds(constants, ranks=4, gbits=10), 0.53)


def test_all_wait_for_the_longest_batch(model: ModuleType) -> None:
    constants = model.Constants(compute=0.5, gradient_bytes=125e6, loader=0.1)
    seconds = model.step_seconds(constants, ranks=2, gbits=10, uneven=0.2)
    assert math.isclose(seconds, 0.5 * 1.2 + 0.1 + 0.1)
    found = model.efficiency(constants, ranks=2, gbits=10, uneven=0.2)
    assert math.isclose(found, 0.6 / 0.8)


def test_a_repeat_is_as_slow_as_its_slowest_rank(benchmark: ModuleType) -> None:
    seconds = {
        "alone": [[0.5]],
        "ddp": [[0.7, 0.8]],
        "no_sync": [[0.6, 0.5]],
        "all_reduce": [[0.25, 0.3]],
        "latency": [[0.001, 0.002]],
    }
    found = benchmark.summary({"ranks": 2, "seconds": seconds})
    expected = {
        "ddp_to_alone": 1.6,
        "no_sync_to_alone": 1.2,
        "exposed_seconds": 0.2,
        "exposed_share": 0.25,
        "hidden_seconds": 0.1,
        "speed_up": 1.25,
        "small_all_reduce_seconds": 0.002,
    }
    for name, value in expected.items():
        assert math.isclose(found[name][0], value), name


def test_the_model_prints_a_table_of_given_constants(
    benchmark: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark.main(
        ["--model", "--step", "0.5", "--bytes", "125e6", "--bandwidths", "10", "--latency", "0"]
    )
    printed = capsys.readouterr().out
    assert "not measured" in printed
    assert "0.600 (83%, 1.7)" in printed  # 2 nodes
    with pytest.raises(SystemExit):
        benchmark.main(["--model"])
    assert "--model needs --step and --bytes" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        benchmark.main(["--model", "--step", "1", "--bytes", "1", "--uneven", "0.1"])
    assert "--uneven has 1 values for 7 nodes" in capsys.readouterr().err


@pytest.mark.slow
def test_two_ranks_are_measured_beside_one(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    subprocess.run(
        [
            *(sys.executable, str(SCRIPT), "--rows", "600", "--steps", "2", "--repeats", "2"),
            *("--json", str(out), "encoder=tiny", "features=headline"),
        ],
        check=True,
        cwd=tmp_path,
    )
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["ranks"] == 2
    for name, ranks in (("alone", 1), ("ddp", 2), ("no_sync", 2), ("all_reduce", 2)):
        assert [len(one) for one in found["seconds"][name]] == [ranks, ranks]
        assert all(0 < seconds < 60 for one in found["seconds"][name] for seconds in one)
    # What DDP sums up is what the model counts.
    assert sum(found["bucket_bytes"]) == found["gradient_bytes"] == 4 * found["parameters"]
    # Weights, and Adam's two moments.
    assert found["checkpoint"]["bytes"] > 3 * found["gradient_bytes"]
    # 600 rows are 18 batches: 8 steps of 2 ranks, and no epoch of more.
    assert list(found["uneven"]) == ["2"]
    assert 0 < found["uneven"]["2"] < 1
