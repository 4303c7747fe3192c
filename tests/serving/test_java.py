import stat
from pathlib import Path

import pytest

from fakenews.errors import ServingError
from fakenews.serving.java import java_home


def _java(home: Path, script: str) -> Path:
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return home


def _version(version: str) -> str:
    return f"echo 'openjdk version \"{version}\" 2025-04-15' >&2"


@pytest.mark.parametrize("version", ["17", "17.0.15", "21.0.2", "25-ea"])
def test_a_java_that_is_new_enough(tmp_path: Path, version: str) -> None:
    home = _java(tmp_path / "java", _version(version))
    assert java_home(str(home)) == home


def test_java_is_found_where_java_home_says_else_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = _java(tmp_path / "one", _version("17"))
    two = _java(tmp_path / "two", _version("21"))
    monkeypatch.setenv("PATH", f"{one}/bin:/bin:/usr/bin")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert java_home(None) == one
    monkeypatch.setenv("JAVA_HOME", str(two))
    assert java_home(None) == two
    assert java_home(str(one)) == one


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (_version("11.0.2"), "is Java 11, too old for TorchServe"),
        (_version("1.8.0_292"), "is Java 8, too old for TorchServe"),
        ("echo Unrecognised; exit 3", r"does not say its version \(Unrecognised\)"),
        ("exit 3", r"does not say its version \(exit status 3\)"),
    ],
)
def test_a_java_that_will_not_do(tmp_path: Path, script: str, reason: str) -> None:
    home = _java(tmp_path / "java", script)
    with pytest.raises(ServingError, match=f"{home}/bin/java {reason}: install Java 17"):
        java_home(str(home))


def test_no_java_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServingError, match=r"java cannot be run \(No such file"):
        java_home(str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(ServingError, match="TorchServe needs Java, and there is none: install"):
        java_home(None)
