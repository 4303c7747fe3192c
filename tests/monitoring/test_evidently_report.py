"""Evidently's report beside ours."""

import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fakenews.errors import MonitoringError
from fakenews.monitoring.account import Account
from fakenews.monitoring.evidently_report import write_evidently

VENV = Path(
    os.environ.get("EVIDENTLY_VENV") or Path(__file__).resolve().parents[2] / ".venv-evidently"
)


@pytest.fixture(scope="module")
def account(some_account: Callable[..., Account]) -> Account:
    return some_account(0.0, 1.0)


@pytest.mark.slow
def test_it_tells_of_what_the_window_has_and_loads_nothing(
    account: Account, tmp_path: Path
) -> None:
    page = write_evidently(account, tmp_path, python=str(VENV / "bin" / "python"))
    assert page == tmp_path / "evidently.html"
    content = page.read_text()
    assert account.rows is not None
    for key in (*account.rows.scored, "prediction"):
        assert key in content
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=.?https?:", content)
    assert list(tmp_path.iterdir()) == [page]


@pytest.mark.slow
def test_features_that_a_log_lacks_are_left_out(account: Account, tmp_path: Path) -> None:
    assert account.rows is not None
    lacking = replace(account, rows=replace(account.rows, columns={}))
    page = write_evidently(lacking, tmp_path, python=str(VENV / "bin" / "python"))
    assert page is not None
    content = page.read_text()
    assert "prediction.confidence" in content
    assert not [key for key in account.rows.columns if key in content]


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("no/such/python", "No such file or directory; give the Python of an environment"),
        (sys.executable, "no report: ModuleNotFoundError: No module named 'evidently'"),
        ("/bin/false", "no report: exit status 1"),
    ],
)
def test_an_interpreter_that_cannot_is_told_and_leaves_no_old_page(
    account: Account, tmp_path: Path, python: str, said: str
) -> None:
    (tmp_path / "evidently.html").write_text("of yesterday")
    with pytest.raises(MonitoringError, match=f"^evidently={re.escape(python)}: {said}"):
        write_evidently(account, tmp_path, python=python)
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written_is_told(account: Account, tmp_path: Path) -> None:
    (tmp_path / "evidently.html").mkdir()
    with pytest.raises(MonitoringError, match=r"evidently\.html: cannot be written \(Is a dir"):
        write_evidently(account, tmp_path, python="/bin/false")


def test_there_is_none_of_too_few_rows(no_account: Account, tmp_path: Path) -> None:
    assert write_evidently(no_account, tmp_path, python="/bin/false") is None
    assert list(tmp_path.iterdir()) == []
