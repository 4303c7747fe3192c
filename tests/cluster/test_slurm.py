"""Batch scripts of SLURM."""

import shutil
import subprocess
from pathlib import Path

import pytest

from fakenews.cluster.job import Job
from fakenews.cluster.slurm import Slurm
from fakenews.errors import ClusterError

JOB = Job(name="news", run_id="mine", overrides=("seed=1", "data.path=a b's.csv"))


def test_options_that_are_not_given_are_those_of_the_cluster() -> None:
    script = Slurm().plan(JOB)
    for name in ("mem", "time", "partition", "account", "gpus", "cpus-per-task", "array"):
        assert f"#SBATCH --{name}" not in script


def test_options_of_sbatch_and_lines_of_shell() -> None:
    script = Slurm(
        options={"constraint": "a100", "mail_type": "END", "exclusive": True},
        setup=["module load cuda"],
        cpus=4,
    ).plan(JOB)
    assert "#SBATCH --constraint=a100\n" in script
    assert "#SBATCH --mail-type=END\n" in script
    assert "#SBATCH --exclusive\n" in script
    assert script.index("module load cuda") < script.index("srun")
    # srun does not take this from the script.
    assert "export SRUN_CPUS_PER_TASK=4\n" in script


def test_script_is_sound_and_keeps_what_was_typed(tmp_path: Path) -> None:
    for name in ("srun", "scontrol"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\nfor x; do echo "{name} $x"; done\nexit 143\n')
        program.chmod(0o755)
    done = subprocess.run(
        [shutil.which("bash") or "bash"],
        input=Slurm().plan(JOB),
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "srun data.path=a b's.csv\n" in done.stdout
    # It was told to stop, and has more to do.
    assert "scontrol requeue\nscontrol 7\n" in done.stdout
    assert done.returncode == 143


def test_a_job_that_fails_is_not_queued_again() -> None:
    script = Slurm(requeue=False).plan(JOB)
    assert "scontrol" not in script
    assert "#SBATCH --no-requeue\n" in script


def test_a_sweep_is_an_array() -> None:
    job = Job(name="news", run_id="mine", overrides=("sweep=optuna",), sweep=True)
    script = Slurm(nodes=8, processes=2).plan(job)
    assert "#SBATCH --array=0-7\n" in script
    assert "#SBATCH --nodes=1\n" in script
    assert "#SBATCH --ntasks-per-node=1\n" in script
    assert "train.py -m sweep=optuna\n" in script or "-m sweep=optuna" in script


def test_an_option_is_one_line() -> None:
    with pytest.raises(ClusterError, match="comment has a line break"):
        Slurm(options={"comment": "a\n#SBATCH --uid=0"}).plan(JOB)
