"""The report on a window in a browser: on phones and desks, and alone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser

from fakenews.evaluation.calibration import Calibration
from fakenews.monitoring.account import Account
from fakenews.monitoring.checks import Policy
from fakenews.monitoring.explain import Example, Word, movers
from fakenews.monitoring.judge import Judge
from fakenews.monitoring.report import write
from fakenews.monitoring.rows import Reference, Rows
from fakenews.monitoring.totals import Totals
from fakenews.monitoring.verdict import Span, Verdict

pytestmark = pytest.mark.slow

WINDOWS = 20
CLASSES = ("<b>satire</b>", "a" * 90, "real", "أخبار كاذبة", "部分属实")
START = datetime(2026, 11, 1, tzinfo=UTC)


def rows(count: int, *, seed: int, shift: float = 0.0) -> Rows:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(len(CLASSES)), count)
    names = [f"tabular.a_feature_with_a_rather_long_name_{at}" for at in range(16)]
    return Rows(
        columns={name: rng.normal(shift, size=count) for name in names},
        embeddings=None,
        probabilities=probabilities,
        decided=probabilities.argmax(axis=1),
        labels=np.array([rng.choice(len(CLASSES), p=each) for each in probabilities]),
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a window in which everything has changed, with names and texts that are long."""
    reference = Reference(
        rows=rows(400, seed=0),
        classes=CLASSES,
        calibration=Calibration(positive="real"),
        input_ids=None,
        offsets=None,
        features=(),
    )
    judge = Judge(reference, policy=Policy(references=10, windows=40))
    windows = [rows(200, seed=at, shift=float(at > 15)) for at in range(1, WINDOWS + 1)]
    judgements = [judge.judge(window) for window in windows]
    starts = [START + timedelta(hours=6 * at) for at in range(WINDOWS)]
    spans = [
        Span(start=start, end=start + timedelta(hours=6), rows=200, labelled=200)
        for start in starts
    ]
    account = Account(
        verdict=Verdict(
            model="m" * 80,
            model_version="v" * 80,
            checked_at=START,
            window=spans[-1],
            checks=tuple(judge.checks(judgements)),
            notices=("n" * 300,),
        ),
        reference=reference,
        policy=judge.policy,
        spans=spans,
        judgements=judgements,
        totals=[
            Totals(rows=200, unique=200, errors={"e" * 60: 3}, versions={"v" * 80: 200})
            for _ in spans
        ],
        rows=windows[-1],
        movers=movers(windows[-1], reference.rows),
        words=[Word(word="w" * 60, before=0.0, now=9.0, score=12.0)],
        examples=[
            Example(id="i" * 40, text=text, label=CLASSES[1], score=3.0)
            for text in ("x" * 2000, "<img src=x onerror=alert(1)>", "عاجل: " * 60)
        ],
    )
    folder = tmp_path_factory.mktemp("report")
    write(account, folder)
    return folder / "report.html"


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_stands_alone_and_fits(chromium: Browser, page: Path, width: int) -> None:
    visitor = chromium.new_page(viewport={"width": width, "height": 900})
    faults: list[str] = []
    reached: list[str] = []
    visitor.on("console", lambda message: faults.append(message.text))
    visitor.on("pageerror", lambda error: faults.append(str(error)))
    visitor.on("dialog", lambda dialog: faults.append(dialog.message))
    visitor.on("request", lambda request: reached.append(request.url.partition(":")[0]))
    visitor.goto(page.as_uri())
    assert faults == []
    assert set(reached) <= {"file", "data"}
    assert reached.count("file") == 1
    assert visitor.evaluate("document.documentElement.scrollWidth") == width
    images: list[Any] = visitor.evaluate("[...document.images].map(i => i.naturalWidth)")
    assert len(images) > 8
    assert all(images)
    # The verdict, and whether it is old or new, without scrolling.
    assert visitor.locator("h1").is_visible()
    newest = visitor.locator(".strip tbody tr").first.locator("td.cell").last
    newest.scroll_into_view_if_needed()
    box = newest.bounding_box()
    assert box is not None
    assert 0 <= box["x"] <= width
    visitor.close()


def test_on_a_phone_the_newest_window_is_seen_first(chromium: Browser, page: Path) -> None:
    visitor = chromium.new_page(viewport={"width": 390, "height": 900})
    visitor.goto(page.as_uri())
    box = visitor.locator(".strip tbody tr").first.locator("td.cell").last.bounding_box()
    assert box is not None
    assert 0 < box["x"] < 390
    visitor.close()
