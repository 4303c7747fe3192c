"""The report of a gate as one HTML page that needs no other file."""

from typing import Any

from fakenews.evaluation.page import VERDICT_STYLE, page

_STYLE = """\
  .verdict.accepted { border-color: #00694b; background: #eaf6f1; }
  .verdict.refused { border-color: #d55e00; background: #fdeee4; }
  .verdict.undecided { border-color: #e69f00; background: #fff6e0; }
  .badge.accepted, .badge.passed { background: #00694b; }
  .badge.refused, .badge.failed { background: #b34700; }
  .badge.undecided { background: #855b00; }
  .badge.skipped { background: #5a5a5a; }
  th:first-child, td:first-child { min-width: 8rem; overflow-wrap: normal; }
  .checks th:first-child, .checks td:first-child { min-width: 0; }
  .checks td { vertical-align: top; text-align: left; }
  .checks th { text-align: left; }
  .checks td:last-child { overflow-wrap: anywhere; min-width: 14rem; }
  dt { font-weight: 700; margin-top: .5rem; }
  dd { margin: 0; max-width: 75ch; }
  @media (max-width: 600px) {
    body { margin: .6rem auto; padding: 0 .6rem; }
    h1 { font-size: 1.3rem; }
    .verdict { padding: .7rem .8rem; }
    td, th { padding: .25rem .4rem; }
  }"""

_BODY = """\
<header class="verdict {{ state }}">
<span class="badge {{ state }}">{{ state }}</span>
<h1>{{ title }}</h1>
{% for line in about %}<p>{{ line }}</p>{% endfor %}
</header>
{% if why %}
<h2>Why</h2>
<ul>
{% for outcome, message in why %}
<li><span class="badge {{ outcome }}">{{ outcome }}</span> {{ message }}</li>
{% endfor %}
</ul>
{% endif %}
{% if figures %}
<div class="figures">
{% for name, value, remark in figures %}
<div>{{ name }}<b>{{ value }}</b><small>{{ remark }}</small></div>
{% endfor %}
</div>
{% endif %}
{% if images %}
<h2>How much is gained or lost</h2>
{% for data in images %}
<figure><img alt="Gain of each metric with its bounds and margin"
 src="data:image/png;base64,{{ data }}"></figure>
{% endfor %}
<p class="note">A line reaches from the lower to the upper one-sided bound. A check passes when
all of its line is on the right of the black bar. Right is better, also of the Brier score, of
which less is better.</p>
{{ grid(["Metric", "Champion", "Challenger", "Gain", "Bounds", "Margin", "Most borne",
         "Outcome"], metrics) }}
{% endif %}
<h2>All checks</h2>
<div class="scroll"><table class="checks">
<thead><tr><th scope="col">Outcome</th><th scope="col">Check</th><th scope="col">Answer</th>
</tr></thead>
<tbody>
{% for outcome, key, message in checks %}
<tr><td><span class="badge {{ outcome }}">{{ outcome }}</span></td>
<td><code>{{ key }}</code></td>
<td>{{ message }}</td></tr>
{% endfor %}
</tbody>
</table></div>
{% for place, lines in slices %}
<h2>Slices of {{ place }}</h2>
{{ grid(["Slice", "Rows", "Minority", "Champion", "Challenger", "Gain", "Upper bound", ""],
        lines) }}
<p class="note">Macro-F1. Worse: even the upper bound, corrected for the number of slices, is
beyond a loss of {{ policy.slice_margin }}.</p>
{% endfor %}
{% if behaviour %}
<h2>Behaviour tests</h2>
{{ grid(["Change of the text", "Texts", "Champion fails", "Challenger fails", ""], behaviour) }}
<p class="note">A text fails when the decision changes or a probability moves by more than
{{ policy.tolerance }}; of a phrase, when it moves the wrong way by more.</p>
{% if examples %}
<h3>Texts that only the challenger fails, as changed</h3>
<ul>
{% for name, text in examples %}
<li>{{ name }}: <bdi dir="auto">{{ text }}</bdi></li>
{% endfor %}
</ul>
{% endif %}
{% endif %}
{% if notices %}
<h2>Notes</h2>
<ul>{% for notice in notices %}<li>{{ notice }}</li>{% endfor %}</ul>
{% endif %}
<h2>How to read this</h2>
<dl>
<dt>Margin</dt>
<dd>The loss that a challenger must surely stay within. It is the narrowest that these rows can
tell with both error rates kept; never more than the policy bears, and never less than
{{ "{:.0%}".format(policy.narrowest) }} of that.</dd>
<dt>Wrongly accepted</dt>
<dd>A challenger that is worse by a metric's margin is accepted in at most
{{ "{:.0%}".format(policy.wrong_acceptance) }} of cases.</dd>
<dt>Wrongly refused</dt>
<dd>One that is equal, but for the seed of its training, is refused in at most
{{ "{:.0%}".format(policy.wrong_refusal) }} of cases by all checks together.</dd>
<dt>Undecided</dt>
<dd>The rows cannot tell a loss as large as is borne from none. The champion stays then.</dd>
<dt>Slices, behaviour, format, latency</dt>
<dd>These refuse when a challenger is surely worse than their own margin. That they pass is no
proof that it is not.</dd>
</dl>
"""


def render(*, title: str, **content: Any) -> str:
    """The page, everything in it escaped.

    Args:
        title: Of the page.
        **content: What the template above names.
    """
    return page(_BODY, title=title, style=VERDICT_STYLE + _STYLE, **content)
