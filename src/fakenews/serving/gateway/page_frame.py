"""What the page shows before anything is asked, as HTML."""

from collections.abc import Sequence
from html import escape

from fakenews.serving.gateway.settings import Log


def header(title: str, lead: str, *, report: str | None) -> str:
    """The head of the page.

    Args:
        title: Of the page.
        lead: A sentence under it.
        report: Address of the latest monitoring report, if there is one.
    """
    links = '<a href="docs">API</a>'
    if report is not None:
        links += f'<a href="{escape(report)}">Monitoring</a>'
    return (
        f'<header><p class="brand">fakenews</p><nav aria-label="More">{links}</nav></header>'
        f"<h1>{escape(title)}</h1>"
        f'<p class="lead">{escape(lead)}</p>'
    )


def examples(texts: Sequence[str]) -> str:
    """Texts that can be tried; the page's script puts one into the box.

    Args:
        texts: Them.
    """
    items = "".join(
        f'<li><button type="button" class="example" dir="auto">{escape(text)}</button></li>'
        for text in texts
    )
    return (
        '<section class="examples" aria-labelledby="try"><h2 id="try">Or try one of these</h2>'
        f"<ul>{items}</ul></section>"
    )


def table_hint(most_bytes: int) -> str:
    """What tables can be uploaded.

    Args:
        most_bytes: Of one.
    """
    return (
        '<p class="hint">A CSV, TSV, JSON Lines or Parquet file with a text in each row, '
        f"at most {most_bytes / 1e6:,.0f} MB. It comes back with a prediction in each row.</p>"
    )


def footer(log: Log, *, keep: float) -> str:
    """What the page is good for, and what becomes of what is typed.

    Args:
        log: Whether predictions and their texts are logged.
        keep: Seconds for which tables are kept.
    """
    if not log.enabled:
        stored = "Neither your text nor the answer is stored."
    elif log.text:
        stored = "Your text is stored with its answer, to watch and improve the model."
    elif log.embeddings:
        stored = (
            "Your text is not stored. Its answer is, with figures such as the length of the "
            "text, a fingerprint by which the same text is recognised, and what the model made "
            "of it: numbers from which its subject, and some of its words, might be guessed."
        )
    else:
        stored = (
            "Your text is not stored. Its answer is, with figures such as the length of the "
            "text, and a fingerprint by which the same text is recognised."
        )
    days = log.keep_days
    if log.enabled and days is not None:
        stored += f" That is removed after {days:,} day{'s' * (days != 1)}."
    minutes = max(round(keep / 60), 1)
    return (
        "<footer><p><strong>It judges style, not truth.</strong> The model has learnt how "
        "texts of each kind are written. It knows no facts and checks none: a true text may be "
        "written like a false one.</p>"
        f"<p>{stored} What you say of an answer is stored. A table is deleted when it has been "
        f"read, and the table of its predictions after {minutes:,} "
        f"minute{'s' * (minutes != 1)}.</p></footer>"
    )
