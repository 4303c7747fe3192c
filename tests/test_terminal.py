"""What is shown where nobody reads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SHOWS = "from fakenews.terminal import show; show('first'); show('second')"
LOGS = """
import logging
from fakenews.launch import OutputHandler
logging.basicConfig(handlers=[OutputHandler(sys.stdout)])
for number in range(3):
    logging.error("line %d", number)
"""


Ended = tuple[subprocess.CompletedProcess[str], str]


def run(program: str, done: Path, *, reader: bool) -> Ended:
    """A program whose output is read, or is not from its start."""
    read, write = os.pipe()
    if not reader:
        os.close(read)
    with os.fdopen(write, "w") as output:
        ended = subprocess.run(
            [
                *(sys.executable, "-c"),
                f"import sys\n{program}\nfrom pathlib import Path\nPath({str(done)!r}).touch()",
            ],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    if not reader:
        return ended, ""
    with os.fdopen(read) as shown:
        return ended, shown.read()


@pytest.mark.parametrize(
    ("program", "said"),
    [(SHOWS, "first\nsecond\n"), (LOGS, "".join(f"ERROR:root:line {n}\n" for n in range(3)))],
    ids=["shown", "logged"],
)
def test_the_work_goes_on_without_a_reader(program: str, said: str, tmp_path: Path) -> None:
    assert run(program, tmp_path / "read", reader=True)[1] == said
    ended, _ = run(program, tmp_path / "unread", reader=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["read", "unread"]


def test_a_line_that_is_none_is_reported() -> None:
    program = f"import sys\n{LOGS}\nlogging.error('%d', 'a')"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "--- Logging error ---" in ended.stderr
