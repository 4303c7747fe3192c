"""Starts the gateway, and stops it without leaving anyone without an answer."""

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from fakenews.errors import ServingError
from fakenews.serving.details import Detail
from fakenews.serving.gateway.access import Access, read_keys
from fakenews.serving.gateway.app import build
from fakenews.serving.gateway.canary import Watch
from fakenews.serving.gateway.edge import Edge
from fakenews.serving.gateway.health import Health
from fakenews.serving.gateway.metrics import Metrics
from fakenews.serving.gateway.prediction_log import PredictionLog
from fakenews.serving.gateway.retention import remove_old
from fakenews.serving.gateway.routing import Router
from fakenews.serving.gateway.service import Gateway
from fakenews.serving.gateway.settings import Log, Settings
from fakenews.serving.gateway.tables import TableScorer
from fakenews.serving.gateway.upstream import KeySource, Upstream
from fakenews.serving.state import abort_canary

log = logging.getLogger(__name__)

_BACKLOG = 2048
# Idle connections are kept longer than a load balancer keeps them.
_KEEP_ALIVE = 75
# The thread that logs waits for the interpreter: at most so long, instead of 5 ms.
_SWITCH = 0.0005


def serve(
    settings: Settings,
    *,
    keys: KeySource | None,
    ready: Callable[[str], None],
) -> None:
    """Run the gateway until it is told to stop by SIGTERM or SIGINT.

    Args:
        settings: Of it.
        keys: Of TorchServe; None where it asks for none.
        ready: Is told the address when requests are answered.

    Raises:
        ServingError: The address is taken, or is none of this machine.
        ConfigError: The API keys or the rate cannot be used.
    """
    access, listening = opened(settings)
    address = shown_address(*listening.getsockname()[:2])
    sys.setswitchinterval(_SWITCH)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(
            run(settings, listening, access, keys=keys, started=lambda _: ready(address))
        )


def opened(settings: Settings) -> tuple[Access, socket.socket]:
    """What can be wrong with settings: who may ask, and the socket, which listens.

    Args:
        settings: Of the gateway.

    Raises:
        ServingError: The address is taken, or is none of this machine.
        ConfigError: The API keys or the rate cannot be used.
    """
    access = Access(
        keys=read_keys(settings.access.keys_file),
        rate=settings.access.rate,
        trusted_hosts=settings.access.trusted_hosts,
    )
    return access, listen(settings.host, settings.port)


async def run(
    settings: Settings,
    listening: socket.socket,
    access: Access,
    *,
    keys: KeySource | None,
    started: Callable[["Server"], None],
) -> None:
    """Answer requests on a socket until the server is told to stop.

    Args:
        settings: Of the gateway.
        listening: Bound, and listening.
        access: Decides who may ask.
        keys: Of TorchServe; None where it asks for none.
        started: Is given the server when requests are answered.
    """
    metrics = Metrics()
    gateway = assemble(settings, keys=keys, metrics=metrics)
    health = Health(gateway)
    app = Edge(
        build(gateway, health, wrap=partial(_with_page, gateway)),
        access=access,
        bounds=settings.bounds,
        metrics=metrics,
        open_page=settings.access.open_page,
        open_metrics=settings.access.open_metrics,
    )
    config = uvicorn.Config(
        app,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=max(round(settings.drain), 1),
        proxy_headers=bool(settings.access.proxies),
        forwarded_allow_ips=settings.access.proxies,
        server_header=False,
        access_log=False,
        log_config=None,
        lifespan="on",
    )
    server = Server(config, health=health, delay=settings.drain_delay, started=started)
    await server.serve([listening])


def assemble(
    settings: Settings,
    *,
    keys: KeySource | None,
    metrics: Metrics,
) -> Gateway:
    """The gateway without HTTP; within an event loop.

    Args:
        settings: See `serve`.
        keys: See `serve`.
        metrics: Counts.
    """
    folder = Path(settings.dir)
    canary = settings.canary
    errors = metrics.upstream_errors
    return Gateway(
        settings=settings,
        router=Router(
            folder=folder,
            by=canary.by,
            watch=Watch(
                window=canary.window,
                min_requests=canary.min_requests,
                error_excess=canary.error_excess,
                latency_ratio=canary.latency_ratio,
                latency_floor=canary.latency_floor,
            ),
            abort=lambda version, reason: _abort(folder, version, reason),
        ),
        upstream=Upstream(
            address=settings.upstream.address,
            keys=keys,
            pause=settings.upstream.pause,
            patience=settings.upstream.patience,
            details=_details(settings.log),
            observe=lambda kind: errors.labels(kind).inc(),
        ),
        log=PredictionLog(
            folder=folder / "predictions",
            text=settings.log.text,
            fsync=settings.log.fsync,
            segment_bytes=settings.log.segment_bytes,
            segment_seconds=settings.log.segment_seconds,
            failed=metrics.not_logged.inc,
            tidy=partial(remove_old, folder, days=settings.log.keep_days),
        )
        if settings.log.enabled
        else None,
        metrics=metrics,
    )


def _details(log: Log) -> list[Detail]:
    wanted: dict[Detail, bool] = {"features": log.features, "embeddings": log.embeddings}
    return [name for name, on in wanted.items() if on and log.enabled]


def _with_page(gateway: Gateway, app: FastAPI, scorer: TableScorer) -> FastAPI:
    page = gateway.settings.page
    if not page.enabled:
        return app
    from fakenews.serving.gateway.page import mount  # takes seconds

    return mount(app, gateway=gateway, scorer=scorer, page=page)


def _abort(folder: Path, version: str, reason: str) -> None:
    abort_canary(folder, reason, version=version)


class Server(uvicorn.Server):
    """Uvicorn's server, which says that it is about to stop before it does.

    Args:
        config: Uvicorn's.
        health: Of the gateway.
        delay: Seconds between that and its end.
        started: Is given the server when requests are answered.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        health: Health,
        delay: float,
        started: Callable[["Server"], None],
    ) -> None:
        super().__init__(config)
        self._health = health
        self._delay = delay
        self._tell = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self._tell(self)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop in a while; at once when told again."""
        del sig, frame
        # What is waited for is that load balancers have seen it.
        if self._health.draining or not self._delay:
            self.should_exit = True
        else:
            asyncio.get_running_loop().call_later(self._delay, self._stop)
        self._health.draining = True

    def _stop(self) -> None:
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ServingError: The address is taken, or is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise ServingError(
            f"the gateway cannot listen on {host}:{port}: {error.strerror}; choose "
            "another with serve.gateway.host=HOST serve.gateway.port=PORT"
        ) from error
    listening.setblocking(False)
    return listening


def shown_address(host: str, port: int) -> str:
    """URL by which this machine reaches an address."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 it is only shown
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def loop_factory() -> Any:
    """The quicker event loop, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
