import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "deploy.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_status_of_nothing_makes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "deployment"
    done = _run(f"serve.dir={folder}")
    assert done.returncode == 0, done.stderr
    assert "nothing is deployed" in done.stdout
    assert not folder.exists()


def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = _run("action=deploy", "archive=none.mar", f"serve.dir={tmp_path / 'deployment'}")
    assert done.returncode == 1
    assert done.stderr == ("error: none.mar does not exist: give the archive of an export\n")
    assert list(tmp_path.iterdir()) == []
