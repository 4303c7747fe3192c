from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakenews.errors import ServingError
from fakenews.serving import versions as module
from fakenews.serving.management import Management
from fakenews.serving.store import put, read_archive
from fakenews.serving.versions import Timing, Versions

NAME = "fakenews"


@pytest.fixture
def versions(tmp_path: Path, client: Management) -> Versions:
    return Versions(
        name=NAME,
        client=client,
        timing=Timing(settle=0, deadline=0, poll=0.001),
        store=tmp_path / "model_store",
        log_file=tmp_path / "model_log.log",
    )


@pytest.fixture
def archived(stand_in: Any, make_mar: Callable[..., Path]) -> str:
    archive = read_archive(make_mar("a.b"), name=NAME)
    put(archive, stand_in.store)
    return archive.file


def test_a_version_has_as_many_workers_as_asked_or_as_its_archive_says(
    stand_in: Any, versions: Versions, archived: str
) -> None:
    assert versions.start("a.b", archived, None) == 1
    assert versions.start("a.b", archived, 3) == 3
    assert versions.registered()["a.b"].ready == 3
    # Unpacked, as a folder of the store: TorchServe has nothing to do but to take it.
    assert stand_in.models["a.b"]["url"] == "fakenews-a.b"


def test_workers_that_torchserve_gave_up_are_made_anew(
    stand_in: Any, versions: Versions, archived: str
) -> None:
    versions.start("a.b", archived, None)
    stand_in.models["a.b"]["looks"] = 0
    stand_in.asked.clear()
    assert versions.start("a.b", archived, 1) == 1
    assert stand_in.asked.count("PUT /models/fakenews/a.b") == 2


OTHER = "2026 [INFO ] W-9000-fakenews_a-b-stdout MODEL_LOG - ValueError: of another version\n"
LOG = """\
2026 [INFO ] W-9000-fakenews_a.b-stdout MODEL_LOG - Torch worker started.
2026 [INFO ] W-9000-fakenews_a.b-stdout MODEL_LOG -     raise ImportError("none")
2026 [INFO ] W-9000-fakenews_a.b-stdout MODEL_LOG - package.errors.BundleError: it is damaged
2026 [INFO ] W-9000-fakenews_a.b-stdout MODEL_LOG - TypeError: of the first
"""


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (LOG, "package.errors.BundleError: it is damaged"),
        ("", "it took longer than its 60 s, or was killed; see "),
        (None, "it took longer than its 60 s, or was killed; see "),
    ],
)
def test_a_worker_that_ends_while_it_loads_is_not_waited_for(
    stand_in: Any, versions: Versions, archived: str, log: str | None, reason: str
) -> None:
    file = stand_in.store.parent / "model_log.log"
    if log is not None:
        file.write_text("2026 [INFO ] W-1-fakenews_a.b-stdout MODEL_LOG - OSError: before\n")

    def fail(method: str, path: str) -> int | None:
        if (method, path) == ("POST", "/models") and log is not None:
            file.write_text(file.read_text() + OTHER + log)
        return None

    stand_in.fail = fail
    stand_in.never_ready.add("a.b")
    with pytest.raises(ServingError, match=r"a worker of version a\.b ended while") as caught:
        versions.start("a.b", archived, None)
    assert f" s: {reason}" in str(caught.value)


def test_a_log_that_was_begun_anew_is_read_from_its_start(
    stand_in: Any, versions: Versions, archived: str, tmp_path: Path
) -> None:
    file = tmp_path / "model_log.log"
    file.write_text("x" * 10_000)

    def fail(method: str, path: str) -> int | None:
        if (method, path) == ("POST", "/models"):
            file.write_text(LOG)
        return None

    stand_in.fail = fail
    stand_in.never_ready.add("a.b")
    with pytest.raises(ServingError, match=r"it is damaged$"):
        versions.start("a.b", archived, None)


def test_what_is_never_ready_is_not_waited_for_without_end(
    stand_in: Any, versions: Versions, archived: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_START", -60)
    describe = stand_in._describe
    stand_in.never_ready.add("a.b")
    stand_in._describe = lambda version: (
        describe(version) | {"workers": [{"id": "9000", "status": "UNLOADING", "pid": -1}]}
    )
    with pytest.raises(ServingError, match=r"not ready after 0 s \(0 of 1 workers\): see "):
        versions.start("a.b", archived, None)


def test_what_somebody_else_takes_away(
    stand_in: Any, versions: Versions, archived: str
) -> None:
    def fail(method: str, path: str) -> int | None:
        if method == "GET" and stand_in.asked.count(f"GET {path}") > 2:
            stand_in.models.clear()
        return None

    stand_in.fail = fail
    stand_in.never_ready.add("a.b")
    with pytest.raises(ServingError, match=r"version a\.b was unregistered by somebody else"):
        versions.start("a.b", archived, None)


def test_an_archive_that_turns_out_to_be_of_another_version(
    stand_in: Any, versions: Versions, archived: str
) -> None:
    with pytest.raises(ServingError, match="but has no version x since"):
        versions.start("x", archived, None)
    assert stand_in.models.keys() == {"a.b"}


def test_requests_of_others_are_waited_for_but_not_without_end(
    stand_in: Any,
    client: Management,
    archived: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    versions = Versions(
        name=NAME,
        client=client,
        timing=Timing(settle=0, deadline=0.05, poll=0.01),
        store=tmp_path / "model_store",
        log_file=tmp_path / "none",
    )
    versions.start("a.b", archived, None)
    describe = stand_in._describe
    waiting = iter([3, 2, 0])

    def counting(version: str) -> dict[str, Any]:
        status = {"remainingCapacity": 1, "pendingRequests": next(waiting, 0)}
        return dict(describe(version)) | {"jobQueueStatus": status}

    stand_in._describe = counting
    versions.end(["a.b"], drain=True)
    assert list(waiting) == []
    assert "are dropped" not in caplog.text
    versions.start("a.b", archived, None)
    waiting = iter([1] * 1000)
    versions.end(["a.b"], drain=True)
    assert "requests to version a.b are dropped" in caplog.text
    assert stand_in.models == {}
