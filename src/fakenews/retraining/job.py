"""The command `scripts/retrain.py`: a cycle of retraining, whole or a step of it."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from fakenews.errors import FakeNewsError, Interrupted, RetrainingError
from fakenews.monitoring.alerts import Channel
from fakenews.monitoring.verdict import State
from fakenews.retraining.cycle import STEPS, Cycle, Outcome, Step, find
from fakenews.retraining.decision import Policy
from fakenews.retraining.news import tell
from fakenews.retraining.setting import Commands, Setting, Trial
from fakenews.retraining.source import DataSource
from fakenews.retraining.steps import DO, read_report

log = logging.getLogger(__name__)

# What begins a cycle; `notify` tells of one that could not even be begun.
_FIRST = ("all", "decide", "notify")


def retrain(
    *,
    name: str,
    step: Step | Literal["all", "alarm"] = "all",
    cycle: str | None = None,
    cycles: str = "retraining",
    reason: str | None = None,
    tracking_uri: str = "sqlite:///mlflow.db",
    report: str = "monitoring/verdict.json",
    datasets: str = "datasets",
    deployment: str | None = "deployment",
    served_name: str = "fakenews",
    policy: Policy,
    data: DataSource,
    commands: Commands,
    trial: Trial,
    alerts: Mapping[str, Channel] | None = None,
    root: str,
    data_root: str,
    cache: str,
) -> Outcome:
    """Run a cycle, or a step of it; what is done already is not done again.

    Args:
        name: Of the registered model, whose champion is to be replaced.
        step: `all`, one step, or `alarm`, which only says whether the last report is one.
        cycle: Name of the cycle; None: the newest that is unfinished, or else a new one.
        cycles: Folder of all.
        reason: Why somebody asks for a retraining; None or empty: nobody does.
        tracking_uri: MLflow's store.
        report: The monitor's `verdict.json`.
        datasets: Folder of the datasets.
        deployment: Folder of what is served; None: nothing is.
        served_name: Of the served model.
        policy: When a model is retrained.
        data: Where new training data come from.
        commands: Options of the commands.
        trial: Of a challenger.
        alerts: Channels by name, which are told how a cycle has ended, or that it failed.
        root: The working copy.
        data_root: Below which everything lies.
        cache: For downloads and entity counts.

    Returns:
        Whether there is more to do after the step; of `all`, whether the champion is another.

    Raises:
        ConfigError: Options contradict each other.
        RetrainingError: A step failed; the same command goes on with it.
        TrackingError: MLflow's store refuses us.
        FakeNewsError: As the steps.
    """
    if step == "alarm":
        found = read_report(Path(report))
        state = None if found is None else found["state"]
        log.info("report=%s: %s", report, state or "there is none")
        return Outcome.NEXT if state == State.ALARM else Outcome.END
    setting = Setting(
        name=name,
        tracking_uri=tracking_uri,
        served=None if deployment is None else (Path(deployment), served_name),
        report=Path(report),
        policy=policy,
        source=data,
        datasets=Path(datasets),
        cycles=Path(cycles),
        commands=commands,
        trial=trial,
        root=Path(root),
        paths=[f"paths.root={data_root}", f"paths.cache={cache}"],
    )
    folder = find(Path(cycles), cycle, name=name, reason=reason or None)
    if step not in _FIRST and not folder.is_dir():
        lacking = f"there is no cycle {folder}" if cycle else f"no cycle of {name} is open"
        raise RetrainingError(f"{lacking}: begin one by step=decide, or give another cycle")
    current = Cycle.begin(folder, name=name, reason=reason or None)
    channels = alerts or {}
    with current.held(step):
        if step == "notify":
            _notify(current, channels)
            return Outcome.NEXT
        if step != "all":
            return _do(current, step, setting)
        _do_all(current, setting, channels)
    return Outcome.NEXT if "promote" in current else Outcome.END


def _do(cycle: Cycle, step: Step, setting: Setting) -> Outcome:
    """Do a step, unless it was done or the cycle has ended before it."""
    end = cycle.end
    if step not in cycle and end is not None:
        log.info("%s has ended at step=%s: %s", cycle.folder, end.step, end.message)
        return Outcome.END
    if step in cycle:
        record, again = cycle[step], " (was done before)"
    else:
        record, again = DO[step](cycle, setting), ""
    log.info("%s: %s%s", step, record.message, again)
    return record.outcome


def _do_all(cycle: Cycle, setting: Setting, channels: Mapping[str, Channel]) -> None:
    log.info("cycle %s", cycle.folder)
    step: Step = STEPS[0]
    try:
        for step in STEPS[:-1]:
            if _do(cycle, step, setting) is Outcome.END:
                break
    except Interrupted:
        raise
    except FakeNewsError as error:
        for fault in tell(cycle, channels, failed=step, reason=str(error)):
            log.error("error: %s", fault)  # noqa: TRY400 a user's, without its traceback
        raise
    _notify(cycle, channels)


def _notify(cycle: Cycle, channels: Mapping[str, Channel]) -> None:
    """Tell how a cycle has ended, once; or that it has not."""
    if "notify" in cycle:
        log.info("notify: %s (was done before)", cycle["notify"].message)
        return
    end = cycle.end
    missing = None if end is not None else next(step for step in STEPS if step not in cycle)
    faults = tell(cycle, channels, failed=missing, reason="it failed, or was ended")
    if faults:
        raise RetrainingError("; ".join(faults))
    if end is None:
        raise RetrainingError(
            f"{cycle.folder} has not ended: step={missing} failed, or was ended; the same "
            "command goes on with it"
        )
    told = ", ".join(channels) or "nobody: there are no alerts"
    record = cycle.write("notify", Outcome.NEXT, f"told {told}")
    log.info("notify: %s", record.message)
