"""The page behind the gateway, asked as its browser asks, over a real socket."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

Start = Callable[..., Any]
Page = Any


def test_the_page_may_need_no_key(page: Callable[..., Page], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("someone:0123456789abcdef\n")
    found = page({"access.keys_file": str(keys)})
    assert found.gateway.post("/predict", {"text": "one"}).status_code == 401
    assert "<h2" in found.judge("one")[0]


def test_the_page_may_need_a_key(start: Start, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("someone:0123456789abcdef\n")
    values = {"page.enabled": True, "access.keys_file": str(keys), "access.open_page": False}
    client = start(values).client
    assert client.get("/").status_code == 401
    assert client.post("/gradio_api/queue/join", json={}).status_code == 401


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
    body = {"data": ["four"], "fn_index": found.functions["click check"], "session_hash": "s"}
    refused = found.client.post("/gradio_api/queue/join", json=body)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
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


def test_a_table_is_predicted_shown_and_fetched(page: Callable[..., Page]) -> None:
    found = page({"tables.chunk_rows": 4})
    rows = "".join(f'"Text {n}, <i>x</i>"\n' for n in range(20))
    file = found.upload("some table.csv", f"text\n{rows}".encode())
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
    file = found.upload("a.csv", b"a,b\n1,2\n")
    result = found.call("upload upload", file, "")[2]
    assert "a.csv: which column is the text?" in result
    file = found.upload("a.exe", b"MZ")
    assert 'class="fault"' in found.call("upload upload", file, "")[2]


def test_several_visitors_get_their_own_answers(gradio: Page) -> None:
    found: dict[int, str] = {}

    def visit(number: int) -> None:
        with httpx.Client(
            base_url=gradio.client.base_url, timeout=60, trust_env=False
        ) as client:
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
    gradio.upload("a.csv", b"text\nx\n")
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
