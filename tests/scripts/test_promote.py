"""`scripts/promote.py` as people and Airflow run it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader")


def run(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "promote.py"), *overrides],
        cwd=folder,
        env=os.environ | {"FAKENEWS_ROOT": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_says_what_it_does(tmp_path: Path) -> None:
    done = run(tmp_path, "--help")
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
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    done = run(tmp_path, *overrides)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not [*tmp_path.iterdir()]


def test_the_registry_alone_from_the_command_line(tmp_path: Path) -> None:
    before = mlflow.get_tracking_uri()
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    client.create_registered_model("news")
    client.create_model_version("news", source=f"{tmp_path}/x", await_creation_for=None)
    mlflow.set_tracking_uri(before)
    verdict = {"accepted": True, "checks": [{"key": "ap", "passed": True}]}
    (tmp_path / "gate.json").write_text(json.dumps(verdict))
    done = run(
        tmp_path,
        *("name=news", "serving=none", "action=promote", "version=1", "gate=gate.json"),
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "version 1 of news is the champion" in done.stdout
    done = run(tmp_path, "name=news", "serving=none", "json=true")
    found = json.loads(done.stdout)
    assert found["aliases"] == {"champion": 1, "challenger": None, "previous": None}
    assert found["versions"][0]["gate"]["summary"] == "1 of 1 checks passed"
    assert found["notices"] == []
