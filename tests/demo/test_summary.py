"""The page of a demonstration, of a story that is made up."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from fakenews.demo.job import demo
from fakenews.demo.story import Event, Story
from fakenews.demo.summary import over_time, write
from fakenews.demo.traffic import Window
from fakenews.errors import ConfigError

EVENTS = [
    (0, "trained", "version 1", None),
    (3, "the world drifts", "<b>rule</b>", None),
    (5, "alarm", "decay", "monitoring-5.html"),
    (5, "promoted", "version 2", None),
    (7, "refused", "worse", "gate.html"),
]


@pytest.fixture
def story(tmp_path: Path) -> Story:
    found = Story(out=tmp_path, root=tmp_path, address="http://127.0.0.1:8000", rows=400)
    for score in (0.9, 0.9, 0.9, 0.6, 0.6, 0.8, 0.8, 0.8):
        found.windows.append(
            Window(
                rows=400,
                versions={"v": 1.0},
                average_precision=score,
                macro_f1=score - 0.05,
                failed=0,
            )
        )
    for after, what, detail, page in EVENTS:
        at = datetime(2026, 1, 1, tzinfo=UTC)
        found.events.append(Event(at=at, after=after, what=what, detail=detail, page=page))
    return found


def test_a_story_is_told_on_one_page(story: Story) -> None:
    path = write(story, seconds=600, orchestrator="airflow")
    page = path.read_text(encoding="utf-8")
    assert "Retrained by Airflow, in 10 minutes" in page
    # Before, after the drift, after the promotion.
    assert [f"<b>{score}</b>" in page for score in ("0.900", "0.600", "0.800")] == [True] * 3
    assert '<a href="gate.html">report</a>' in page
    assert "&lt;b&gt;rule&lt;/b&gt;" in page
    assert 'src="data:image/png;base64,' in page
    assert "http" not in page.replace("http-equiv", "")
    assert (story.out / "plots" / "performance.png").stat().st_size > 10_000


def test_events_stand_between_their_windows(story: Story) -> None:
    (axes,) = over_time(story).axes
    words = {text.get_text(): text.xy[0] for text in axes.texts}
    assert words["alarm\npromoted"] == 5.5
    assert words["the world drifts"] == 3.5
    assert len(axes.lines[0].get_xdata()) == 8


def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ConfigError, match="files that are of no demonstration"):
        demo(out=str(tmp_path), root=str(tmp_path))
    assert (tmp_path / "mine.txt").read_text() == "x"
