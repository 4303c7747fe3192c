"""The data sheet of a run: what it was trained and evaluated on.

Sections after Gebru et al., "Datasheets for Datasets", Communications of the ACM, 2021.
"""

from collections.abc import Mapping
from typing import Any

from fakenews.tracking.facts import SPLITS, Facts
from fakenews.tracking.markdown import NOT_STATED, Markdown, escaped, render, table

DATA_SHEET = "data_sheet.md"

_FILES = 50  # shown; a prepared dataset may have been made of thousands

_TEMPLATE = """\
# Data sheet: {{ facts.name }}, run {{ facts.run }}

Written by the training that read the data, from what it counted; what nobody has said is
"not stated". Sections after Gebru et al., *Datasheets for Datasets* (2021).

## Motivation

What the data were made for, by whom and with which means: {{ card.motivation }}

## Composition

{{ total }} rows, each a text with one label of {{ classes }}.

{{ counts }}

{{ lengths }}

- **Duplicates:** {{ audit.exact_duplicates }} rows repeat a text, {{ audit.near_duplicates }}
  more are nearly like an earlier one; the largest group of such rows has
  {{ audit.largest_group }}.
- **Conflicts:** {{ audit.conflicting_groups }} rows are like one with another label.
- **Beside the text:** {{ columns }}.
- **People:** whether the texts name people, or are confidential, offensive or protected:
  not stated.

Found by the audit{{ sampled }}:

{% for warning in audit.warnings %}
- {{ warning }}
{% else %}
- nothing that a reader should act on.
{% endfor %}

How often format gives a label away, by class:

{{ artefacts }}

## Collection process

Who collected the data, how, and when: {{ card.collection }}

{% if source %}
{{ source }}

{% endif %}
{{ files }}

## Preprocessing, cleaning, labelling

- **Read from:** the text from the column {{ settings.text }}, the label from
  {{ settings.label }}
{%- if label_names %}, in which {{ label_names }}{% endif %}.
- **Repaired:** in {{ facts.data.repaired }} texts a wrong decoding was undone.
- **Cut:** {{ facts.data.clipped }} texts to {{ max_chars }} characters.
- **Cues of format:** {{ cues }}.
- **Left out:** {{ dropped }}.
- **Splits:** {{ splits }}
- **Labels:** who gave them, and by which rules: {{ card.labelling }}

## Uses

Used to train and to evaluate this model; see `model_card.md`. Of other uses: not stated.

## Distribution

- **Licence of the data:** {{ card.data_licence }}
- **Data hash:** {{ facts.data.data_hash }}, of texts, labels, extra columns, split and order.
- The model's bundle has the tokens of some validation rows, from which their texts can be
  read; archives that are served have not.

## Maintenance

- **Contact:** {{ card.contact }}
- **Software that shaped the data:** {{ software }}.
- Other files, or the same with other content, have another data hash, and a sheet of their own.
"""


def data_sheet(facts: Facts) -> str:
    """The sheet, as Markdown."""
    data, audit = facts.data, facts.audit
    settings = data["settings"]
    total = sum(facts.rows(split) for split in facts.counts)
    figures = ("exact_duplicates", "near_duplicates", "largest_group", "conflicting_groups")
    return render(
        _TEMPLATE,
        facts=facts,
        card=facts.card,
        audit={"warnings": audit["warnings"], **{name: f"{audit[name]:,}" for name in figures}},
        sampled=Markdown(
            f", of a sample of {audit['rows']:,} rows" if audit["rows"] < total else ""
        ),
        total=f"{total:,}",
        classes=", ".join(facts.classes),
        counts=_counts(facts),
        lengths=_lengths(audit["lengths"]),
        columns=_columns(facts),
        artefacts=_artefacts(audit["artefact_rates"], facts.classes),
        source=_source(facts),
        files=_files(facts),
        settings=settings,
        label_names=_label_names(facts),
        max_chars=f"{settings['max_chars']:,}",
        cues="removed from all texts" if settings["normalise"] else "left in the texts",
        dropped=_dropped(data),
        splits=_splits(facts),
        software=", ".join(f"{name} {found}" for name, found in data["versions"].items()),
    )


def _counts(facts: Facts) -> Markdown:
    lines: list[list[Any]] = []
    for split, counts in facts.counts.items():
        total = facts.rows(split)
        cells = [_share(counts.get(name, 0), total) for name in facts.classes]
        lines.append([SPLITS[split], f"{total:,}", *cells])
    return table(["Split", "Rows", *facts.classes], lines)


def _share(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.1%})" if total else "0"


def _lengths(lengths: Mapping[str, Any]) -> Markdown:
    lines = [
        [name, *(f"{found[unit][at]:,.0f}" for unit in ("words", "chars") for at in _QUANTILES)]
        for name, found in lengths.items()
    ]
    headings = [f"{unit}, {name}" for unit in ("words", "characters") for name in _NAMED]
    return table(["Length", *headings], lines)


_QUANTILES = ("0.05", "0.5", "0.95")
_NAMED = ("5%", "median", "95%")


def _columns(facts: Facts) -> str:
    found = facts.columns
    return f"the columns {', '.join(found)}" if found else "no column"


def _artefacts(rates: Mapping[str, Mapping[str, float]], classes: list[str]) -> Markdown | str:
    lines = [
        [name, *(f"{rate.get(label, 0):.1%}" for label in classes)]
        for name, rate in rates.items()
        if any(rate.values())
    ]
    return table(["Artefact", *classes], lines) if lines else "None of them occurs."


def _source(facts: Facts) -> str | None:
    """What got the files, if this project did."""
    data = facts.config["data"]
    fetch = data.get("fetch")
    if data.get("path") is not None or not fetch:
        return None
    options = ", ".join(
        f"{name}={value}"
        for name, value in fetch.items()
        if not name.startswith("_") and value is not None
    )
    return f"The files come from {fetch['_target_']} with {options}."


def _files(facts: Facts) -> Markdown:
    files = facts.files
    lines = [
        [
            file["name"],
            "" if file.get("rows") is None else f"{file['rows']:,}",
            file.get("encoding") or "",
            file["sha256"],
        ]
        for file in files[:_FILES]
    ]
    more = len(files) - _FILES
    rest = f"\n\nand {more:,} more files, which are in `data.json`." if more > 0 else ""
    return Markdown(table(["File", "Rows", "Encoding", "SHA-256"], lines) + rest)


def _label_names(facts: Facts) -> Markdown | None:
    names = facts.data["settings"].get("label_names") or facts.config["data"].get("label_names")
    if not names:
        return None
    return Markdown(
        ", ".join(f"{escaped(raw)} is {escaped(name)}" for raw, name in names.items())
    )


def _dropped(data: Mapping[str, Any]) -> str:
    reasons = dict(data["dropped"])
    if data.get("quarantined"):
        reasons["set aside by validation"] = data["quarantined"]
    if not any(reasons.values()):
        return "no row"
    return "; ".join(f"{count:,} rows: {reason}" for reason, count in reasons.items())


def _splits(facts: Facts) -> str:
    settings = facts.data["settings"]
    config = facts.config["data"]
    given = [SPLITS[split] for split in ("val", "test") if config.get(f"{split}_path")]
    drawn = (
        f"rows whose sets of words are alike to {settings['near_duplicates']:g} (Jaccard) are "
        "on one side"
        if settings.get("near_duplicates") is not None
        else f"near-duplicates: {NOT_STATED}"
    )
    seed = settings.get("seed")
    return (
        (f"{' and '.join(given)} as given; " if given else "")
        + drawn
        + ("" if seed is None else f"; seed {seed}")
        + "."
    )
