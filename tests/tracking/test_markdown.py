"""What comes from data reads as it is, and is no Markdown and no HTML."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fakenews.tracking.markdown import Markdown, escaped, render, table

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![x](http://evil.example/a.png)",
    "[click](javascript:alert(1))",
    "**bold** _em_ `code` ~~gone~~ $x$",
    "a | b",
    "&lt;b&gt; &#42;",
    "<http://evil.example>",
    "\\<b\\>",
    "# no heading\n- no list\n\n> no quote",
    "[ref]: http://evil.example",
]


def html_of(markdown: str) -> str:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)


def text_of(value: str) -> str:
    """What a reader sees of a value that stands after a word."""
    (paragraph,) = html_of(f"Value: {escaped(value)}").strip().split("\n")
    assert paragraph.startswith("<p>Value: ")
    shown = paragraph.removeprefix("<p>Value: ").removesuffix("</p>")
    assert "<" not in shown, shown
    for sign, plain in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        shown = shown.replace(sign, plain)
    return shown


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_reads_as_it_is(value: str) -> None:
    assert text_of(value) == " ".join(value.split())


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1))
def test_any_value_reads_as_it_is(value: str) -> None:
    plain = " ".join(value.split())
    assert text_of(f"x{plain}") == f"x{plain}"


def test_addresses_are_no_links() -> None:
    for value in ("http://evil.example", "www.evil.example", "me@evil.example"):
        assert not {"://", "www.", "@"} & {escaped(value)[at : at + 4] for at in range(9)}
        assert value in html_of(f"Value: {escaped(value)}")


def test_characters_that_cannot_be_seen_are_left_out() -> None:
    assert escaped("a\u202eb\u200bc\x00d\u0007") == "abcd"
    assert len(escaped("x" * 10_000)) == 2001


def test_what_nobody_said_is_not_stated() -> None:
    assert escaped(None) == escaped("") == "not stated"
    assert escaped(Markdown("")) == ""
    assert escaped(0) == "0"


def test_a_cell_stays_a_cell() -> None:
    made = table(["Name", "a|b"], [["x\ny", 1], ["<b>", Markdown("**2**")]])
    assert html_of(made).count("<td") == 4
    assert html_of(made).count("<th") == 1 + 2  # <thead>
    assert "<strong>2</strong>" in html_of(made)
    assert "<b>" not in html_of(made)


def test_a_template_is_escaped_where_values_stand() -> None:
    made = render("**{{ a }}** {{ b }} {{ c.d }}", a="*x*", b=Markdown("*y*"), c={"d": None})
    assert made == "**\\*x\\*** *y* not stated"
