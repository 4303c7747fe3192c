"""What tests of deployments share: archives, and a stand-in for TorchServe's APIs."""

import dataclasses
import json
import re
import secrets
import threading
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import pytest

from fakenews.serving.keys import Keys
from fakenews.serving.management import Management

if TYPE_CHECKING:
    from fakenews.bundle import BundleContent

NAME = "fakenews"


@pytest.fixture(scope="session")
def make_mar(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make an archive; `left_out` and `added` are of its members."""

    def make(
        version: str,
        *,
        name: str = NAME,
        fake: float = 0.25,
        left_out: tuple[str, ...] = (),
        added: dict[str, str] | None = None,
    ) -> Path:
        golden = {
            "format": 1,
            "atol": 1e-4,
            "items": [{"text": "One"}, {"text": "Two"}],
            "probabilities": [{"fake": fake, "real": 1 - fake}] * 2,
        }
        model = {"modelName": name, "modelVersion": version, "handler": "handler.py"}
        members = {
            "handler.py": "",
            "bundle/golden.json": json.dumps(golden),
            "MAR-INF/MANIFEST.json": json.dumps({"model": model}),
        } | (added or {})
        path = tmp_path_factory.mktemp("mar") / f"{name}-{version}.mar"
        with zipfile.ZipFile(path, "w") as content:
            for member, text in members.items():
                if member not in left_out:
                    content.writestr(member, text)
        return path

    return make


class StandIn:
    """TorchServe's APIs as its version 0.12 answers them; both at one address.

    A version is ready when it was looked at once, and answers what its archive has as
    golden, but for `wrong`. `fail(method, path)` gives a status to fail with.
    """

    def __init__(self, folder: Path) -> None:
        self.store = folder / "model_store"
        self.store.mkdir()
        self.key_file = folder / "torchserve" / "key_file.json"
        self.models: dict[str, dict[str, Any]] = {}
        self.default: str | None = None
        self.asked: list[str] = []
        self.wrong: set[str] = set()
        self.never_ready: set[str] = set()
        self.fail: Callable[[str, str], int | None] = lambda method, path: None
        self.api_key = secrets.token_hex(4)
        self.keys = {"management": ("m", _later()), "inference": ("i", _later())}
        self.write_keys()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def write_keys(self) -> None:
        self.key_file.parent.mkdir(parents=True, exist_ok=True)
        content: dict[str, dict[str, str]] = {
            kind: {"key": key, "expiration time": f"{expires:%Y-%m-%dT%H:%M:%S.%f}123Z"}
            for kind, (key, expires) in self.keys.items()
        }
        self.key_file.write_text(json.dumps({**content, "API": {"key": self.api_key}}))

    def expire(self, kind: str) -> None:
        self.keys[kind] = (self.keys[kind][0], datetime.now(UTC))
        self.write_keys()

    def answer(self, method: str, url: str, body: Any, key: str) -> tuple[int, Any]:
        parts = urllib.parse.urlsplit(url)
        path, query = parts.path, dict(urllib.parse.parse_qsl(parts.query))
        kind = "inference" if path.startswith(("/ping", "/predictions")) else "management"
        if path == "/token":
            if key != self.api_key:
                return _error(400, "InvalidKeyException", "Token failed")
            self.keys[query["type"]] = (secrets.token_hex(4), _later())
            self.write_keys()
            return 200, None
        known, expires = self.keys[kind]
        if key != known or datetime.now(UTC) >= expires:
            return _error(400, "InvalidKeyException", "Token failed")
        self.asked.append(f"{method} {path}")
        if (status := self.fail(method, path)) is not None:
            return _error(status, "SomeException", "asked to\nfail")
        if path == "/ping":
            return 200, {"status": "Healthy"}
        return self._act(method, path.split("/")[1:], query, body)

    def _act(self, method: str, path: list[str], query: dict[str, str], body: Any) -> Any:
        if path == ["models"]:
            found = [{"modelName": NAME, "modelUrl": str(self.default)}]
            listed = 200, {"models": found if self.models else []}
            return listed if method == "GET" else self._register(query["url"])
        version = path[2] if len(path) > 2 else self.default
        if not self.models or version not in {*self.models, "all"}:
            return _error(404, "ModelNotFoundException", f"Model not found: {path[1]}")
        assert version is not None
        if path[0] == "predictions":
            return 200, self._predict(version, body)
        if method == "GET":
            wanted = list(self.models) if version == "all" else [version]
            return 200, [self._describe(found) for found in wanted]
        if method == "DELETE":
            if version == self.default and len(self.models) > 1:
                return _error(403, "InvalidModelVersionException", "Cannot remove default")
            del self.models[version]
            self.default = self.default if self.models else None
        elif path[-1] == "set-default":
            self.default = version
        else:
            self.models[version] |= {"workers": int(query["min_worker"]), "looks": 0}
        return 200, {"status": "done"}

    def _register(self, url: str) -> tuple[int, Any]:
        manifest = json.loads((self.store / url / "MAR-INF" / "MANIFEST.json").read_text())
        version = manifest["model"]["modelVersion"]
        if version in self.models:
            return _error(409, "ConflictStatusException", "already registered")
        self.models[version] = {"url": url, "workers": 1, "looks": 0}
        self.default = self.default or version
        return 202, {"status": "Processing worker updates..."}

    def _describe(self, version: str) -> dict[str, Any]:
        model = self.models[version]
        ready = model["looks"] > 0 and version not in self.never_ready
        model["looks"] += 1
        # What cannot be loaded is tried again by another process.
        pid = model["looks"] if version in self.never_ready else 7
        worker = {"id": "9000", "status": "READY" if ready else "UNLOADING", "pid": pid}
        return {
            "modelVersion": version,
            "modelUrl": model["url"],
            "minWorkers": model["workers"],
            "startupTimeout": 60,
            "workers": [worker | {"id": str(number)} for number in range(model["workers"])],
            "jobQueueStatus": {"remainingCapacity": 100, "pendingRequests": 0},
        }

    def _predict(self, version: str, body: Any) -> Any:
        golden = self.store / self.models[version]["url"] / "bundle" / "golden.json"
        (probabilities, *_) = json.loads(golden.read_text())["probabilities"]
        if version in self.wrong:
            probabilities = {"fake": 0.9, "real": 0.1}
        one = {"probabilities": probabilities, "model_version": version}
        return {"predictions": [one for _ in body["inputs"]]} if "inputs" in body else one

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer is one packet

            def _any(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(length) or "null")
                key = re.sub("^Bearer ", "", self.headers.get("authorization") or "")
                status, content = stand_in.answer(self.command, self.path, body, key)
                text = json.dumps(content).encode() if content is not None else b"\n"
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_DELETE = _any  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _later() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


def _error(status: int, kind: str, message: str) -> tuple[int, Any]:
    return status, {"code": status, "type": kind, "message": message}


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[StandIn]:
    """TorchServe's APIs, for the deployment in `tmp_path`."""
    with StandIn(tmp_path) as found:
        yield found


@pytest.fixture
def client(stand_in: StandIn) -> Iterator[Management]:
    """A client of the stand-in that hardly waits."""
    keys = Keys(stand_in.key_file, address=stand_in.address)
    with Management(
        management=stand_in.address, inference=stand_in.address, keys=keys, pause=0.001
    ) as found:
        yield found


@pytest.fixture(scope="session")
def checked_content(fusion_bundle: Path) -> "BundleContent":
    """The content of `fusion_bundle` with reference rows to check an engine on."""
    from fakenews.bundle import read_bundle
    from fakenews.predictor import Predictor

    content = read_bundle(fusion_bundle)
    predictor = Predictor.from_content(content)
    generator = np.random.default_rng(0)
    words = ["rain", "42", "Minister", "cure!", "safe", "in", "Oslo", "BREAKING", "never"]
    lengths = generator.integers(1, 30, 120)
    texts = [" ".join(generator.choice(words, length)) for length in lengths]
    frame = pd.DataFrame({"text": texts}, dtype=object)
    outputs, tokens = predictor.outputs(frame), predictor.tokens(frame)
    assert predictor.features is not None
    # As a model that is right four times of five.
    labels = (outputs.logits[:, 1] > np.median(outputs.logits[:, 1])).astype(np.int64)
    labels = np.where(generator.random(len(texts)) < 0.2, 1 - labels, labels)
    reference = {
        "rows": np.arange(len(texts)),
        "labels": labels,
        "logits": outputs.logits,
        "embeddings": outputs.embeddings,
        "tabular": predictor.features.transform(frame),
        "input_ids": tokens.input_ids,
        "offsets": tokens.offsets,
    }
    return dataclasses.replace(content, reference=reference)


@pytest.fixture(scope="session")
def network_onnx(fusion_bundle: Path) -> dict[str, bytes]:
    """The parts of the network of `fusion_bundle`, exported."""
    from fakenews.predictor import Predictor
    from fakenews.serving.to_onnx import to_onnx

    engine: Any = Predictor.load(fusion_bundle).engine
    return to_onnx(engine.network)
