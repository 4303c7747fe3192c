"""The command `scripts/serve.py`: TorchServe and the gateway, kept running."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypedDict

import httpx
from hydra.utils import instantiate
from omegaconf import DictConfig

from fakenews.config import check, name_faults, option_faults
from fakenews.errors import Interrupted, ServingError
from fakenews.serving.deploy import ServeOptions
from fakenews.serving.deployment import Deployment
from fakenews.serving.gateway.server import opened, shown_address
from fakenews.serving.gateway.server import serve as serve_gateway
from fakenews.serving.gateway.settings import Settings as GatewaySettings
from fakenews.serving.state import read_state
from fakenews.serving.supervisor import Keeper
from fakenews.serving.torchserve import Settings as TorchServeSettings
from fakenews.serving.torchserve import TorchServe
from fakenews.serving.versions import Timing

log = logging.getLogger(__name__)

_SUPERVISED = "FAKENEWS_SUPERVISED"
# Seconds beyond the gateway's own limits, before it is killed.
_GRACE = 5
_START = 60
# Seconds that a restart waits for a deployment under way.
_PATIENCE = 600


class ServerOptions(TypedDict):
    """The options of `conf/serve.yaml`."""

    start: list[Literal["torchserve", "gateway"]]
    archive: str | None
    archives: str


def serve(cfg: DictConfig) -> None:
    """Serve until told to stop by Ctrl-C or SIGTERM.

    Args:
        cfg: The composed `conf/serve.yaml`.

    Raises:
        ConfigError: An option has no such value, or they contradict each other.
        ServingError: A server cannot be started, or the archive not be deployed.
    """
    check(cfg, rules=serve_rules)
    folder = Path(cfg.serve.dir)
    torchserve: TorchServeSettings = instantiate(cfg.serve.torchserve)
    gateway: GatewaySettings = instantiate(cfg.serve.gateway, _convert_="all")
    if list(cfg.start) == ["gateway"]:
        _follow_supervisor()
        serve_gateway(
            gateway,
            keys=torchserve.keys(folder),
            ready=lambda address: log.info("the gateway answers at %s", address),
        )
        return
    model = _Model(
        folder=folder,
        name=cfg.serve.name,
        settings=torchserve,
        timing=instantiate(cfg.serve.timing),
        archive=_archive(cfg.archive, Path(cfg.archives), cfg.serve.name),
    )
    keepers = [Keeper(name="TorchServe", begin=model.begin, alive=model.alive, end=model.end)]
    if "gateway" in cfg.start:
        # Mistakes are told before a model is loaded, which takes long.
        opened(gateway)[1].close()
        child = _Gateway(gateway)
        keepers.append(
            Keeper(name="the gateway", begin=child.begin, alive=child.alive, end=child.end)
        )
    started: list[Keeper] = []
    try:
        for keeper in keepers:
            started.append(keeper)
            keeper.start()
        _tell(folder, cfg.serve.name, gateway if len(keepers) > 1 else None)
        while True:
            time.sleep(3600)
    except (KeyboardInterrupt, Interrupted):
        log.info("stopping")
    finally:
        # The gateway first: it still needs answers.
        for keeper in reversed(started):
            keeper.stop()


def serve_rules(cfg: DictConfig) -> Iterator[str]:
    """Faults of `conf/serve.yaml` that no single signature shows.

    Args:
        cfg: Composed, and without faults of its nodes.

    Yields:
        A message for each fault.
    """
    found = option_faults(cfg, ServerOptions)
    found += option_faults(cfg.serve, ServeOptions, lambda key: f"serve.{key}")
    yield from found
    yield from name_faults(cfg.serve.name, key="serve.name")
    if found:
        return
    if not cfg.start:
        yield "start=[] starts nothing: give start=[torchserve,gateway], or one of them"
    if cfg.archive is not None and "torchserve" not in cfg.start:
        yield "archive needs TorchServe: leave it out, or add torchserve to start"
    gateway = cfg.serve.gateway
    if gateway.port == 0 and "torchserve" in cfg.start and "gateway" in cfg.start:
        yield "serve.gateway.port=0 is for start=[gateway]: give a port"
    most = gateway.bounds["items"]
    if most > gateway.batching.queue_items:
        yield (
            f"serve.gateway.batching.queue_items={gateway.batching.queue_items} is less than "
            f"one request may have: serve.gateway.bounds.items={most}"
        )
    if gateway.tables.chunk_rows > most:
        yield (
            f"serve.gateway.tables.chunk_rows={gateway.tables.chunk_rows} is more than one "
            f"request may have: serve.gateway.bounds.items={most}"
        )
    # JSON takes up to 6 bytes for a character.
    largest = 6 * max(gateway.batching.batch_characters, gateway.bounds.characters)
    if largest > cfg.serve.torchserve.max_request_bytes:
        yield (
            f"serve.torchserve.max_request_bytes={cfg.serve.torchserve.max_request_bytes} is "
            f"less than a batch may have: {largest}, 6 times the larger of "
            "serve.gateway.batching.batch_characters and serve.gateway.bounds.characters"
        )


class _Model:
    """TorchServe with what is deployed."""

    def __init__(
        self,
        *,
        folder: Path,
        name: str,
        settings: TorchServeSettings,
        timing: Timing,
        archive: Path | None,
    ) -> None:
        self._folder = folder
        self._name = name
        self._settings = settings
        self._timing = timing
        self._archive = archive
        self._server = TorchServe(folder=folder, settings=settings)

    def begin(self) -> None:
        self._server.start()
        self._server.wait()
        with self._settings.client(self._folder) as client:
            deployment = Deployment(
                folder=self._folder, name=self._name, client=client, timing=self._timing
            )
            deployment.restore(patience=_PATIENCE)
            champion = deployment.state.champion
            if self._archive is None:
                return
            if champion is None:
                deployment.deploy(self._archive)
            elif champion not in self._archive.name:
                log.info(
                    "version %s is deployed and stays; to replace it: python scripts/deploy.py "
                    "action=deploy archive=%s",
                    champion,
                    self._archive,
                )

    def alive(self) -> bool:
        return self._server.running

    def end(self) -> None:
        self._server.stop()


class _Gateway:
    """The gateway, as a process of its own: this command, with `start=[gateway]`."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        given = [text for text in sys.argv[1:] if not text.startswith(("start=", "archive="))]
        self._process = process = subprocess.Popen(  # noqa: S603 our own command
            [sys.executable, sys.argv[0], *given, "start=[gateway]"],
            # Never written to: the gateway ends when this process does, however that ends.
            stdin=subprocess.PIPE,
            env=os.environ | {_SUPERVISED: "1"},
            # A Ctrl-C comes to this process alone, which stops what it has started in turn.
            start_new_session=True,
        )
        address = shown_address(self._settings.host, self._settings.port)
        deadline = time.monotonic() + _START
        while not _lives(address):
            if process.poll() is not None:
                raise ServingError("the gateway ended while it started: see above")
            if time.monotonic() > deadline:
                raise ServingError(f"the gateway does not answer after {_START} s")
            time.sleep(0.1)

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        settings = self._settings
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(settings.drain + settings.drain_delay + _GRACE)
        process.kill()
        process.wait()
        assert process.stdin is not None  # noqa: S101 it is a pipe
        process.stdin.close()


def _archive(given: str | None, archives: Path, name: str) -> Path | None:
    """The archive to begin with, if any; `latest` is the newest of a folder."""
    if given != "latest":
        return None if given is None else Path(given)
    found = max(
        archives.glob(f"{name}-*.mar"), key=lambda path: path.stat().st_mtime, default=None
    )
    if found is None:
        raise ServingError(
            f"archive=latest: {archives} has no archive of {name}: make one with "
            "python scripts/export.py bundle=latest"
        )
    return found


def _lives(address: str) -> bool:
    try:
        answer = httpx.get(f"{address}/health/live", timeout=2, trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.is_success


def _tell(folder: Path, name: str, gateway: GatewaySettings | None) -> None:
    """Say where what is deployed is, or how to deploy something."""
    champion = read_state(folder, name=name).champion
    if champion is None:
        log.warning(
            "nothing is deployed: run python scripts/deploy.py action=deploy archive=FILE, "
            "with an archive of scripts/export.py"
        )
    if gateway is not None:
        address = shown_address(gateway.host, gateway.port)
        log.info("%s is open at %s (Ctrl-C stops it)", name, address)


def _follow_supervisor() -> None:
    """Stop when the process that started this one is no more."""
    if os.environ.get(_SUPERVISED) != "1":
        return

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
