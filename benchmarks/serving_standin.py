"""A server that answers at once: what the clients and the machine's network alone take."""

import asyncio
import json
import sys
from typing import Any

_BODY = json.dumps(
    {"label": "fake", "probabilities": {"fake": 0.9123456789, "real": 0.0876543211}}
).encode()
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    b"Content-Length: " + str(len(_BODY)).encode() + b"\r\n\r\n" + _BODY
)


class _Server(asyncio.Protocol):
    def __init__(self) -> None:
        from httptools import HttpRequestParser

        self._parser = HttpRequestParser(self)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._transport.write(_ANSWER)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(int(sys.argv[1])))
