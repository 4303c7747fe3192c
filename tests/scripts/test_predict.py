"""`scripts/predict.py` as a person runs it."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pandas as pd
import pytest

from fakenews.predictor import Predictor
from fixtures.commands import either

Command = Callable[..., CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [
    "Minister opens 3 hospitals, in Oslo",
    "",
    "SHOCKING: 'miracle' soup cures all?!",
    "ok",
]


@either
def test_a_file_is_scored(
    command: Command, tiny_run: Path, tmp_path: Path, *, fresh: bool
) -> None:
    pd.DataFrame({"title": TEXTS, "id": [4, 3, 2, 1]}).to_csv(tmp_path / "in.csv", index=False)
    done = command(
        "scripts/predict.py",
        f"bundle={tiny_run}",
        "path=in.csv",
        "out=out.csv",
        "text=title",
        fresh=fresh,
        cwd=tmp_path,
    )
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
def test_a_mistake_is_one_line(
    command: Command, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = command("scripts/predict.py", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_help_explains_every_option(command: Command, tmp_path: Path) -> None:
    done = command("scripts/predict.py", "--help", cwd=tmp_path)
    shown = command("scripts/predict.py", "--cfg", "job", cwd=tmp_path).stdout
    assert done.returncode == 0
    keys = [line.partition(":")[0] for line in shown.splitlines() if not line.startswith("_")]
    assert [key for key in keys if key not in done.stdout] == []
    assert list(tmp_path.iterdir()) == []
