"""The command of the gate on real trainings: exit status, one line, files."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from fakenews.data.sample import generate
from fixtures.commands import Commands

pytestmark = pytest.mark.slow


def train(command: Commands, folder: Path, *arguments: str) -> Path:
    done = command(
        "train.py",
        "data.fetch.rows=2000",
        "encoder=tiny",
        "features=headline",
        "logger=none",
        "bootstrap=10",
        f"paths.cache={folder}/cache",
        f"hydra.run.dir={folder}/run",
        *arguments,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def runs(command: Commands, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {
        "champion": ["trainer.max_epochs=4", "seed=1", "data.seed=0"],
        "seed": ["trainer.max_epochs=4", "seed=2", "data.seed=0"],
        "worse": ["model=tabular", "trainer.max_epochs=1", "optimizer.lr=1e-6"],
    }
    return {
        name: train(command, tmp_path_factory.mktemp(name), *arguments)
        for name, arguments in made.items()
    }


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "test.parquet"
    pd.concat(list(generate(1500, seed=77)), ignore_index=True).to_parquet(path)
    return path


def gate(
    command: Commands, champion: Path, challenger: Path, rows: Path, out: Path
) -> tuple[int, str, dict]:
    done = command(
        "scripts/gate.py",
        f"champion={champion}",
        f"challenger={challenger}",
        f"test={rows}",
        f"out={out}",
        "policy.latency_ratio=5",
        cwd=out.parent,
        COLUMNS="400",
    )
    path = out / "gate.json"
    content = json.loads(path.read_text()) if path.exists() else {}
    return done.returncode, done.stdout + done.stderr, content


def test_the_exit_status_is_the_verdict(
    command: Commands, runs: dict[str, Path], rows: Path, tmp_path: Path
) -> None:
    status, said, found = gate(
        command, runs["champion"], runs["worse"], rows, tmp_path / "worse"
    )
    assert status == 2, said
    assert found["state"] == "refused"
    assert found["reason"] in said
    assert "Traceback" not in said

    status, said, found = gate(
        command, runs["worse"], runs["champion"], rows, tmp_path / "better"
    )
    # Its metrics are all better; format and behaviour are its own affair.
    metrics = [one for one in found["checks"] if "margin_borne" in one["numbers"]]
    assert all(one["passed"] for one in metrics), said
    assert status == (0 if found["accepted"] else 2)


def test_another_seed_gets_the_same_verdict_twice(
    command: Commands, runs: dict[str, Path], rows: Path, tmp_path: Path
) -> None:
    found = [
        gate(command, runs["champion"], runs["seed"], rows, tmp_path / str(number))[2]
        for number in range(2)
    ]
    for one in found:
        one.pop("judged_at")
        one["checks"] = [check for check in one["checks"] if check["key"] != "latency"]
    assert found[0] == found[1]


def test_mistakes_are_one_line_and_leave_nothing(
    command: Commands, runs: dict[str, Path], rows: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(runs["seed"] / "bundle", damaged)
    (damaged / "weights.safetensors").write_bytes(b"no weights")
    for challenger, test, fault in (
        (damaged, rows, "weights.safetensors was changed after the bundle was written"),
        (runs["champion"], rows, "predict with the same files: give two bundles"),
        (runs["seed"], tmp_path / "none.csv", "none.csv"),
    ):
        status, said, _ = gate(command, runs["champion"], challenger, test, tmp_path / "out")
        assert status == 1
        assert fault in said
        assert "Traceback" not in said
        assert not (tmp_path / "out").exists()
