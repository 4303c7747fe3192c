from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakenews.errors import ServingError
from fakenews.serving.keys import Keys, Refused, Unreachable
from fakenews.serving.management import Management
from fakenews.serving.store import put, read_archive, unpack

NAME = "fakenews"


def _failing(times: int, status: int) -> Callable[[str, str], int | None]:
    left: Iterator[int | None] = iter([status] * times)
    return lambda method, path: next(left, None)


@pytest.fixture
def folder_of(stand_in: Any, make_mar: Callable[..., Path]) -> Callable[[str], str]:
    def put_in(version: str) -> str:
        archive = read_archive(make_mar(version), name=NAME)
        put(archive, stand_in.store)
        return unpack(stand_in.store, archive.file)

    return put_in


def test_a_version_is_registered_scaled_asked_and_unregistered(
    client: Management, folder_of: Callable[[str], str]
) -> None:
    assert client.answers()
    assert client.health() == "Healthy"
    assert (client.versions(NAME), client.models(), client.default(NAME)) == ({}, {}, None)
    client.register(NAME, folder_of("a"))
    client.register(NAME, folder_of("b"))
    assert client.default(NAME) == "a"
    client.set_default(NAME, "b")
    assert client.default(NAME) == "b"
    client.scale(NAME, "b", 2)
    client.describe(NAME, "b")
    found = client.describe(NAME, "b")
    assert found is not None
    assert (found.wanted, found.ready, found.waiting, found.archive) == (
        2,
        2,
        0,
        "fakenews-b",
    )
    assert client.versions(NAME).keys() == {"a", "b"}
    assert client.describe(NAME, "c") is None
    assert client.predict(NAME, "a", {"text": "x"})["model_version"] == "a"
    client.unregister(NAME, "a")
    # It is not there any more, which is all that was asked.
    client.unregister(NAME, "a")
    assert client.models() == {NAME: "b"}


def test_what_torchserve_says_is_told_in_one_line(
    stand_in: Any, client: Management, folder_of: Callable[[str], str]
) -> None:
    client.register(NAME, folder_of("a"))
    client.register(NAME, folder_of("b"))
    with pytest.raises(Refused) as caught:
        client.unregister(NAME, "a")
    assert str(caught.value) == (
        f"{stand_in.address} answers 403 to DELETE /models/fakenews/a: Cannot remove default"
    )
    assert caught.value.status == 403
    stand_in.fail = lambda method, path: 400
    with pytest.raises(
        Refused, match=r"answers 400 to GET /models/fakenews/all: asked to fail$"
    ):
        client.versions(NAME)


@pytest.mark.parametrize("status", [500, 503])
def test_what_may_be_done_twice_is_tried_again(
    stand_in: Any, client: Management, folder_of: Callable[[str], str], status: int
) -> None:
    client.register(NAME, folder_of("a"))
    calls: list[Callable[[], object]] = [
        lambda: client.versions(NAME),
        lambda: client.scale(NAME, "a", 1),
        lambda: client.set_default(NAME, "a"),
        lambda: client.predict(NAME, "a", {"text": "x"}),
        lambda: client.unregister(NAME, "a"),
    ]
    for call in calls:
        stand_in.fail = _failing(3, status)
        call()
    for call in calls:
        stand_in.fail = _failing(4, status)
        with pytest.raises(Refused) as caught:
            call()
        assert caught.value.status == status


def test_what_may_not_be_done_twice_is_not(
    stand_in: Any, client: Management, folder_of: Callable[[str], str]
) -> None:
    stand_in.fail = _failing(1, 500)
    with pytest.raises(Refused):
        client.register(NAME, folder_of("a"))
    assert stand_in.asked == ["POST /models"]
    stand_in.asked.clear()
    stand_in.fail = _failing(9, 404)
    assert client.versions(NAME) == {}
    assert len(stand_in.asked) == 1


def test_a_key_that_has_expired_is_replaced_in_passing(
    stand_in: Any, client: Management, folder_of: Callable[[str], str]
) -> None:
    stand_in.expire("management")
    client.register(NAME, folder_of("a"))
    stand_in.expire("inference")
    assert client.predict(NAME, "a", {"text": "x"})["model_version"] == "a"
    assert client.answers()


def test_keys_of_another_torchserve_are_refused(stand_in: Any, client: Management) -> None:
    stand_in.expire("management")
    stand_in.api_key = "another"
    with pytest.raises(Refused, match="are of another TorchServe"):
        client.versions(NAME)


def test_nobody_answers(stand_in: Any) -> None:
    keys = Keys(stand_in.key_file, address=stand_in.address)
    nowhere = "http://127.0.0.1:9"
    with Management(management=nowhere, inference=nowhere, keys=keys, pause=0.001) as client:
        assert not client.answers()
        for call in (lambda: client.versions(NAME), lambda: client.register(NAME, "a")):
            with pytest.raises(
                Unreachable, match=r"cannot be reached at http://127\.0\.0\.1:9"
            ):
                call()


def test_somebody_else_answers(stand_in: Any, client: Management) -> None:
    stand_in.answer = lambda *_: (200, None)
    with pytest.raises(ServingError, match=r"it is no TorchServe$"):
        client.versions(NAME)
