import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakenews.errors import ConfigError, TrainingError
from fakenews.tracking.folder import LAST, RunFolder, discard_empty, find_run

HOLD = """
import sys, time
from pathlib import Path
from fakenews.tracking.folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_by_another(folder: Path) -> Iterator[None]:
    """Another process works in the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
    finally:
        process.communicate(timeout=30)


def make_run(path: Path, state: str | None, *, checkpoint: bool = True) -> Path:
    (path / LAST).parent.mkdir(parents=True)
    if checkpoint:
        (path / LAST).touch()
    if state is not None:
        (path / "run.json").write_text(json.dumps({"state": state}))
    return path


def test_record_grows_and_survives_the_process(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a" / "b")
    folder.note(state="running", mlflow_run_id="x")
    folder.note(state="finished")
    folder.release()
    again = RunFolder(tmp_path / "a" / "b")
    assert again.record == {"state": "finished", "mlflow_run_id": "x"}
    again.release()
    assert not list((tmp_path / "a" / "b").glob("*.tmp"))


@pytest.mark.parametrize("broken", ["", '{"state": "run', "[1]", "\x00\x00"])
def test_broken_record_counts_as_none_and_is_replaced(broken: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(broken)
    folder = RunFolder(tmp_path)
    assert folder.record == {}
    folder.note(state="running")
    assert folder.record == {"state": "running"}
    folder.release()


def test_last_checkpoint_is_there_when_it_was_saved(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.last_checkpoint is None
    (tmp_path / LAST).parent.mkdir()
    (tmp_path / LAST).touch()
    assert folder.last_checkpoint == tmp_path / LAST
    folder.release()


def test_second_process_is_told_so_in_one_line(tmp_path: Path) -> None:
    with held_by_another(tmp_path):
        with pytest.raises(TrainingError, match="is in use by another process") as caught:
            RunFolder(tmp_path)
        assert "\n" not in str(caught.value)
    RunFolder(tmp_path).release()


def test_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate(timeout=30)
    folder = RunFolder(tmp_path)
    assert (tmp_path / ".lock").exists()
    folder.release()


@pytest.mark.parametrize("state", ["running", "interrupted", "failed"])
def test_auto_takes_the_latest_unfinished_run(state: str, tmp_path: Path) -> None:
    make_run(tmp_path / "2026-01-01", "interrupted")
    latest = make_run(tmp_path / "2026-01-02", state)
    make_run(tmp_path / "2026-01-03", "finished")
    make_run(tmp_path / "2026-01-04", "running", checkpoint=False)
    make_run(tmp_path / "2026-01-05", None)
    (make_run(tmp_path / "2026-01-06", None) / "run.json").write_text("{broken")
    (tmp_path / "notes.txt").touch()
    assert find_run(tmp_path, "auto") == latest


def test_auto_neither_takes_nor_passes_over_a_run_in_use(tmp_path: Path) -> None:
    make_run(tmp_path / "1", "interrupted")
    busy = make_run(tmp_path / "2", "running")
    with held_by_another(busy), pytest.raises(TrainingError, match="another process works on"):
        find_run(tmp_path, "auto")
    assert find_run(tmp_path, "auto") == busy


def test_auto_finds_nothing_where_nothing_is(tmp_path: Path) -> None:
    make_run(tmp_path / "1", "finished")
    assert find_run(tmp_path, "auto") is None
    assert find_run(tmp_path / "nowhere", "auto") is None


def test_folder_is_taken_by_its_path_if_it_has_a_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path / "1", "interrupted")
    assert find_run(tmp_path / "other", str(run)) == run
    with pytest.raises(ConfigError, match=r"last\.ckpt does not exist; give a run folder"):
        find_run(tmp_path, str(make_run(tmp_path / "2", "running", checkpoint=False)))


def test_a_finished_run_is_not_continued(tmp_path: Path) -> None:
    run = make_run(tmp_path / "1", "finished")
    with pytest.raises(TrainingError, match="the run is finished, its bundle is"):
        find_run(tmp_path, str(run))


def start(path: Path) -> Path:
    """What Hydra writes before a job begins."""
    (path / ".hydra").mkdir(parents=True)
    (path / ".hydra" / "config.yaml").touch()
    (path / "train.log").touch()
    return path


def test_a_folder_in_which_nothing_began_is_removed(tmp_path: Path) -> None:
    discard_empty(start(tmp_path / "news" / "1"))
    assert not (tmp_path / "news").exists()
    start(tmp_path / "news" / "1")
    held = RunFolder(start(tmp_path / "news" / "2"))
    (held.path / "tensorboard").mkdir()
    discard_empty(held.path)
    assert [path.name for path in (tmp_path / "news").iterdir()] == ["1"]
    held.release()


@pytest.mark.parametrize("name", ["run.json", "notes.txt", "checkpoints"])
def test_a_folder_with_anything_else_stays(name: str, tmp_path: Path) -> None:
    (start(tmp_path / "1") / name).mkdir()
    discard_empty(tmp_path / "1")
    assert (tmp_path / "1" / ".hydra" / "config.yaml").exists()


def test_a_folder_that_hydra_did_not_make_stays(tmp_path: Path) -> None:
    (tmp_path / "train.log").touch()
    discard_empty(tmp_path)
    discard_empty(tmp_path / "nowhere")
    assert (tmp_path / "train.log").exists()


def test_a_folder_that_another_process_works_in_stays(tmp_path: Path) -> None:
    start(tmp_path / "1")
    with held_by_another(tmp_path / "1"):
        discard_empty(tmp_path / "1")
        assert (tmp_path / "1" / "train.log").exists()
