"""References and windows whose truth is known; verdicts, and servers that take what is told."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fakenews.errors import MonitoringError
from fakenews.evaluation.calibration import Calibration
from fakenews.monitoring.account import Account
from fakenews.monitoring.checks import Policy
from fakenews.monitoring.explain import Word, examples, movers
from fakenews.monitoring.judge import Judge
from fakenews.monitoring.messages import Message
from fakenews.monitoring.rows import Reference, Rows
from fakenews.monitoring.totals import Totals
from fakenews.monitoring.verdict import Check, Kind, Span, State, Verdict
from fakenews.predictor import Predictor
from fakenews.serving.gateway.ids import new_id
from fakenews.serving.gateway.segments import SCHEMA

CLASSES = ("fake", "real")


def make_rows(
    count: int, *, seed: int, shift: float = 0.0, rate: float = 0.3, flipped: float = 0.0
) -> Rows:
    """Texts of two classes, whose embeddings and numbers follow the class.

    Args:
        count: How many.
        seed: Of the draws.
        shift: Of the embeddings and of a number, in a direction that says nothing of the class.
        rate: Share of the class fake.
        flipped: Share of true labels that are the other class.
    """
    rng = np.random.default_rng(seed)
    fake = rng.random(count) < rate
    embeddings = rng.normal(size=(count, 8)).astype(np.float32)
    embeddings[:, 0] += 1.5 * fake
    embeddings[:, 1] += shift
    # What a model that was trained at a rate of 0.3 knows of the first dimension.
    logit = 1.5 * embeddings[:, 0] - 1.5**2 / 2 + np.log(0.3 / 0.7)
    probability = 1 / (1 + np.exp(-logit.astype(np.float64)))
    probabilities = np.stack([probability, 1 - probability], axis=1)
    labels = np.where(fake ^ (rng.random(count) < flipped), 0, 1)
    return Rows(
        columns={
            "tabular.words": np.round(rng.gamma(9, 2, count) + 3 * shift),
            "tabular.has_num": (rng.random(count) < 0.4).astype(float),
            "tabular.constant": np.zeros(count),
            "text.tokens": np.round(rng.gamma(12, 2, count)),
        },
        embeddings=embeddings,
        probabilities=probabilities,
        decided=(probability < 0.5).astype(np.int64),
        labels=labels.astype(np.int64),
    )


def make_reference(count: int = 600, *, seed: int = 0) -> Reference:
    """A reference of such rows."""
    return Reference(
        rows=make_rows(count, seed=seed),
        classes=CLASSES,
        calibration=Calibration(threshold=0.5, positive="fake"),
        input_ids=None,
        offsets=None,
        features=("words", "has_num", "constant"),
    )


@pytest.fixture(scope="session")
def reference() -> Reference:
    """One for all tests."""
    return make_reference()


@pytest.fixture(scope="session")
def some_rows() -> Callable[..., Rows]:
    """Makes rows."""
    return make_rows


@pytest.fixture(scope="session")
def some_reference() -> Callable[..., Reference]:
    """Makes references."""
    return make_reference


def make_totals(start: datetime, decided: dict[str, int]) -> Totals:
    """Of a window of a day."""
    rows = sum(decided.values())
    return Totals(
        rows=rows,
        unique=rows - 1,
        errors={"too_long": 2, "upstream": 1},
        latency_ms={"p50": 21.0, "p95": 63.0, "p99": 118.0},
        truncated=0.012,
        unsure=0.08,
        decided=decided,
        versions={"1a2b": rows},
        hourly=[(start + timedelta(hours=hour), rows // 24, hour % 2) for hour in range(24)],
    )


@pytest.fixture(scope="session")
def reporting_judge(reference: Reference) -> Judge:
    """A quick one."""
    floors = {"drift": 0.05, "decay": 0.02}
    return Judge(reference, policy=Policy(floors=floors, references=20, windows=60))


@pytest.fixture(scope="session")
def some_account(reporting_judge: Judge) -> Callable[..., Account]:
    """Makes accounts of windows of a day, which are shifted by so much."""

    def make(
        *shifts: float,
        labelled: int = 2,
        rows: int = 200,
        texts: Sequence[str | None] = (None,),
        notices: tuple[str, ...] = (),
    ) -> Account:
        reference = reporting_judge.reference
        windows = [make_rows(rows, seed=50 + at, shift=by) for at, by in enumerate(shifts)]
        none = windows[0].take(slice(0, 0))
        judgements = [
            reporting_judge.judge(window, window if at < labelled else none)
            for at, window in enumerate(windows)
        ]
        starts = [NOW - timedelta(days=len(shifts) - at) for at in range(len(shifts))]
        spans = [
            Span(start=start, end=start + timedelta(days=1), rows=rows, labelled=found.labelled)
            for start, found in zip(starts, judgements, strict=True)
        ]
        newest = windows[-1]
        return Account(
            verdict=Verdict(
                model="fakenews",
                model_version="1a2b",
                checked_at=NOW + timedelta(hours=1),
                window=spans[-1],
                checks=tuple(reporting_judge.checks(judgements)),
                notices=notices,
            ),
            reference=reference,
            policy=reporting_judge.policy,
            spans=spans,
            judgements=judgements,
            totals=[
                make_totals(start, {"fake": fake, "real": rows - fake})
                for start, window in zip(starts, windows, strict=True)
                for fake in [int((window.decided == 0).sum())]
            ],
            rows=newest,
            movers=movers(newest, reference.rows),
            words=[
                Word(word="election", before=0.4, now=6.1, score=14.2),
                Word(word="covid", before=9.2, now=3.1, score=-12.0),
            ],
            examples=examples(
                newest,
                comparisons=reporting_judge.comparisons,
                classes=reference.classes,
                ids=[f"p{at}" for at in range(rows)],
                texts=[texts[at % len(texts)] for at in range(rows)],
                most=4,
            ),
        )

    return make


@pytest.fixture(scope="session")
def no_account(reference: Reference) -> Account:
    """Of a log in which there is nothing."""
    verdict = Verdict(
        model="fakenews",
        model_version="unknown",
        checked_at=NOW,
        window=None,
        checks=(),
        notices=("The log has no predictions.",),
    )
    return Account(verdict=verdict, reference=reference, policy=Policy())


NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)

MakeVerdict = Callable[..., Verdict]


@pytest.fixture
def make_verdict() -> MakeVerdict:
    """A verdict of so many hours after the first; its checks by their keys."""

    def make(hours: float = 0, *, model: str = "fakenews", **states: State) -> Verdict:
        at = NOW + timedelta(hours=hours)
        return Verdict(
            model=model,
            model_version="1a2b",
            checked_at=at,
            window=Span(start=at - timedelta(days=1), end=at, rows=1200, labelled=30),
            checks=tuple(
                Check(
                    key=key,
                    kind=Kind.DRIFT,
                    state=state,
                    message=f"{key} was looked at.",
                    value=0.25,
                    threshold=0.1,
                    p_value=0.001,
                    effect=1.5,
                    unit="sd",
                    details={"examples": ["a text of a user"]},
                )
                for key, state in states.items()
            ),
            report="https://example.org/report.html",
        )

    return make


@dataclass
class Receiver:
    """An HTTP server that writes down what it gets, and answers as it is told to."""

    address: str
    got: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Of the next requests; after them 200."""
    hang: float = 0
    """Seconds before each answer."""


@pytest.fixture
def receiver() -> Iterator[Callable[[], Receiver]]:
    """Starts such servers."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(_receiver())


@contextmanager
def _receiver() -> Iterator[Receiver]:
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.got.append(json.loads(body))
            found.headers.append(dict(self.headers))
            ended.wait(found.hang)
            status, headers = found.answers.pop(0) if found.answers else (200, {})
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()
            except OSError:  # who asked has gone
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Receiver(f"http://127.0.0.1:{server.server_port}/alerts")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


def wait_until(true: Callable[[], object], seconds: float = 10) -> None:
    """Wait for something that a server does."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="session")
def write_log() -> Callable[..., pd.DataFrame]:
    """Writes prediction logs as the gateway would have."""
    return _write_log


def _write_log(
    predictor: Predictor,
    folder: Path,
    windows: Sequence[pd.DataFrame],
    *,
    end: datetime | None = None,
    text: bool = False,
    features: bool = True,
    version: str = "v1",
) -> pd.DataFrame:
    """Write a deployment's folder with a day of predictions for each window.

    Args:
        predictor: That answers.
        folder: Of the deployment.
        windows: Of each day, the newest last: `text` and `label`.
        end: Of the last day; None: a moment ago.
        text: Whether texts are logged.
        features: Whether what the model saw is.
        version: Of the model.

    Returns:
        The `id` and `label` of every row.
    """
    end = end or datetime.now(UTC) - timedelta(seconds=5)
    truth = []
    for age, frame in enumerate(reversed(windows)):
        start = end - timedelta(days=age + 1)
        # Not at the window's ends, where a slow test would meet its neighbour.
        steps = np.linspace(0.1, 0.9, len(frame))
        times = [start + timedelta(days=float(step)) for step in steps]
        rows = [
            _row(given, found, when, logged=text, features=features, version=version)
            for given, found, when in zip(
                frame["text"],
                predictor.predict(list(frame["text"]), seen=True),
                times,
                strict=True,
            )
        ]
        for date in sorted({row["time"].date() for row in rows}):
            target = folder / "predictions" / f"date={date}" / f"{new_id()}.parquet"
            target.parent.mkdir(parents=True, exist_ok=True)
            of_date = [row for row in rows if row["time"].date() == date]
            pq.write_table(pa.Table.from_pylist(of_date, schema=SCHEMA), target)
        truth += [
            {"id": row["id"], "label": label}
            for row, label in zip(rows, frame["label"], strict=True)
        ]
    return pd.DataFrame(truth)


def _row(text: str, found: Any, when: datetime, **how: Any) -> dict[str, Any]:
    seen = found.seen if how["features"] else None
    return {
        "id": new_id(int(when.timestamp() * 1000)),
        "time": when,
        "model": "fakenews",
        "model_version": how["version"],
        "route": "predict",
        "shadow_of": None,
        "label": found.label,
        "probabilities": list(found.probabilities.items()),
        "unsure": False,
        "truncated": found.truncated,
        "characters": len(text),
        "words": len(text.split()),
        "has_num": any(map(str.isdecimal, text)),
        "columns": [],
        "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "text": text if how["logged"] else None,
        "tokens": None if seen is None else seen.tokens,
        "unknown_tokens": None if seen is None else seen.unknown_tokens,
        "tabular": None if seen is None or seen.tabular is None else seen.tabular.tolist(),
        "embedding": None
        if seen is None or seen.embedding is None
        else seen.embedding.astype("<f2").tobytes(),
        "latency_ms": 12.0,
        "error": None,
    }


class Listener:
    """A channel that keeps what it is told, or fails."""

    def __init__(self, broken: str | None = None) -> None:
        self.broken = broken
        self.messages: list[Message] = []

    def tell(self, verdict: Verdict, message: Message | None) -> None:
        del verdict
        if self.broken is not None:
            raise MonitoringError(self.broken)
        if message is not None:
            self.messages.append(message)


@pytest.fixture(scope="session")
def make_channel() -> Callable[..., Listener]:
    """Makes channels of alerts."""
    return Listener


# --- logs in small, row by row ----------------------------------------------------------------

_NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def now() -> datetime:
    """When the logs of tests are read."""
    return _NOW


@pytest.fixture
def row() -> Callable[..., dict[str, Any]]:
    """A record of the log, so many minutes before `now`; others of its values by name."""

    def make(n: int = 0, *, minutes: float = 1, **changes: Any) -> dict[str, Any]:
        when = _NOW - timedelta(minutes=minutes)
        fake = 0.9 - (n % 9) / 10
        made = {
            "id": new_id(int(when.timestamp() * 1000)),
            "time": when,
            "model": "fakenews",
            "model_version": "v1",
            "route": "champion",
            "shadow_of": None,
            "label": "fake" if fake >= 0.5 else "real",
            "probabilities": [("fake", fake), ("real", 1 - fake)],
            "unsure": abs(fake - 0.5) < 0.1,
            "truncated": n % 4 == 0,
            "characters": 10 + n,
            "words": 2 + n,
            "has_num": n % 2 == 0,
            "columns": [],
            "text_sha256": hashlib.sha256(f"text {n}".encode()).hexdigest(),
            "text": None,
            "tokens": 4 + n,
            "unknown_tokens": n % 3,
            "tabular": [float(n), 0.5],
            "embedding": np.array([n, -1, 0.5], dtype="<f2").tobytes(),
            "latency_ms": float(n),
            "error": None,
        }
        made.update(changes)
        return made

    return make


@pytest.fixture
def refused(row: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A record of an item that was refused."""

    def make(error: str = "empty_text", **changes: Any) -> dict[str, Any]:
        seen = ("tokens", "unknown_tokens", "tabular", "embedding", "unsure", "truncated")
        return row(
            **{**dict.fromkeys(seen), "label": None, "probabilities": [], "error": error}
            | changes
        )

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows as Parquet, with the schema of the gateway's log but for some columns."""

    def write(
        rows: Sequence[dict[str, Any]], name: str = "log.parquet", without: Sequence[str] = ()
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(list(rows), SCHEMA).drop(list(without))
        pq.write_table(table, path)
        return path

    return write
