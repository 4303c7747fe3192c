"""What is handed over to a cluster, as text, and what is refused before."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def train(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            str(ROOT / "train.py"),
            f"paths.root={folder}",
            "name=run",
            *overrides,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def shown(folder: Path, *overrides: str) -> str:
    done = train(folder, "cluster.dry_run=true", *overrides)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert list(folder.iterdir()) == []
    return done.stdout


def refusal(folder: Path, *overrides: str) -> str:
    done = train(folder, *overrides)
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not (folder / "runs").exists()
    return done.stderr


def test_each_rank_gets_what_was_typed_but_for_the_cluster(tmp_path: Path) -> None:
    plan = shown(
        tmp_path, "cluster=torchrun", "cluster.processes=3", "optimizer.lr=1e-3", "model=text"
    )
    assert plan.endswith(
        f"{ROOT}/train.py paths.root={tmp_path} name=run optimizer.lr=1e-3 model=text\n"
    )
    assert "--nproc-per-node=3" in plan
    assert "--standalone" in plan


def test_gpus_bring_their_trainer(tmp_path: Path) -> None:
    script = shown(tmp_path, "cluster=slurm", "cluster.nodes=4", "cluster.gpus=8")
    for option in ("nodes=4", "gpus-per-node=8", "ntasks-per-node=8"):
        assert f"#SBATCH --{option}\n" in script
    assert script.count("trainer=gpu") == 1


def test_options_of_sbatch_and_lines_of_shell_as_the_readme_has_them(tmp_path: Path) -> None:
    script = shown(
        tmp_path,
        "cluster=slurm",
        'cluster.setup=["module load cuda"]',
        "cluster.options={constraint: a100}",
        "cluster.time=12:00:00",
    )
    assert "\nmodule load cuda\n" in script
    assert "#SBATCH --constraint=a100\n" in script
    assert "#SBATCH --time=12:00:00\n" in script


def test_a_trainer_that_was_chosen_stays(tmp_path: Path) -> None:
    assert "trainer=gpu" not in shown(
        tmp_path, "cluster=slurm", "cluster.gpus=2", "trainer=ddp"
    )


def test_latest_run_is_found_once_for_all_ranks(tmp_path: Path) -> None:
    # There is none: a new run, of which all ranks know the name.
    assert "resume" not in shown(tmp_path, "cluster=torchrun", "resume=auto")


def test_all_mistakes_are_found_before_anything_is_submitted(tmp_path: Path) -> None:
    error = refusal(tmp_path, "cluster=slurm", "optimizer.lr=-1", "trainer.max_epochs=a")
    assert "optimizer.lr" in error or "trainer.max_epochs" in error


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (
            ["cluster=torchrun", "cluster.nodes=2"],
            "cluster.endpoint is not set: give HOST:PORT",
        ),
        (
            ["cluster=torchrun", "cluster.endpoint=host:99999", "cluster.id=a"],
            "cluster.endpoint is host:99999: give",
        ),
        (["cluster=torchrun", "cluster.id=a/b"], "cluster.id=a/b: use letters"),
        (["cluster=torchrun", "cluster.processes=0"], "cluster.processes=0"),
        (["-m", "seed=0,1", "cluster=slurm"], "add sweep=grid"),
        (["-m", "sweep=random", "cluster=torchrun"], "sweep.workers=N"),
        (["cluster.dry_run=true"], "cluster=torchrun"),
    ],
)
def test_what_does_not_go_together(tmp_path: Path, overrides: list[str], fault: str) -> None:
    assert fault in refusal(tmp_path, *overrides)


def test_no_slurm_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    error = refusal(tmp_path, "cluster=slurm")
    assert "there is no sbatch here" in error
    assert error.count("\n") == 1
