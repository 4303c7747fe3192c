"""`scripts/deploy.py` as a person runs it."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

Command = Callable[..., CompletedProcess[str]]


def test_status_of_nothing_makes_nothing(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "deployment"
    done = command("scripts/deploy.py", f"serve.dir={folder}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nothing is deployed" in done.stdout
    assert not folder.exists()


def test_a_mistake_is_one_line_and_leaves_nothing(command: Command, tmp_path: Path) -> None:
    done = command(
        "scripts/deploy.py",
        "action=deploy",
        "archive=none.mar",
        f"serve.dir={tmp_path / 'deployment'}",
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert done.stderr == ("error: none.mar does not exist: give the archive of an export\n")
    assert list(tmp_path.iterdir()) == []
