"""The page in a real Chromium, before a real gateway, before a stand-in for TorchServe."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
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
TEXT = "Bombshell: Marta Norrevik says main pension fund in Budapest put thousands at risk"

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
def visit(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Opens the page as a visitor does, and in the end looks at what it reached and ran."""
    contexts: list[BrowserContext] = []
    reached: list[str] = []
    violations: list[str] = []
    faults: list[str] = []

    def make(service: Service, *, width: int = 1000, **options: Any) -> Page:
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
        return page

    yield make
    for context in contexts:
        context.close()
    elsewhere = [url for url in reached if not re.match(r"http://127\.0\.0\.1:\d+/|data:", url)]
    assert elsewhere == []
    assert violations == []
    assert faults == []


def ask(page: Page, text: str) -> None:
    page.locator("#text textarea").fill(text)
    page.locator("#text textarea").press("Enter")


def read(page: Page, text: str) -> str:
    """Ask, and give the verdict's title when the words are there too."""
    ask(page, text)
    expect(page.locator("#words .marked")).to_have_text(text)
    return page.locator("#verdict h2").inner_text()


def sideways(page: Page) -> bool:
    """Whether the page can be scrolled sideways."""
    wide: bool = page.evaluate(
        "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    )
    return wide


def test_a_headline_is_judged(service: Service, visit: Callable[..., Page]) -> None:
    page = visit(service)
    expect(page).to_have_title("Does it read like fake news?")
    sure = {"label": "fake", "probabilities": {"fake": 0.91, "real": 0.09}, "unsure": False}
    service.behave(answer=sure)
    assert read(page, TEXT) == "Likely fake"
    expect(page.locator("#verdict")).to_contain_text(
        "The model gives fake a probability of 91%."
    )
    expect(page.locator("#verdict")).to_contain_text("fakenews ab12cd34ef56")
    bars = page.get_by_role("img")
    expect(bars).to_have_accessible_name(
        "Probabilities: fake 91%, real 9%. Unsure where real is between 40% and 60%."
    )
    fill, band = page.locator("#verdict .chosen .fill"), page.locator("#verdict .chosen .band")
    track = page.locator("#verdict .chosen .track").bounding_box()
    filled, banded = fill.bounding_box(), band.bounding_box()
    assert track is not None
    assert filled is not None
    assert banded is not None
    assert filled["width"] / track["width"] == pytest.approx(0.91, abs=0.01)
    assert (banded["x"] - track["x"]) / track["width"] == pytest.approx(0.4, abs=0.01)
    assert banded["width"] / track["width"] == pytest.approx(0.2, abs=0.01)
    assert page.locator("#words mark").count() > 4
    page.get_by_text("Words as a list").click()
    expect(page.locator("#words table")).to_be_visible()
    assert [line["label"] for line in service.lines("predictions")][-1] == "fake"


def test_the_button_and_the_examples_ask_too(
    service: Service, visit: Callable[..., Page]
) -> None:
    page = visit(service)
    page.locator("#text textarea").fill("Some text")
    page.get_by_role("button", name="Check").click()
    expect(page.locator("#words .marked")).to_have_text("Some text")
    example = page.get_by_role("button", name="Proposed library roof")
    text = example.inner_text()
    example.click()
    expect(page.locator("#words .marked")).to_have_text(text)
    expect(page.locator("#text textarea")).to_have_value(text)


def test_the_verdict_does_not_wait_for_its_words(
    service: Service, visit: Callable[..., Page]
) -> None:
    page = visit(service)
    service.behave(thinking={"slowly": 3.0})
    ask(page, "slowly")
    expect(page.locator("#verdict h2")).to_be_visible()
    expect(page.locator("#words")).to_contain_text("Looking at the words")
    expect(page.locator("#words .marked")).to_have_text("slowly")


def test_the_words_are_those_of_the_last_text(
    service: Service, visit: Callable[..., Page]
) -> None:
    page = visit(service)
    service.behave(thinking={"slowly": 2.0})
    ask(page, "slowly")
    expect(page.locator("#words")).to_contain_text("Looking at the words")
    assert read(page, "at once")
    page.wait_for_timeout(2500)
    expect(page.locator("#words .marked")).to_have_text("at once")


def test_the_same_text_can_be_asked_again(
    service: Service, visit: Callable[..., Page]
) -> None:
    page = visit(service)
    answer = page.locator("#answer")
    for _ in range(3):
        read(page, "the same text")
        expect(answer).to_have_attribute("aria-busy", "false")
    for _ in range(2):
        ask(page, "")
        expect(page.locator("#verdict [role=alert]")).to_have_text("Type a text first.")
        expect(answer).to_have_attribute("aria-busy", "false")


def test_words_of_an_earlier_text_do_not_come_after_a_fault(
    service: Service, visit: Callable[..., Page]
) -> None:
    page = visit(service)
    service.behave(thinking={"slowly": 1.5})
    ask(page, "slowly")
    expect(page.locator("#words")).to_contain_text("Looking at the words")
    ask(page, "")
    expect(page.locator("#verdict [role=alert]")).to_have_text("Type a text first.")
    page.wait_for_timeout(2000)
    expect(page.locator("#words")).to_have_text("")


def test_many_classes(service: Service, visit: Callable[..., Page]) -> None:
    page = visit(service)
    answer = {
        "label": "sports",
        "probabilities": {"politics": 0.25, "sports": 0.4, "health": 0.2, "weather": 0.15},
        "unsure": False,
        "threshold": None,
        "positive": None,
    }
    service.behave(answer=answer)
    assert read(page, "many classes") == "Possibly sports"
    assert page.locator("#verdict .name").all_inner_texts() == [
        "sports",
        "politics",
        "health",
        "weather",
    ]
    assert page.locator("#verdict rect.band[x]").count() == 1
    service.behave(answer=answer | {"unsure": True})
    assert read(page, "many classes again") == "Unsure"


def test_long_texts_say_that_they_were_cut(
    service: Service, visit: Callable[..., Page]
) -> None:
    page = visit(service)
    ask(page, "word " * 400)
    expect(page.locator("#verdict .notice")).to_contain_text("only its start was judged")


@pytest.mark.parametrize(
    "text",
    [
        "<script>window.ran = 1</script> news",
        "<img src=x onerror='window.ran=1'> news",
        "</p></section><iframe srcdoc='<script>parent.ran=1</script>'></iframe> news",
        "${window.ran=1} {{window.ran=1}} `${window.ran=1}` news",
        "<svg onload=window.ran=1> &lt;b&gt; <b>news</b>",
    ],
)
def test_what_people_type_is_shown_and_not_run(
    service: Service, visit: Callable[..., Page], text: str
) -> None:
    page = visit(service)
    read(page, text)
    service.behave(
        answer={
            "label": text,
            "probabilities": {text: 0.8, "x": 0.2},
            "unsure": False,
            "model_version": text,
        }
    )
    ask(page, f"{text} once more")
    expect(page.locator("#verdict h2")).to_have_text(f"Likely {text}")
    page.get_by_role("tab", name="A table").click()
    table = f'text,"{text}"\n"{text}",x\n'
    page.locator("#upload input").set_input_files(
        {"name": "<b>.csv", "mimeType": "text/csv", "buffer": table.encode()}
    )
    expect(page.locator("#result td").first).to_have_text(text)
    page.wait_for_timeout(200)
    assert page.evaluate("window.ran") is None
    assert page.locator("iframe, #answer img, #answer b, #result b, #result img").count() == 0


def test_people_say_whether_it_was_right(service: Service, visit: Callable[..., Page]) -> None:
    page = visit(service)
    expect(page.locator("#feedback")).to_be_hidden()
    for name in ("Correct", "Wrong", "Unsure"):
        read(page, f"judged as {name}")
        button = page.locator("#feedback").get_by_role("button", name=name)
        button.click()
        expect(page.locator("#thanks")).to_have_text(f"Thank you: noted as {name.lower()}.")
        for each in page.locator("#feedback button").all():
            expect(each).to_be_disabled()
        last = service.lines("feedback")[-1]
        assert last["verdict"] == name.lower()
        assert last["id"] == service.lines("predictions")[-1]["id"]
    # Of the next text nothing has been said yet.
    read(page, "another")
    expect(page.locator("#thanks")).to_have_text("")
    expect(page.locator("#feedback button").first).to_be_enabled()


def _csv(rows: int) -> dict[str, Any]:
    lines = "".join(f'{n},"Headline number {n}, as it was"\n' for n in range(rows))
    return {
        "name": "headlines.csv",
        "mimeType": "text/csv",
        "buffer": f"id,headline\n{lines}".encode(),
    }


def test_a_table_is_predicted_and_fetched(service: Service, visit: Callable[..., Page]) -> None:
    page = visit(service)
    page.get_by_role("tab", name="A table").click()
    service.behave(delay=0.05)
    page.locator("#upload input").set_input_files(_csv(700))
    bar = page.get_by_role("progressbar", name="Rows predicted")
    expect(bar).to_be_visible()
    expect(page.locator("#progress")).to_contain_text(
        re.compile(r"headlines\.csv: [1-9]\d* of 700 rows")
    )
    expect(page.locator("#upload")).to_be_hidden()
    expect(page.locator("#result")).to_contain_text("700 rows predicted.", timeout=60_000)
    expect(bar).to_be_hidden()
    assert page.locator("#result th").all_inner_texts() == [
        "headline",
        "prediction",
        "fake",
        "real",
    ]
    assert page.locator("#result tbody tr").count() == 10
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the whole table").click()
    assert download.value.suggested_filename == "predictions.csv"
    lines = download.value.path().read_text().splitlines()
    assert len(lines) == 701
    assert lines[0].startswith("id,headline,prediction,probability_fake,probability_real")
    # The place for the next one is free.
    page.locator("#upload input").set_input_files(_csv(3))
    expect(page.locator("#result")).to_contain_text("3 rows predicted.")


def test_a_table_can_be_stopped(service: Service, visit: Callable[..., Page]) -> None:
    page = visit(service)
    page.get_by_role("tab", name="A table").click()
    service.behave(delay=0.3)
    page.locator("#upload input").set_input_files(_csv(3000))
    expect(page.locator("#progress")).to_contain_text("of 3,000 rows")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#result")).to_have_text("Stopped.")
    expect(page.locator("#upload")).to_be_visible()
    expect(page.locator("#progress")).to_have_text("")
    page.wait_for_timeout(600)  # what was asked already is answered
    before = len(service.asked())
    page.wait_for_timeout(1000)
    assert len(service.asked()) == before


def test_a_table_of_who_has_gone_is_given_up(
    service: Service, visit: Callable[..., Page]
) -> None:
    page = visit(service)
    page.get_by_role("tab", name="A table").click()
    service.behave(delay=0.3)
    page.locator("#upload input").set_input_files(_csv(3000))
    expect(page.locator("#progress")).to_contain_text("of 3,000 rows")
    page.close()
    time.sleep(3)
    before = len(service.asked())
    time.sleep(1.5)
    assert len(service.asked()) == before


def test_tables_that_cannot_be_read_say_why(
    service: Service, visit: Callable[..., Page]
) -> None:
    page = visit(service)
    page.get_by_role("tab", name="A table").click()
    upload = page.locator("#upload input")
    wrong = {"name": "a.csv", "mimeType": "text/csv", "buffer": b"one,two\n1,2\n"}
    upload.set_input_files(wrong)
    expect(page.locator("#result [role=alert]")).to_contain_text(
        "a.csv: which column is the text?"
    )
    page.get_by_label("Column of the text").fill("two")
    upload.set_input_files(wrong)
    expect(page.locator("#result")).to_contain_text("1 row predicted.")
    upload.set_input_files({"name": "a.docx", "mimeType": "x/y", "buffer": b"PK"})
    expect(page.locator("#result [role=alert]")).to_contain_text("a.docx")
    # Chromium's driver sends no more at once than that from memory.
    large = service.folder / "large.csv"
    large.write_bytes(b"text\n" + b"x" * 20_100_000)
    upload.set_input_files(large)
    expect(page.locator("#lost")).to_have_text("The file is too large.")
    expect(page.locator("body")).not_to_contain_text("Traceback")


def test_what_goes_wrong_is_told_in_plain_words(
    visit: Callable[..., Page], other: Callable[..., Service]
) -> None:
    service = other({"deadline": 1.0, "access.rate": "8/minute"})
    page = visit(service)
    fault = page.locator("#verdict [role=alert]")
    page.locator("#text textarea").press("Enter")
    expect(fault).to_have_text("Type a text first.")
    expect(page.locator("#feedback")).to_be_hidden()
    ask(page, "x" * 100_001)
    expect(fault).to_have_text("The text has 100,001 characters, at most 100,000 are allowed.")
    service.behave(status=500)
    ask(page, "one")
    expect(fault).to_have_text("The model does not answer just now. Try again in a moment.")
    service.behave(hang=True)
    ask(page, "two")
    expect(page.locator("#answer")).to_have_attribute("aria-busy", "true")
    expect(fault).to_have_text(re.compile("took too long|busy|does not answer"))
    expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")
    service.behave()
    for n in range(6):
        ask(page, f"again {n}")
        page.wait_for_timeout(500)
    expect(page.locator("#lost")).to_have_text(
        re.compile(r"You have asked often in a short time\. Try again in \d+ seconds?\.")
    )
    assert "Error" not in page.locator("body").inner_text()


def test_too_many_at_once_are_told_to_come_again(
    visit: Callable[..., Page], other: Callable[..., Service]
) -> None:
    service = other({"page.concurrent": 1, "page.waiting": 1, "deadline": 6.0})
    pages = [visit(service) for _ in range(4)]
    service.behave(hang=True)
    for page in pages:
        ask(page, "one of many")
    for _ in range(50):
        pages[0].wait_for_timeout(100)
        told = [page.locator("#lost").inner_text() for page in pages]
        if any(told):
            break
    assert set(told) == {"", "Many people are asking just now. Try again in a moment."}


def test_a_server_that_is_gone_and_comes_back(
    visit: Callable[..., Page], other: Callable[..., Service]
) -> None:
    service = other({})
    page = visit(service)
    read(page, "before")
    start = time.monotonic()
    service.stop()
    assert time.monotonic() - start < 15  # no open page holds it up
    ask(page, "meanwhile")
    expect(page.locator("#lost")).to_have_text(
        "The server cannot be reached. Check your connection, and try again."
    )
    expect(page.locator(".toast-wrap")).to_be_hidden()
    assert "Error" not in page.locator("body").inner_text()
    page.locator("#text textarea").fill("meanwhile, longer")
    service.start()
    # The page comes anew by itself, with what was typed.
    expect(page.locator("#verdict h2")).to_have_count(0, timeout=30_000)
    expect(page.locator("#text textarea")).to_have_value("meanwhile, longer")
    assert read(page, "after")


ELEMENTS = """() => [...document.querySelectorAll('body *')].filter(e =>
    e.checkVisibility({visibilityProperty: true}) && e.getClientRects().length
    && !e.closest('.sr-only, .visually-hidden, [aria-hidden=true]')
    && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))"""

CONTRASTS = (
    """() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const over = (top, under) => {
    const a = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map(i => top[i] * a + under[i] * (1 - a));
  };
  const background = e => {
    const layers = [];
    for (let p = e; p; p = p.parentElement) {
      const c = parse(getComputedStyle(p).backgroundColor);
      if (c.length) layers.push(c);
    }
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
  };
  const luminance = c => {
    const [r, g, b] = c.map(
      v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return ("""
    + ELEMENTS
    + """)().map(e => {
    const style = getComputedStyle(e);
    const under = background(e);
    const ink = luminance(over(parse(style.color), under)), behind = luminance(under);
    const pair = [Math.max(ink, behind), Math.min(ink, behind)];
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    return [(pair[0] + 0.05) / (pair[1] + 0.05), large ? 3 : 4.5, e.tagName, e.className,
            e.textContent.trim().slice(0, 40)];
  });
}"""
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_in_both_themes(
    service: Service, visit: Callable[..., Page], scheme: str
) -> None:
    page = visit(service, color_scheme=scheme)

    def check() -> None:
        page.wait_for_timeout(400)
        found = page.evaluate(CONTRASTS)
        assert len(found) > 10
        assert [each for each in found if each[0] < each[1]] == []

    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 200) == (scheme == "dark")
    check()
    read(page, TEXT)
    page.get_by_text("Words as a list").click()
    page.locator("#feedback button").first.click()
    expect(page.locator("#thanks")).to_contain_text("Thank you")
    check()
    service.behave(status=500)
    ask(page, "a fault")
    expect(page.locator("#verdict [role=alert]")).to_be_visible(timeout=15_000)
    check()
    service.behave()
    page.get_by_role("tab", name="A table").click()
    page.locator("#upload input").set_input_files(_csv(30))
    expect(page.locator("#result")).to_contain_text("30 rows predicted.")
    check()


def test_nothing_is_too_wide_for_a_phone(service: Service, visit: Callable[..., Page]) -> None:
    page = visit(service, width=375, has_touch=True, is_mobile=True)
    assert not sideways(page)
    long = "Donaudampfschiff" * 20
    read(page, f"{long} {TEXT}")
    page.get_by_text("Words as a list").click()
    assert not sideways(page)
    service.behave(
        answer={
            "label": long,
            "probabilities": {long: 0.6, "b": 0.4},
            "unsure": False,
            "model_version": long,
        }
    )
    ask(page, "long names")
    expect(page.locator("#verdict h2")).to_have_text(f"Likely {long}")
    assert not sideways(page)
    service.behave()
    page.get_by_role("tab", name="A table").click()
    assert not sideways(page)
    table = f"text,other\n{long},x\n{TEXT},y\n"
    page.locator("#upload input").set_input_files(
        {"name": f"{long[:100]}.csv", "mimeType": "text/csv", "buffer": table.encode()}
    )
    expect(page.locator("#result")).to_contain_text("2 rows predicted.")
    assert not sideways(page)
    for button in page.get_by_role("button").all():
        box = button.bounding_box()
        assert box is None or box["height"] >= 24  # to be hit by a finger


FOCUSED = """() => {
  const e = document.activeElement;
  const style = getComputedStyle(e);
  const name = e.getAttribute('aria-label') || e.labels?.[0]?.innerText || e.innerText;
  return [e.tagName, name.trim().slice(0, 30),
          style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2];
}"""


def test_the_keyboard_is_enough(service: Service, visit: Callable[..., Page]) -> None:
    page = visit(service)

    def tab() -> tuple[str, str]:
        page.keyboard.press("Tab")
        tag, name, outlined = page.evaluate(FOCUSED)
        assert outlined, f"the focus on {tag} {name} cannot be seen"
        return tag, name

    assert [tab() for _ in range(8)] == [
        ("A", "API"),
        ("BUTTON", "One text"),
        ("BUTTON", "A table"),
        ("TEXTAREA", "Headline"),
        ("BUTTON", "Check"),
        ("BUTTON", "Bombshell: rigged laboratory re"[:30]),
        ("BUTTON", "Proposed library roof in Jakarta"[:30]),
        ("BUTTON", "Watch: jaw-dropping river clean-up"[:30]),
    ]
    page.locator("#text textarea").focus()
    page.keyboard.type(TEXT)
    page.keyboard.press("Enter")
    expect(page.locator("#words .marked")).to_have_text(TEXT)
    assert [tab() for _ in range(5)] == [
        ("BUTTON", "Check"),
        ("SUMMARY", "Words as a list"),
        ("BUTTON", "Correct"),
        ("BUTTON", "Wrong"),
        ("BUTTON", "Unsure"),
    ]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#thanks")).to_have_text("Thank you: noted as wrong.")
    page.get_by_role("tab", name="A table").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#upload button")).to_be_visible()
    assert tab() == ("TEXTAREA", "Column of the text")
    assert tab() == ("BUTTON", "Click to upload or drop files")
    page.wait_for_timeout(500)
    expect(page.locator("#upload button")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(
        {"name": "a.csv", "mimeType": "text/csv", "buffer": b"text\nsome words\n"}
    )
    expect(page.locator("#result")).to_contain_text("1 row predicted.")
    for _ in range(12):
        if tab()[1].startswith("Download"):
            break
    with page.expect_download():
        page.keyboard.press("Enter")


def test_screen_readers_are_told(service: Service, visit: Callable[..., Page]) -> None:
    page = visit(service)
    assert page.locator("html").get_attribute("lang") == "en"
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    expect(page.get_by_role("textbox", name="Headline")).to_be_visible()
    live = page.locator("#verdict [aria-live=polite]")
    expect(live).to_have_count(1)
    # It is there before it says something, and stays the same: otherwise nobody hears it.
    handle = live.element_handle()
    read(page, TEXT)
    read(page, "another text")
    assert live.evaluate("(now, before) => now === before", handle)
    expect(live).to_contain_text("The model gives")
    expect(page.locator("#thanks [aria-live=polite]")).to_have_count(1)
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, a, input, textarea')].filter(e =>
        e.checkVisibility() && !e.closest('[aria-hidden=true]')
        && !(e.getAttribute('aria-label') || e.innerText.trim() || e.labels?.length)
        ).map(e => e.outerHTML)"""
    )
    assert unnamed == []


def test_nothing_of_gradio_is_left_to_see(service: Service, visit: Callable[..., Page]) -> None:
    page = visit(service)
    read(page, TEXT)
    text = page.locator("body").inner_text()
    for name in ("Gradio", "Settings", "Use via API", "Flag", "Share"):
        assert name not in text
    assert (
        page.evaluate("Object.keys(localStorage).length + Object.keys(sessionStorage).length")
        == 0
    )
    assert page.context.cookies() == []


def test_without_javascript_it_says_so(service: Service, chromium: Browser) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(service.address)
    # Nothing but what it says then has this link.
    expect(page.get_by_role("link", name="API")).to_be_visible()
    context.close()
