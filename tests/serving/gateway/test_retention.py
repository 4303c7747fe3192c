"""What is too old is removed, and nothing else is."""

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakenews.serving.gateway.retention import remove_old

if TYPE_CHECKING:
    from conftest import Running

TODAY = date(2026, 11, 20)


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "predictions/date=2026-08-21/a.parquet",
        "predictions/date=2026-08-22/a.parquet",
        "predictions/date=2026-11-20/a.parquet",
        "predictions/date=2025-13-01/a.parquet",
        "predictions/date=2025-01-01.bak/a.parquet",
        "predictions/date=2025-1-1/a.parquet",
        "predictions/old/date=2025-01-01/a.parquet",
        "predictions/open/a.jsonl",
        "predictions/notes.txt",
        "feedback/2026-07.jsonl",
        "feedback/2026-08.jsonl",
        "feedback/2025-13.jsonl",
        "feedback/2025.jsonl",
        "state.json",
    ):
        write(tmp_path / "deployment" / name)
    return tmp_path / "deployment"


def test_only_dates_that_are_too_old(folder: Path) -> None:
    before = files(folder)
    remove_old(folder, days=None, today=TODAY)
    assert files(folder) == before
    remove_old(folder, days=90, today=TODAY)
    assert before - files(folder) == {
        "predictions/date=2026-08-21/a.parquet",
        "feedback/2026-07.jsonl",
    }
    assert not (folder / "predictions/date=2026-08-21").exists()
    remove_old(folder, days=90, today=TODAY)
    remove_old(folder / "nothing", days=90, today=TODAY)


def test_links_are_left_alone(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "a.parquet")
    (folder / "predictions/date=2020-01-01").symlink_to(tmp_path / "elsewhere")
    (folder / "predictions/date=2020-01-02").write_text("a file")
    remove_old(folder, days=1, today=TODAY)
    assert (tmp_path / "elsewhere" / "a.parquet").exists()
    assert (folder / "predictions/date=2020-01-02").exists()


def test_a_gateway_removes_them(start: "Callable[..., Running]", tmp_path: Path) -> None:
    now = datetime.now(UTC)
    dates = [(now - timedelta(days=days)).date() for days in (5, 2, 0)]
    paths = [tmp_path / f"deployment/predictions/date={each}/a.parquet" for each in dates]
    for path in paths:
        write(path)
    start({"log.keep_days": 3})
    deadline = time.monotonic() + 20
    while paths[0].exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert [path.exists() for path in paths] == [False, True, True]


def test_what_cannot_be_removed_is_told_and_stops_nothing(
    start: "Callable[..., Running]",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("shutil.rmtree", refuse)
    write(tmp_path / "deployment/predictions/date=2020-01-01/a.parquet")
    gateway = start({"log.segment_seconds": 0.01})
    assert "logged" not in gateway.predict("a")[0]
    gateway.stop()
    assert "what is too old cannot be removed" in caplog.text
    # Lines became Parquet all the same.
    assert len(list((tmp_path / "deployment/predictions").glob("date=*/*.parquet"))) == 2
