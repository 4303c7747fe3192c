"""What tests of alerts share: verdicts, and servers that take messages, or do not."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from fakenews.monitoring.verdict import Check, Kind, Span, State, Verdict

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)

MakeVerdict = Callable[..., Verdict]


@pytest.fixture
def make_verdict() -> MakeVerdict:
    """A verdict of so many hours after the first; its checks by their keys."""

    def make(hours: float = 0, *, model: str = "fakenews", **states: State) -> Verdict:
        at = NOW + timedelta(hours=hours)
        return Verdict(
            model=model,
            model_version="1a2b",
            checked_at=at,
            window=Span(start=at - timedelta(days=1), end=at, rows=1200, labelled=30),
            checks=tuple(
                Check(
                    key=key,
                    kind=Kind.DRIFT,
                    state=state,
                    message=f"{key} was looked at.",
                    value=0.25,
                    threshold=0.1,
                    p_value=0.001,
                    effect=1.5,
                    unit="sd",
                    details={"examples": ["a text of a user"]},
                )
                for key, state in states.items()
            ),
            report="https://example.org/report.html",
        )

    return make


@dataclass
class Receiver:
    """An HTTP server that writes down what it gets, and answers as it is told to."""

    address: str
    got: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Of the next requests; after them 200."""
    hang: float = 0
    """Seconds before each answer."""


@pytest.fixture
def receiver() -> Iterator[Callable[[], Receiver]]:
    """Starts such servers."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(_receiver())


@contextmanager
def _receiver() -> Iterator[Receiver]:
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.got.append(json.loads(body))
            found.headers.append(dict(self.headers))
            ended.wait(found.hang)
            status, headers = found.answers.pop(0) if found.answers else (200, {})
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()
            except OSError:  # who asked has gone
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Receiver(f"http://127.0.0.1:{server.server_port}/alerts")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


def wait_until(true: Callable[[], object], seconds: float = 10) -> None:
    """Wait for something that a server does."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
