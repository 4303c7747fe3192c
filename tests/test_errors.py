"""What stopped the work, however it arrives, and how people are told to go on."""

import pytest

from fakenews.errors import Interrupted, TrainingError, interruption, resumable


def hidden(stop: BaseException) -> BaseException:
    """As a library raises that fails while it tidies up."""
    try:
        try:
            raise stop
        finally:
            raise KeyError("half built")
    except KeyError as error:
        return error


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Interrupted("SIGTERM", status=143)])
def test_what_stopped_the_work_is_found_behind_another_error(stop: BaseException) -> None:
    assert interruption(stop) is stop
    assert interruption(hidden(stop)) is stop


def test_an_error_of_ours_says_what_it_is_about() -> None:
    error = TrainingError("no room")
    error.__cause__ = KeyboardInterrupt()
    assert interruption(error) is None
    assert interruption(hidden(ValueError("no"))) is None


@pytest.mark.parametrize(
    ("stop", "status"),
    [
        (KeyboardInterrupt(), 130),
        (Interrupted("SIGTERM", status=143), 143),
        (hidden(Interrupted("SIGTERM", status=143)), 143),
    ],
)
def test_who_is_interrupted_is_told_how_to_go_on(stop: BaseException, status: int) -> None:
    with (
        pytest.raises(Interrupted, match=r"^run it again$") as told,
        resumable("run it again"),
    ):
        raise stop
    assert told.value.status == status
    assert told.value.__cause__ is stop


@pytest.mark.parametrize("error", [ValueError("no"), TrainingError("no"), SystemExit(3)])
def test_what_failed_is_told_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as told, resumable("run it again"):
        raise error
    assert told.value is error
