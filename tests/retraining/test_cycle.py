"""Cycles: a folder that says what was done, whoever asks, and after any end."""

import json
import multiprocessing
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fakenews.errors import ConfigError, RetrainingError
from fakenews.retraining.cycle import STEPS, Cycle, Outcome, find, last_trained


def test_a_record_is_found_again(tmp_path: Path) -> None:
    cycle = Cycle.begin(tmp_path / "one", name="m", reason="new labels")
    assert "decide" not in cycle
    written = cycle.write("decide", Outcome.NEXT, "there is drift", champion=3, rows=[1, 2])
    again = Cycle.begin(tmp_path / "one", name="m", reason="another")
    assert again["decide"] == written
    assert again["decide"].facts == {"champion": 3, "rows": [1, 2]}
    # What was said when it began counts.
    assert again.origin.reason == "new labels"
    assert datetime.now(UTC) - written.at < timedelta(minutes=1)
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "cycle.json",
        "decide.json",
    ]


def test_a_step_that_is_not_done_is_named(tmp_path: Path) -> None:
    cycle = Cycle.begin(tmp_path / "one", name="m")
    with pytest.raises(RetrainingError, match="has not done step=train: do that first"):
        cycle["train"]


def test_a_cycle_ends_where_a_step_says_so_or_at_its_last(tmp_path: Path) -> None:
    cycle = Cycle.begin(tmp_path / "one", name="m")
    cycle.write("decide", Outcome.NEXT, "yes")
    assert cycle.end is None
    refused = cycle.write("gate", Outcome.END, "refused")
    assert cycle.end == refused
    other = Cycle.begin(tmp_path / "two", name="m")
    for step in STEPS[:-1]:
        last = other.write(step, Outcome.NEXT, "done")
    assert other.end == last


@pytest.mark.parametrize("name", ["..", "a/b", "-rf", "a b", "", "a" * 101])
def test_a_name_is_no_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no name"):
        find(tmp_path, name, name="m")


def test_a_cycle_is_of_one_model(tmp_path: Path) -> None:
    Cycle.begin(tmp_path / "one", name="m")
    with pytest.raises(ConfigError, match="is a cycle of name=m, not of other"):
        Cycle.begin(tmp_path / "one", name="other")


@pytest.mark.parametrize("damage", ["", "{", '{"step": "decide"}', "\x00"])
def test_a_damaged_record_is_named(damage: str, tmp_path: Path) -> None:
    cycle = Cycle.begin(tmp_path / "one", name="m")
    cycle.write("decide", Outcome.NEXT, "yes")
    (tmp_path / "one" / "decide.json").write_text(damage)
    with pytest.raises(RetrainingError, match=r"decide\.json is damaged: remove it"):
        Cycle.begin(tmp_path / "one", name="m")


def test_the_unfinished_cycle_is_meant(tmp_path: Path) -> None:
    assert find(tmp_path, None, name="m").parent == tmp_path
    first = Cycle.begin(tmp_path / "2026-01-01", name="m")
    other = Cycle.begin(tmp_path / "2026-01-02", name="other")
    assert find(tmp_path, None, name="m") == first.folder
    assert find(tmp_path, None, name="other") == other.folder
    assert find(tmp_path, "named", name="m") == tmp_path / "named"
    first.write("notify", Outcome.NEXT, "told")
    new = find(tmp_path, None, name="m")
    assert new not in (first.folder, other.folder)
    # Only a cycle that trained keeps the next from beginning.
    assert last_trained(tmp_path, name="m") is None
    first.write("train", Outcome.NEXT, "trained")
    assert last_trained(tmp_path, name="m") == first.origin.began
    assert last_trained(tmp_path, name="other") is None


def _hold(folder: Path) -> None:
    with Cycle.begin(folder, name="m").held("train"):
        time.sleep(60)


def test_one_process_works_on_a_cycle(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=_hold, args=(tmp_path / "one",)
    )
    process.start()
    holder = tmp_path / "one" / "cycle.holder.json"
    while not holder.is_file() or not holder.read_text():
        time.sleep(0.01)
    cycle = Cycle.begin(tmp_path / "one", name="m")
    with (
        pytest.raises(RetrainingError, match=f"=train of process {process.pid} on"),
        cycle.held("all"),
    ):
        pass
    # A killed process holds nothing.
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with cycle.held("all"):
        assert json.loads(holder.read_text())["pid"] == os.getpid()
    assert not holder.exists()


def test_what_cannot_be_written_is_not_done(tmp_path: Path) -> None:
    cycle = Cycle.begin(tmp_path / "one", name="m")
    (tmp_path / "one" / ".decide.json.tmp").mkdir()
    with pytest.raises(RetrainingError, match=r"decide\.json cannot be written"):
        cycle.write("decide", Outcome.NEXT, "yes")
    assert "decide" not in Cycle.begin(tmp_path / "one", name="m")
