"""What every request passes, whatever answers it: the name of the server, API keys, rates,
the size and the time of bodies, security headers, counts, and the last handler of errors.
"""

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from fakenews.serving.gateway.access import Access, client
from fakenews.serving.gateway.ids import new_id
from fakenews.serving.gateway.metrics import Metrics
from fakenews.serving.gateway.problems import Problem, error_body
from fakenews.serving.gateway.settings import Bounds

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

JSON_PATHS = frozenset({"/predict", "/explain", "/feedback"})
"""What takes a small body, and counts for rates."""
TABLES = "/predict/csv"
METRICS = "/metrics"
HEALTH = frozenset({"/health/live", "/health/ready"})
DOCS = frozenset({"/docs", "/openapi.json"})
DOCS_FILES = "/docs/files"
_KNOWN = JSON_PATHS | HEALTH | DOCS | {TABLES, METRICS, "/"}

# A table may take so many times as long to arrive as another body.
_TABLE_PATIENCE = 10

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]
_CSP = b"content-security-policy"
_CSP_API = (_CSP, b"default-src 'none'; frame-ancestors 'none'")
# Gradio writes its configuration and its styles into the page.
_CSP_PAGE = (
    _CSP,
    (
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        b"style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        b"connect-src 'self'; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
        b"form-action 'self'; frame-ancestors 'none'"
    ),
)
# Swagger UI is started by a line in the page, and draws its icons itself.
_CSP_DOCS = (
    _CSP,
    (
        b"default-src 'none'; script-src 'self' 'unsafe-inline'; "
        b"style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src 'self' data:; "
        b"frame-ancestors 'none'"
    ),
)


class Edge:
    """An ASGI application around another.

    Args:
        app: The other.
        access: Decides who may ask.
        bounds: Of requests.
        metrics: Counts.
        open_page: Whether what is no API needs no key.
        open_metrics: Whether the metrics need no key.
    """

    def __init__(
        self,
        app: App,
        *,
        access: Access,
        bounds: Bounds,
        metrics: Metrics,
        open_page: bool,
        open_metrics: bool,
    ) -> None:
        self._app = app
        self._access = access
        self._bounds = bounds
        self._metrics = metrics
        self._open = {*HEALTH, *([METRICS] if open_metrics else [])}
        self._open_page = open_page

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        """Answer a request."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})  # nothing here has any

    async def _http(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        start = time.perf_counter()
        path = scope["path"]
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = [*message.get("headers", ()), *_HEADERS]
                own = any(name == _CSP for name, _ in given)
                message["headers"] = given if own else [*given, _policy(path)]
            await send(message)

        try:
            body = await self._admit(scope, receive)
            await self._app(scope, body, answer)
        except Problem as problem:
            await respond(answer, problem)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 the last handler
            # FastAPI has answered already, and hands on what it could not handle.
            if not status:
                await respond_internal(answer, error)
        finally:
            name = path if path in _KNOWN else "other"
            self._metrics.requests.labels(name, status or 499).inc()
            self._metrics.latency.labels(name).observe(time.perf_counter() - start)

    async def _admit(self, scope: MutableMapping[str, Any], receive: Receive) -> Receive:
        """Refuse a request, or say how its body is read.

        Raises:
            Problem: It is refused.
        """
        path = scope["path"]
        headers = dict(scope["headers"])
        if path not in HEALTH:
            self._access.check_host(headers.get(b"host", b"").decode("latin-1"))
        api = path in JSON_PATHS or path == TABLES
        needed = api or (path not in self._open and not self._open_page)
        if path == METRICS:
            needed = path not in self._open
        who = self._access.identify(headers, needed=needed)
        # The page sends what it asks, too.
        if api or scope["method"] == "POST":
            address = (scope.get("client") or ("unknown",))[0]
            await self._access.admit(f"key {who}" if who else f"from {client(address)}")
        small = path in JSON_PATHS
        most = self._bounds.body_bytes if small else self._bounds.table_bytes
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > most:
            raise too_large(most)
        patience = self._bounds.body_seconds * (1 if small else _TABLE_PATIENCE)
        return _Body(receive, most, patience)


class _Body:
    """Reads a request's body, within its size and its time."""

    __slots__ = ("_complete", "_deadline", "_left", "_most", "_receive")

    def __init__(self, receive: Receive, most: int, seconds: float) -> None:
        self._receive = receive
        self._most = self._left = most
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._complete = False

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()  # that the client is gone
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise Problem(408, "slow_body", "the body did not arrive in time") from None
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise too_large(self._most)
            self._complete = not message.get("more_body", False)
        return message


def too_large(most: int) -> Problem:
    """A body is."""
    return Problem(413, "body_too_large", f"the body is too large: at most {most:,} bytes")


async def respond(send: Send, problem: Problem) -> None:
    """Answer with a problem."""
    headers = []
    if problem.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(round(problem.retry_after), 1)))
    if problem.status in (408, 413):
        headers.append((b"connection", b"close"))  # more of the body may be on its way
    if problem.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await _send_json(send, problem.status, problem.body, headers)


async def respond_internal(send: Send, error: Exception) -> None:
    """Answer with what nobody expected, and log it without what the user wrote."""
    identifier = new_id()
    frames = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    # Its message may quote the request.
    log.error("internal error %s: %s\n%s", identifier, type(error).__name__, frames)
    body = error_body("internal", f"something went wrong here: {identifier}", id=identifier)
    await _send_json(send, 500, body, [])


async def _send_json(
    send: Send, status: int, body: dict[str, Any], headers: list[tuple[bytes, bytes]]
) -> None:
    content = orjson.dumps(body)
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(content)),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": content})


def _policy(path: str) -> tuple[bytes, bytes]:
    if path in JSON_PATHS or path in HEALTH or path in (TABLES, METRICS):
        return _CSP_API
    return _CSP_DOCS if path == "/docs" else _CSP_PAGE
