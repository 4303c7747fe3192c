"""What of Gradio can be reached, and how its page leaves: with our styles, and under a policy
by which no script runs that is not the server's.

Of Gradio's many routes only those are open that the page needs. Its files are not among them:
predicted tables are handed out from here, by names that cannot be guessed.
"""

import asyncio
import json
import os
import re
import secrets
from collections.abc import Iterator, MutableMapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from fakenews.serving.gateway.edge import App, Message, Receive, Send
from fakenews.serving.gateway.page_tables import Shelf
from fakenews.serving.gateway.problems import Problem
from fakenews.serving.gateway.requests import read_json, refused_problem
from fakenews.serving.gateway.settings import Bounds
from fakenews.serving.protocol import Refused, check_depth

JOIN = "/gradio_api/queue/join"
UPLOAD = "/gradio_api/upload"
TABLES = "/page/tables/"
REPORT = "/page/report"

# Of Gradio's package, and for how long a browser may keep them: the first have names that
# change with what is in them.
_KEPT = {
    "/assets/": b"public, max-age=31536000, immutable",
    "/static/fonts/": b"public, max-age=86400",
    "/static/js/": b"public, max-age=86400",
}
_TOLD = (b"content-type", b"content-encoding", b"vary", b"etag")
_GET = (
    *_KEPT,
    "/theme.css",
    "/gradio_api/app_id",
    "/gradio_api/queue/data",
    "/gradio_api/upload_progress",
)
_POST = (JOIN, UPLOAD, "/gradio_api/cancel")
_OWN = {"/page/page.css": "text/css", "/page/page.js": "text/javascript"}

# What Gradio says of itself to those who share a link.
_FOREIGN = re.compile(
    r'<meta\s+(?:name|property)="(?:og|twitter):[^>]*>|<link rel="manifest"[^>]*>'
)
# Of the report, which holds its plots and styles, and runs nothing.
_STILL = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_SCRIPT = re.compile(r"<script(?=[\s>])")
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Crect width='16' height='16' rx='3' fill='%231f4e8c'/%3E"
    "%3Cpath d='M4 5h8M4 8h8M4 11h5' stroke='%23fff' stroke-width='1.5'/%3E%3C/svg%3E"
)

Scope = MutableMapping[str, Any]


def opens(scope: Scope) -> bool:
    """Whether a request is one of those that the page needs."""
    path = scope["path"]
    if scope["method"] == "POST":
        return path in _POST
    return scope["method"] in ("GET", "HEAD") and (
        path in ("/", REPORT) or path in _OWN or path.startswith((*_GET, TABLES))
    )


class Door:
    """An ASGI application around Gradio's.

    Args:
        app: Gradio's.
        title: Of the page.
        shelf: Has the predicted tables.
        uploads: Folder into which Gradio puts them.
        report: File of the latest monitoring report, if one is to be shown.
        bounds: Of requests.
    """

    def __init__(
        self,
        app: App,
        *,
        title: str,
        shelf: Shelf,
        uploads: Path,
        report: Path | None,
        bounds: Bounds,
    ) -> None:
        self._app = app
        self._title = title
        self._shelf = shelf
        self._uploads = uploads
        self._report_file = report
        self._bounds = bounds
        self._files: dict[tuple[str, bool], Response] = {}
        self._own = {
            path: files("fakenews.serving.gateway")
            .joinpath(path.rpartition("/")[2])
            .read_bytes()
            for path in _OWN
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, which is one that `opens` says yes to."""
        path = scope["path"]
        if path == "/":
            await self._page(scope, receive, send)
        elif path in _OWN:
            await self._file(path)(scope, receive, send)
        elif path.startswith(tuple(_KEPT)):
            await self._package(scope, receive, send)
        elif path.startswith(TABLES):
            await self._table(path.removeprefix(TABLES))(scope, receive, send)
        elif path == REPORT:
            await (await self._report())(scope, receive, send)
        else:
            if scope["method"] == "POST":
                _check_site(scope)
            if path == JOIN:
                receive = await self._question(scope, receive)
            await self._app(scope, receive, send)

    async def _question(self, scope: Scope, receive: Receive) -> Receive:
        """Read a question, and give it to Gradio as it was understood here.

        Raises:
            Problem: It is too large, no JSON, or names a file that was not uploaded. Gradio
                would fetch it, from this machine or from any other.
        """
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            raise Problem(411, "no_length", "the request does not say how long it is")
        if int(length) > self._bounds.body_bytes:
            raise Problem(413, "body_too_large", "the text is too long")
        content = read_json(await Request(scope, receive).body())
        try:
            check_depth(content, self._bounds.depth)
        except Refused as refused:
            raise refused_problem(refused) from None
        for named in _named_files(content):
            if not self._is_upload(named):
                raise Problem(422, "no_upload", "this file was not uploaded here")
        # Half a character, which JSON can spell, nothing can encode.
        body = json.dumps(content, ensure_ascii=False).encode(errors="replace")
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return again

    def _is_upload(self, named: Any) -> bool:
        if not isinstance(named, str) or "\0" in named:
            return False
        path = Path(os.path.realpath(named))
        return path.is_relative_to(os.path.realpath(self._uploads)) and path.is_file()

    def _file(self, path: str) -> Response:
        return Response(
            self._own[path], media_type=_OWN[path], headers={"cache-control": "no-cache"}
        )

    def _table(self, name: str) -> Response:
        path = self._shelf.find(name)
        if path is None:
            raise Problem(404, "not_found", "this table is not kept any more")
        return FileResponse(
            path,
            filename="predictions.csv",
            media_type="text/csv; charset=utf-8",
            headers={"cache-control": "no-store"},
        )

    async def _report(self) -> Response:
        if self._report_file is None:
            raise Problem(404, "not_found", "no monitoring report is shown here")
        try:
            # Whole: another may take its place at any moment.
            content = await asyncio.to_thread(self._report_file.read_bytes)
        except OSError:
            raise Problem(404, "not_found", "there is no monitoring report yet") from None
        return Response(
            content,
            media_type="text/html",
            headers={"content-security-policy": _STILL, "cache-control": "no-store"},
        )

    async def _package(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A file of Gradio's package, which it would compress for each visitor anew."""
        path, accepted = scope["path"], dict(scope["headers"]).get(b"accept-encoding", b"")
        key = (path, b"br" in accepted)
        found = self._files.get(key)
        if found is None:
            # Nothing else of a request matters: not its method, and no part of the file.
            headers = [(b"accept-encoding", accepted)]
            asked = {**scope, "method": "GET", "headers": headers}
            start, body = await self._held(asked, receive)
            found = Response(body, start["status"])
            kept = next(how for begins, how in _KEPT.items() if path.startswith(begins))
            found.raw_headers = [
                *((name, value) for name, value in start["headers"] if name in _TOLD),
                (b"content-length", b"%d" % len(body)),
                (b"cache-control", kept if start["status"] == 200 else b"no-store"),
            ]
            if start["status"] == 200:
                self._files[key] = found
        await found(scope, receive, send)

    async def _held(self, scope: Scope, receive: Receive) -> tuple[Message, bytes]:
        """Gradio's response, as a whole."""
        start: Message = {}
        parts: list[bytes] = []

        async def hold(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                parts.append(message.get("body", b""))

        await self._app(scope, receive, hold)
        return start, b"".join(parts)

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        # As it is, so that it can be read here, and without links to what was once saved.
        plain = [
            (name, value) for name, value in scope["headers"] if name != b"accept-encoding"
        ]
        asked = {**scope, "headers": plain, "query_string": b"", "method": "GET"}
        start, body = await self._held(asked, receive)
        nonce = secrets.token_urlsafe(16)
        response = Response(
            dressed(body.decode(), title=self._title, nonce=nonce),
            start["status"],
            media_type="text/html",
            headers={
                "content-security-policy": policy(nonce),
                "cache-control": "no-store",
                "cross-origin-opener-policy": "same-origin",
            },
        )
        await response(scope, receive, send)


def _check_site(scope: Scope) -> None:
    """Refuse what a page of another site sends.

    Raises:
        Problem: It is one.
    """
    site = dict(scope["headers"]).get(b"sec-fetch-site", b"same-origin")
    if site != b"same-origin":
        raise Problem(403, "other_site", "only the page itself may ask here: see /docs")


def _named_files(content: Any) -> Iterator[Any]:
    """What Gradio would take for the path of a file, wherever it stands."""
    left = [content]
    while left:
        found = left.pop()
        if isinstance(found, dict):
            if "meta" in found and "path" in found:
                yield found["path"]
            left += found.values()
        elif isinstance(found, list):
            left += found


def dressed(page: str, *, title: str, nonce: str) -> str:
    """Gradio's page with our title, styles and script, and without what it says of itself.

    Args:
        page: As Gradio makes it.
        title: Of the page.
        nonce: Of the scripts that are the server's.
    """
    page = _SCRIPT.sub(f'<script nonce="{nonce}"', _FOREIGN.sub("", page))
    head = (
        f"<title>{escape(title)}</title>"
        '<meta name="color-scheme" content="light dark">'
        f'<link rel="icon" href="{_ICON}">'
        '<link rel="stylesheet" href="page/page.css">'
        f'<script nonce="{nonce}" defer src="page/page.js"></script></head>'
    )
    body = (
        "<noscript><p>This page needs JavaScript. Programs, and people without it, use the "
        '<a href="docs">API</a>.</p></noscript></body>'
    )
    return page.replace("</head>", head, 1).replace("</body>", body, 1)


def policy(nonce: str) -> str:
    """The content security policy of the page.

    Args:
        nonce: Of the scripts that are the server's.
    """
    # Gradio's HTML component compiles its template, a constant, in the browser: hence
    # 'unsafe-eval'. Gradio writes its styles into the page, and into attributes.
    return (
        f"default-src 'none'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
    )
