"""A gateway on a real socket, before a stand-in for TorchServe that is a real process."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fakenews.config import CONF, TARGETS
from fakenews.serving.gateway.access import Access, read_keys
from fakenews.serving.gateway.server import Server, listen, loop_factory, run
from fakenews.serving.gateway.settings import Settings
from fakenews.serving.state import Canary, State, Version, change_state


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    """The gateway's settings of `conf/serve/local.yaml`, with others by their keys."""

    def make(**values: Any) -> Settings:
        cfg = OmegaConf.create(
            {
                "serve": OmegaConf.load(CONF / "serve" / "local.yaml"),
                "paths": {"root": str(tmp_path)},
            }
        )
        usual = {"port": 0, "upstream.pause": 0.01, "page.enabled": False}
        for key, value in {**usual, **values}.items():
            OmegaConf.update(cfg, f"serve.gateway.{key}", value)
        made: Settings = instantiate(
            cfg.serve.gateway, _convert_="all", _execution_whitelist_=TARGETS
        )
        return made

    return make


@dataclass
class StandIn:
    """A process that speaks TorchServe's inference API."""

    port: int
    process: "subprocess.Popen[str] | None" = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        script = Path(__file__).with_name("standin.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(self.port)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
        self.process = None

    def behave(self, **versions: Any) -> None:
        """Set how versions behave; `any` is all others. Forgets what was asked."""
        named = {"*" if name == "any" else name: how for name, how in versions.items()}
        httpx.put(f"{self.address}/control", json=named).raise_for_status()

    def asked(self) -> list[dict[str, Any]]:
        """The requests since then: their path, and how many items they had."""
        found: list[dict[str, Any]] = httpx.get(f"{self.address}/control").json()["asked"]
        return found


@pytest.fixture(scope="module")
def stand_in_process() -> Iterator[StandIn]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = StandIn(port)
    found.start()
    yield found
    found.kill()


@pytest.fixture
def stand_in(stand_in_process: StandIn) -> StandIn:
    """The stand-in, which answers everything at once."""
    if stand_in_process.process is None:
        stand_in_process.start()
    stand_in_process.behave()
    return stand_in_process


@pytest.fixture
def deploy(tmp_path: Path) -> Callable[..., None]:
    """Writes the state of a deployment."""

    def write(
        champion: str | None = "v1",
        *,
        canary: str | None = None,
        share: float = 0.5,
        shadow: str | None = None,
        workers: int = 1,
    ) -> None:
        names = [name for name in (champion, canary, shadow) if name]
        state = State(
            name="fakenews",
            versions={
                name: Version(archive=f"fakenews-{name}.mar", workers=workers, added="2026")
                for name in names
            },
            champion=champion,
            canary=Canary(version=canary, share=share) if canary else None,
            shadow=shadow,
        )
        change_state(tmp_path / "deployment", name="fakenews", change=lambda _: state)

    return write


@dataclass
class Running:
    """A gateway that runs in a thread of this process."""

    client: httpx.Client
    server: Server
    thread: threading.Thread
    folder: Path
    problems: list[BaseException] = field(default_factory=list)

    def post(self, path: str, content: Any, **options: Any) -> httpx.Response:
        return self.client.post(path, json=content, **options)

    def predict(self, *texts: str) -> list[dict[str, Any]]:
        answer = self.post("/predict", {"inputs": texts})
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["predictions"]
        return found

    def metric(self, name: str) -> float:
        """A metric by its name and labels, as they are written; 0 where there is none."""
        for line in self.client.get("/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()

    def logged(self) -> list[dict[str, Any]]:
        """What was logged, of lines."""
        open_ = self.folder / "predictions" / "open"
        return [
            json.loads(line)
            for path in sorted(open_.glob("*.jsonl"))
            for line in path.read_text().splitlines()
        ]


class Hurried:
    """asyncio with short sleeps, for uvicorn, which looks every 0.1 s whether to stop."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 10)


@pytest.fixture(scope="session", autouse=True)
def hurried() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uvicorn.server.asyncio", Hurried())
        yield


@contextmanager
def running(settings: Settings, **options: Any) -> Iterator[Running]:
    """A gateway, from its start to its end."""
    listening = listen(settings.host, settings.port)
    host, port = listening.getsockname()
    access = Access(
        keys=read_keys(settings.access.keys_file),
        rate=settings.access.rate,
        trusted_hosts=settings.access.trusted_hosts,
    )
    started = threading.Event()
    servers: list[Server] = []
    problems: list[BaseException] = []

    def begin(server: Server) -> None:
        servers.append(server)
        started.set()

    def work() -> None:
        options.setdefault("keys", None)
        try:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(run(settings, listening, access, started=begin, **options))
        except BaseException as error:
            problems.append(error)
            raise
        finally:
            started.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(30)
    assert servers, problems
    with httpx.Client(base_url=f"http://{host}:{port}", timeout=30, trust_env=False) as client:
        found = Running(client, servers[0], thread, Path(settings.dir), problems)
        try:
            yield found
        finally:
            found.stop()


@pytest.fixture
def start(
    settings: Callable[..., Settings],
    stand_in: StandIn,
    deploy: Callable[..., None],
    tmp_path: Path,
) -> Iterator[Callable[..., Running]]:
    """Starts gateways before the stand-in, with settings by their keys."""
    with ExitStack() as stack:

        def make(values: dict[str, Any] | None = None, **options: Any) -> Running:
            if not (tmp_path / "deployment" / "state.json").exists():
                deploy()
            address = {"upstream.address": stand_in.address}
            return stack.enter_context(
                running(settings(**address, **(values or {})), **options)
            )

        yield make


@pytest.fixture
def gateway(start: Callable[..., Running]) -> Running:
    """A gateway with the settings of `conf/serve/local.yaml`."""
    return start()


SESSION = "a-session"


class GradioPage:
    """What the browser does with Gradio's protocol."""

    def __init__(self, gateway: Any) -> None:
        self.gateway = gateway
        self.client: httpx.Client = gateway.client
        self.html = self.client.get("/").text
        found = re.search(r"window\.gradio_config = (\{.*?\});</script>", self.html, re.DOTALL)
        assert found is not None
        self.config: dict[str, Any] = json.loads(found.group(1))
        self.functions = {
            target[1] + " " + self._name(target[0]): dependency["id"]
            for dependency in self.config["dependencies"]
            for target in dependency["targets"]
            if dependency["backend_fn"]
        }
        self.chained = [
            d["id"] for d in self.config["dependencies"] if d["trigger_after"] is not None
        ]

    def _name(self, number: int | None) -> str:
        for component in self.config["components"]:
            if component["id"] == number:
                props = component["props"]
                return str(props.get("elem_id") or props.get("value") or props.get("label"))
        return "nothing"

    def ask(self, function: int, *data: Any) -> list[dict[str, Any]]:
        """The messages that come for an event."""
        body = {"data": data, "fn_index": function, "session_hash": SESSION, "trigger_id": None}
        headers = {"content-type": "application/json"}
        sent = json.dumps(body).encode()
        joined = self.client.post("/gradio_api/queue/join", content=sent, headers=headers)
        assert joined.status_code == 200, joined.text
        address = f"/gradio_api/queue/data?session_hash={SESSION}"
        with self.client.stream("GET", address) as stream:
            lines = [line for line in stream.iter_lines() if line.startswith("data: ")]
        return [json.loads(line.removeprefix("data: ")) for line in lines]

    def call(self, name: str, *data: Any) -> list[Any]:
        """The values that an event gives in the end."""
        found = self.ask(self.functions[name], *data)
        done = [m for m in found if m["msg"] == "process_completed"]
        assert done[0]["success"], found
        values: list[Any] = done[0]["output"]["data"]
        return values

    def judge(self, text: Any) -> tuple[str, Any]:
        """The verdict on a text as HTML, and what was asked."""
        values = self.call("click check", text)
        return values[0], values[2]

    def upload(self, name: str, content: bytes) -> dict[str, Any]:
        """A file, as an event names it afterwards."""
        answer = self.client.post("/gradio_api/upload", files={"files": (name, content)})
        assert answer.status_code == 200, answer.text
        return {
            "path": answer.json()[0],
            "orig_name": name,
            "meta": {"_type": "gradio.FileData"},
        }

    def explain(self, asked: Any) -> str:
        found = self.ask(self.chained[0], asked)
        done = next(m for m in found if m["msg"] == "process_completed")
        assert done["success"], found
        words: str = done["output"]["data"][0]
        return words


@pytest.fixture
def page(start: Callable[..., Running]) -> Iterator[Callable[..., GradioPage]]:
    """Starts gateways with a page, with settings by their keys."""
    before = dict(os.environ)

    yield lambda values=None: GradioPage(start({"page.enabled": True, **(values or {})}))

    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def gradio(page: Callable[..., GradioPage]) -> GradioPage:
    return page()
