"""scripts/install.sh, from indexes and folders of the test's own."""

import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")

pytestmark = pytest.mark.skipif(not UV.exists(), reason="the environment was not made by make")


def write_wheel(folder: Path, name: str, version: str = "1.0") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    about = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"version = {version!r}\n")
        wheel.writestr(f"{about}/METADATA", metadata)
        wheel.writestr(f"{about}/WHEEL", tags)
        wheel.writestr(f"{about}/RECORD", "")


class Index:
    """A package index on this machine, whose pages are lists of files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        handler = partial(Quiet, directory=str(folder))
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def add(self, name: str, version: str = "1.0") -> None:
        write_wheel(self.folder / name, name, version)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def indexes(tmp_path: Path) -> Iterator[list[Index]]:
    found = [Index(tmp_path / name) for name in ("first", "second")]
    yield found
    for each in found:
        each.server.shutdown()
        each.server.server_close()


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """An environment that has uv already."""
    folder = tmp_path / "venv"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", folder],
        check=True,
    )
    (folder / "bin" / "uv").symlink_to(UV)
    return folder


def install(venv: Path, *arguments: str, status: int = 0, **variables: str) -> str:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        ["bash", ROOT / "scripts" / "install.sh", venv, "--no-cache", *arguments],
        env=kept | {"PIP_CONFIG_FILE": os.devnull} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


def version(venv: Path, name: str) -> str:
    # Without bytecode: another version may look like the same file.
    command = [venv / "bin" / "python", "-B", "-c", f"import {name}; print({name}.version)"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def test_packages_come_from_where_pip_is_told(
    venv: Path, indexes: list[Index], tmp_path: Path
) -> None:
    first, second = indexes
    first.add("fnone")
    second.add("fnone", "3.0")
    second.add("fntwo")
    write_wheel(tmp_path / "wheels", "fnthree", "2.0")
    settings = tmp_path / "pip.conf"
    settings.write_text(
        f"[global]\nindex-url = {first.url}\nextra-index-url = {second.url} file:///no/such/index\n"
        f"[install]\nfind-links = {tmp_path}/wheels\n"
    )
    names = ("fnone", "fntwo", "fnthree")
    install(venv, *names, PIP_CONFIG_FILE=str(settings))
    # The best of all indexes, as pip chooses.
    assert [version(venv, name) for name in names] == ["3.0", "1.0", "2.0"]


def test_a_variable_of_pip_wins_over_its_file_and_one_of_uv_over_both(
    venv: Path, indexes: list[Index], tmp_path: Path
) -> None:
    first, second = indexes
    first.add("fnone", "1.0")
    second.add("fnone", "2.0")
    settings = tmp_path / "pip.conf"
    settings.write_text(f"[global]\nindex-url = {first.url}\n")
    given = {"PIP_CONFIG_FILE": str(settings), "PIP_INDEX_URL": second.url}
    install(venv, "fnone", **given)
    assert version(venv, "fnone") == "2.0"
    install(venv, "--reinstall", "fnone", UV_DEFAULT_INDEX=first.url, **given)
    assert version(venv, "fnone") == "1.0"


def test_what_cannot_be_had_fails(venv: Path, indexes: list[Index]) -> None:
    said = install(venv, "fnone", status=1, PIP_INDEX_URL=indexes[0].url)
    assert "fnone was not found in the package registry" in said
