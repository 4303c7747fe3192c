"""What is left of a sweep: one page, its plots, its trials as a table, and the best."""

import base64
import csv
import functools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from fakenews.errors import TuningError
from fakenews.evaluation import plots
from fakenews.evaluation.page import publish
from fakenews.tuning.findings import COMPLETE, FAILED, Findings, find, shown
from fakenews.tuning.report_axes import label
from fakenews.tuning.report_interactive import write_interactive
from fakenews.tuning.report_page import render
from fakenews.tuning.report_plots import figures

_LISTED = 200  # trials in the page's table; the CSV has all
_FAILURES = 20
_TRACEBACK = 4000  # characters
_FRONT = 20
_LINES, _COLUMNS = 8, 4  # of a table in the terminal
_PAGE = "report.html"
_SILENT = "its process ended without a word"


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """A report that was written.

    Attributes:
        folder: Where.
        page: The file for people.
        summary: The same in short, for the terminal.
    """

    folder: Path
    page: Path
    summary: Group


def write_report(study: optuna.Study, folder: Path) -> Report:
    """Write `report.html`, `plots/`, `trials.csv` and `best.json` of a study.

    The study may be empty, or still running. All files are made in a temporary folder first
    and then moved, the page last; a file of the same name is replaced.

    Args:
        study: Any; what a sweep notes about itself and its trials is used.
        folder: Made when it is not there.

    Raises:
        TuningError: The folder cannot be written.
    """
    findings = find(study)
    publish(
        lambda draft: _write_files(findings, draft),
        folder,
        what="the report of the sweep",
        error=TuningError,
    )
    return Report(folder=folder, page=folder / _PAGE, summary=_summary(findings))


def summary(study: optuna.Study) -> Group:
    """The best trial or the Pareto front, counts, and importances, for the terminal."""
    return _summary(find(study))


def _write_files(findings: Findings, folder: Path) -> list[Path]:
    content = json.dumps(_best(findings), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "best.json").write_text(content + "\n", encoding="utf-8")
    with (folder / "trials.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(_rows(findings))
    paths = plots.save(figures(findings), folder / "plots")
    images = {path.stem: base64.b64encode(path.read_bytes()).decode("ascii") for path in paths}
    interactive = write_interactive(findings, folder / "plots")
    page = render(
        name=findings.name,
        sentence=_sentence(findings),
        headline=_headline(findings),
        images=images,
        interactive=interactive,
        **_best_section(findings),
        **_importance_section(findings),
        **_failure_section(findings),
        **_trial_section(findings),
    )
    (folder / _PAGE).write_text(page, encoding="utf-8")
    drafts = (path for path in folder.rglob("*") if path.is_file())
    return sorted(drafts, key=lambda path: (path.name == _PAGE, path))


def _best(findings: Findings) -> dict[str, Any]:
    """The content of `best.json`: strict JSON, in which what is not finite is null."""
    head = {"study": findings.name, "trials": findings.counts}
    if not findings.single:
        front = [_chosen(trial) | _named_values(findings, trial) for trial in findings.best]
        return head | {"objectives": list(findings.objectives), "pareto_front": front}
    head |= {"objective": findings.objectives[0]}
    if not findings.best:
        return head | {"number": None, "value": None, "params": {}}
    (best,) = findings.best
    return head | _chosen(best) | {"value": _finite(best.values[0])}


def _chosen(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "params": {name: _finite(value) for name, value in trial.params.items()},
        "overrides": trial.user_attrs.get("overrides"),
        "folder": trial.user_attrs.get("folder"),
    }


def _named_values(findings: Findings, trial: FrozenTrial) -> dict[str, Any]:
    values = map(_finite, trial.values)
    return {"values": dict(zip(findings.objectives, values, strict=True))}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rows(findings: Findings) -> Iterator[list[Any]]:
    """The table of all trials, also of those that were interrupted."""
    yield [
        *("number", "state", *findings.objectives, *findings.params),
        *("started", "seconds", "validations", "steps", "worker", "folder", "error"),
    ]
    for trial in findings.study.get_trials(deepcopy=False):
        attributes = trial.user_attrs
        # A pruned trial's value is what it reported last: no result.
        values = trial.values if findings.state(trial) == COMPLETE else None
        yield [
            *(
                trial.number,
                findings.state(trial),
                *(values or [""] * len(findings.objectives)),
            ),
            *(trial.params.get(name, "") for name in findings.params),
            trial.datetime_start.isoformat(" ", "seconds") if trial.datetime_start else "",
            f"{trial.duration.total_seconds():.1f}" if trial.duration else "",
            len(trial.intermediate_values),
            *(attributes.get(name, "") for name in ("steps", "worker", "folder", "error")),
        ]


def _sentence(findings: Findings) -> str:
    counts = ", ".join(f"{count:,} {name}" for name, count in findings.counts.items())
    goals = [
        f"{name} ({'higher' if more else 'lower'} is better)"
        for name, more in zip(findings.objectives, findings.maximise, strict=True)
    ]
    trials = f"{len(findings.trials):,} trial{'s' * (len(findings.trials) != 1)}"
    sentence = f"{trials}{': ' if counts else ''}{counts}. Objective: {'; '.join(goals)}."
    if findings.interrupted:
        sentence += f" {len(findings.interrupted):,} more were interrupted and queued again."
    if not findings.best:
        sentence += " No trial is complete yet."
    return sentence


def _headline(findings: Findings) -> list[tuple[str, str, str]]:
    figures = [(name, f"{count:,}", "trials") for name, count in findings.counts.items()]
    if not findings.best:
        return figures
    if findings.single:
        (best,) = findings.best
        value = shown(best.values[0])
        return [(label(findings.objectives[0]), value, f"trial {best.number}"), *figures]
    extremes = []
    for number, name in enumerate(findings.objectives):
        best = min(findings.best, key=functools.partial(findings.loss, objective=number))
        extremes.append((label(name), shown(best.values[number]), f"trial {best.number}"))
    return [*extremes, *figures]


def _best_section(findings: Findings) -> dict[str, Any]:
    lines: list[list[str]] = []
    if findings.single:
        title, headings, note = "Best parameters", ["Parameter", "Value", "Searched"], ""
        for best in findings.best:
            title = f"Parameters of trial {best.number}, the best"
            folder = best.user_attrs.get("folder")
            note = f"Its run: {folder}" if folder else ""
            lines = [
                [name, shown(value), findings.searched[name]]
                for name, value in sorted(best.params.items())
            ]
    else:
        title, note = "Pareto front", "No trial is better than one of these in all objectives."
        names = [n for n in findings.params if any(n in t.params for t in findings.best)]
        headings = ["Trial", *map(label, findings.objectives), *names]
        lines = [_front_line(trial, names) for trial in findings.best[:_FRONT]]
        if len(findings.best) > _FRONT:
            note += f" The first {_FRONT} of {len(findings.best)}; best.json has all."
    return {
        "best_kind": "best" if findings.single else "front",
        "best_title": title,
        "best_headings": headings,
        "best_lines": lines,
        "best_note": note,
    }


def _front_line(trial: FrozenTrial, names: Sequence[str]) -> list[str]:
    params = [shown(trial.params[name]) if name in trial.params else "" for name in names]
    return [str(trial.number), *map(shown, trial.values), *params]


def _importance_lines(findings: Findings) -> list[list[str]]:
    results = findings.importances
    judged = [name for name in findings.params if any(name in r.shares for r in results)]
    return [
        [name, *(f"{r.shares[name]:.1%}" if name in r.shares else "" for r in results)]
        for name in judged
    ]


def _importance_section(findings: Findings) -> dict[str, Any]:
    return {
        "importance_headings": ["Parameter", *map(label, findings.objectives)],
        "importance_lines": _importance_lines(findings),
        "importance_notes": _importance_notes(findings),
    }


def _importance_notes(findings: Findings) -> list[str]:
    notes = [result.note for result in findings.importances]
    if len(set(notes)) == 1:
        return [note for note in notes[:1] if note]
    named = zip(findings.objectives, notes, strict=True)
    return [f"{label(name)}: {note}" for name, note in named if note]


def _failure_section(findings: Findings) -> dict[str, Any]:
    failed = [trial for trial in findings.ranked if findings.state(trial) == FAILED]
    note = ""
    if len(failed) > _FAILURES:
        note = f"The newest {_FAILURES} of {len(failed)}; trials.csv has all."
    failures = [
        (
            f"Trial {trial.number}: {trial.user_attrs.get('error') or _SILENT}",
            ", ".join(f"{name}={shown(value)}" for name, value in sorted(trial.params.items())),
            str(trial.user_attrs.get("traceback") or "")[-_TRACEBACK:],
        )
        for trial in failed[:_FAILURES]
    ]
    return {"failures": failures, "failures_note": note}


def _trial_section(findings: Findings) -> dict[str, Any]:
    listed = findings.ranked[:_LISTED]
    front = {trial.number for trial in findings.best}
    first = "The best is" if findings.single else "The Pareto front is"
    note = f"{first} marked; others by value, then pruned, running, waiting and failed ones."
    if len(findings.ranked) > _LISTED:
        note = f"The best {_LISTED} of {len(findings.ranked):,}; trials.csv has all. {note}"
    steps = any("steps" in trial.user_attrs for trial in listed)
    headings = ["Trial", "State", *map(label, findings.objectives), *findings.params]
    headings += ["Duration", "Validations", *["Steps"] * steps, "Error"]
    lines = [
        (trial.number in front, _trial_cells(findings, trial, steps=steps)) for trial in listed
    ]
    return {"trials_note": note, "trial_headings": headings, "trial_lines": lines}


def _trial_cells(findings: Findings, trial: FrozenTrial, *, steps: bool) -> list[str]:
    values = map(shown, trial.values) if findings.state(trial) == COMPLETE else None
    params = [shown(trial.params[n]) if n in trial.params else "" for n in findings.params]
    return [
        *(str(trial.number), findings.state(trial)),
        *(values or [""] * len(findings.objectives)),
        *params,
        _duration(trial),
        str(len(trial.intermediate_values) or ""),
        *[str(trial.user_attrs.get("steps", ""))] * steps,
        str(trial.user_attrs.get("error") or ""),
    ]


def _duration(trial: FrozenTrial) -> str:
    if trial.duration is None:
        return ""
    seconds = round(trial.duration.total_seconds())
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _summary(findings: Findings) -> Group:
    parts: list[Text | Table] = [Text(f"Sweep {findings.name}: {_sentence(findings)}")]
    if findings.single:
        for best in findings.best:
            value = shown(best.values[0])
            parts.append(Text(f"Best: trial {best.number}, {findings.objectives[0]} {value}"))
            lines = [[name, shown(value)] for name, value in sorted(best.params.items())]
            parts.append(_table(["Parameter", "Value"], lines))
    elif findings.best:
        names = findings.params[:_COLUMNS]
        short = [name.rpartition(".")[2] for name in names]
        lines = [_front_line(trial, names) for trial in findings.best[:_LINES]]
        first = f"{_LINES} of {len(findings.best)}" if len(findings.best) > _LINES else "all"
        parts.append(Text(f"Pareto front ({first}):"))
        parts.append(_table(["Trial", *map(label, findings.objectives), *short], lines))
    if lines := _importance_lines(findings)[:_LINES]:
        parts.append(_table(["Importance", *map(label, findings.objectives)], lines))
    parts += [Text(note) for note in _importance_notes(findings) if findings.best]
    return Group(*parts)


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    # Texts, for what people write may look like markup.
    table = Table(box=box.SIMPLE)
    for heading in headings:
        table.add_column(Text(heading), overflow="fold")
    for line in lines:
        table.add_row(*map(Text, line))
    return table
