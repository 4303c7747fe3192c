"""What the page shows of answers: right words, right places, and no text that runs."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakenews.serving.gateway import page_frame as frame
from fakenews.serving.gateway import page_view as view
from fakenews.serving.gateway.page_tables import Scored
from fakenews.serving.gateway.problems import Problem, UpstreamProblem, overloaded, too_late
from fakenews.serving.gateway.settings import Log

_TAGS = """section h1 h2 h3 p div span svg rect code mark details summary table caption thead
tbody tr th td strong a header footer nav ul li button progress"""
_ATTRIBUTES = """class dir role aria-label aria-labelledby aria-hidden viewbox
preserveaspectratio x y width height scope href download tabindex max value id type"""
TAGS, ATTRIBUTES = set(_TAGS.split()), set(_ATTRIBUTES.split())


class Reader(HTMLParser):
    """Reads HTML as a browser does, as far as that matters here."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""
        self.labels: list[str] = []
        self.open: list[str] = []
        self.rects: list[dict[str, str | None]] = []
        self.marks: list[tuple[str, str]] = []
        self._mark: str | None = None
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        found = dict(attrs)
        assert set(found) <= ATTRIBUTES
        self.labels.append(found.get("aria-label") or "")
        if tag == "rect":
            self.rects.append(found)
            return
        if tag == "mark":
            self._mark = found["class"]
            self.marks.append((found["class"] or "", ""))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "rect":
            assert self.open.pop() == tag
        if tag == "mark":
            self._mark = None

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._mark is not None:
            self.marks[-1] = (self.marks[-1][0], self.marks[-1][1] + data)

    def handle_comment(self, data: str) -> None:
        pytest.fail(f"a comment: {data}")

    handle_decl = unknown_decl = handle_pi = handle_comment


def answer(**changes: Any) -> dict[str, Any]:
    return {
        "label": "fake",
        "probabilities": {"fake": 0.91, "real": 0.09},
        "unsure": False,
        "truncated": False,
        "threshold": 0.43,
        "positive": "real",
        "band": 0.1,
        "model": "fakenews",
        "model_version": "ab12cd34ef56",
    } | changes


def many(**changes: Any) -> dict[str, Any]:
    found = answer(
        label="sports", probabilities={"politics": 0.2, "sports": 0.6, "health": 0.2}, **changes
    )
    del found["threshold"], found["positive"]
    return found


nasty = st.text(max_size=60) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "</section></div><h1>x",
        "{{constructor.constructor('alert(1)')()}}",
        "${alert(1)}",
        "`${alert(1)}`",
        "&lt;b&gt; &amp;",
        "<!-- x",
        "' onmouseover='alert(1)",
        "\u202eevil\u202c",
    ]
)


@pytest.mark.parametrize(
    ("changes", "title", "reason"),
    [
        ({}, "Likely fake", "The model gives fake a probability of 91%."),
        (
            {"label": "real", "probabilities": {"fake": 0.02, "real": 0.98}},
            "Likely real",
            "The model gives real a probability of 98%.",
        ),
        (
            {"unsure": True, "probabilities": {"fake": 0.48, "real": 0.52}},
            "Unsure",
            "Too close to call: real 52%, fake 48%.",
        ),
        # The threshold decides for what is less probable than not.
        (
            {"label": "real", "threshold": 0.2, "probabilities": {"fake": 0.65, "real": 0.35}},
            "Possibly real",
            "The probability of real is only 35%, but 20% is enough for this model.",
        ),
        (
            {"threshold": 0.8, "probabilities": {"fake": 0.35, "real": 0.65}},
            "Possibly fake",
            "The probability of fake is only 35%, but 20% is enough for this model.",
        ),
        ({"probabilities": {"fake": 0.9991, "real": 0.0009}}, "Likely fake", "over 99%"),
    ],
)
def test_verdict_of_two_classes(changes: dict[str, Any], title: str, reason: str) -> None:
    found = view.decision(answer(**changes))
    assert found[0] == title
    assert reason in found[1]


def test_verdict_of_many_classes() -> None:
    assert view.decision(many())[0] == "Likely sports"
    close = many() | {"probabilities": {"politics": 0.3, "sports": 0.4, "health": 0.3}}
    assert view.decision(close) == (
        "Possibly sports",
        "The probability of sports is only 40%, but no other class has more.",
    )
    assert view.decision(many(unsure=True))[1] == "Too close to call: sports 60%, politics 20%."


def test_verdict_names_the_model_and_what_was_cut() -> None:
    whole, cut = Reader(view.verdict(answer())), Reader(view.verdict(answer(truncated=True)))
    assert "fakenews ab12cd34ef56" in whole.text
    assert "only its start was judged" not in whole.text
    assert "only its start was judged" in cut.text


def test_bars_are_as_long_as_the_probabilities() -> None:
    found = Reader(view.bars(answer()))
    fills = [rect["width"] for rect in found.rects if rect["class"] == "fill"]
    assert fills == ["910.0", "90.0"]
    assert "fake 91%, real 9%" in "".join(found.labels)
    assert "Unsure where real is between 33% and 53%" in "".join(found.labels)


def test_band_lies_around_the_threshold() -> None:
    assert view.band(answer()) == {
        "real": pytest.approx((0.33, 0.53)),
        "fake": pytest.approx((0.47, 0.67)),
    }
    assert view.band(answer(threshold=0.05))["real"] == pytest.approx((0, 0.15))
    bands = [rect for rect in Reader(view.bars(answer())).rects if rect["class"] == "band"]
    assert [(rect.get("x"), rect["width"]) for rect in bands[:2]] == [
        ("470.0", "200.0"),
        ("330.0", "200.0"),
    ]


def test_band_of_many_classes_is_what_the_first_must_have_more() -> None:
    assert view.band(many()) == {"sports": pytest.approx((0.2, 0.3))}


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 0.5))
def test_a_bar_ends_in_its_band_where_the_model_is_unsure(
    real: float, threshold: float, width: float
) -> None:
    found = answer(
        probabilities={"fake": 1 - real, "real": real}, threshold=threshold, band=width
    )
    for name, (low, high) in view.band(found).items():
        inside = low < found["probabilities"][name] < high
        distance = abs(real - threshold)
        if abs(distance - width) > 1e-6 and 0 < found["probabilities"][name] < 1:
            assert inside == (distance < width)


def test_band_is_not_drawn_where_nobody_says_how_wide_it_is() -> None:
    found = answer()
    del found["band"]
    assert view.band(found) == {}
    assert "too close to call" not in view.bars(found)


def test_of_many_classes_the_first_have_bars() -> None:
    probabilities = {f"class {n}": (20 - n) / 210 for n in range(20)}
    found = Reader(view.bars(many() | {"probabilities": probabilities, "label": "class 0"}))
    assert len([rect for rect in found.rects if rect["class"] == "fill"]) == 5
    assert "15 other classes 57%" in found.text


@given(label=nasty, other=nasty, version=nasty)
def test_names_of_classes_are_only_text(label: str, other: str, version: str) -> None:
    probabilities = {label: 0.7, other: 0.3} if label != other else {label: 1.0}
    found = answer(
        label=label, positive=other, probabilities=probabilities, model_version=version
    )
    read = Reader(view.verdict(found))
    assert f"Likely {label}" in read.text.replace("\r", "\n") or "\r" in label or "\0" in label
    Reader(view.verdict(many() | {"label": label, "probabilities": probabilities}))


def explanation(text: str, words: list[tuple[int, int, float]], **more: Any) -> dict[str, Any]:
    return {
        "prediction": answer(),
        "target": "fake",
        "words": [
            {"text": text[start:end], "start": start, "end": end, "attribution": value}
            for start, end, value in words
        ],
        "text": text,
        "completeness_error": 0.0,
    } | more


def test_words_are_marked_by_what_they_add() -> None:
    text = "Minister opens  three hospitals"
    found = Reader(
        view.words(
            explanation(text, [(0, 8, 0.9), (9, 14, -0.4), (16, 21, 0.01), (22, 31, 0.2)]),
            "ab12cd34ef56",
        )
    )
    assert found.marks[:3] == [
        ("for s3", "Minister"),
        ("against s2", "opens"),
        ("for s1", "hospitals"),
    ]
    assert text in found.text
    assert "Strongest for fake: Minister, hospitals. Strongest against it: opens." in found.text
    assert "+0.90" in found.text
    assert "another version" not in found.text


def test_words_of_another_version_say_so() -> None:
    found = view.words(explanation("a b", [(0, 1, 0.5)]), "another")
    assert "another version of the model: ab12cd34ef56" in found


def test_words_without_effect_say_so() -> None:
    assert "No word stands out" in view.words(explanation("a b", []), "v")
    assert "No word stands out" in view.words(explanation("a b", [(0, 1, 0.0)]), "v")


def test_what_the_model_did_not_read_is_cut() -> None:
    text = "word " + "x" * 5000
    shown = Reader(view.words(explanation(text, [(0, 4, 1.0)]), "v")).text
    assert "x" * 190 in shown
    assert "x" * 210 not in shown


@given(
    text=nasty,
    words=st.lists(
        st.tuples(st.integers(-3, 70), st.integers(-3, 70), st.floats(allow_nan=True)),
        max_size=8,
    ),
)
def test_texts_are_only_text(text: str, words: list[tuple[int, int, float]]) -> None:
    found = Reader(view.words(explanation(text, words), "ab12cd34ef56"))
    if any(0 <= start < end <= len(text) for start, end, value in words if value):
        assert found.text  # whatever overlaps or lies outside is left out


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (Problem(422, "empty_text", "the text is empty"), "Type a text first."),
        (
            Problem(413, "text_too_long", "the text has 9 characters: at most 8"),
            "The text has 9 characters: at most 8.",
        ),
        (overloaded(1), "Many people are asking just now. Try again in a moment."),
        (
            UpstreamProblem("failed", "the model server failed"),
            "The model does not answer just now. Try again in a moment.",
        ),
        (too_late(), "The answer took too long. Try again in a moment."),
        (Problem(422, "bad_column", "age: what?"), "Age: what?"),
    ],
)
def test_problems_are_told_plainly(problem: Problem, said: str) -> None:
    found = view.problem(problem)
    assert Reader(found).text == said
    assert 'role="alert"' in found


@given(nasty)
def test_messages_are_only_text(message: str) -> None:
    for show in (view.fault, view.thanks, view.waiting, view.quiet):
        Reader(show(message))
    Reader(view.progress(message, 3, 10))
    Reader(view.progress(message, 3, None))


def scored(columns: list[str], rows: list[list[str]], **more: Any) -> Scored:
    return Scored(total=None, columns=columns, first=rows, name="name", done=len(rows), **more)


COLUMNS = [
    "id",
    "text",
    "prediction",
    "probability_fake",
    "truncated",
    "error",
    "prediction_id",
]


def test_a_table_shows_texts_and_predictions() -> None:
    found = view.scored(
        scored(COLUMNS, [["7", "Hello", "fake", "0.9123", "False", "", "x"]]),
        text="text",
        keep=1800,
    )
    read = Reader(found)
    assert re.findall(r"<th [^>]*>([^<]*)", found) == ["text", "prediction", "fake"]
    assert "91%" in read.text
    assert "1 row predicted." in read.text
    assert "deleted after 30 minutes" in read.text
    assert 'href="page/tables/name"' in found


def test_a_table_shows_why_rows_have_no_answer() -> None:
    rows = [["7", "", "", "", "False", "the text is empty", ""]]
    read = Reader(view.scored(scored(COLUMNS, rows, failed=1), text="text", keep=60))
    assert "the text is empty" in read.text
    assert "1 of them without an answer" in read.text
    assert "deleted after 1 minute." in read.text


@given(nasty, nasty)
def test_cells_are_only_text(name: str, cell: str) -> None:
    columns = [name, "prediction", f"probability_{name}", "truncated", "error"]
    Reader(
        view.scored(scored(columns, [[cell, cell, "0.5", "False", cell]]), text=name, keep=1800)
    )


@given(nasty, nasty)
def test_the_frame_is_only_text(title: str, example: str) -> None:
    Reader(frame.header(title, example, report=example))
    Reader(frame.examples([example, title]))
    Reader(frame.table_hint(20_000_000))


def test_the_foot_says_what_is_stored() -> None:
    log = {"fsync": False, "wait": 1.0, "segment_bytes": 1, "segment_seconds": 1.0, "recent": 1}
    log |= {"features": True, "keep_days": 90}

    def foot(**values: Any) -> str:
        return Reader(frame.footer(Log(**{**log, **values}), keep=600)).text

    none = foot(enabled=False, text=True, embeddings=True)
    digests = foot(enabled=True, text=False, embeddings=False)
    embeddings = foot(enabled=True, text=False, embeddings=True)
    texts = foot(enabled=True, text=True, embeddings=True)
    assert "Neither your text nor the answer is stored" in none
    assert "Your text is not stored" in digests
    assert "guessed" not in digests
    assert "Your text is not stored" in embeddings
    assert "numbers from which its subject, and some of its words, might be guessed" in (
        embeddings
    )
    assert "Your text is stored" in texts
    for said in (digests, embeddings, texts):
        assert "That is removed after 90 days." in said
    assert "removed" not in none
    assert "removed" not in foot(enabled=True, text=False, embeddings=True, keep_days=None)
    for said in (none, digests, texts):
        assert "It judges style, not truth" in said
        assert "after 10 minutes" in said


def test_a_report_is_linked_where_there_is_one() -> None:
    assert "Monitoring" not in frame.header("x", "y", report=None)
    assert '<a href="https://a.example/?b&amp;c">Monitoring' in frame.header(
        "x", "y", report="https://a.example/?b&c"
    )
