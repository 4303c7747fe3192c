"""A real gateway before a stand-in for TorchServe, and visitors of its page in Chromium."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[3]
STAND_IN = ROOT / "tests" / "serving" / "gateway" / "standin.py"
# Nothing of the browser's own that reaches out.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

GATEWAY = """
import json, sys
from hydra.utils import instantiate
from omegaconf import OmegaConf
from fakenews.config import CONF, TARGETS
from fakenews.serving.gateway.server import serve

cfg = OmegaConf.create({
    "serve": OmegaConf.load(CONF / "serve" / "local.yaml"), "paths": {"root": sys.argv[1]}
})
for key, value in json.loads(sys.argv[2]).items():
    OmegaConf.update(cfg, f"serve.gateway.{key}", value)
settings = instantiate(cfg.serve.gateway, _convert_="all", _execution_whitelist_=TARGETS)
serve(settings, keys=None, ready=lambda address: print(address, flush=True))
"""

STATE = {
    "format": 1,
    "name": "fakenews",
    "versions": {"ab12cd34ef56": {"archive": "x.mar", "workers": 1, "added": "2026"}},
    "champion": "ab12cd34ef56",
    "previous": None,
    "canary": None,
    "shadow": None,
    "aborted": None,
    "events": [],
}


class Service:
    """A gateway, and the stand-in that it asks."""

    def __init__(self, folder: Path, values: dict[str, Any]) -> None:
        self.folder = folder
        (folder / "deployment").mkdir(parents=True)
        (folder / "deployment" / "state.json").write_text(json.dumps(STATE))
        self.model, self.port = _port(), _port()
        self.values = {"port": self.port, "upstream.address": self._model, **values}
        self.address = f"http://127.0.0.1:{self.port}"
        self.stand_in = self._process(STAND_IN, str(self.model))
        self.gateway: subprocess.Popen[str] | None = None
        self.start()

    @property
    def _model(self) -> str:
        return f"http://127.0.0.1:{self.model}"

    def _process(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        with (self.folder / "errors.log").open("a") as errors:
            process = subprocess.Popen(
                [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=errors, text=True
            )
        assert process.stdout is not None
        assert process.stdout.readline(), (self.folder / "errors.log").read_text()
        return process

    def start(self) -> None:
        self.gateway = self._process("-c", GATEWAY, self.folder, json.dumps(self.values))

    def stop(self) -> None:
        assert self.gateway is not None
        _end(self.gateway)
        self.gateway = None

    def close(self) -> None:
        if self.gateway is not None:
            self.stop()
        self.stand_in.kill()  # it may hang, as it was told to
        _end(self.stand_in)

    def behave(self, **how: Any) -> None:
        """How the model answers from now on."""
        answer = httpx.put(f"{self._model}/control", json={"*": how}, trust_env=False)
        answer.raise_for_status()

    def asked(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = httpx.get(
            f"{self._model}/control", trust_env=False
        ).json()["asked"]
        return found

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """What was logged, or said of it."""
        paths = sorted((self.folder / "deployment" / kind).rglob("*.jsonl"))
        return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


class Visitor:
    """A page, and what people do with it; else as Playwright's."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def __getattr__(self, name: str) -> Any:
        return getattr(self.page, name)

    def ask(self, text: str) -> None:
        self.page.locator("#text textarea").fill(text)
        self.page.locator("#text textarea").press("Enter")

    def read(self, text: str) -> str:
        """Ask, and give the verdict's title when the words are there too."""
        self.ask(text)
        expect(self.page.locator("#words .marked")).to_have_text(text)
        return self.page.locator("#verdict h2").inner_text()

    def upload(self, rows: int) -> None:
        """A table of some headlines."""
        lines = "".join(f'{n},"Headline number {n}, as it was"\n' for n in range(rows))
        self.page.locator("#upload input").set_input_files(
            {
                "name": "headlines.csv",
                "mimeType": "text/csv",
                "buffer": f"id,headline\n{lines}".encode(),
            }
        )

    def sideways(self) -> bool:
        """Whether the page can be scrolled sideways."""
        wide: bool = self.page.evaluate(
            "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        )
        return wide


def _port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _end(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    finally:
        process.kill()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    found = shutil.which("chromium")
    assert found is not None, "chromium is not installed: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def everyday(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    found = Service(tmp_path_factory.mktemp("everyday"), {"tables.chunk_rows": 32})
    yield found
    found.close()


@pytest.fixture
def service(everyday: Service) -> Service:
    """A gateway with the usual settings, and a model that answers at once."""
    everyday.behave()
    return everyday


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], Service]]:
    """Starts gateways with other settings."""
    found: list[Service] = []

    def make(values: dict[str, Any]) -> Service:
        found.append(Service(tmp_path / f"service{len(found)}", values))
        return found[-1]

    yield make
    for service in found:
        service.close()


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Callable[..., Visitor]]:
    """Opens the page as a visitor does, and in the end looks at what it reached and ran."""
    contexts: list[BrowserContext] = []
    reached: list[str] = []
    violations: list[str] = []
    faults: list[str] = []

    def make(service: Service, *, width: int = 1000, **options: Any) -> Visitor:
        context = chromium.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        context.on("request", lambda request: reached.append(request.url))
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda said: (
                violations.append(said.text) if "Content Security" in said.text else None
            ),
        )
        page.goto(service.address)
        expect(page.locator("#text textarea")).to_be_visible()
        return Visitor(page)

    yield make
    for context in contexts:
        context.close()
    elsewhere = [url for url in reached if not re.match(r"http://127\.0\.0\.1:\d+/|data:", url)]
    assert elsewhere == []
    assert violations == []
    assert faults == []
