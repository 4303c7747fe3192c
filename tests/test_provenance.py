import importlib.metadata
import platform
import subprocess
from pathlib import Path

import pytest

from fakenews.provenance import all_packages, git, versions


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    (tmp_path / "a.txt").write_text("one\n")
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_commit_without_changes(repository: Path) -> None:
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True
    )
    assert git(repository) == {"commit": head.stdout.strip(), "diff": None}


def test_changes_are_a_diff_that_applies(repository: Path) -> None:
    (repository / "a.txt").write_text("two\n")
    diff = git(repository)["diff"]
    assert "-one\n+two" in diff
    subprocess.run(["git", "checkout", "-q", "."], cwd=repository, check=True)
    subprocess.run(["git", "apply"], cwd=repository, input=diff + "\n", text=True, check=True)
    assert (repository / "a.txt").read_text() == "two\n"


def test_changes_that_are_no_utf8_do_not_stop_a_run(repository: Path) -> None:
    (repository / "a.txt").write_bytes(b"caf\xe9\n")
    assert "+caf\ufffd" in git(repository)["diff"]


def test_outside_a_repository_there_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("FAKENEWS_COMMIT", raising=False)
    nothing = {"commit": None, "diff": None}
    assert git(tmp_path) == nothing
    assert git(tmp_path / "nowhere") == nothing
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git(Path(__file__).parent) == nothing


def test_an_image_tells_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("FAKENEWS_COMMIT", "abc")
    assert git(tmp_path) == {"commit": "abc", "diff": None}
    monkeypatch.setenv("FAKENEWS_COMMIT", "")
    assert git(tmp_path)["commit"] is None


def test_versions_are_those_that_run() -> None:
    found = versions("torch", "airflow")
    assert found["python"] == platform.python_version()
    assert found["torch"] == importlib.metadata.version("torch")
    assert "airflow" not in found


def test_all_packages_are_pins_in_order() -> None:
    packages = all_packages()
    assert packages == sorted(set(packages))
    assert f"numpy=={importlib.metadata.version('numpy')}" in packages
