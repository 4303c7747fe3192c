"""The strip of a report: checks by windows, which shows at one look when something began."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC

from fakenews.monitoring.account import Account, Cell
from fakenews.monitoring.verdict import Span, State, worst
from fakenews.monitoring.wording import STATES, SUBJECTS, subject, title

_WINDOWS = 31
_LINES = 14  # of more checks, those are left out that were ok in every window
_RARE = 0.1
_SIGNS = {State.OK: "", State.WARNING: "!", State.UNKNOWN: "?", State.ALARM: "!!"}


@dataclass(frozen=True, kw_only=True)
class Square:
    """A check in a window.

    Attributes:
        look: CSS classes.
        sign: The state, for those who do not see colours.
        said: All that is known, in words.
    """

    look: str = ""
    sign: str = ""
    said: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A check in all windows.

    Attributes:
        key: Of the check; empty for that of all checks.
        title: For people.
        squares: One a window, oldest first.
        effect: In the newest window.
    """

    key: str
    title: str
    squares: Sequence[Square]
    effect: str = ""


@dataclass(frozen=True, kw_only=True)
class Strip:
    """What the page shows.

    Attributes:
        windows: Their names.
        lines: That of all checks first; none without a window.
        heading: Of the strip.
        notes: What was left out, in words.
    """

    windows: Sequence[str]
    lines: Sequence[Line]
    heading: str = ""
    notes: Sequence[str] = ()


def strip(account: Account) -> Strip:
    """The checks of an account by its windows."""
    history = {key: cells[-_WINDOWS:] for key, cells in account.history().items()}
    judged = [bool(judgement.findings) for judgement in account.judgements[-_WINDOWS:]]
    labels = _labels(account.spans[-_WINDOWS:])
    if not history:
        return Strip(windows=labels, lines=[])
    some = len(history) > _LINES
    shown = [key for key, cells in history.items() if not (some and _calm(cells, judged))]
    lines = [
        Line(
            key=key,
            title=title(key, account.reference.classes),
            squares=[
                _square(cell, label) for cell, label in zip(history[key], labels, strict=True)
            ],
            effect=_effect(history[key][-1]),
        )
        for key in sorted(shown, key=lambda key: (SUBJECTS.index(subject(key)), key))
    ]
    whole = Line(
        key="",
        title="All checks",
        squares=[
            _square(_whole(cells), label)
            for cells, label in zip(zip(*history.values(), strict=True), labels, strict=True)
        ],
    )
    left_out = len(history) - len(shown)
    calm = all(_calm(cells, judged) for cells in history.values())
    heading = "Checks over time" if calm else "When it began"
    notes = []
    if left_out:
        notes.append(f"{left_out:,} checks that were ok in all judged windows are not shown.")
    if len(account.spans) > _WINDOWS:
        notes.append(f"The newest {_WINDOWS} of {len(account.spans):,} windows.")
    return Strip(windows=labels, lines=[whole, *lines], heading=heading, notes=notes)


def _calm(cells: Sequence[Cell | None], judged: Sequence[bool]) -> bool:
    """Whether there is nothing to see; of windows not judged the first line tells."""
    return all(
        cell is None or cell.state is State.OK or (cell.state is State.UNKNOWN and not known)
        for cell, known in zip(cells, judged, strict=True)
    )


def _whole(cells: Sequence[Cell | None]) -> Cell | None:
    states = [cell.state for cell in cells if cell is not None]
    return Cell(worst(states)) if states else None


def _square(cell: Cell | None, label: str) -> Square:
    if cell is None:
        return Square()
    said = [f"{label}: {STATES[cell.state]}"]
    if cell.effect is not None:
        said.append(_effect(cell))
    if cell.p_value is not None:
        said.append(f"p {cell.p_value:.2g}")
    rare = cell.state is State.OK and cell.p_value is not None and cell.p_value < _RARE
    return Square(
        look=f"cell {cell.state}{' rare' * rare}",
        sign=_SIGNS[cell.state],
        said=", ".join(said),
    )


def _effect(cell: Cell | None) -> str:
    if cell is None or cell.effect is None:
        return ""
    return f"{cell.effect:.2g} {cell.unit}".rstrip()


def _labels(spans: Sequence[Span]) -> list[str]:
    """Windows by the day on which they begin; where several do on one, by its time too."""
    starts = [span.start.astimezone(UTC) for span in spans]
    days = [f"{start.day} {start:%b}" for start in starts]
    if len(set(days)) == len(days):
        return days
    return [f"{day} {start:%H:%M}" for day, start in zip(days, starts, strict=True)]
