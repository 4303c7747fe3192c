"""The benchmark of training speed, run on a few rows with a tiny encoder."""

import json
import math
from pathlib import Path

import pytest

from fixtures.commands import Commands

SMALL = ["--rows", "48", "--threads", "1", "encoder=tiny", "features=headline"]


@pytest.mark.slow
def test_every_way_is_timed_on_the_same_rows_and_scored(
    command: Commands, tmp_path: Path
) -> None:
    arguments = ("--repeats", "2", "--warmup", "1", "--quality", "--epochs", "1")
    out = tmp_path / "out.json"
    started = command.start(
        "benchmarks/training.py", *SMALL, *arguments, "--json", str(out), cwd=tmp_path
    )
    said, _ = started.communicate()
    assert started.returncode == 0, said
    result = json.loads(out.read_text(encoding="utf-8"))
    assert result["rows"] == 48
    assert len(result["ways"]) == 6
    for way in result["ways"].values():
        assert len(way["rows_per_second"]) == 2
        assert min(way["rows_per_second"]) > 0
        assert 0 < way["peak_fraction_real"] < way["peak_fraction_padded"]
        # Real work is the same for all, so what padding adds is known from the lengths.
        assert 0 <= way["padding"] < 1
    padding = {name: way["padding"] for name, way in result["ways"].items()}
    assert padding["ours"] == padding["bare loop"] < padding["HF, dynamic padding"]
    assert all(0 < way["average_precision"] <= 1 for way in result["ways"].values())
    tokens = result["mean_tokens"]
    assert math.isclose(padding["HF, padded to 128"], 1 - tokens / 128)
    assert math.isclose(padding["seed tutorial"], 1 - tokens / 100)


def test_an_unknown_way_is_refused(command: Commands, tmp_path: Path) -> None:
    done = command("benchmarks/training.py", "--ways", "theirs", cwd=tmp_path)
    assert done.returncode == 2
    assert "invalid choice: 'theirs'" in done.stderr
