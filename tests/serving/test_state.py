import json
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from fakenews.errors import ServingError
from fakenews.serving import state as module
from fakenews.serving.state import (
    Canary,
    State,
    Version,
    abort_canary,
    change_state,
    now,
    read_state,
)


def _versions(*names: str, workers: int = 1) -> dict[str, Version]:
    return {
        name: Version(archive=f"fakenews-{name}.mar", workers=workers, added=now())
        for name in names
    }


def _write(folder: Path, **values: object) -> State:
    return change_state(folder, name="fakenews", change=lambda state: state.but(**values))


def test_there_is_a_state_of_nothing_before_the_first(tmp_path: Path) -> None:
    state = read_state(tmp_path / "none", name="fakenews")
    assert (state.champion, state.workers, state.routed) == (None, {}, set())
    assert not (tmp_path / "none").exists()


def test_a_state_is_written_as_the_contract_has_it(tmp_path: Path) -> None:
    _write(
        tmp_path,
        versions=_versions("a", "b", "c"),
        champion="a",
        previous="b",
        canary=Canary(version="c", share=0.1),
    )
    content = json.loads((tmp_path / "state.json").read_text())
    assert content.keys() == {
        "format",
        "name",
        "versions",
        "champion",
        "previous",
        "canary",
        "shadow",
        "aborted",
        "events",
    }
    assert content["format"] == 1
    assert content["versions"]["a"].keys() == {"archive", "workers", "added"}
    assert content["canary"] == {"version": "c", "share": 0.1}
    assert content["versions"]["a"]["added"].endswith("Z")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json", "state.lock"]
    state = read_state(tmp_path, name="other")
    assert state.name == "fakenews"
    assert state.routed == {"a", "c"}
    assert [state.roles(name) for name in "abcd"] == [
        ["champion"],
        ["previous"],
        ["canary"],
        [],
    ]


def test_what_is_kept_for_a_rollback_alone_needs_no_workers(tmp_path: Path) -> None:
    state = _write(tmp_path, versions=_versions("a") | _versions("b", workers=0), champion="a")
    assert state.workers == {"a": 1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Invalid JSON"),
        ('{"format": 1, "na', "Invalid JSON"),
        ('{"format": 2, "name": "x"}', "format: "),
        ('{"format": 1, "name": "x", "champion": "a"}', "version a is not among its versions"),
        ('{"format": 1, "name": "x", "other": 1}', "other: "),
    ],
)
def test_a_damaged_state_is_refused_and_left_alone(
    tmp_path: Path, text: str, reason: str
) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    for use in (lambda: read_state(tmp_path, name="x"), lambda: _write(tmp_path)):
        with pytest.raises(ServingError, match="is damaged") as caught:
            use()
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)
    assert path.read_text() == text


def test_a_failed_change_leaves_the_state_and_no_files(tmp_path: Path) -> None:
    before = _write(tmp_path, versions=_versions("a"), champion="a")
    with pytest.raises(ValueError, match="version b is not among"):
        _write(tmp_path, champion="b")
    assert read_state(tmp_path, name="fakenews") == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_change_of_nothing_writes_nothing(tmp_path: Path) -> None:
    _write(tmp_path, versions=_versions("a"))
    before = (tmp_path / "state.json").stat()
    change_state(tmp_path, name="fakenews", change=lambda state: state)
    assert (tmp_path / "state.json").stat() == before


def test_changes_at_once_are_all_kept_and_readers_never_meet_half(tmp_path: Path) -> None:
    _write(tmp_path, champion=None)
    done = threading.Event()
    faults: list[Exception] = []

    def read() -> None:
        while not done.is_set():
            try:
                read_state(tmp_path, name="fakenews")
            except ServingError as error:
                faults.append(error)

    def note(number: int) -> None:
        details = iter([f"{number} {time}" for time in range(10)])
        for _ in range(10):
            change_state(
                tmp_path,
                name="fakenews",
                change=lambda state: state.noting("x", None, next(details)),
            )

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=note, args=(number,)) for number in range(4)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert faults == []
    events = read_state(tmp_path, name="fakenews").events
    assert len({event.detail for event in events}) == 40


def test_only_the_latest_events_are_kept() -> None:
    state = State(name="fakenews")
    for number in range(103):
        state = state.noting("x", None, str(number))
    assert [event.detail for event in state.events][:: len(state.events) - 1] == ["3", "102"]


def test_a_lock_that_is_not_given_back_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    with (
        FileLock(tmp_path / "state.lock"),
        pytest.raises(ServingError, match=r"state\.lock has been locked for"),
    ):
        _write(tmp_path)


def test_the_gateway_gives_up_a_canary_and_nothing_else(tmp_path: Path) -> None:
    assert not abort_canary(tmp_path, "errors")
    assert not (tmp_path / "state.json").exists()
    _write(tmp_path, versions=_versions("a", "b"), champion="a")
    assert not abort_canary(tmp_path, "errors")
    before = _write(tmp_path, canary=Canary(version="b", share=0.5))
    assert not abort_canary(tmp_path, "errors", version="a")
    assert abort_canary(tmp_path, "3 errors in 50", version="b")
    after = read_state(tmp_path, name="fakenews")
    assert after.aborted is not None
    assert (after.aborted.version, after.aborted.reason) == ("b", "3 errors in 50")
    assert after.events[-1].action == "abort"
    assert after.but(aborted=None, events=()) == before.but(canary=None)
