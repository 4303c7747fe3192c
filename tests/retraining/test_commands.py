"""Commands as children: what they say, how they end, and that none is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from fakenews import launch
from fakenews.errors import RetrainingError
from fakenews.retraining.commands import run


def write(root: Path, source: str) -> Path:
    (root / "command.py").write_text(source)
    return root / "command.log"


def test_what_a_command_says_is_passed_on_and_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = write(tmp_path, "import sys\nprint(sys.argv[1:])\nprint('err', file=sys.stderr)")
    assert run("command.py", ["a=b c", "d"], root=tmp_path, log_file=log) == 0
    said = "['a=b c', 'd']\nerr\n"
    assert capfd.readouterr().out == said
    assert log.read_text() == f"$ python command.py 'a=b c' d\n{said}"
    run("command.py", [], root=tmp_path, log_file=log)
    assert log.read_text().count("$ python command.py") == 2


def test_of_a_progress_bar_the_last_state_is_a_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = write(
        tmp_path, "print('\\r10%\\r50%', end=''); print('\\r100%\\r'); print('end', end='')"
    )
    run("command.py", [], root=tmp_path, log_file=log)
    assert capfd.readouterr().out == "100%\nend\n"


def test_a_status_that_is_no_error(tmp_path: Path) -> None:
    log = write(tmp_path, "raise SystemExit(2)")
    assert run("command.py", [], root=tmp_path, log_file=log, ends=(0, 2)) == 2


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("print('x'); raise SystemExit('error: no such file')", "no such file"),
        ("print('last words'); raise SystemExit(3)", "last words"),
        ("raise SystemExit(1)", "it said nothing"),
        ("import os; os.kill(os.getpid(), 9)", "it said nothing"),
    ],
)
def test_an_error_has_its_own_word(source: str, word: str, tmp_path: Path) -> None:
    log = write(tmp_path, source)
    with pytest.raises(RetrainingError, match=rf"command\.py ended with status .*{word}.*log"):
        run("command.py", [], root=tmp_path, log_file=log)


def start(root: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, str(root)],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


PARENT = """
import sys
from pathlib import Path
from fakenews import cli
from fakenews.retraining.commands import run
root = Path(sys.argv[1])
cli.run(lambda: run("command.py", [], root=root, log_file=root / "command.log"))
"""
CHILD = """
import subprocess, sys, time
from pathlib import Path
from fakenews import cli
def command():
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        print(grandchild.pid, flush=True)
        time.sleep(60)
    finally:
        Path("saved").write_text("")
cli.run(command)
"""


def test_a_command_that_is_killed_ends_its_child(tmp_path: Path) -> None:
    write(tmp_path, CHILD)
    parent = start(tmp_path)
    assert parent.stdout is not None
    parent.stdout.readline()
    parent.kill()
    parent.communicate()
    wait_for((tmp_path / "saved").is_file)


def test_a_child_whose_parent_was_killed_before_it_began_ends(tmp_path: Path) -> None:
    write(tmp_path, CHILD)
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    done = subprocess.run(
        [sys.executable, "command.py"],
        cwd=tmp_path,
        env=os.environ | {launch.CHILD: str(gone.pid)},
        timeout=50,
        check=False,
    )
    assert done.returncode == -signal.SIGTERM
    assert not (tmp_path / "saved").exists()


def test_asked_to_end_it_lets_the_child_save(tmp_path: Path) -> None:
    log = write(tmp_path, CHILD)
    parent = start(tmp_path)
    assert parent.stdout is not None
    grandchild = int(parent.stdout.readline())
    parent.send_signal(signal.SIGTERM)
    _, err = parent.communicate(timeout=30)
    assert parent.returncode == 143
    assert b"terminated" in err
    assert (tmp_path / "saved").is_file()
    assert log.is_file()
    wait_for(lambda: not psutil.pid_exists(grandchild))
