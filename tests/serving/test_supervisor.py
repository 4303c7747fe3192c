"""Servers that are kept running."""

import threading
import time

import pytest

from fakenews.errors import ServingError
from fakenews.serving.supervisor import Keeper


class Server:
    """Does as it is told."""

    def __init__(self) -> None:
        self.running = False
        self.begun = self.ended = 0
        self.faults: list[Exception] = []
        self.again = threading.Event()

    def begin(self) -> None:
        self.begun += 1
        if self.faults:
            raise self.faults.pop(0)
        self.running = True
        if self.begun > 1:
            self.again.set()

    def end(self) -> None:
        self.ended += 1
        self.running = False

    def keeper(self) -> Keeper:
        return Keeper(
            name="the server",
            begin=self.begin,
            alive=lambda: self.running,
            end=self.end,
            poll=0.01,
            pause=0.02,
        )


def test_what_ends_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    keeper = server.keeper()
    keeper.start()
    server.running = False
    assert server.again.wait(10)
    keeper.stop()
    assert server.begun == 2
    assert not server.running
    assert "the server has ended: it is started again in 0.02 s" in caplog.text
    time.sleep(0.1)
    assert server.begun == 2


def test_it_is_tried_until_it_starts(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    keeper = server.keeper()
    keeper.start()
    server.faults = [ServingError("a port is taken"), ValueError("a bug")]
    server.running = False
    assert server.again.wait(10)
    keeper.stop()
    assert server.begun == 4
    assert "a port is taken" in caplog.text
    assert "the server cannot start: a bug" in caplog.text
    assert "ValueError: a bug" in caplog.text


def test_the_first_start_must_work() -> None:
    server = Server()
    server.faults = [ServingError("no")]
    with pytest.raises(ServingError, match="no"):
        server.keeper().start()
    assert (server.begun, server.ended) == (1, 1)


def test_a_stop_ends_a_start_that_is_under_way() -> None:
    server = Server()
    keeper = server.keeper()
    keeper.start()
    ending = threading.Event()
    begin = server.begin

    def slow() -> None:
        begin()
        if not ending.wait(10):
            raise AssertionError
        raise ServingError("it was stopped")

    def end() -> None:
        ending.set()
        server.running = False

    keeper._begin, keeper._end = slow, end
    ending.clear()
    server.running = False
    assert server.again.wait(10)
    keeper.stop()
    assert not keeper._thread.is_alive()


def test_stopping_one_that_was_never_started() -> None:
    server = Server()
    server.keeper().stop()
    assert server.begun == 0
