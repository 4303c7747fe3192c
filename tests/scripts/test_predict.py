"""`scripts/predict.py` as a person runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from fakenews.predictor import Predictor

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [
    "Minister opens 3 hospitals, in Oslo",
    "",
    "SHOCKING: 'miracle' soup cures all?!",
    "ok",
]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "predict.py"), *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_file_is_scored(tiny_run: Path, tmp_path: Path) -> None:
    pd.DataFrame({"title": TEXTS, "id": [4, 3, 2, 1]}).to_csv(tmp_path / "in.csv", index=False)
    done = run(tmp_path, f"bundle={tiny_run}", "path=in.csv", "out=out.csv", "text=title")
    assert done.returncode == 0, done.stderr
    assert "out.csv: 4 rows in" in done.stdout
    assert done.stdout.rstrip().endswith(
        "1 with an error, the first in row 2: the text is empty"
    )
    assert "predict: 100%" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]
    found = pd.read_csv(tmp_path / "out.csv")
    assert found["id"].tolist() == [4, 3, 2, 1]
    expected = Predictor.load(tiny_run).predict(TEXTS)
    for row in (0, 2, 3):
        assert found["prediction"][row] == expected[row].label
        for name, probability in expected[row].probabilities.items():
            assert found[f"probability_{name}"][row] == pytest.approx(probability, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bundel=x"], "error: bundel is not an option: did you mean bundle?"),
        (["bundle=absent", "texts=[a]"], "error: absent is no bundle: there is no such folder"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_help_explains_every_option(tmp_path: Path) -> None:
    done = run(tmp_path, "--help")
    shown = run(tmp_path, "--cfg", "job").stdout
    assert done.returncode == 0
    keys = [line.partition(":")[0] for line in shown.splitlines() if not line.startswith("_")]
    assert [key for key in keys if key not in done.stdout] == []
    assert list(tmp_path.iterdir()) == []
