"""What is handed over to a cluster, as text, and what is refused before."""

import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import execution_whitelist

from fakenews.cluster.start import start
from fakenews.config import CONF, TARGETS, register_resolvers
from fakenews.errors import ClusterError, ConfigError

Command = Callable[..., CompletedProcess[str]]

Shown = Callable[..., str]


@pytest.fixture
def shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shown:
    """Starts what `python train.py OVERRIDES` would; gives what is printed."""
    monkeypatch.setattr(sys, "argv", ["/code/train.py"])

    def run(*overrides: str, sweep: bool = False, dry: bool = True) -> str:
        register_resolvers()
        own = [f"paths.root={tmp_path}", "name=run", *(["cluster.dry_run=true"] if dry else [])]
        with initialize_config_dir(str(CONF)):
            config = compose("train", [*own, *overrides], return_hydra_config=True)
        with execution_whitelist(TARGETS):
            assert start(config, sweep=sweep) == 0
        assert list(tmp_path.iterdir()) == []
        return capsys.readouterr().out

    return run


def test_each_rank_gets_what_was_typed_but_for_the_cluster(
    shown: Shown, tmp_path: Path
) -> None:
    plan = shown("cluster=torchrun", "cluster.processes=3", "optimizer.lr=1e-3", "model=text")
    assert plan.endswith(
        f"/code/train.py paths.root={tmp_path} name=run optimizer.lr=1e-3 model=text\n"
    )
    assert "--nproc-per-node=3" in plan
    assert "--standalone" in plan


def test_gpus_bring_their_trainer(shown: Shown) -> None:
    script = shown("cluster=slurm", "cluster.nodes=4", "cluster.gpus=8")
    for option in ("nodes=4", "gpus-per-node=8", "ntasks-per-node=8"):
        assert f"#SBATCH --{option}\n" in script
    assert script.count("trainer=gpu") == 1
    assert "trainer=gpu" not in shown("cluster=slurm", "cluster.gpus=2", "trainer=ddp")


def test_lines_of_shell_and_a_limit_as_the_readme_has_them(shown: Shown) -> None:
    script = shown(
        "cluster=slurm", 'cluster.setup=["module load cuda"]', "cluster.time=12:00:00"
    )
    assert "\nmodule load cuda\n" in script
    assert "#SBATCH --time=12:00:00\n" in script


def test_latest_run_is_found_once_for_all_ranks(shown: Shown) -> None:
    # There is none: a new run, of which all ranks know the name.
    assert "resume" not in shown("cluster=torchrun", "resume=auto")


def test_all_mistakes_are_found_before_anything_is_submitted(shown: Shown) -> None:
    with pytest.raises(ConfigError) as caught:
        shown("cluster=slurm", "optimizer.lr=a", "trainer.max_epochs=a")
    assert len(caught.value.faults) == 2


@pytest.mark.parametrize(
    ("overrides", "sweep", "fault"),
    [
        (["cluster=torchrun", "cluster.nodes=2"], False, "cluster.endpoint is not set: give"),
        (
            ["cluster=torchrun", "cluster.endpoint=host:99999", "cluster.id=a"],
            False,
            "cluster.endpoint is host:99999: give",
        ),
        (["cluster=torchrun", "cluster.id=a/b"], False, "cluster.id=a/b: use letters"),
        (["cluster=torchrun", "cluster.processes=0"], False, "cluster.processes=0"),
        (
            ["cluster=slurm", "cluster.gpus=8", "trainer.devices=4"],
            False,
            "trainer.devices=4 and cluster.processes=8 differ",
        ),
        (["cluster=slurm"], True, "add sweep=grid"),
        (["sweep=random", "cluster=torchrun"], True, "sweep.workers=N"),
    ],
)
def test_what_does_not_go_together(
    shown: Shown, overrides: list[str], sweep: bool, fault: str
) -> None:
    with pytest.raises(Exception, match=fault.replace("[", ".")):
        shown(*overrides, sweep=sweep)


def test_no_slurm_is_one_line(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ClusterError, match="there is no sbatch here"):
        shown("cluster=slurm", dry=False)


def test_command_shows_it_and_leaves_nothing(command: Command, tmp_path: Path) -> None:
    done = command(
        "train.py",
        "cluster=slurm",
        "cluster.dry_run=true",
        "cluster.options={constraint: a100}",
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "#SBATCH --constraint=a100\n" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_mistake_is_one_line_and_leaves_nothing(command: Command, tmp_path: Path) -> None:
    done = command(
        "train.py", "cluster=torchrun", "cluster.nodes=2", "cluster.id=a", cwd=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: cluster.endpoint is not set")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
