"""What a report is refused for, which makes and changes nothing."""

import sqlite3
from pathlib import Path

import optuna
import pytest
from hydra import compose, initialize_config_dir

from fakenews.config import CONF, register_resolvers
from fakenews.errors import ConfigError, FakeNewsError, TuningError
from fakenews.tuning.report_job import report_sweep


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the storage of two studies, and files that are none."""
    for name in ("news", "other"):
        optuna.create_study(study_name=name, storage=f"sqlite:///{tmp_path}/optuna.db")
    (tmp_path / "text.db").write_text("This is no database, but a text of some length. " * 40)
    (tmp_path / "empty.db").touch()
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("CREATE TABLE runs (id)")
    database.close()
    monkeypatch.chdir(tmp_path)
    register_resolvers()
    return tmp_path


NONE_THERE = "there is no file no.db: start a sweep first"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ([], TuningError, "study is not set: give study=NAME, of news, other"),
        (["study=null"], TuningError, "study is not set: give study=NAME, of news, other"),
        (["study=mews"], TuningError, "did you mean news? it has news, other"),
        (["study=x", "storage=sqlite:///no.db"], TuningError, NONE_THERE),
        (["storage=sqlite:///no.db"], TuningError, NONE_THERE),
        (
            ["study=x", "storage=sqlite:///text.db"],
            TuningError,
            "cannot be read (file is not a database)",
        ),
        (["study=x", "storage=sqlite:///empty.db"], TuningError, "has no studies of Optuna"),
        (["study=x", "storage=sqlite:///mlflow.db"], TuningError, "has no studies of Optuna"),
        (["study=news", "out=[a]"], ConfigError, "out=['a']: it should be a valid string"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    root: Path, arguments: list[str], error: type[FakeNewsError], message: str
) -> None:
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with initialize_config_dir(str(CONF)):
        cfg = compose("sweep_report", [f"paths.root={root}", *arguments])
    with pytest.raises(error) as caught:
        report_sweep(cfg)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    after = {
        path: path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }
    assert after == before
