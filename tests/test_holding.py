import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from fakenews.errors import ServingError
from fakenews.holding import holding

HOLDER = """
import sys
from pathlib import Path
from fakenews.errors import ServingError
from fakenews.holding import holding
lock = Path(sys.argv[1]) / "deploy.lock"
with holding(lock, work="deployment", action="canary", error=ServingError):
    print("held", flush=True)
    sys.stdin.read()
"""


hold = partial(holding, work="deployment", error=ServingError)


def test_another_process_is_told_who_is_at_it(tmp_path: Path) -> None:
    folder = tmp_path / "deployment"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(ServingError, match="another deployment is under way") as caught,
            hold(folder / "deploy.lock", action="deploy", patience=0.01),
        ):
            pass
        who = f"action=canary of process {holder.pid} on {socket.gethostname()}, since 2"
        assert who in str(caught.value)
        # However it ends.
        holder.kill()
    with hold(folder / "deploy.lock", action="deploy"):
        assert str(os.getpid()) in (folder / "deploy.holder.json").read_text()
    assert not (folder / "deploy.holder.json").exists()


def test_who_is_at_it_may_be_unknown_yet(tmp_path: Path) -> None:
    lock = tmp_path / "deploy.lock"
    with hold(lock, action="deploy"):
        (tmp_path / "deploy.holder.json").write_text("{")
        with pytest.raises(ServingError, match="it has just begun"), hold(lock, action="x"):
            pass


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_folder_that_is_a_file_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ServingError, match=f"{name} is a file, or lies below one: choose"),
        hold(tmp_path / name / "deploy.lock", action="deploy"),
    ):
        pass
