"""The gateway's API over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import fastapi_offline
import orjson
from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from fakenews import __version__
from fakenews.serving.gateway.edge import DOCS_FILES, TABLES, respond, respond_internal
from fakenews.serving.gateway.health import Health
from fakenews.serving.gateway.metrics import CONTENT_TYPE
from fakenews.serving.gateway.problems import Problem
from fakenews.serving.gateway.requests import read_json, requested
from fakenews.serving.gateway.schemas import (
    FEEDBACK,
    TABLE,
    Error,
    Explanation,
    Prediction,
    Predictions,
    Stored,
    item_schema,
    predict_schema,
)
from fakenews.serving.gateway.schemas import Health as HealthAnswer
from fakenews.serving.gateway.service import Gateway, refused
from fakenews.serving.gateway.tables import TableScorer

T = TypeVar("T")

_DESCRIPTION = """Judges texts by their style, as its training data were labelled. It does not
know what is true. Every answer has an `id`, by which you can say whether it was right."""

_REASONS = {
    400: "The body is no JSON, or of an unknown shape",
    401: "An API key is needed",
    408: "The body did not arrive in time",
    413: "The body, a text or a list is too large",
    415: "The body is of another type",
    422: "The text cannot be predicted",
    429: "Too many requests: see Retry-After",
    503: "No answer now: see Retry-After",
    504: "No answer in time",
}


def build(
    gateway: Gateway,
    health: Health,
    *,
    wrap: Callable[[FastAPI, TableScorer], Any] = lambda app, _: app,
) -> Any:
    """The ASGI application.

    Args:
        gateway: Answers.
        health: Of it.
        wrap: Puts another application around the API, as a page is; the API comes first.
            It shares what predicts tables, and so its limits.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        gateway.start()
        yield
        await gateway.close()

    app = FastAPI(
        title="fakenews",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        # Ours: FastAPI's takes its programs from a server of others.
        docs_url=None,
        redoc_url=None,
        # It would tell of requests what this program keeps to itself.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _internal)
    _add_predictions(app, gateway)
    scorer = _table_scorer(gateway)
    _add_tables(app, scorer)
    _add_feedback(app, gateway)
    _add_operations(app, gateway, health)
    _add_docs(app)
    return wrap(app, scorer)


def _add_predictions(app: FastAPI, gateway: Gateway) -> None:
    bounds = gateway.settings.bounds
    answers = _responses(400, 401, 408, 413, 415, 422, 429, 503, 504)

    @app.post(
        "/predict",
        summary="Predict one text, or many",
        responses=answers | {200: {"model": Prediction | Predictions}},
        openapi_extra=_json_body(predict_schema(bounds.characters, bounds.items)),
    )
    async def predict(request: Request) -> Response:
        asked = requested(await _json(request), bounds)
        found = await _attended(request, gateway.answer(asked.items))
        if asked.shape == "one":
            if "error" in found[0]:
                raise refused(found[0])
            return _answer(found[0])
        return _answer(gateway.many(found))

    @app.post(
        "/explain",
        summary="Predict one text, and say what each word adds",
        responses=answers | {200: {"model": Explanation}},
        openapi_extra=_json_body(item_schema(bounds.characters)),
    )
    async def explain(request: Request) -> Response:
        asked = requested(await _json(request), bounds)
        if asked.shape != "one":
            raise Problem(400, "unknown_shape", "explanations are of one text at a time")
        return _answer(await _attended(request, gateway.explain_item(asked.items[0])))


def _table_scorer(gateway: Gateway) -> TableScorer:
    tables = gateway.settings.tables
    return TableScorer(
        predict=lambda items: gateway.predict(items, route="champion"),
        text=tables.text,
        columns=tables.columns,
        chunk_rows=tables.chunk_rows,
        concurrent=tables.concurrent,
        most_bytes=gateway.settings.bounds.table_bytes,
    )


def _add_tables(app: FastAPI, scorer: TableScorer) -> None:
    @app.post(
        TABLES,
        summary="Predict a table",
        responses=_responses(400, 401, 408, 413, 415, 422, 429, 503, 504)
        | {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
        response_class=StreamingResponse,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"multipart/form-data": {"schema": TABLE}},
            }
        },
    )
    async def table(request: Request) -> Response:
        if not _content_type(request).startswith("multipart/form-data"):
            raise Problem(
                415, "wrong_type", "send a form with the field file: curl -F file=@FILE"
            )
        async with request.form(max_files=1, max_fields=10) as form:
            file, text = form.get("file"), form.get("text")
            if not isinstance(file, UploadFile):
                raise Problem(422, "no_file", "the form has no file: curl -F file=@FILE")
            pieces = scorer.score(
                file.file,
                file.filename or "table.csv",
                text=text if isinstance(text, str) and text else None,
            )
            # What is wrong with the whole table shows with its first piece.
            first = await _attended(request, anext(pieces))

        async def rest() -> AsyncIterator[bytes]:
            yield first
            async for piece in pieces:
                yield piece

        return StreamingResponse(
            rest(),
            media_type="text/csv; charset=utf-8",
            headers={"content-disposition": 'attachment; filename="predictions.csv"'},
        )


def _add_feedback(app: FastAPI, gateway: Gateway) -> None:
    @app.post(
        "/feedback",
        summary="Say whether a prediction was right",
        responses=_responses(400, 401, 404, 408, 413, 415, 422, 429, 503)
        | {200: {"model": Stored}},
        openapi_extra=_json_body(FEEDBACK),
    )
    async def feedback(request: Request) -> Response:
        content = await _json(request)
        if not isinstance(content, dict):
            raise Problem(400, "unknown_shape", 'send an object: {"id": ..., "verdict": ...}')
        for name in content:
            if name not in ("id", "verdict", "label"):
                raise Problem(422, "unknown_field", "feedback has id, verdict and label only")
        identifier, verdict = content.get("id"), content.get("verdict")
        label = content.get("label")
        if not isinstance(identifier, str) or len(identifier) > 100:
            raise Problem(422, "wrong_type", "id should be that of a prediction")
        if verdict not in ("correct", "wrong", "unsure"):
            raise Problem(422, "wrong_type", "verdict should be correct, wrong or unsure")
        if label is not None and not (isinstance(label, str) and 0 < len(label) <= 200):
            raise Problem(422, "wrong_type", "label should be the name of a class")
        await gateway.feedback(identifier, verdict, label)
        return _answer({"id": identifier, "stored": True})


def _add_operations(app: FastAPI, gateway: Gateway, health: Health) -> None:
    @app.get("/health/live", summary="Whether the gateway runs", response_model=HealthAnswer)
    async def live() -> Response:
        return _answer({"status": "ok", "reasons": []})

    @app.get(
        "/health/ready",
        summary="Whether requests are answered",
        response_model=HealthAnswer,
        responses={503: {"model": HealthAnswer}},
    )
    async def ready() -> Response:
        state = await health.state()
        routes = gateway.router.routes
        content = {
            "status": state.status,
            "reasons": state.reasons,
            "model": routes.name,
            "model_version": routes.champion,
        }
        return _answer(content, status=200 if state.ready else 503)

    @app.get(
        "/metrics",
        summary="Counts, for Prometheus",
        responses=_responses(401)
        | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        await health.state()  # so that readiness is as it is now
        share = gateway.router.routes.share
        gateway.metrics.canary_share.set(share)
        return Response(gateway.metrics.render(), media_type=CONTENT_TYPE)


def _add_docs(app: FastAPI) -> None:
    files = Path(fastapi_offline.__file__).with_name("static")
    app.mount(DOCS_FILES, StaticFiles(directory=files))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=app.title,
            swagger_js_url=f"{DOCS_FILES}/swagger-ui-bundle.js",
            swagger_css_url=f"{DOCS_FILES}/swagger-ui.css",
            swagger_favicon_url=f"{DOCS_FILES}/favicon.png",
        )


def _responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {"model": Error, "description": _REASONS.get(status, "It is not known")}
        for status in statuses
    }


def _json_body(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}
    }


def _answer(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _json(request: Request) -> Any:
    kind = _content_type(request)
    # Other types may be sent by any page of any site, to this machine too.
    if kind != "application/json" and not (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        raise Problem(415, "wrong_type", "send JSON, with Content-Type: application/json")
    return read_json(await request.body())


async def _attended(request: Request, work: Awaitable[T]) -> T:
    """Do what was asked for as long as someone waits for it."""
    own = asyncio.current_task()
    gone = False

    async def attend() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        if own is not None:
            own.cancel()

    watch = asyncio.create_task(attend())
    try:
        return await work
    except asyncio.CancelledError:
        if not gone or own is None:
            raise
        own.uncancel()
        raise Problem(499, "gone", "the client has gone") from None
    finally:
        watch.cancel()


async def _problem(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, Problem)  # noqa: S101 it is registered for them
    return _Sent(lambda send: respond(send, error))


async def _http(request: Request, error: Exception) -> Response:
    """Of routes that there are not, and forms that cannot be read."""
    del request
    assert isinstance(error, HTTPException)  # noqa: S101 as above
    names = {404: "not_found", 405: "method_not_allowed", 400: "bad_form"}
    code = names.get(error.status_code, "refused")
    problem = Problem(error.status_code, code, str(error.detail)[:200])
    return _Sent(lambda send: respond(send, problem), dict(error.headers or {}))


async def _internal(request: Request, error: Exception) -> Response:
    del request
    return _Sent(lambda send: respond_internal(send, error))


class _Sent(Response):
    """A response that `edge` writes, which knows the shape of errors."""

    def __init__(
        self,
        write: Callable[[Any], Coroutine[Any, Any, None]],
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._write = write
        self._more = [
            (name.lower().encode(), value.encode()) for name, value in (headers or {}).items()
        ]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        del scope, receive

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._more]
            await send(message)

        await self._write(answer)
