"""Markdown from templates, in which no value of the data is taken for Markdown or HTML."""

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from jinja2 import Environment, StrictUndefined

NOT_STATED = "not stated"
"""What is said of what nobody has said."""

_LONGEST = 2000  # characters of a value
# What begins something within a line. What does so at its start cannot: values stand after
# words.
_SIGNS = re.compile(r"[\\`*_\[\]|~$]")
# Addresses that become links by themselves.
_LINKS = re.compile(r"(://|@|\bwww\.)", re.IGNORECASE)


class Markdown(str):
    """Text that is Markdown, and stays as it is."""

    __slots__ = ()


def escaped(value: object) -> Markdown:
    """Any value as one line that reads as it is; nothing is said to be not stated.

    Control characters, those that turn the direction of text among them, are left out.
    """
    if isinstance(value, Markdown):
        return value
    if value is None or value == "":
        return Markdown(NOT_STATED)
    text = " ".join(str(value).split())
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}…"
    text = _SIGNS.sub(r"\\\g<0>", html.escape(text, quote=False))
    return Markdown(_LINKS.sub(lambda found: f"{found[0][:-1]}&#{ord(found[0][-1])};", text))


def table(headings: Sequence[str], lines: Iterable[Sequence[object]]) -> Markdown:
    """A table; the first column is of words, the others of figures."""
    every: list[list[str]] = [
        [escaped(heading) for heading in headings],
        ["---", *["---:"] * (len(headings) - 1)],
    ]
    every += [[escaped(cell) for cell in line] for line in lines]
    return Markdown("\n".join(f"| {' | '.join(line)} |" for line in every))


def render(template: str, **content: Any) -> str:
    """A template with its values, all escaped but `Markdown`.

    Args:
        template: Of Jinja.
        **content: What it names.
    """
    environment = Environment(  # noqa: S701 HTML is escaped by `escaped`, and Markdown with it
        finalize=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.from_string(template).render(**content)
