"""Clients that each send their next request as soon as the last one is answered.

They live in a process of their own that reads jobs and writes results, a line of JSON each.
Requests are made beforehand and answers parsed in C, so that the clients take little of the
machine that the servers run on; `serving_standin.py` shows how little.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

_HOST = "127.0.0.1"
# Seconds that requests under way may take after the last one was sent.
_PATIENCE = 120
# Seconds in which as many answers as wanted should have come.
_LONGEST = 30


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the clients do.

    Attributes:
        port: Of the server, on this machine.
        requests: Whole HTTP requests, sent in this order, again and again.
        clients: How many at once.
        seconds: How long answers count; 0 with `count`.
        warm_up: Seconds before, of which answers do not count.
        minimum: Answers to wait for even if they take longer, up to half a minute.
        count: Send so many requests, in place of `seconds`.
        collect: Return what was answered, too.
    """

    port: int
    requests: Sequence[str]
    clients: int = 1
    seconds: float = 0.0
    warm_up: float = 0.0
    minimum: int = 1
    count: int | None = None
    collect: bool = False


@dataclass(kw_only=True)
class Load:
    """What came of a job.

    Attributes:
        seconds: In which answers counted.
        latencies: Of these answers, in seconds.
        failures: How many requests failed, by status or by what happened.
        bodies: What was answered to each request, in their order, if it was asked for.
        cpu_share: Of a core, that the clients themselves took.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    bodies: list[str] = field(default_factory=list)
    cpu_share: float = 0.0


class LoadError(Exception):
    """The process of the clients died."""


class Clients:
    """The process of the clients; within `with`."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, job: Job) -> Load:
        """Do a job.

        Raises:
            LoadError: The process died.
        """
        pipes = self._process
        assert pipes.stdin is not None  # noqa: S101 they are pipes
        assert pipes.stdout is not None  # noqa: S101
        try:
            pipes.stdin.write(json.dumps(asdict(job)) + "\n")
            pipes.stdin.flush()
            return Load(**json.loads(pipes.stdout.readline()))
        except (OSError, json.JSONDecodeError) as error:
            raise LoadError("the process of the clients died") from error


def post(
    path: str,
    body: str,
    *,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> str:
    """A whole HTTP request."""
    fields = {
        "Host": _HOST,
        "Content-Type": content_type,
        "Content-Length": str(len(body.encode())),
    } | dict(headers or {})
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", body])


class _Run:
    """What the clients of a job share."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.load = Load()
        self.failures: Counter[str] = Counter()
        self.requests = [request.encode() for request in job.requests]
        self.bodies: dict[int, bytes] = {}
        self.sent = 0
        self.under_way = 0
        self.begin = time.perf_counter() + job.warm_up
        self.finished = asyncio.Event()

    def next(self) -> int | None:
        """Number of the next request, or None if there are enough."""
        number = self.sent
        if self._enough():
            if not self.under_way:
                self.finished.set()
            return None
        self.sent += 1
        self.under_way += 1
        return number

    def answered(self, number: int, started: float, status: int, body: bytes) -> None:
        """Count an answer."""
        now = time.perf_counter()
        self.under_way -= 1
        if status != 200:
            self.failures[f"status {status}: {body[:200].decode(errors='replace')}"] += 1
        elif now >= self.begin and not self._over(now):
            self.load.latencies.append(now - started)
            self.load.seconds = now - self.begin
        if self.job.collect:
            self.bodies[number] = body

    def failed(self, what: str) -> None:
        """Count a request without an answer."""
        self.under_way -= 1
        self.failures[what] += 1

    def _enough(self) -> bool:
        # A server that refuses requests would be asked thousands of times.
        if self.failures.total() > 10 * self.job.clients:
            return True
        if self.job.count is not None:
            return self.sent >= self.job.count
        return self._over(time.perf_counter())

    def _over(self, now: float) -> bool:
        if self.job.count is not None:
            return False
        few = len(self.load.latencies) < self.job.minimum
        seconds = self.job.seconds
        return now - self.begin > (max(seconds, _LONGEST) if few else seconds)


class _Client(asyncio.Protocol):
    def __init__(self, run: _Run, reconnect: Callable[[], None]) -> None:
        from httptools import HttpResponseParser

        self._run = run
        self._reconnect = reconnect
        self._parser: Any = HttpResponseParser(self)
        self._number: int | None = None
        self._done = False
        self._started = 0.0
        self._body: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._number is None:
            return
        body = b"".join(self._body)
        self._run.answered(self._number, self._started, self._parser.get_status_code(), body)
        self._number = None
        self._body.clear()
        if self._parser.should_keep_alive():
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._number is not None:
            self._run.failed(f"connection lost ({exc})")
            self._number = None
        if not self._done:
            self._reconnect()

    def _send(self) -> None:
        self._number = self._run.next()
        if self._number is None:
            self._done = True
            self._transport.close()
            return
        self._started = time.perf_counter()
        requests = self._run.requests
        self._transport.write(requests[self._number % len(requests)])


async def _do(job: Job) -> Load:
    loop = asyncio.get_running_loop()
    run = _Run(job)
    tasks: set[asyncio.Task[None]] = set()

    def connect() -> None:
        if run.finished.is_set():
            return
        task = loop.create_task(client())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def client() -> None:
        try:
            await loop.create_connection(lambda: _Client(run, connect), _HOST, job.port)
        except OSError as error:
            run.failures[f"no connection ({error.strerror})"] += 1
            run.finished.set()

    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(job.clients):
        connect()
    longest = job.warm_up + max(job.seconds, _LONGEST) + _PATIENCE
    try:
        async with asyncio.timeout(longest if job.count is None else None):
            await run.finished.wait()
    except TimeoutError:
        run.failures["no answer"] += run.under_way
    # The last answer that counted may be long past.
    run.load.seconds = max(run.load.seconds, job.seconds)
    run.load.cpu_share = (time.process_time() - cpu) / (time.perf_counter() - wall)
    run.load.failures = dict(run.failures)
    run.load.bodies = [run.bodies[at].decode() for at in sorted(run.bodies)]
    return run.load


def main() -> None:
    """Do jobs until there are no more."""
    import uvloop

    for line in sys.stdin:
        load = uvloop.run(_do(Job(**json.loads(line))))
        sys.stdout.write(json.dumps(asdict(load)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
