"""The benchmark of streaming, run on few rows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "streaming.py"


@pytest.mark.slow
def test_memory_and_shuffle_are_measured(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    subprocess.run(
        [
            *(sys.executable, str(SCRIPT), "--rows", "1000", "3000"),
            *("--parts", "memory", "shuffle", "--folder", str(tmp_path), "--json", str(out)),
        ],
        check=True,
        cwd=tmp_path,
    )
    result = json.loads(out.read_text(encoding="utf-8"))
    assert [one["rows"] for one in result["memory"]] == [1000, 3000]
    for one in result["memory"]:
        # Python with its libraries alone takes more than this.
        assert one["preparation"]["peak_mib"] > 100
        assert one["loader"]["peak_mib"] > 100
        assert one["loader"]["rows_per_second"] > 0
        assert 0 <= one["loader"]["padding"] < 0.2
    assert abs(result["shuffle"]["label_and_place"]) < 5
    assert abs(result["shuffle"]["input_order_and_place"]) < 5
