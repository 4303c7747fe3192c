"""What the page shows of an answer, as HTML: all text that is not ours is escaped here."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from fakenews.serving.gateway.page_tables import Scored
from fakenews.serving.gateway.problems import Problem
from fakenews.serving.gateway.requests import Answer

# Of many classes, those that are shown.
_BARS = 5
# Words of which the effect is less than this share of the strongest are not marked.
_FAINT = 0.1
_SHADES = 3
# Characters that are shown behind the last word that the model has read.
_REST = 200
_NAMED = 3

_PROBLEMS = {
    "empty_text": "Type a text first.",
    "overloaded": "Many people are asking just now.",
    "unavailable": "The model does not answer just now.",
    "no_model": "No model is in service yet.",
    "deadline": "The answer took too long. Try again in a moment.",
    "internal": "The model could not read this text.",
    "unknown_id": "This answer is not known here any more.",
    "no_space": "There is no room for the table just now.",
}
_LATER = " Try again in a moment."


def verdict(answer: Answer) -> str:
    """The verdict on a text: in words, and a bar for each class.

    Args:
        answer: A prediction.
    """
    title, reason = decision(answer)
    kind = "unsure" if answer.get("unsure") else "decided"
    notices = ""
    if answer.get("truncated"):
        notices = _notice("The text is longer than the model reads: only its start was judged.")
    version = escape(f"{answer['model']} {answer['model_version']}")
    return (
        f'<section class="verdict {kind}"><h2 dir="auto">{escape(title)}</h2>'
        f'<p class="reason">{escape(reason)}</p>{bars(answer)}{notices}'
        f'<p class="version">Model <code>{version}</code></p></section>'
    )


def decision(answer: Answer) -> tuple[str, str]:
    """The verdict in plain words, and what it rests on.

    Args:
        answer: A prediction.
    """
    probabilities: Mapping[str, float] = answer["probabilities"]
    label = answer["label"]
    mine = probabilities[label]
    if answer.get("unsure"):
        first, second = _ranked(probabilities)[:2] if len(probabilities) > 1 else (label, label)
        return "Unsure", (
            f"Too close to call: {first} {percent(probabilities[first])}, "
            f"{second} {percent(probabilities[second])}."
        )
    threshold, positive = answer.get("threshold"), answer.get("positive")
    if mine >= 0.5:
        return f"Likely {label}", f"The model gives {label} a probability of {percent(mine)}."
    reason = f"The probability of {label} is only {percent(mine)}"
    if threshold is None:
        return f"Possibly {label}", f"{reason}, but no other class has more."
    least = threshold if label == positive else 1 - threshold
    return f"Possibly {label}", f"{reason}, but {percent(least)} is enough for this model."


def bars(answer: Answer) -> str:
    """A bar for the probability of each class, and the band in which the model is unsure.

    A bar that ends within its band is too close to call.

    Args:
        answer: A prediction.
    """
    probabilities: Mapping[str, float] = answer["probabilities"]
    order = _ranked(probabilities)
    if len(order) <= 2:
        order = list(probabilities)
    shown, rest = order[:_BARS], order[_BARS:]
    bands = band(answer)
    rows = "".join(
        f'<div class="row{" chosen" if name == answer["label"] else ""}">'
        f'<span class="name" dir="auto">{escape(name)}</span>'
        f"{_bar(probabilities[name], bands.get(name))}"
        f'<span class="value">{escape(percent(probabilities[name]))}</span></div>'
        for name in shown
    )
    spoken = ", ".join(f"{name} {percent(probabilities[name])}" for name in shown)
    if rest:
        classes = "1 other class" if len(rest) == 1 else f"{len(rest):,} other classes"
        together = f"{classes} {percent(sum(probabilities[name] for name in rest))}"
        spoken = f"{spoken}, {together}"
        rows += f'<p class="rest">{escape(together)}</p>'
    legend = ""
    if bands:
        of = next(iter(bands))
        low, high = bands[of]
        spoken = f"{spoken}. Unsure where {of} is between {low:.0%} and {high:.0%}"
        legend = (
            '<p class="key"><svg class="swatch" aria-hidden="true" viewBox="0 0 16 16">'
            '<rect class="band" width="16" height="16"/></svg>'
            "A bar that ends here is too close to call</p>"
        )
    return (
        f'<div class="bars" role="img" aria-label="{escape("Probabilities: " + spoken)}.">'
        f"{rows}</div>{legend}"
    )


def band(answer: Answer) -> dict[str, tuple[float, float]]:
    """From where to where a class's probability leaves the model unsure.

    With a threshold this is around it, for both classes; else it is what the first class
    must have more than the second. Empty if the answer does not say how wide it is.

    Args:
        answer: A prediction.
    """
    width = answer.get("band")
    probabilities: Mapping[str, float] = answer["probabilities"]
    if not width or len(probabilities) < 2:
        return {}
    threshold, positive = answer.get("threshold"), answer.get("positive")
    if threshold is None:
        first, second = _ranked(probabilities)[:2]
        return {first: (probabilities[second], min(probabilities[second] + width, 1.0))}
    return {
        name: (max(middle - width, 0.0), min(middle + width, 1.0))
        for name, middle in sorted(
            (
                (name, threshold if name == positive else 1 - threshold)
                for name in probabilities
            ),
            key=lambda found: found[0] != positive,
        )
    }


def words(explanation: Answer, version: str) -> str:
    """The text with the words marked that speak for the verdict, or against it.

    Args:
        explanation: As the gateway explains.
        version: Of the model that gave the verdict: another may have been asked why.
    """
    text, target = explanation["text"], explanation["target"]
    found = _placed(explanation["words"], len(text))
    most = max((abs(word["attribution"]) for word in found), default=0.0)
    if not found or most == 0:
        return quiet("No word stands out.")
    pieces: list[str] = []
    place = 0
    for word in found:
        pieces.append(escape(text[place : word["start"]]))
        pieces.append(_marked(text[word["start"] : word["end"]], word["attribution"] / most))
        place = word["end"]
    rest = text[place:]
    pieces.append(escape(rest if len(rest) <= _REST else f"{rest[:_REST]} …"))
    other = explanation["prediction"]["model_version"]
    note = ""
    if other != version:
        note = _notice(f"These words are explained by another version of the model: {other}.")
    return (
        '<section class="words"><h3>What it noticed</h3>'
        f'<p class="marked" dir="auto">{"".join(pieces)}</p>'
        f'<p class="key"><mark class="for s3">speaks for {escape(target)}</mark> '
        f'<mark class="against s3">speaks against it</mark></p>'
        f"{_named(found, most, target)}{note}</section>"
    )


def _placed(found: Sequence[Mapping[str, Any]], length: int) -> list[Mapping[str, Any]]:
    """The words in order, without those that overlap or lie outside of the text."""
    kept: list[Mapping[str, Any]] = []
    place = 0
    for word in sorted(found, key=lambda word: word["start"]):
        if place <= word["start"] < word["end"] <= length and math.isfinite(
            word["attribution"]
        ):
            kept.append(word)
            place = word["end"]
    return kept


def _marked(text: str, share: float) -> str:
    if abs(share) < _FAINT:
        return escape(text)
    shade = min(math.ceil(abs(share) * _SHADES), _SHADES)
    kind = "for" if share > 0 else "against"
    return f'<mark class="{kind} s{shade}">{escape(text)}</mark>'


def _named(found: Sequence[Mapping[str, Any]], most: float, target: str) -> str:
    """The same in words, for those who do not see colours, and in figures."""
    strong = [word for word in found if abs(word["attribution"]) >= _FAINT * most]
    ranked = sorted(strong, key=lambda word: -abs(word["attribution"]))
    pros = [word["text"] for word in ranked if word["attribution"] > 0][:_NAMED]
    cons = [word["text"] for word in ranked if word["attribution"] < 0][:_NAMED]
    said = []
    if pros:
        said.append(f"Strongest for {target}: {', '.join(pros)}.")
    if cons:
        said.append(f"Strongest against it: {', '.join(cons)}.")
    rows = "".join(
        f'<tr><th scope="row" dir="auto">{escape(word["text"])}</th>'
        f"<td>{'for' if word['attribution'] > 0 else 'against'}</td>"
        f'<td class="number">{word["attribution"]:+.2f}</td></tr>'
        for word in ranked[:20]
    )
    return (
        f'<p class="named">{escape(" ".join(said))}</p>'
        "<details><summary>Words as a list</summary><table>"
        '<thead><tr><th scope="col">Word</th><th scope="col">Speaks</th>'
        '<th scope="col" class="number">Effect on the score</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></details>"
    )


def scored(table: Scored, *, text: str, keep: float) -> str:
    """The first rows of a predicted table, and where to get all of them.

    Args:
        table: That is done.
        text: Its column of the text.
        keep: Seconds for which it is kept.
    """
    columns, rows = table.columns, table.first
    error = columns.index("error")
    failed = any(row[error] for row in rows)
    places = [
        place
        for place, name in enumerate(columns)
        if name in (text, "prediction")
        or name.startswith("probability_")
        or (name == "error" and failed)
    ]
    head = "".join(_heading(columns[place]) for place in places)
    body = "".join(
        "<tr>" + "".join(_cell(columns[place], row[place], text) for place in places) + "</tr>"
        for row in rows
    )
    summary = f"{table.done:,} row{'s' * (table.done != 1)} predicted"
    if table.failed:
        summary = f"{summary}, {table.failed:,} of them without an answer: see the column error"
    caption = f"The first {len(rows):,} rows" if table.done > len(rows) else "All rows"
    minutes = max(round(keep / 60), 1)
    return (
        f'<section class="scored"><h2>Done</h2><p class="reason">{summary}.</p>'
        f'<p><a class="download" href="page/tables/{table.name}" download="predictions.csv">'
        f"Download the whole table (CSV)</a></p>"
        f'<p class="quiet">It is deleted after {minutes:,} minute{"s" * (minutes != 1)}.</p>'
        f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}"><table>'
        f"<caption>{caption}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div></section>"
    )


def _heading(column: str) -> str:
    name = column.removeprefix("probability_")
    kind = "" if name == column else ' class="number"'
    return f'<th scope="col" dir="auto"{kind}>{escape(name)}</th>'


def _cell(column: str, value: str, text: str) -> str:
    if column == text:
        return f'<td class="text" dir="auto"><span>{escape(value)}</span></td>'
    if column.startswith("probability_") and value:
        return f'<td class="number">{escape(percent(float(value)))}</td>'
    return f'<td dir="auto">{escape(value)}</td>'


def progress(name: str, done: int, total: int | None) -> str:
    """How far a table is.

    Args:
        name: Of its file.
        done: Rows that are predicted.
        total: All rows; None when nobody knows.
    """
    if total is None:
        bar, rows = "<progress", f"{done:,} rows"
    else:
        bar = f'<progress max="{max(total, 1)}" value="{min(done, total)}"'
        rows = f"{done:,} of {total:,} rows"
    return (
        f'<div class="progress">{bar} aria-label="Rows predicted"></progress>'
        f"<p>{escape(name)}: {rows}</p></div>"
    )


def problem(found: Problem) -> str:
    """Why there is no answer, and what to do.

    Args:
        found: What went wrong.
    """
    said = _PROBLEMS.get(found.code)
    if said is None:
        said = found.message
        if found.code != "bad_table":  # which begins with the name of the file
            said = said[:1].upper() + said[1:]
        said = said if said.endswith((".", "?", "!")) else f"{said}."
    return fault(said + (_LATER if found.retry_after is not None else ""))


def fault(message: str) -> str:
    """A message about what went wrong."""
    return f'<p class="fault" role="alert" dir="auto">{escape(message)}</p>'


def thanks(said: str) -> str:
    """After feedback."""
    return f'<p class="thanks">Thank you: noted as {escape(said)}.</p>'


def waiting(message: str) -> str:
    """While something is under way."""
    return f'<p class="waiting">{escape(message)}</p>'


def quiet(message: str) -> str:
    """A message that matters little."""
    return f'<p class="quiet">{escape(message)}</p>'


def _notice(message: str) -> str:
    return f'<p class="notice">{escape(message)}</p>'


def percent(probability: float) -> str:
    """A probability as people read it: never quite 0 or 100%."""
    if probability >= 0.995:
        return "over 99%"
    if probability < 0.005:
        return "under 1%"
    return f"{probability:.0%}"


def _ranked(probabilities: Mapping[str, float]) -> list[str]:
    return sorted(probabilities, key=lambda name: -probabilities[name])


def _bar(value: float, unsure: tuple[float, float] | None) -> str:
    marks = ""
    if unsure is not None:
        low, high = (round(1000 * edge, 1) for edge in unsure)
        marks = (
            f'<rect class="band" x="{low}" width="{round(high - low, 1)}" height="24"/>'
            f'<rect class="edge" x="{low}" width="2" height="24"/>'
            f'<rect class="edge" x="{max(round(high - 2, 1), 0)}" width="2" height="24"/>'
        )
    return (
        '<svg aria-hidden="true" viewBox="0 0 1000 24" preserveAspectRatio="none">'
        '<rect class="track" y="6" width="1000" height="12"/>'
        f'<rect class="fill" y="6" width="{round(1000 * value, 1)}" height="12"/>{marks}</svg>'
    )
