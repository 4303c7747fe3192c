"""The page behind the gateway, asked as its browser asks, over a real socket."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

Start = Callable[..., Any]
SESSION = "a-session"


class Page:
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
        joined = self.client.post("/gradio_api/queue/join", json=body)
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

    def explain(self, asked: Any) -> str:
        found = self.ask(self.chained[0], asked)
        done = next(m for m in found if m["msg"] == "process_completed")
        assert done["success"], found
        words: str = done["output"]["data"][0]
        return words


@pytest.fixture
def page(start: Start) -> Iterator[Callable[..., Page]]:
    """Starts gateways with a page, with settings by their keys."""
    before = {
        name: os.environ.get(name) for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR")
    }

    yield lambda values=None: Page(start({"page.enabled": True, **(values or {})}))

    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture
def gradio(page: Callable[..., Page]) -> Page:
    return page()


def test_a_text_is_judged_and_explained_and_logged_once(
    page: Callable[..., Page],
) -> None:
    found = page()
    verdict, asked = found.judge("Minister opens <b>three</b> hospitals")
    assert re.search(r"<h2[^>]*>(Likely|Unsure)", verdict)
    assert 'role="img"' in verdict
    assert 'class="band"' in verdict
    words = found.explain(asked)
    assert "<b>" not in words
    assert "What it noticed" in words
    logged = found.gateway.logged()
    assert [line["id"] for line in logged] == [asked["id"]]
    assert found.gateway.metric('fakenews_requests_total{path="/predict",status="200"}') == 0


def test_people_say_whether_it_was_right(page: Callable[..., Page]) -> None:
    found = page()
    _, asked = found.judge("Minister opens three hospitals")
    thanks, *buttons = found.call("click Wrong", asked, "Wrong")
    assert "noted as wrong" in thanks
    assert [button["interactive"] for button in buttons] == [False] * 3
    lines = (found.gateway.folder / "feedback").glob("*.jsonl")
    stored = [json.loads(line) for path in lines for line in path.read_text().splitlines()]
    assert [(line["id"], line["verdict"]) for line in stored] == [(asked["id"], "wrong")]


def test_what_cannot_be_judged_is_told(gradio: Page) -> None:
    for text, said in {
        "": "Type a text first.",
        "  \n ": "Type a text first.",
        None: "Type a text first.",
        "x" * 100_001: "The text has 100,001 characters, at most 100,000 are allowed.",
        "MISSING": "The column age is missing.",
    }.items():
        verdict, asked = gradio.judge(text)
        assert said in verdict
        assert asked is None


def test_a_server_that_fails_is_told(page: Callable[..., Page], stand_in: Any) -> None:
    found = page({"deadline": 0.5})
    stand_in.behave(any={"status": 500})
    assert "The model does not answer just now. Try again" in found.judge("a")[0]
    stand_in.behave(any={"hang": True})
    assert re.search("took too long|does not answer", found.judge("b")[0])
    stand_in.behave()
    _, asked = found.judge("c")
    stand_in.behave(any={"status": 500})
    assert "The words are not explained" in found.explain(asked)


def test_a_visitor_has_the_rate_of_programs(page: Callable[..., Page]) -> None:
    found = page({"access.rate": "3/minute"})
    _, asked = found.judge("one")
    assert found.gateway.post("/predict", {"text": "two"}).status_code == 200
    assert "What it noticed" in found.explain(asked)
    assert "You have asked often in a short time" in found.judge("four")[0]
    assert found.gateway.post("/predict", {"text": "five"}).status_code == 429
    refused = found.client.post("/gradio_api/upload", files={"files": ("a.csv", b"text\nx\n")})
    assert refused.status_code == 429


def test_made_up_questions_break_nothing(gradio: Page) -> None:
    for asked in (None, {}, {"item": 7}, {"id": "x", "item": {}}, [1], "x", {"id": "x" * 9999}):
        for values in (gradio.call("click Wrong", asked, "Wrong"), [gradio.explain(asked)]):
            assert "Thank you" not in str(values[0])
            assert "Traceback" not in str(values)
    assert not list((gradio.gateway.folder / "feedback").glob("*.jsonl"))


def test_unexpected_errors_are_logged_without_the_text(
    page: Callable[..., Page],
    stand_in: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = page()
    stand_in.behave(any={"answer": {"probabilities": {"other": 1.0}}})
    verdict, _ = found.judge("a private text")
    assert "Something went wrong here. It is logged as" in verdict
    identifier = re.search(r"logged as ([0-9a-f-]+)", verdict)
    assert identifier is not None
    assert identifier.group(1) in caplog.text
    assert "a private text" not in caplog.text


def upload(found: Page, name: str, content: bytes) -> dict[str, Any]:
    answer = found.client.post("/gradio_api/upload", files={"files": (name, content)})
    assert answer.status_code == 200, answer.text
    return {
        "path": answer.json()[0],
        "orig_name": name,
        "meta": {"_type": "gradio.FileData"},
    }


def test_a_table_is_predicted_shown_and_fetched(page: Callable[..., Page]) -> None:
    found = page({"tables.chunk_rows": 4})
    rows = "".join(f'"Text {n}, <i>x</i>"\n' for n in range(20))
    file = upload(found, "some table.csv", f"text\n{rows}".encode())
    messages = found.ask(found.functions["upload upload"], file, "")
    shown = json.dumps(messages)
    assert "of 20 rows" in shown
    result = messages[-2]["output"]["data"][2]
    assert "20 rows predicted" in result
    assert "&lt;i&gt;x" in result
    address = re.search(r'href="(page/tables/[^"]+)"', result)
    assert address is not None
    table = found.client.get(f"/{address.group(1)}")
    assert table.headers["content-disposition"] == 'attachment; filename="predictions.csv"'
    assert table.headers["cache-control"] == "no-store"
    assert table.text.count("\n") == 21
    assert not Path(file["path"]).exists()


def test_a_table_that_cannot_be_read_is_told(page: Callable[..., Page]) -> None:
    found = page()
    file = upload(found, "a.csv", b"a,b\n1,2\n")
    result = found.call("upload upload", file, "")[2]
    assert "a.csv: which column is the text?" in result
    file = upload(found, "a.exe", b"MZ")
    assert 'class="fault"' in found.call("upload upload", file, "")[2]


def test_only_uploads_can_be_named(page: Callable[..., Page], tmp_path: Path) -> None:
    found = page()
    secret = tmp_path / "secret.csv"
    secret.write_text("text\nsecret\n")
    link = Path(os.environ["GRADIO_TEMP_DIR"]) / "link.csv"
    link.symlink_to(secret)
    mine = upload(found, "a.csv", b"text\nx\n")["path"]
    paths = [
        str(secret),
        str(link),
        f"{mine}/../../../../{secret}",
        os.path.relpath(secret),
        "https://example.com/a.csv",
        "http://127.0.0.1/a.csv",
        "\0",
        "",
        str(Path(mine).parent),
        7,
        None,
    ]
    for path in paths:
        for data in (
            [{"path": path, "meta": {"_type": "gradio.FileData"}}, ""],
            [
                {"x": [{"path": path, "meta": {"_type": "gradio.FileData"}, "url": "x"}]},
                "Wrong",
            ],
        ):
            for function in found.functions["upload upload"], found.functions["click Wrong"]:
                body = {"data": data, "fn_index": function, "session_hash": SESSION}
                answer = found.client.post("/gradio_api/queue/join", json=body)
                assert answer.status_code == 422
                assert answer.json()["error"]["code"] == "no_upload"
    assert secret.exists()
    assert {path.name for path in link.parent.rglob("*.csv")} == {"link.csv", "a.csv"}


def test_gradio_too_checks_which_files_are_named(gradio: Page) -> None:
    """Behind the door, should it ever miss one."""
    from gradio.blocks import Blocks

    assert gradio.functions
    assert all(made.has_launched for made in Blocks.get_instances()[-1:])


def test_uploads_are_bounded(page: Callable[..., Page]) -> None:
    found = page({"bounds.table_bytes": 10_000})
    answer = found.client.post("/gradio_api/upload", files={"files": ("a.csv", b"x" * 20_000)})
    assert answer.status_code == 413


SHUT = [
    "/gradio_api/file=/etc/passwd",
    "/gradio_api/file/etc/passwd",
    "/file=/etc/passwd",
    "/gradio_api/proxy=https://example.com",
    "/gradio_api/info",
    "/gradio_api/openapi.json",
    "/gradio_api/deep_link",
    "/gradio_api/runs",
    "/gradio_api/vibe-code/",
    "/gradio_api/stream/a/b/1/playlist.m3u8",
    "/gradio_api/heartbeat/a",
    "/config",
    "/monitoring",
    "/manifest.json",
    "/user",
    "/static/ffmpeg/ffmpeg-core.js",
    "/page/tables/..%2f..%2fetc%2fpasswd",
    "/page/tables/x",
    "/page/page.py",
    "/nothing",
]
SHUT_TO_POSTS = [
    "/",
    "/gradio_api/run/judge",
    "/gradio_api/api/judge",
    "/gradio_api/call/judge",
    "/gradio_api/component_server",
    "/gradio_api/process_recording",
    "/gradio_api/vibe-edit/",
    "/login",
]


def test_the_rest_of_gradio_is_shut(gradio: Page) -> None:
    for path in SHUT:
        answer = gradio.client.get(path)
        assert answer.status_code == 404, path
        assert answer.json()["error"]["code"] == "not_found"
    for path in SHUT_TO_POSTS:
        assert gradio.client.post(path, json={}).status_code in (404, 405), path


def test_files_of_the_package_do_not_lead_out(gradio: Page) -> None:
    for path in (
        "/assets/..%2f..%2f..%2froutes.py",
        "/static/fonts/..%2f..%2f..%2f..%2froutes.py",
    ):
        assert gradio.client.get(path).status_code in (403, 404)


def test_pages_of_other_sites_cannot_ask(gradio: Page) -> None:
    for path in ("/gradio_api/queue/join", "/gradio_api/upload"):
        for site in ("cross-site", "same-site"):
            answer = gradio.client.post(path, json={}, headers={"sec-fetch-site": site})
            assert answer.status_code == 403
            assert answer.json()["error"]["code"] == "other_site"


def test_questions_are_bounded(gradio: Page) -> None:
    def body() -> Iterator[bytes]:
        yield b"{}"

    join = "/gradio_api/queue/join"
    assert gradio.client.post(join, content=b"x" * 8_000_001).status_code == 413
    assert gradio.client.post(join, content=body()).status_code == 411


def test_the_api_stays_what_it_is(gradio: Page) -> None:
    assert gradio.client.get("/predict").status_code == 405
    assert gradio.client.get("/docs").status_code == 200
    assert gradio.client.get("/health/live").json()["status"] == "ok"
    paths = gradio.client.get("/openapi.json").json()["paths"]
    assert set(paths) == {
        "/predict",
        "/explain",
        "/predict/csv",
        "/feedback",
        "/health/live",
        "/health/ready",
        "/metrics",
    }


def test_the_page_runs_only_our_scripts(gradio: Page) -> None:
    answers = [gradio.client.get("/") for _ in range(2)]
    nonces = []
    for answer in answers:
        assert answer.status_code == 200
        policies = answer.headers.get_list("content-security-policy")
        assert len(policies) == 1
        found = re.search(r"script-src 'self' 'nonce-([^']+)' 'unsafe-eval';", policies[0])
        assert found is not None
        assert "default-src 'none'" in policies[0]
        nonces.append(found.group(1))
        scripts = re.findall(r"<script[^>]*>", answer.text)
        assert len(scripts) > 3
        assert all(f'nonce="{nonces[-1]}"' in script for script in scripts)
        assert answer.headers["x-frame-options"] == "DENY"
    assert nonces[0] != nonces[1]


def test_the_page_names_no_other_server(gradio: Page) -> None:
    html = re.sub(r"window\.gradio_config = .*?</script>", "", gradio.html, flags=re.DOTALL)
    assert re.findall(r"(?:src|href|content)=\"(?:https?:)?//[^\"]*", html) == []
    assert "<title>Does it read like fake news?</title>" in gradio.html
    styles = gradio.client.get("/theme.css").text + gradio.client.get("/page/page.css").text
    assert set(re.findall("https?:[^'\"]*", styles)) <= {"http://www.w3.org/2000/svg"}
    config = gradio.config
    assert not config["analytics_enabled"]
    assert not config["connect_heartbeat"]
    assert config["footer_links"] == []
    assert {d["api_visibility"] for d in config["dependencies"]} == {"private"}


def test_the_page_says_the_same_to_all(gradio: Page) -> None:
    """A link can bring nothing into the page."""
    plain = re.sub(r'nonce="[^"]*"', "", gradio.html)
    linked = gradio.client.get("/?deep_link=x&view=api&__theme=dark&title=<script>").text
    assert re.sub(r'nonce="[^"]*"', "", linked) == plain


def test_several_visitors_get_their_own_answers(gradio: Page) -> None:
    found: dict[int, str] = {}

    def visit(number: int) -> None:
        with httpx.Client(base_url=gradio.client.base_url, trust_env=False) as client:
            body = {
                "data": [f"text {number}"],
                "fn_index": gradio.functions["click check"],
                "session_hash": f"session-{number}",
            }
            client.post("/gradio_api/queue/join", json=body).raise_for_status()
            address = f"/gradio_api/queue/data?session_hash=session-{number}"
            with client.stream("GET", address) as stream:
                for line in stream.iter_lines():
                    if '"process_completed"' in line:
                        message = json.loads(line.removeprefix("data: "))
                        found[number] = message["output"]["data"][2]["item"]["text"]

    threads = [threading.Thread(target=visit, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: f"text {n}" for n in range(20)}


def test_what_gradio_kept_is_gone_when_the_gateway_stops(gradio: Page) -> None:
    folder = Path(os.environ["GRADIO_TEMP_DIR"]).parent
    upload(gradio, "a.csv", b"text\nx\n")
    assert folder.exists()
    gradio.gateway.stop()
    assert not folder.exists()


_LISTENS = """
import sys
reached = []
def hear(event, arguments):
    if event == "socket.getaddrinfo":
        reached.append(arguments[0])
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        reached.append(arguments[1][0])
sys.addaudithook(hear)
from fakenews.serving.gateway import page
import gradio as gr
assert "torch" not in sys.modules, "torch"
assert "lightning" not in sys.modules
assert "mlflow" not in sys.modules
import time
time.sleep(1)
print(reached)
"""


def test_importing_the_page_reaches_nothing_and_loads_no_torch() -> None:
    found = subprocess.run(
        [sys.executable, "-c", _LISTENS],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "[]"
