"""The page of what happened in the demonstration: performance over time, with the events."""

import base64
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from fakenews.demo.story import Event, Story
from fakenews.evaluation.page import page
from fakenews.evaluation.plots import BLUE, GREY, figure_of, legend, save

_BODY = """\
<h1>From a model to a better one</h1>
<p>{{ windows | length }} windows of {{ rows }} headlines were asked of a served model; the
world changed after the third. Retrained by {{ by }}, in {{ minutes }} minutes from nothing.</p>
<div class="figures">
{% for title, value, note in figures %}
<div>{{ title }}<b>{{ value }}</b><small>{{ note }}</small></div>
{% endfor %}
</div>
<figure class="wide"><img alt="Performance in each window, with the events"
src="data:image/png;base64,{{ plot }}"></figure>
<h2>What happened</h2>
<div class="scroll"><table class="events">
<thead>
<tr><th scope="col">when</th><th scope="col">what</th><th scope="col">more</th></tr>
</thead>
<tbody>
{% for event in events %}
<tr><td>{{ event.at.strftime("%H:%M:%S") }}</td><td>{{ event.what }}</td>
<td>{{ event.detail }}{% if event.page %} (<a href="{{ event.page }}">report</a>){% endif %}
</td></tr>
{% endfor %}
</tbody></table></div>
<h2>Windows</h2>
{{ grid(["window", "headlines", "average precision", "macro-F1", "without an answer",
         "answered by"], lines) }}
"""
# Of the table alone.
_QUIET = {"decide", "prepare"}
_STYLE = """\
  .events td { text-align: left; vertical-align: top; }
  .events th { text-align: left; }
  .events td:first-child { white-space: nowrap; overflow-wrap: normal; }
"""


def write(story: Story, *, seconds: float, orchestrator: str) -> Path:
    """Write `demo.html` and its plot into the folder of the demonstration."""
    figure = over_time(story)
    (plot,) = save({"performance": figure}, story.out / "plots")
    usual, fallen, after = _phases(story)
    html = page(
        _BODY,
        title="From a model to a better one",
        style=_STYLE,
        rows=story.rows,
        windows=story.windows,
        events=story.events,
        by="Airflow" if orchestrator == "airflow" else "scripts/retrain.py",
        minutes=round(seconds / 60),
        plot=base64.b64encode(plot.read_bytes()).decode("ascii"),
        figures=[
            ("Average precision before", f"{usual:.3f}", "in the world that the model knows"),
            ("when the world had changed", f"{fallen:.3f}", "the same model"),
            ("after the retraining", f"{after:.3f}", "the model that the gate accepted"),
        ],
        lines=[
            (
                number,
                window.rows,
                f"{window.average_precision:.3f}",
                f"{window.macro_f1:.3f}",
                window.failed,
                ", ".join(window.versions),
            )
            for number, window in enumerate(story.windows, 1)
        ],
    )
    path = story.out / "demo.html"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(html, encoding="utf-8")
    temporary.replace(path)
    return path


def over_time(story: Story) -> Figure:
    """Average precision and macro-F1 of each window, and what happened between them."""
    figure, axes = figure_of("How well people were answered", size=(11, 5))
    numbers = range(1, len(story.windows) + 1)
    axes.plot(
        numbers,
        [window.average_precision for window in story.windows],
        color=BLUE,
        marker="o",
        label="average precision of fake",
    )
    axes.plot(
        numbers,
        [window.macro_f1 for window in story.windows],
        color=GREY,
        marker="s",
        linestyle="--",
        label="macro-F1",
    )
    low = min(min(window.average_precision, window.macro_f1) for window in story.windows)
    # Above what a score can be, there is room for words.
    axes.set_ylim(max(low - 0.1, 0), 1.25)
    axes.yaxis.set_major_locator(FixedLocator([tenth / 10 for tenth in range(11)]))
    axes.set_xlim(0, len(story.windows) + 1)
    for after, events in _between(story).items():
        axes.axvline(after + 0.5, color=BLUE if events[-1].good else "#b5482a", linewidth=1)
        axes.annotate(
            "\n".join(event.what for event in events),
            (after + 0.5, 1.24),
            ha="center",
            va="top",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    axes.set_xlabel("window")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(axes, loc="lower left")
    return figure


def _between(story: Story) -> dict[int, list[Event]]:
    found: dict[int, list[Event]] = {}
    for event in story.events:
        if event.what not in _QUIET:
            found.setdefault(event.after, []).append(event)
    return found


def _phases(story: Story) -> tuple[float, float, float]:
    """Mean average precision before the drift, after it, and after the promotion."""
    drift = _after(story, "the world drifts")
    promoted, refused = _after(story, "promoted"), _after(story, "refused")
    parts = (
        story.windows[:drift],
        story.windows[drift:promoted],
        story.windows[promoted:refused],
    )
    usual, fallen, after = (
        sum(window.average_precision for window in part) / len(part) for part in parts
    )
    return usual, fallen, after


def _after(story: Story, what: str) -> int:
    return next(event.after for event in story.events if event.what == what)
