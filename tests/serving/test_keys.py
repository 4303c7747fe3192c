import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from fakenews.errors import ServingError
from fakenews.serving import keys as module
from fakenews.serving.keys import Keys, Refused, Unreachable


def _keys(stand_in: Any) -> Keys:
    return Keys(stand_in.key_file, address=stand_in.address)


def test_keys_are_read_again_when_torchserve_has_written_others(stand_in: Any) -> None:
    keys = _keys(stand_in)
    assert (keys.inference(), keys.management()) == ("i", "m")
    stand_in.keys["inference"] = ("other", datetime.now(UTC) + timedelta(hours=1))
    stand_in.write_keys()
    assert (keys.inference(), keys.management()) == ("other", "m")


def test_a_refused_key_is_replaced_once_however_many_ask(stand_in: Any) -> None:
    mine, theirs = _keys(stand_in), _keys(stand_in)
    assert mine.inference() == theirs.inference() == "i"
    mine.refresh()
    new = mine.inference()
    assert new != "i"
    # They find what we have had made.
    theirs.refresh()
    assert theirs.inference() == new
    theirs.refresh("inference", refused="i")
    assert theirs.inference() == mine.inference() == new
    assert mine.management() == "m"
    # What is refused and still current is replaced.
    theirs.refresh()
    assert theirs.inference() == mine.inference() != new


def test_threads_that_meet_a_refused_key_share_the_new_one(stand_in: Any) -> None:
    keys = _keys(stand_in)
    made: list[str] = []
    answer = stand_in.answer

    def counting(method: str, url: str, body: Any, key: str) -> Any:
        made.append(url)
        return answer(method, url, body, key)

    stand_in.answer = counting
    threads = [threading.Thread(target=keys.refresh, kwargs={"refused": "i"}) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["/token?type=inference"]


def test_keys_that_end_soon_are_replaced_before(stand_in: Any) -> None:
    keys = _keys(stand_in)
    stand_in.keys["inference"] = ("i", datetime.now(UTC) + timedelta(seconds=20))
    stand_in.write_keys()
    keys.refresh_expiring(10)
    assert (keys.inference(), keys.management()) == ("i", "m")
    keys.refresh_expiring(30)
    assert keys.inference() != "i"
    assert keys.management() == "m"


def test_half_a_file_is_read_again(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = _keys(stand_in)
    whole = stand_in.key_file.read_text()
    stand_in.key_file.write_text(whole[:40])
    later = threading.Timer(0.05, stand_in.key_file.write_text, (whole,))
    later.start()
    assert keys.inference() == "i"
    later.join()
    monkeypatch.setattr(module, "_HALF_WRITTEN", 0.02)
    for content in (whole[:40], "", "[]", json.dumps({"management": {"key": 1}})):
        stand_in.key_file.write_text(content)
        with pytest.raises(ServingError, match=r"key_file\.json is damaged"):
            _keys(stand_in).inference()


def test_no_file_and_no_torchserve(stand_in: Any, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="does not exist: start TorchServe"):
        Keys(tmp_path / "none.json", address=stand_in.address).inference()
    with pytest.raises(ServingError, match="cannot be read: Is a directory"):
        Keys(tmp_path, address=stand_in.address).inference()
    dead = Keys(stand_in.key_file, address="http://127.0.0.1:9")
    with pytest.raises(Unreachable, match=r"cannot be reached at http://127\.0\.0\.1:9"):
        dead.refresh()


def test_keys_of_another_torchserve(stand_in: Any) -> None:
    stand_in.api_key = "another"
    with pytest.raises(Refused, match="are of another TorchServe") as caught:
        _keys(stand_in).refresh()
    assert caught.value.status == 400
    assert '"i"' not in str(caught.value)


def test_a_process_that_never_ends_its_refresh(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOCK_PATIENCE", 0.01)
    with (
        FileLock(stand_in.key_file.with_suffix(".lock")),
        pytest.raises(ServingError, match=r"key_file\.lock has been locked for"),
    ):
        _keys(stand_in).refresh()
