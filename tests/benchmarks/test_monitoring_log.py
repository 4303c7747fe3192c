"""The benchmark of a large log, on few rows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "monitoring_log.py"


@pytest.mark.slow
def test_a_log_is_made_and_judged(tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    subprocess.run(
        [
            *(sys.executable, str(SCRIPT), "--bundle", str(tiny_run)),
            *("--rows", "3000", "--json", str(out)),
        ],
        check=True,
        cwd=tmp_path,
    )
    (found,) = json.loads(out.read_text(encoding="utf-8"))
    assert found["rows"] == 3000
    assert found["state"] == "ok"
    assert found["seconds"] > 1
    assert found["peak_mib"] > 100
