"""The report of a sweep as one HTML page: its pictures are within, its other files beside."""

from typing import Any

from fakenews.evaluation.page import page

_STYLE = """\
  .trials td, .trials th { text-align: left; white-space: nowrap; }
  .trials td.long { white-space: normal; min-width: 16rem; overflow-wrap: anywhere; }
  .best td:last-child, .best th:last-child { text-align: left; }
  .front { grid-column: 1 / -1; }
  .front td, .front th, .best td:first-child, .best th { white-space: nowrap; }
  tr.first { background: #fff3e6; }
  pre { overflow-x: auto; background: #f6f6f6; padding: .6rem; font-size: 12px; }
  details { margin: .3rem 0; }"""

_BODY = """\
<h1>Sweep {{ name }}</h1>
<p>{{ sentence }}</p>
<div class="figures">
{% for title, value, remark in headline %}
<div>{{ title }}<b>{{ value }}</b><small>{{ remark }}</small></div>
{% endfor %}
</div>
<div class="tables">
{% if best_lines %}
<section class="{{ best_kind }}">
<h2>{{ best_title }}</h2>
{{ grid(best_headings, best_lines) }}
{% if best_note %}<p class="note">{{ best_note }}</p>{% endif %}
</section>
{% endif %}
<section>
<h2>Importance of parameters</h2>
{% if importance_lines %}{{ grid(importance_headings, importance_lines) }}{% endif %}
{% for note in importance_notes %}<p class="note">{{ note }}</p>{% endfor %}
{% if importance_lines %}
<p class="note">How much of the variation between trials each explains alone (fANOVA). It speaks
of what was tried: where a good region was searched most, less is left to explain.</p>
{% endif %}
</section>
</div>
{% if images %}
<h2>Plots</h2>
<div class="plots">
{% for key, data in images.items() %}
<figure class="wide">
<img alt="{{ key | replace("_", " ") }}" src="data:image/png;base64,{{ data }}">
{% if key in interactive %}
<figcaption><a href="plots/{{ key }}.html">interactive</a></figcaption>
{% endif %}
</figure>
{% endfor %}
</div>
{% endif %}
{% if failures %}
<h2>Failed trials</h2>
{% if failures_note %}<p class="note">{{ failures_note }}</p>{% endif %}
{% for title, parameters, traceback in failures %}
<details><summary>{{ title }}</summary>
<p>{{ parameters }}</p>
{% if traceback %}<pre>{{ traceback }}</pre>{% endif %}
</details>
{% endfor %}
{% endif %}
<h2>Trials</h2>
{% if trial_lines %}
<p class="note">{{ trials_note }}</p>
<div class="scroll trials"><table>
<thead>
<tr>{% for heading in trial_headings %}<th scope="col">{{ heading }}</th>{% endfor %}</tr>
</thead>
<tbody>
{% for first, cells in trial_lines %}
<tr{% if first %} class="first"{% endif %}>
{%- for cell in cells %}<td{% if cell | length > 30 %} class="long"{% endif %}>{{ cell }}</td>
{%- endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% else %}
<p>There is no trial yet.</p>
{% endif %}
<p class="note">Beside this page: <a href="trials.csv">trials.csv</a>,
<a href="best.json">best.json</a>
{%- if interactive %}, and in <code>plots/</code> the pictures and their interactive pages
{%- endif %}.</p>
"""


def render(*, name: str, **content: Any) -> str:
    """The page, everything in it escaped.

    Args:
        name: Of the study.
        **content: What the body above names.
    """
    return page(_BODY, title=f"Sweep {name}", style=_STYLE, name=name, **content)
