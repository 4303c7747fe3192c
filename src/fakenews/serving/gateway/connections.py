"""A client of one HTTP server, which does what the gateway needs of one and is quick at it.

Every prediction passes here, on cores that the model needs: a general client takes as long
for a request as all the rest of the gateway does.
"""

import asyncio
from collections.abc import Mapping
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import httptools

from fakenews.errors import ConfigError


class Response(NamedTuple):
    """An answer: its HTTP status, and its body."""

    status: int
    content: bytes


class Connections:
    """Keeps connections to a server.

    Args:
        address: URL of the server.
        idle: Connections kept for the next request.

    Raises:
        ConfigError: The address is none.
    """

    def __init__(self, *, address: str, idle: int) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{address} is no address of a server: write http://HOST:PORT")
        self._host = parts.hostname
        self._secure = parts.scheme == "https"
        self._port = parts.port or (443 if self._secure else 80)
        self._named = f"Host: {parts.netloc.rpartition('@')[2]}\r\n"
        self._most_idle = idle
        self._idle: list[_Connection] = []

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Response:
        """Send a request, and wait for its answer; cancel it to give it up.

        Args:
            path: Of the URL, as it is sent.
            body: Of the request.
            headers: Beside those of every request.

        Raises:
            OSError: The server cannot be reached, or ends the connection, or answers with
                what is no HTTP.
        """
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = (
            f"POST {path} HTTP/1.1\r\n{self._named}{lines}Content-Length: {len(body)}\r\n\r\n"
        )
        connection = await self._connection()
        try:
            response = await connection.ask(head.encode("latin-1"), body)
        except BaseException:
            connection.close()
            raise
        if connection.usable and len(self._idle) < self._most_idle:
            self._idle.append(connection)
        else:
            connection.close()
        return response

    def close(self) -> None:
        """Close the connections that are idle."""
        while self._idle:
            self._idle.pop().close()

    async def _connection(self) -> "_Connection":
        while self._idle:
            # The one used last: the server has had the least time to end it.
            connection = self._idle.pop()
            if connection.usable:
                return connection
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(
            _Connection, self._host, self._port, ssl=self._secure or None
        )
        return made


class _Connection(asyncio.Protocol):
    """One connection; the methods `on_...` are called by the parser."""

    def __init__(self) -> None:
        self.usable = True
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Response] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []

    async def ask(self, head: bytes, body: bytes) -> Response:
        transport = self._transport
        assert transport is not None  # noqa: S101 it is connected
        self._answer = asyncio.get_running_loop().create_future()
        transport.writelines((head, body))
        return await self._answer

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(OSError(f"the server answers with no HTTP: {error}"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._end(exc if isinstance(exc, OSError) else ConnectionResetError("it was closed"))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # it only says that it has begun
            return
        # Until it is asked again, the server has nothing to say.
        self.usable = self.usable and self._parser.should_keep_alive()
        content = b"".join(self._body)
        self._body.clear()
        # One parser reads one answer after another, as long as they are told apart.
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Response(status, content))
        else:
            self.close()

    def _end(self, error: OSError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
