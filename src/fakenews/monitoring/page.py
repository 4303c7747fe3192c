"""The report on monitoring as one HTML page that needs no other file."""

from typing import Any

from fakenews.evaluation.page import VERDICT_STYLE, page

_STYLE = """\
  .verdict.ok { border-color: #00694b; background: #eaf6f1; }
  .verdict.warning { border-color: #e69f00; background: #fff6e0; }
  .verdict.alarm { border-color: #d55e00; background: #fdeee4; }
  .verdict.unknown { border-color: #6a6a6a; background: #f1f1f1; }
  .badge.ok { background: #00694b; }
  .badge.warning { background: #855b00; }
  .badge.alarm { background: #b34700; }
  .badge.unknown { background: #5a5a5a; }
  .tables { grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); }
  .figures b { line-height: 1.3; }
  h3 { font-size: 1rem; margin: 1rem 0 .3rem; }
  .plots { grid-template-columns: repeat(auto-fill, minmax(min(100%, 310px), 1fr));
           gap: 0 1rem; }
  td.left, th.left { text-align: left; white-space: nowrap; }
  td .bar { display: inline-block; height: .6rem; border-radius: 2px; background: #0072b2;
            margin-right: .4rem; vertical-align: baseline; }
  td .bar.less { background: #767676; }
  .examples { list-style: none; padding: 0; }
  .examples li { border-left: 3px solid #ccc; padding-left: .7rem; margin: .6rem 0; }
  .examples bdi { display: block; }
  .examples small { color: #5a5a5a; }
  .examples small bdi { display: inline; }
  .strip { border-spacing: 2px; border-collapse: separate; width: auto; font-size: 13px; }
  .strip th, .strip td { border: 0; padding: 0; }
  .strip tbody th { font-weight: 400; padding-right: .7rem; white-space: nowrap;
                    text-align: left; position: sticky; left: 0; background: #fff;
                    max-width: 15rem; overflow: hidden; text-overflow: ellipsis; }
  .strip tbody tr.all th { font-weight: 700; }
  .strip thead th { border: 0; writing-mode: vertical-rl; transform: rotate(180deg);
                    text-align: left; font-weight: 400; color: #5a5a5a; padding: .2rem 0;
                    white-space: nowrap; line-height: 1.1; }
    .strip .cell { width: 26px; min-width: 18px; height: 20px; text-align: center;
                 border-radius: 3px; font-weight: 700; line-height: 20px; }
  .strip .effect { padding-left: .6rem; text-align: left; white-space: nowrap; color: #5a5a5a; }
  .cell.ok { background: #d3ebe2; }
  .cell.ok.rare { background: #a9d6c5; }
  .cell.warning { background: #f2bd4b; color: #3d2a00; }
  .cell.alarm { background: #c24f00; color: #fff; }
  .cell.unknown { background: #d9d9d9; color: #444; }
  .key { max-width: none; }
  .key span { white-space: nowrap; margin-left: .6rem; }
  .key .cell { display: inline-block; width: 20px; height: 18px; line-height: 18px;
               border-radius: 3px; text-align: center; margin-right: .3rem;
               vertical-align: -3px; }
  .checks td, .checks th { vertical-align: top; white-space: nowrap; }
  .checks th:nth-child(2), .checks td:nth-child(2) { text-align: left; white-space: normal;
                                                     min-width: 13rem; }
  .checks code { overflow-wrap: anywhere; }
  .checks small { display: block; color: #5a5a5a; }
  .counts { max-width: 640px; }
  .movers td:first-child { min-width: 6rem; }
  dt { font-weight: 700; margin-top: .5rem; }
  dd { margin: 0; max-width: 75ch; }
  @media (max-width: 600px) {
    body { margin: .6rem auto; padding: 0 .6rem; }
    h1 { font-size: 1.3rem; }
    .verdict { padding: .7rem .8rem; }
    .figures { gap: .5rem; }
    .figures div { padding: .4rem .6rem; }
    td .bar { display: none; }
    .figures b { font-size: 1.3rem; }
    /* The newest window is seen first. */
    .begin { direction: rtl; }
    .strip { direction: ltr; font-size: 12px; }
    .strip tbody th { max-width: 7rem; padding-right: .4rem; }
    .strip .cell { width: 15px; min-width: 15px; }
    .strip .effect { display: none; }
  }"""

_BODY = """\
<header class="verdict {{ state }}">
<span class="badge {{ state }}">{{ word }}</span>
<h1>{{ about[0] }}</h1>
{% for line in about[1:] %}<p>{{ line }}</p>{% endfor %}
</header>
<div class="figures">
{% for title, value, remark in headline %}
<div>{{ title }}<b>{{ value }}</b><small>{{ remark }}</small></div>
{% endfor %}
</div>
{% for heading, sentences, more in answers %}
<h2>{{ heading }}</h2>
<ul>
{% for name, said in sentences %}
<li>{% if name %}<b>{{ name }}</b>: {% endif %}{{ said }}</li>
{% endfor %}
</ul>
{% if more %}<p class="note">{{ more }}</p>{% endif %}
{% endfor %}
{% if strip.lines %}
<h2>{{ strip.heading }}</h2>
<div class="scroll begin"><table class="strip">
<thead><tr><td></td>
{%- for label in strip.windows %}<th scope="col">{{ label }}</th>{% endfor %}
<td></td></tr></thead>
<tbody>
{% for line in strip.lines %}
<tr{% if not line.key %} class="all"{% endif %}>
<th scope="row" title="{{ line.key }}">{{ line.title }}</th>
{%- for square in line.squares %}
<td class="{{ square.look }}" title="{{ square.said }}">{{ square.sign }}</td>
{%- endfor %}
<td class="effect">{{ line.effect }}</td></tr>
{% endfor %}
</tbody>
</table></div>
<p class="note key">A column is a window, the newest on the right:
<span><b class="cell ok"></b>ok</span>
<span><b class="cell ok rare"></b>ok, as one clean window in ten</span>
<span><b class="cell warning">!</b>differs</span>
<span><b class="cell alarm">!!</b>alarm</span>
<span><b class="cell unknown">?</b>not judged</span>
</p>
{% for note in strip.notes %}<p class="note">{{ note }}</p>{% endfor %}
{% endif %}
{% if moved.show %}
<h2>What moved</h2>
{% if moved.images %}
{{ plots(moved.images) }}
{% endif %}
<div class="tables">
{% if moved.movers %}
<section>
<h3>Means that moved</h3>
<div class="scroll"><table class="movers">
<thead><tr><th scope="col">Mean of</th><th scope="col">Reference</th><th scope="col">Window</th>
<th scope="col" class="left">Shift (sd)</th></tr></thead>
<tbody>
{% for name, before, now, shift, width, less in moved.movers %}
<tr><td>{{ name }}</td><td>{{ before }}</td><td>{{ now }}</td>
<td class="left"><span class="bar {{ less }}"
 style="width: {{ width }}rem"></span>{{ shift }}</td></tr>
{% endfor %}
</tbody>
</table></div>
</section>
{% endif %}
{% for heading, lines in moved.words %}
<section>
<h3>{{ heading }}</h3>
<div class="scroll"><table>
<thead><tr><th scope="col">Word</th><th scope="col">Reference</th>
<th scope="col">Window</th></tr></thead>
<tbody>
{% for word, before, now in lines %}
<tr><td><bdi>{{ word }}</bdi></td><td>{{ before }}</td><td>{{ now }}</td></tr>
{% endfor %}
</tbody>
</table></div>
<p class="note">Uses in a thousand tokens.</p>
</section>
{% endfor %}
</div>
{% if moved.examples %}
<h3>Texts least like the reference's</h3>
<ul class="examples">
{% for text, label, score, id in moved.examples %}
<li><bdi dir="auto">{{ text }}</bdi>
<small>decided <bdi>{{ label }}</bdi> · {{ score }} standard deviations from the mean of
the window · prediction <bdi>{{ id }}</bdi></small></li>
{% endfor %}
</ul>
{% endif %}
{% for note in moved.notes %}<p class="note">{{ note }}</p>{% endfor %}
{% endif %}
{% for heading, note, images in sections %}
<h2>{{ heading }}</h2>
{% if note %}<p class="note">{{ note }}</p>{% endif %}
{{ plots(images) }}
{% endfor %}
{% if counts %}
<h2>Counts</h2>
<div class="counts">
{{ grid(["", "Newest window", "Median of earlier ones"], counts) }}
</div>
{% endif %}
{% if checks %}
<h2>All checks</h2>
<div class="scroll"><table class="checks">
<thead><tr>
{% for heading in ["State", "Check", "Value", "Threshold", "p-value", "Effect"] %}
<th scope="col">{{ heading }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for state, word, key, message, figures in checks %}
<tr><td><span class="badge {{ state }}">{{ word }}</span></td>
<td><code>{{ key }}</code><small>{{ message }}</small></td>
{%- for figure in figures %}<td>{{ figure }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% endif %}
"""

_PLOTS = """\
{% macro plots(images) %}
<div class="plots">
{% for alt, data in images %}
<figure><img alt="{{ alt }}" src="data:image/png;base64,{{ data }}"></figure>
{% endfor %}
</div>
{% endmacro %}
"""

_GUIDE = """\
<h2>How to read this</h2>
<dl>
<dt>Reference</dt>
<dd>Windows are compared with the {{ "{:,}".format(reference_rows) }} texts of the validation
split, on which the model was calibrated: what the world was like when it was made.</dd>
<dt>Threshold and p-value</dt>
<dd>{{ "{:,}".format(policy.references * policy.windows) }} windows of the newest one's size are
drawn from the reference itself, so that nothing has changed in them. A p-value is the share of
them in which a check finds at least as much; few enough are beyond its threshold to count.</dd>
<dt>False alarms</dt>
<dd>Thresholds are set for all checks together: while nothing has changed, at most
{{ "{:.3g}%".format(100 * policy.false_alarms) }} of windows have any check that differs. That
holds with {{ "{:.0%}".format(policy.confidence) }} of the references that could have been
drawn, as a reference is a sample too. Performance that is measured with labels has such a rate
of its own, and so has the trend over time.</dd>
<dt>Warning and alarm</dt>
{% if policy.needed > 1 %}
<dd>A check that differs is a warning. One that differs in {{ policy.needed }} of the last
{{ policy.of }} windows is an alarm, which chance brings about far more rarely still.</dd>
{% else %}
<dd>A check that differs is an alarm, and stays one for {{ policy.of }}
window{{ "s" if policy.of > 1 }}.</dd>
{% endif %}
<dt>Effect</dt>
<dd>How much has changed, in windows of any size.
{% if policy.floors %}
Less than this does not count, be it ever so certain:
{%- for key, floor in policy.floors | dictsort %} {{ floor }} for <code>{{ key }}</code>
{{- "," if not loop.last else "." }}
{%- endfor +%}
{% else %}
Any effect counts.
{% endif %}
PSI is the population stability index: 0.1 is little, 0.25 much. Standard deviations are those
of the reference's embeddings. AUROC above one half: at 0 a classifier cannot tell the window's
texts from the reference's, at 0.5 it always can. Points: by how much a metric is lower than the
reference's.</dd>
<dt>Estimated and measured performance</dt>
<dd>Performance is estimated from the model's calibrated probabilities alone. That is right
while texts like these have the classes they used to have; where labels themselves have changed,
only what is measured tells. Measuring needs {{ "{:,}".format(policy.min_labels) }} predictions
whose true class is known.</dd>
<dt>Not judged</dt>
<dd>A window needs {{ "{:,}".format(policy.min_rows) }} predictions, and the log must have what
a check compares. That something could not be judged is no good news.</dd>
</dl>
"""


def render(*, model: str, **content: Any) -> str:
    """The page, everything in it escaped.

    Args:
        model: Name of the served model.
        **content: What the templates above name.
    """
    return page(
        _PLOTS + _BODY + _GUIDE,
        title=f"Monitoring of {model}",
        style=VERDICT_STYLE + _STYLE,
        **content,
    )
