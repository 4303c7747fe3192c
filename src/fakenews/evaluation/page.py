"""Reports as HTML pages that need no other file, and how their files are written."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from fakenews.errors import FakeNewsError

VERDICT_STYLE = """\
  .verdict { border-left: 8px solid; border-radius: 6px; padding: .9rem 1.2rem; }
  .verdict h1 { margin: .4rem 0; line-height: 1.25; }
  .verdict p { color: #444; max-width: none; }
  .badge { display: inline-block; border-radius: 4px; padding: .05rem .55rem; color: #fff;
           font-weight: 700; white-space: nowrap; }
  .verdict .badge { font-size: 1.05rem; text-transform: uppercase; letter-spacing: .04em; }
  .figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
  .figures small { display: block; }
  ul { margin: .3rem 0; padding-left: 1.2rem; }
  li { max-width: 85ch; margin: .25rem 0; overflow-wrap: anywhere; }
"""
"""CSS of pages that begin with a verdict; the colours of its states are theirs."""

_TOP = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
         max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
  h1 { font-size: 1.6rem; margin-bottom: .2rem; }
  h2 { font-size: 1.1rem; margin: 1.8rem 0 .4rem; }
  p { max-width: 75ch; margin: .3rem 0; overflow-wrap: anywhere; }
  .figures { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0; }
  .figures div { border: 1px solid #ddd; border-radius: 6px; padding: .5rem 1rem; }
  .figures b { display: block; font-size: 1.7rem; }
  .figures small, .note { color: #5a5a5a; }
  .tables, .plots { display: grid; gap: 0 2rem; align-items: start;
                    grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); }
  .scroll { overflow-x: auto; }
  table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
  th, td { padding: .25rem .6rem; border-bottom: 1px solid #e5e5e5; text-align: right; }
  th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; }
  thead th { border-bottom: 2px solid #999; }
  figure { margin: .6rem 0; }
  figure.wide { grid-column: 1 / -1; }
  img { max-width: 100%; height: auto; }
{{ style | safe }}
</style>
</head>
<body>
{% macro grid(headings, lines) %}
<div class="scroll"><table>
<thead>
<tr>{% for heading in headings %}<th scope="col">{{ heading }}</th>{% endfor %}</tr>
</thead>
<tbody>
{% for line in lines %}
<tr>{% for cell in line %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% endmacro %}
"""
_END = """\
</body>
</html>
"""
_EVALUATION = """\
<h1>Evaluation report</h1>
<p>{{ "{:,}".format(evaluation.rows) }} rows of {{ evaluation.classes | length }} classes.
Positive class: <strong>{{ evaluation.positive }}</strong>
({{ "{:.1%}".format(base_rate) }} of the rows
{%- if evaluation.classes | length == 2 %}
, which is the average precision of guessing
{%- endif %}
).
{% if evaluation.threshold is not none %}
Decided <strong>{{ evaluation.positive }}</strong> where its probability is at least
{{ "{:.3f}".format(evaluation.threshold) }}.
{% else %}
Decided: the most probable class.
{% endif %}
Temperature {{ "{:.3f}".format(evaluation.temperature) }}.</p>
<div class="figures">
{% for title, value, interval, _ in metrics[:3] %}
<div>{{ title }}<b>{{ value }}</b><small>95%: {{ interval }}</small></div>
{% endfor %}
</div>
<div class="tables">
<section>
<h2>Metrics</h2>
{{ grid(["Metric", "Value", "95% interval", "Before scaling"], metrics) }}
<p class="note">Of log loss, Brier score and calibration error, lower is better. Scaling is
the division of the logits by the temperature. Intervals: bootstrap over rows
(of the calibration error it would be biased). n/a: these rows do not define it.</p>
</section>
<section>
<h2>By class</h2>
{{ grid(["Class", "Precision", "Recall", "F1", "Rows"], per_class) }}
</section>
</div>
<h2>Slices</h2>
{{ grid(slice_headings, slices) }}
<p class="note">Average precision rises with the share of positives: where it differs, compare
by AUROC. A slice too small to judge, or of one class, shows n/a.</p>
{% if images %}
<h2>Plots</h2>
<div class="plots">
{% for name, data in images.items() %}
<figure{% if name == "learning curves" %} class="wide"{% endif %}>
<img alt="{{ name }}" src="data:image/png;base64,{{ data }}"></figure>
{% endfor %}
</div>
{% endif %}
"""


def page(body: str, *, title: str, style: str = "", **content: Any) -> str:
    """A page, everything in it escaped.

    Args:
        body: A Jinja template; `grid(headings, lines)` in it makes a table.
        title: Of the page.
        style: CSS that is added to that of every page.
        **content: What the template names.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_TOP + body + _END)
    return template.render(title=title, style=style, **content)


def render(*, evaluation: Any, **content: Any) -> str:
    """The page of an evaluation.

    Args:
        evaluation: The `Evaluation` it is about.
        **content: `metrics`, `per_class` and `slices` as lists of lines of cells,
            `slice_headings`, and `images`: plot name to base64 of a PNG.
    """
    support = evaluation.metrics[f"support/{evaluation.positive}"]
    return page(
        _EVALUATION,
        title="Evaluation report",
        evaluation=evaluation,
        base_rate=support / evaluation.rows,
        **content,
    )


def publish(
    make: Callable[[Path], Sequence[Path]],
    folder: Path,
    *,
    what: str,
    error: type[FakeNewsError] = FakeNewsError,
    obsolete: str | None = None,
) -> list[Path]:
    """Make files beside where they belong, and move them there: none is ever half-written.

    Args:
        make: Makes the files in a folder, and returns them in the order in which they are
            moved.
        folder: Made when it is not there; a file of the same name is replaced.
        what: The files, for the message.
        error: Is raised.
        obsolete: Pattern of files of before, which are removed in the end.

    Returns:
        The files where they belong, in that order.

    Raises:
        FakeNewsError: Or the `error` that is given: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".report-") as name:
            draft = Path(name)
            drafts = make(draft)
            written = [folder / path.relative_to(draft) for path in drafts]
            for path in draft.iterdir():
                if path.is_dir():
                    (folder / path.name).mkdir(exist_ok=True)
            for source, target in zip(drafts, written, strict=True):
                source.replace(target)
            if obsolete is not None:
                for old in set(folder.glob(obsolete)) - set(written):
                    old.unlink()
    except OSError as refused:
        raise error(
            f"{folder}: cannot write {what}: {refused.strerror or refused}; "
            "choose a folder that is writable and has space"
        ) from refused
    return written
