"""What people are told of a cycle: how it has ended, or where it failed."""

from collections.abc import Mapping
from datetime import UTC, datetime

from fakenews.errors import MonitoringError
from fakenews.monitoring.alerts import Channel
from fakenews.monitoring.messages import Message
from fakenews.monitoring.verdict import Verdict
from fakenews.retraining.cycle import STEPS, Cycle, Step

FORMAT = 1


def tell(
    cycle: Cycle,
    channels: Mapping[str, Channel],
    *,
    failed: Step | None = None,
    reason: str = "",
) -> list[str]:
    """Tell every channel.

    Args:
        cycle: That has ended, unless a step failed.
        channels: By their names.
        failed: The step that failed, if one did.
        reason: Why.

    Returns:
        What could not be told, a line for each channel that failed.
    """
    message = compose(cycle, failed=failed, reason=reason)
    version = cycle["train"].facts["version"] if "train" in cycle else None
    verdict = Verdict(
        model=cycle.origin.name,
        model_version="none" if version is None else str(version),
        checked_at=datetime.now(UTC),
        window=None,
        checks=(),
    )
    faults = []
    for name, channel in channels.items():
        try:
            channel.tell(verdict, message)
        except MonitoringError as error:
            faults.append(f"{name}: {error}")
    return faults


def compose(cycle: Cycle, *, failed: Step | None = None, reason: str = "") -> Message:
    """The message about a cycle; as `tell`."""
    name = cycle.origin.name
    done = [cycle[step] for step in STEPS[:-1] if step in cycle]
    if failed is not None:
        subject, state = f"{name}: retraining failed at {failed}", "failed"
        last = [f"{failed}: {reason}"]
    else:
        promoted = "promote" in cycle
        last = []
        state = "promoted" if promoted else "ended"
        subject = f"{name}: {done[-1].message}"
    lines = [*(f"{record.step}: {record.message}" for record in done), *last]
    text = "\n".join([*lines, "", f"Cycle: {cycle.folder}", ""])
    return Message(
        subject=" ".join(subject.split())[:200],
        text=text,
        content={
            "format": FORMAT,
            # Under the name that chat services show.
            "text": f"{subject}\n\n{text}",
            "model": name,
            "cycle": cycle.folder.name,
            "state": state,
            "step": failed or done[-1].step,
            "steps": [record.model_dump(mode="json", exclude={"facts"}) for record in done],
        },
    )
