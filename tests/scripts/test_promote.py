"""`scripts/promote.py` as people and Airflow run it."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import mlflow
import pytest
from mlflow.tracking import MlflowClient

Command = Callable[..., CompletedProcess[str]]

pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader")


def test_help_says_what_it_does(command: Command, tmp_path: Path) -> None:
    done = command("scripts/promote.py", "--help", cwd=tmp_path)
    assert done.returncode == 0
    for word in ("action=rollback", "serving", "together", "Exit status: 0 done"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "name is not set: give name=VALUE"),
        (["name=news"], "mlflow.db: there is no such file: correct the path"),
        (["name=news", "action=promot"], "action='promot': it should be 'status', 'promote'"),
        (["name=news", "action=challenge"], "action=challenge needs version: give version=N"),
        (["name=news", "version=2"], "version=2 does not go with action=status"),
        (["name=news", "model=x"], "model"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    command: Command, tmp_path: Path, overrides: list[str], message: str
) -> None:
    done = command("scripts/promote.py", *overrides, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_the_registry_alone_from_the_command_line(command: Command, tmp_path: Path) -> None:
    before = mlflow.get_tracking_uri()
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    client.create_registered_model("news")
    client.create_model_version("news", source=f"{tmp_path}/x", await_creation_for=None)
    mlflow.set_tracking_uri(before)
    verdict = {"accepted": True, "checks": [{"key": "ap", "passed": True}]}
    (tmp_path / "gate.json").write_text(json.dumps(verdict))
    done = command(
        "scripts/promote.py",
        *("name=news", "serving=none", "action=promote", "version=1", "gate=gate.json"),
        fresh=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "version 1 of news is the champion" in done.stdout
    done = command("scripts/promote.py", "name=news", "serving=none", "json=true", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert found["aliases"] == {"champion": 1, "challenger": None, "previous": None}
    assert found["versions"][0]["gate"]["summary"] == "1 of 1 checks passed"
    assert found["notices"] == []
