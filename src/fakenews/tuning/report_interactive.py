"""The plots of a sweep to explore in a browser: Optuna's own, as pages without a network."""

import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial

from fakenews.tuning.findings import Findings
from fakenews.tuning.importances import quiet
from fakenews.tuning.report_axes import slice_names

if TYPE_CHECKING:
    import plotly.graph_objects as go

_LIBRARY = "plotly.min.js"


def write_interactive(findings: Findings, folder: Path) -> list[str]:
    """Write every plot that the trials allow to `folder/NAME.html`.

    The library they need, of some megabytes, lies beside them once.

    Args:
        findings: What is shown.
        folder: Exists.

    Returns:
        The names of the plots.
    """
    with quiet():
        figures = _figures(findings)
    for name, figure in figures.items():
        figure.write_html(folder / f"{name}.html", include_plotlyjs="directory")
    return list(figures)


def _figures(findings: Findings) -> "dict[str, go.Figure]":
    from optuna import visualization

    study = findings.study
    found: dict[str, go.Figure] = {}
    finite = [trial for trial in findings.complete if all(map(math.isfinite, trial.values))]
    if finite and findings.single:
        found["history"] = visualization.plot_optimization_history(
            study, target_name=findings.objectives[0]
        )
    elif finite and len(findings.objectives) <= 3:
        found["pareto_front"] = visualization.plot_pareto_front(
            study, target_names=list(findings.objectives)
        )
    if any(result.shares for result in findings.importances):
        found["importances"] = _importances(findings)
    if any(trial.params for trial in finite):
        for number, name in enumerate(slice_names(findings)):
            found[name] = visualization.plot_slice(
                study,
                target=functools.partial(_value, number=number),
                target_name=findings.objectives[number],
            )
        found["parallel_coordinate"] = visualization.plot_parallel_coordinate(
            study, target_name=findings.objectives[0]
        )
    if any(trial.intermediate_values for trial in findings.trials):
        values = visualization.plot_intermediate_values(study)
        values.update_layout(xaxis_title="Validation", yaxis_title=findings.objectives[0])
        found["intermediate_values"] = values
    for figure in found.values():
        figure.update_layout(template="plotly_white")
    return found


def _value(trial: FrozenTrial, *, number: int) -> float:
    value: float = trial.values[number]
    return value


def _importances(findings: Findings) -> "go.Figure":
    """Bars of what was computed once; Optuna's plot would compute it again."""
    import plotly.graph_objects as go

    bars = [
        go.Bar(
            x=list(result.shares.values())[::-1],
            y=list(result.shares)[::-1],
            name=objective,
            orientation="h",
        )
        for objective, result in zip(findings.objectives, findings.importances, strict=True)
    ]
    layout = {
        "title": "Importance of parameters",
        "xaxis": {"title": "Share of the explained variation", "tickformat": ".0%"},
        "yaxis": {"automargin": True},
    }
    return go.Figure(bars, layout)
