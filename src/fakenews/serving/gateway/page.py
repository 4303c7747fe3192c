"""The page on which people ask: Gradio, which calls the gateway as the API does."""

import os
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.routing import Match, Mount

from fakenews.serving.gateway import page_frame as frame
from fakenews.serving.gateway.page_desk import VERDICTS, Desk
from fakenews.serving.gateway.page_door import REPORT, Door, opens
from fakenews.serving.gateway.page_tables import Shelf
from fakenews.serving.gateway.service import Gateway
from fakenews.serving.gateway.settings import Page, Settings
from fakenews.serving.gateway.tables import TableScorer

# Seconds between looks of Gradio for who asks.
_LOOK = 0.02
# Seconds between looks for uploads that were not predicted.
_SWEEP = 60
# Of pages whose values Gradio remembers: nothing here needs them.
_SESSIONS = 200
_ENVIRONMENT = {
    # No telemetry.
    "GRADIO_ANALYTICS_ENABLED": "False",
    # No statistics of its own, which it would compute anew with each answer.
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(1 << 60),
}
# What is announced when it changes, for those who do not see it.
_LIVE = '<div aria-live="polite" aria-atomic="true">${value}</div>'
# No endpoints for programs, which have the API, and no spinners of Gradio's.
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def mount(app: FastAPI, *, gateway: Gateway, scorer: TableScorer, page: Page) -> FastAPI:
    """Put the page behind the routes of an application.

    Args:
        app: Has the API's routes.
        gateway: Answers.
        scorer: Predicts tables; the API's, so that both together keep its limits.
        page: Settings.
    """
    shelf = Shelf(seconds=page.keep)
    uploads = shelf.folder / "uploads"
    uploads.mkdir()
    os.environ.update(_ENVIRONMENT | {"GRADIO_TEMP_DIR": str(uploads)})
    desk = Desk(gateway=gateway, scorer=scorer, shelf=shelf)
    settings = gateway.settings
    gr.mount_gradio_app(
        app,
        blocks(desk, page, settings),
        path="/",
        footer_links=[],
        run_history=False,  # the browser would keep what was asked
        show_error=False,
        max_file_size=settings.bounds.table_bytes,
        allowed_paths=[],
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Base(font="sans-serif", font_mono="monospace"),
    )
    mounted: Any = app.routes[-1]
    app.router.routes[-1] = _Behind(
        "/",
        Door(
            mounted.app,
            title=page.title,
            shelf=shelf,
            uploads=uploads,
            report=Path(page.report_file) if page.report_file else None,
            bounds=settings.bounds,
        ),
    )
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        async with inner(app) as state:
            yield state
        shelf.close()

    app.router.lifespan_context = lifespan
    return app


class _Behind(Mount):
    """Takes of the paths that the API leaves only the page's, so that others are not found."""

    def matches(
        self, scope: MutableMapping[str, Any]
    ) -> tuple[Match, MutableMapping[str, Any]]:
        if scope["type"] == "http" and opens(scope):
            return super().matches(scope)
        return Match.NONE, {}


def blocks(desk: Desk, page: Page, settings: Settings) -> gr.Blocks:
    """What Gradio makes the page of.

    Args:
        desk: Answers its events.
        page: Settings.
        settings: Of the gateway.
    """
    made: gr.Blocks
    with gr.Blocks(
        title=page.title,
        analytics_enabled=False,
        delete_cache=(_SWEEP, max(round(page.keep), 1)),
    ) as made:
        shown = REPORT.removeprefix("/") if page.report_file else None
        gr.HTML(frame.header(page.title, page.lead, report=page.report or shown))
        gr.HTML('<p id="lost" class="fault" role="alert" hidden></p>')
        with gr.Tabs(elem_id="ways"):
            with gr.Tab("One text", elem_id="one"):
                _one(desk, page, settings)
            with gr.Tab("A table", elem_id="many"):
                _many(desk, settings)
        gr.HTML(frame.footer(settings.log, keep=page.keep))
    made.has_launched = True  # else Gradio does not check which files are named
    made.state_session_capacity = _SESSIONS
    made.max_threads = page.concurrent
    made.queue(max_size=page.waiting, default_concurrency_limit=None)
    # Else it looks a thousand times a second for who asks: a twentieth of a core, at rest.
    made._queue.sleep_when_free = _LOOK  # noqa: SLF001 there is no setting
    made._queue.progress_update_sleep_when_free = _LOOK  # noqa: SLF001
    return made


def _one(desk: Desk, page: Page, settings: Settings) -> None:
    box = gr.Textbox(label=page.label, lines=1, max_lines=8, elem_id="text")
    beside = [gr.Textbox(label=name, lines=1) for name in settings.tables.columns]
    check = gr.Button("Check", variant="primary", elem_id="check")
    asked = gr.JSON(visible=False)
    with gr.Column(elem_id="answer"):
        verdict = gr.HTML(html_template=_LIVE, elem_id="verdict")
        words = gr.HTML(elem_id="words")
        with gr.Row(visible=False, elem_id="feedback") as row:
            gr.HTML('<p id="right">Is this right?</p>')
            buttons = [gr.Button(name, size="sm") for name in VERDICTS]
        thanks = gr.HTML(html_template=_LIVE, elem_id="thanks")
    if page.examples:
        gr.HTML(frame.examples(page.examples))
    event = gr.on(
        [box.submit, check.click],
        desk.judge,
        [box, *beside],
        [verdict, words, asked, row, thanks, *buttons],
        **_QUIET,
    )
    event.then(desk.explain, asked, words, trigger_mode="multiple", **_QUIET)
    for button in buttons:
        button.click(desk.tell, [asked, button], [thanks, *buttons], **_QUIET)


def _many(desk: Desk, settings: Settings) -> None:
    gr.HTML(frame.table_hint(settings.bounds.table_bytes))
    column = gr.Textbox(
        label="Column of the text",
        placeholder=f"Only if it is none of {', '.join(settings.tables.text)}",
        elem_id="column",
    )
    upload = gr.File(label="Table", elem_id="upload")
    with gr.Column(elem_id="scored"):
        progress = gr.HTML(elem_id="progress")
        result = gr.HTML(html_template=_LIVE, elem_id="result")
        stop = gr.Button("Stop", size="sm", visible=False, elem_id="stop")
    outputs = [upload, progress, result, stop]
    event = upload.upload(desk.table, [upload, column], outputs, **_QUIET)
    stop.click(None, cancels=[event], **_QUIET)
    stop.click(desk.stopped, None, outputs, **_QUIET)
