"""Sweeps on a PostgreSQL that dies, refuses, and is met by many at once."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fakenews.tuning.queue import has_failed, is_counted, why_failed
from fakenews.tuning.storage import open_storage, release
from fixtures.sweeps import Sweep, finished, one_runs_after

pytestmark = [
    pytest.mark.slow,
    # MLflow's own use of SQLAlchemy.
    pytest.mark.filterwarnings("ignore:The ..noload.. loader"),
]


@pytest.fixture
def postgres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["Postgres"]:
    # Where Debian has them.
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    monkeypatch.setenv("PATH", os.pathsep.join([os.environ["PATH"], *map(str, folders)]))
    if shutil.which("initdb") is None:
        pytest.skip("PostgreSQL is not installed")
    server = Postgres(tmp_path / "postgres")
    yield server
    server.kill()


class Postgres:
    """A real server, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.port = _free_port()
        # It refuses to run as root.
        self.user: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
            for parent in folder.parents:
                if not parent.stat().st_mode & 0o001:
                    parent.chmod(parent.stat().st_mode | 0o011)
            self.user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        self._run("initdb", "-D", str(folder / "data"), "-U", "sweep", "-A", "trust", "-N")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://sweep@127.0.0.1:{self.port}/postgres"

    def _run(self, *command: str) -> None:
        subprocess.run([*self.user, *command], check=True, capture_output=True, cwd=self.folder)

    def start(self) -> None:
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [
                *(*self.user, "postgres", "-D", str(self.folder / "data")),
                *("-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder)),
            ],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            ready = subprocess.run(
                ["pg_isready", "-h", "127.0.0.1", "-p", str(self.port)],
                check=False,
                capture_output=True,
            )
            if ready.returncode == 0:
                return
            time.sleep(0.1)
        raise AssertionError("PostgreSQL does not start")

    def kill(self) -> None:
        assert self.process is not None
        main = psutil.Process(self.process.pid)
        processes = [main, *main.children(recursive=True)] if main.is_running() else []
        for process in processes:
            # One that served a connection may have ended meanwhile.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def test_sweep_survives_its_database(sweep: Sweep, postgres: Postgres) -> None:
    sweep.storage = postgres.url
    process = sweep.start("sweep.n_trials=6", "sweep.workers=2")
    before = sweep.wait_for(one_runs_after(2))
    postgres.kill()
    time.sleep(4)
    assert process.poll() is None
    postgres.start()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    after = sweep.trials()
    assert not [why_failed(trial) for trial in after if has_failed(trial)]
    assert sum(map(is_counted, after)) == len(finished(after)) == 6
    assert finished(before).items() <= finished(after).items()


def test_wrong_password_and_lost_database_are_one_line(
    sweep: Sweep, postgres: Postgres
) -> None:
    sweep.storage = postgres.url.replace("sweep@", "nobody@")
    process = sweep.start("sweep.n_trials=1")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'role "nobody" does not exist' in output
    assert "Traceback" not in output


def test_storage_of_postgres_is_made_by_many_at_once(postgres: Postgres) -> None:
    code = "import sys; from fakenews.tuning.storage import open_storage as o; o(sys.argv[1])"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, postgres.url], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    storage = open_storage(postgres.url)
    try:
        assert storage.get_all_studies() == []
    finally:
        release(storage)
