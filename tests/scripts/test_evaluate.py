"""`scripts/evaluate.py` as a person runs it."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

from fixtures.commands import either

Command = Callable[..., CompletedProcess[str]]


@either
def test_a_file_is_evaluated(
    command: Command, columns_bundle: Path, tmp_path: Path, *, fresh: bool
) -> None:
    (tmp_path / "a.csv").write_text(
        "headline,truth,age,lang\nRain,1,1,a\nSnow,0,2,b\nWind,1,,c\n,1,2,a\n"
    )
    done = command(
        "scripts/evaluate.py",
        f"bundle={columns_bundle}",
        "path=[a.csv]",
        "label=truth",
        "label_names={0: no, 1: yes}",
        "bootstrap=10",
        fresh=fresh,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "Macro-F1" in done.stdout
    assert "1 rows without text or label are left out" in done.stdout
    assert "report: evaluation/report.html" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "evaluation"]
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert metrics["rows"] == 3


def test_mistakes_in_the_options_are_reported_together(
    command: Command, tmp_path: Path
) -> None:
    done = command(
        "scripts/evaluate.py", "bundle=x", "threshold=2", "bootstrap=none", cwd=tmp_path
    )
    assert done.returncode == 1
    assert "path is not set" in done.stderr
    assert "threshold=2: it should be less than or equal to 1" in done.stderr
    assert "bootstrap='none'" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_explains_every_option(command: Command, tmp_path: Path) -> None:
    done = command("scripts/evaluate.py", "--help", cwd=tmp_path)
    shown = command("scripts/evaluate.py", "--cfg", "job", cwd=tmp_path).stdout
    assert done.returncode == 0
    keys = [line.partition(":")[0] for line in shown.splitlines() if not line.startswith("_")]
    assert [key for key in keys if key not in done.stdout] == []
