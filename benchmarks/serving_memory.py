"""Memory of this project's servers while they answer many requests."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from serving_load import Clients, Job
from serving_ours import Gateway, part_of
from serving_process import ServerError
from serving_server import Setup, Way
from tqdm import tqdm

_PARTS = 10
_CLIENTS = 32
# Requests after which caches, pools and the heap are as large as they will be.
_SETTLED = 2000


def memory(way: Way, setup: Setup, texts: Sequence[str], *, requests: int) -> dict[str, Any]:
    """Resident memory of each process after each tenth of the requests.

    Requests are of one text each, all different, and go through the gateway to the worker.

    Args:
        way: Of the gateway.
        setup: Of the servers.
        texts: Each gets a number for each request.
        requests: How many, after some that do not count.

    Raises:
        ServerError: A server cannot be started, or a request was not answered.
    """
    server = Gateway(way, setup)
    with Clients() as clients, tqdm(total=requests, desc="memory", unit="request") as bar:
        try:
            server.start()
            sent = _send(server, clients, texts, first=0, count=min(_SETTLED, requests))
            marks = [_resident(server)]
            counts = [0]
            for part in range(1, _PARTS + 1):
                count = requests * part // _PARTS - counts[-1]
                sent = _send(server, clients, texts, first=sent, count=count)
                counts.append(counts[-1] + count)
                marks.append(_resident(server))
                bar.update(count)
        finally:
            server.stop()
    return {
        "way": way.name,
        "requests": counts,
        "mib": {part: [mark.get(part, 0.0) for mark in marks] for part in marks[0]},
    }


def _send(
    server: Gateway, clients: Clients, texts: Sequence[str], *, first: int, count: int
) -> int:
    """Send requests, and give the number of the next."""
    numbers = range(first, first + count)
    requests = [server.single(f"{texts[n % len(texts)]} {n}") for n in numbers]
    done = clients.run(
        Job(port=server.port, requests=requests, clients=_CLIENTS, count=len(requests))
    )
    if done.failures:
        raise ServerError(f"requests were not answered: {done.failures}")
    return first + count


def _resident(server: Gateway) -> dict[str, float]:
    """MiB by part; processes of one part together."""
    found: dict[str, float] = {}
    for command, mib in server.process.memory():
        part = part_of(command)
        found[part] = found.get(part, 0.0) + mib
    return found


def memory_table(result: dict[str, Any]) -> Table:
    """Memory at the start, in the middle and at the end."""
    counts = result["requests"]
    shown = [0, _PARTS // 4, _PARTS // 2, 3 * _PARTS // 4, _PARTS]
    table = Table(title=f"resident MiB after so many requests to {result['way']}")
    table.add_column("process")
    for at in shown:
        table.add_column(f"{counts[at]:,}", justify="right")
    table.add_column("growth", justify="right")
    for part, values in result["mib"].items():
        growth = values[-1] - values[0]
        table.add_row(
            part,
            *(f"{values[at]:.1f}" for at in shown),
            f"{growth:+.1f} ({growth / values[0]:+.1%})",
        )
    return table
