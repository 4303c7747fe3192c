"""What of Gradio can be reached, and how its page leaves: over a real socket."""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Page = Any


def test_only_uploads_can_be_named(page: Callable[..., Page], tmp_path: Path) -> None:
    found = page()
    secret = tmp_path / "secret.csv"
    secret.write_text("text\nsecret\n")
    link = Path(os.environ["GRADIO_TEMP_DIR"]) / "link.csv"
    link.symlink_to(secret)
    mine = found.upload("a.csv", b"text\nx\n")["path"]
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
                body = {"data": data, "fn_index": function, "session_hash": "a-session"}
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


def test_files_of_the_package_are_kept_by_browsers(gradio: Page) -> None:
    address = re.search(r'src="\./(assets/index-[^"]+\.js)"', gradio.html)
    assert address is not None
    answers = [
        gradio.client.get(f"/{address.group(1)}", headers={"accept-encoding": encoding})
        for encoding in ("br", "br", "identity", "identity")
    ]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["cache-control"] for answer in answers} == {
        "public, max-age=31536000, immutable"
    }
    found = [answer.headers.get("content-encoding") for answer in answers]
    assert found == ["br", "br", None, None]
    assert answers[2].content == answers[3].content
    assert int(answers[0].headers["content-length"]) < len(answers[2].content)
    head = gradio.client.head(f"/{address.group(1)}")
    assert (head.status_code, head.content) == (200, b"")
    assert gradio.client.get("/assets/none.js").status_code == 404


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
    deep = {"data": [], "fn_index": 0, "event_data": json.loads("[" * 30 + "]" * 30)}
    assert gradio.client.post(join, json=deep).json()["error"]["code"] == "too_deep"
    assert gradio.client.post(join, content=b"{").status_code == 400


def test_half_a_character_breaks_nothing(gradio: Page) -> None:
    verdict, asked = gradio.judge("a \ud83d half")
    assert "<h2" in verdict
    assert asked["item"]["text"] == "a ? half"


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


def test_the_latest_report_is_shown_if_that_is_wanted(
    page: Callable[..., Page], tmp_path: Path
) -> None:
    report = tmp_path / "monitoring" / "report.html"
    found = page({"page.report_file": str(report)})
    assert 'href=\\"page/report\\"' in found.html
    absent = found.client.get("/page/report")
    assert (absent.status_code, absent.json()["error"]["code"]) == (404, "not_found")
    report.parent.mkdir()
    for content in ("<p>of yesterday</p>", "<p>of today</p>"):
        report.write_text(content)
        answer = found.client.get("/page/report")
        assert (answer.status_code, answer.text) == (200, content)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert "script" not in answer.headers["content-security-policy"]
    assert found.client.head("/page/report").text == ""


def test_no_report_is_shown_unasked(gradio: Page) -> None:
    assert "page/report" not in gradio.html
    assert gradio.client.get("/page/report").status_code == 404
