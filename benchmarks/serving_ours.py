"""Our own servers, started and filled by its own commands."""

import json
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from serving_load import post
from serving_process import HOST, Process, ServerError, free_port
from serving_server import ROOT, Rows, Server, Setup, Way, run

_NAME = "fakenews"
_START_SECONDS = 300
# Longer than TorchServe and the gateway may take to end.
_STOP_SECONDS = 60
# What is in the command line of a process, and what that is; the first that fits.
_PARTS = {
    "model_service_worker": "worker",
    "org.pytorch.serve": "TorchServe (Java)",
    "start=[gateway]": "gateway",
    "scripts/serve.py": "supervisor",
}


class Deployment:
    """TorchServe with an archive, and the gateway before it, as `scripts/serve.py` runs them.

    Answers are not cached, so that each request is computed; all else is as configured.

    Args:
        way: Its engine and bundle.
        setup: Of all.
    """

    def __init__(self, way: Way, setup: Setup) -> None:
        self._way = way
        self._setup = setup
        self.folder = setup.folder / "deployments" / f"{way.features}-{way.engine}"
        self.ports = {
            name: free_port() for name in ("inference", "management", "metrics", "gateway")
        }
        self.process: Process | None = None
        self._failed = False

    @classmethod
    def of(cls, way: Way, setup: Setup) -> "Deployment":
        """The one that all ways with this engine and bundle share."""
        key = way.engine, way.features
        deployment: Deployment = setup.shared.setdefault(key, cls(way, setup))
        return deployment

    def start(self) -> None:
        """Start it unless it was, and wait until it answers.

        Raises:
            ServerError: It cannot be started.
        """
        if self._failed:
            raise ServerError("its deployment could not be started")
        if self.process is not None:
            self.process.resume()
            return
        try:
            self._start()
        except ServerError:
            self._failed = True
            self.stop()
            raise

    def stop(self) -> None:
        """End it; safe to call at any time."""
        if self.process is not None:
            self.process.stop(timeout=_STOP_SECONDS)

    def _start(self) -> None:
        setup = self._setup
        archive = setup.archive(self._way.features, self._way.engine)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        overrides = [
            f"serve.dir={self.folder}",
            *(
                f"serve.torchserve.{name}_port={self.ports[name]}"
                for name in ("inference", "management", "metrics")
            ),
            *(f"serve.torchserve.grpc_{name}_port=0" for name in ("inference", "management")),
            f"serve.gateway.port={self.ports['gateway']}",
            "serve.gateway.cache_size=0",
            *(one for one in setup.overrides if one.startswith("serve.")),
        ]
        address = f"http://{HOST}:{self.ports['gateway']}"
        self.process = Process(
            name="scripts/serve.py",
            command=[sys.executable, str(ROOT / "scripts" / "serve.py"), *overrides],
            log=self.folder / "log.txt",
            cwd=ROOT,
        )
        self.process.wait(f"{address}/health/live", timeout=_START_SECONDS)
        run(
            [
                *(sys.executable, str(ROOT / "scripts" / "deploy.py"), "action=deploy"),
                *(f"archive={archive}", f"workers={setup.workers}"),
                *overrides,
            ],
            environment={},
        )
        self.process.wait(f"{address}/health/ready", timeout=_START_SECONDS)

    def key(self) -> str:
        """Of TorchServe's inference API, as of now."""
        path = self.folder / "torchserve" / "key_file.json"
        key: str = json.loads(path.read_text(encoding="utf-8"))["inference"]["key"]
        return key

    def version(self) -> str:
        """Of the model that answers."""
        state = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
        version: str = state["champion"]
        return version


class _Ours(Server):
    lists = True

    def __init__(self, way: Way, setup: Setup) -> None:
        super().__init__(way, setup)
        self.deployment = Deployment.of(way, setup)

    @property
    def process(self) -> Process:
        """See `Server`."""
        assert self.deployment.process is not None  # noqa: S101 it was started
        return self.deployment.process

    def start(self) -> None:
        """See `Server`."""
        self.deployment.start()

    def stop(self) -> None:
        """See `Server`."""
        self.deployment.stop()

    def single(self, text: str) -> str:
        """See `Server`."""
        return self.ask({"text": text})

    def many(self, texts: Sequence[str]) -> str:
        """See `Server`."""
        return self.ask({"inputs": list(texts)})

    def ask(self, body: dict[str, Any]) -> str:
        """The HTTP request with a body."""
        raise NotImplementedError

    def read(self, body: str) -> Rows:
        """See `Server`."""
        found = json.loads(body)
        return self.rows([one["probabilities"] for one in found.get("predictions", [found])])


class Ours(_Ours):
    """TorchServe with this project's handler, without the gateway."""

    title = "TorchServe with this project's handler"

    def __init__(self, way: Way, setup: Setup) -> None:
        super().__init__(way, setup)
        self.port = self.deployment.ports["inference"]

    def ask(self, body: dict[str, Any]) -> str:
        """See `_Ours`."""
        return post(
            f"/predictions/{_NAME}/{self.deployment.version()}",
            json.dumps(body),
            headers={"Authorization": f"Bearer {self.deployment.key()}"},
        )


class Gateway(_Ours):
    """The gateway before that TorchServe: batches, the prediction log."""

    title = "this project's gateway before it"

    def __init__(self, way: Way, setup: Setup) -> None:
        super().__init__(way, setup)
        self.port = self.deployment.ports["gateway"]

    def ask(self, body: dict[str, Any]) -> str:
        """See `_Ours`."""
        return post("/predict", json.dumps(body))


def part_of(command: str) -> str:
    """What the process with a command line is."""
    return next((part for sign, part in _PARTS.items() if sign in command), "other")
