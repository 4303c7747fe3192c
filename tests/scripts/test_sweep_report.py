"""`scripts/sweep_report.py` as a person runs it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from fixtures.commands import either

Command = Callable[..., CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[2]


def found(root: Path) -> list[Path]:
    """Every file but the locks of databases."""
    return sorted(path for path in root.rglob("*") if path.suffix != ".lock")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A working copy with a storage of two studies."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    url = f"sqlite:///{tmp_path}/optuna.db"
    optuna.create_study(study_name="other", storage=url)
    study = optuna.create_study(study_name="news", storage=url, direction="maximize")
    study.set_user_attr("name", "news")
    study.set_user_attr("objectives", ["val/average_precision"])
    for lr, value in {0.1: 0.5, 0.01: 0.75, 0.001: 0.6}.items():
        trial = create_trial(
            value=value,
            params={"optimizer.lr": lr},
            distributions={"optimizer.lr": FloatDistribution(1e-3, 1e-1)},
            user_attrs={"overrides": [f"optimizer.lr={lr}", "model=text", "test=false"]},
        )
        study.add_trial(trial)
    return tmp_path


@either
def test_a_study_is_reported_and_its_best_is_an_experiment(
    command: Command, root: Path, *, fresh: bool
) -> None:
    done = command("scripts/sweep_report.py", "study=news", fresh=fresh, cwd=root)
    assert done.returncode == 0, done.stderr
    assert "3 trials: 3 complete" in done.stdout
    assert "Best: trial 1, val/average_precision 0.75" in done.stdout
    page = root / "sweeps" / "news" / "report.html"
    assert f"{page} has it all" in done.stdout
    assert "trial 1" in page.read_text()
    assert "python train.py experiment=news_best" in done.stdout
    shown = command(
        *("train.py", "--config-dir", str(root / "conf"), "--cfg", "job"),
        "experiment=news_best",
        cwd=root,
    )
    assert shown.returncode == 0, shown.stderr
    assert "lr: 0.01" in shown.stdout
    assert "networks.TextNet" in shown.stdout


def test_another_storage_and_another_folder(command: Command, root: Path) -> None:
    (root / "optuna.db").rename(root / "mine.db")
    done = command(
        "scripts/sweep_report.py",
        "study=news",
        "storage=sqlite:///mine.db",
        "out=found",
        cwd=root,
    )
    assert done.returncode == 0, done.stderr
    assert (root / "found" / "report.html").is_file()
    assert not (root / "optuna.db").exists()
    assert not (root / "sweeps").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("study=mews", "did you mean news? it has news, other"),
        ("studdy=news", "error: studdy is not an option: did you mean study?"),
    ],
)
def test_a_mistake_is_one_line_and_makes_nothing(
    command: Command, root: Path, argument: str, message: str
) -> None:
    before = found(root)
    done = command("scripts/sweep_report.py", argument, cwd=root)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert found(root) == before


def test_help_explains_every_option(command: Command, tmp_path: Path) -> None:
    done = command("scripts/sweep_report.py", "--help", cwd=tmp_path)
    assert done.returncode == 0
    for name in ("study", "storage", "out"):
        assert f"  {name}  " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 96
    assert list(tmp_path.iterdir()) == []
