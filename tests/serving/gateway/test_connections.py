"""The client of TorchServe, against servers that answer byte by byte what they are told."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fakenews.errors import ConfigError
from fakenews.serving.gateway.connections import Connections

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers each request with the next of some bytes; None closes the connection."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split()[0])
                self.requests.append(head + await reader.readexactly(length))
                answer = self.answers.pop(0)
                if answer is None:
                    break
                for byte in answer:
                    writer.write(bytes([byte]))
                    await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        writer.close()


def run(server: Server, test: Callable[[Connections], Awaitable[None]]) -> None:
    async def main() -> None:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        client = Connections(address=f"http://127.0.0.1:{port}", idle=2)
        await test(client)
        client.close()
        listening.close()
        await asyncio.sleep(0.01)

    asyncio.run(main())


async def post(client: Connections, body: bytes = b"{}") -> Any:
    return await client.post("/a/b", body, {"Authorization": "Bearer key"})


def test_a_connection_is_used_again() -> None:
    server = Server(OK, OK, OK)

    async def test(client: Connections) -> None:
        for _ in range(3):
            assert await post(client, b"body") == (200, b"ok")

    run(server, test)
    assert server.connections == 1
    first = server.requests[0]
    assert first.startswith(b"POST /a/b HTTP/1.1\r\nHost: 127.0.0.1:")
    assert first.endswith(b"Authorization: Bearer key\r\nContent-Length: 4\r\n\r\nbody")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", (503, b"")),
        (
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"
            ),
            (200, b"abcd"),
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, (200, b"ok")),
    ],
)
def test_answers_of_all_kinds(answer: bytes, expected: tuple[int, bytes]) -> None:
    server = Server(answer, OK)

    async def test(client: Connections) -> None:
        assert await post(client) == expected
        assert await post(client) == (200, b"ok")

    run(server, test)
    assert server.connections == 1


def test_a_server_that_closes_after_its_answer() -> None:
    closing = b"HTTP/1.1 400 Bad\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx"
    server = Server(closing, OK, None, OK)

    async def test(client: Connections) -> None:
        assert await post(client) == (400, b"x")
        assert await post(client) == (200, b"ok")
        with pytest.raises(ConnectionResetError):
            await post(client)
        assert await post(client) == (200, b"ok")

    run(server, test)
    assert server.connections == 3


def test_an_answer_cut_short_or_no_http() -> None:
    server = Server(b"\x16\x03\x01 nonsense", OK)

    async def test(client: Connections) -> None:
        with pytest.raises(OSError, match="no HTTP"):
            await post(client)
        assert await post(client) == (200, b"ok")

    run(server, test)


def test_who_gives_up_leaves_no_answer_to_the_next() -> None:
    server = Server(b"", OK)

    async def test(client: Connections) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await post(client)
        assert await post(client) == (200, b"ok")

    run(server, test)
    assert server.connections == 2


def test_few_connections_are_kept() -> None:
    server = Server(*[OK] * 10)

    async def test(client: Connections) -> None:
        await asyncio.gather(*(post(client) for _ in range(5)))
        assert len(client._idle) == 2
        await asyncio.gather(*(post(client) for _ in range(5)))

    run(server, test)
    assert server.connections == 5 + 3


def test_nobody_is_there() -> None:
    async def test() -> None:
        client = Connections(address="http://127.0.0.1:9", idle=1)
        with pytest.raises(ConnectionRefusedError):
            await post(client)

    asyncio.run(test())


@pytest.mark.parametrize("address", ["127.0.0.1:8080", "ftp://host", "http://"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ConfigError, match="is no address of a server"):
        Connections(address=address, idle=1)
