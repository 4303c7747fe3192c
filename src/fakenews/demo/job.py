"""The command `scripts/demo.py`: the whole loop, on this machine.

trained -> served -> the world drifts -> an alarm -> retrained, compared, tried, promoted
    -> a worse model refused -> a bad deployment rolled back -> a page of what happened
"""

import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from fakenews.bounds import NonNegative, PositiveCount, Share
from fakenews.data.sample import Drift
from fakenews.demo.story import NAME, Story, cycle_options, retrained, served
from fakenews.demo.summary import write
from fakenews.errors import ConfigError, RetrainingError

log = logging.getLogger(__name__)

_OURS = "story.json"


def demo(
    *,
    out: str,
    root: str,
    orchestrator: Literal["airflow", "local"] = "airflow",
    address: str = "http://127.0.0.1:8000",
    train: Sequence[str] = (),
    worse: Sequence[str] = (),
    rows: PositiveCount = 3000,
    window_rows: PositiveCount = 400,
    drift_topics: Share = 0.5,
    drift_rule: Share = 0.12,
    trial_seconds: NonNegative = 20,
) -> Path:
    """Show the whole loop.

    Args:
        out: Folder in which everything lies; one of an earlier demonstration is replaced.
        root: The working copy.
        orchestrator: What retrains: a DAG of Airflow, or `scripts/retrain.py` alone.
        address: Of the gateway, as `conf/serve/local.yaml` has it.
        train: Options of every training.
        worse: Options that make a training worse.
        rows: Headlines of the first training.
        window_rows: Headlines that people ask between two looks of the monitor.
        drift_topics: Share of headlines about topics that were never seen.
        drift_rule: Share of the signals that come to mean the opposite.
        trial_seconds: For which a challenger answers a share of the requests.

    Returns:
        The page of what happened.

    Raises:
        ConfigError: The folder is another's.
        RetrainingError: The story took another turn, and which.
        FakeNewsError: As the commands.
    """
    began = time.monotonic()
    # It would tell of each headline.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    folder = Path(out).resolve()
    _make(folder)
    story = Story(out=folder, root=Path(root), address=address, rows=window_rows)
    story.save()
    # What the training reads is below the folder, too.
    story.call("train.py", f"name={NAME}", f"data.fetch.rows={rows}", *train)
    story.note("trained", f"version 1 learnt from {rows:,} generated headlines")
    drift = Drift(topics=drift_topics, rule=drift_rule)
    with served(story):
        story.call("scripts/promote.py", f"name={NAME}", *_first())
        story.note("deployed", "version 1 is the champion, and answers")
        _usual(story)
        _drifting(story, drift)
        options = cycle_options(train=train, trial_seconds=trial_seconds)
        _replaced(story, options, drift, orchestrator)
        _refused(story, drift, [*train, *worse])
        _rolled_back(story, drift)
    story.save()
    page = write(story, seconds=time.monotonic() - began, orchestrator=orchestrator)
    log.info("open %s: %d minutes in all", page, round((time.monotonic() - began) / 60))
    return page


def _make(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _OURS).is_file():
            raise ConfigError(
                f"demo.out={folder} has files that are of no demonstration: give another folder"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)


def _first() -> list[str]:
    """There is no champion yet that a gate could compare with."""
    return ["action=promote", "version=1", "force=true"]


def _usual(story: Story) -> None:
    story.ask(3)
    if story.monitor():
        raise RetrainingError("the monitor sees an alarm in the world that the model knows")


def _drifting(story: Story, drift: Drift) -> None:
    story.note(
        "the world drifts",
        f"{drift.topics:.0%} of the headlines are of new topics, and {drift.rule:.0%} of what "
        "told fake from real tells the opposite",
        good=False,
    )
    story.ask(3, drift)
    if not story.monitor():
        raise RetrainingError("the monitor has not seen that the world drifts")


def _replaced(
    story: Story,
    options: Sequence[str],
    drift: Drift,
    orchestrator: Literal["airflow", "local"],
) -> None:
    cycle = retrained(story, options, orchestrator=orchestrator, drift=drift)
    for step in ("decide", "prepare"):
        story.note(step, cycle[step].message)
    gate = cycle.folder / "gate" / "gate.html"
    if "promote" not in cycle:
        assert cycle.end is not None  # noqa: S101 it has ended
        raise RetrainingError(f"no challenger was promoted: {cycle.end.message}")
    story.note("accepted", f"the gate: {cycle['gate'].message}", page=gate)
    story.note("promoted", f"{cycle['watch'].message}; {cycle['promote'].message}")
    story.ask(3, drift)
    story.monitor()


def _refused(story: Story, drift: Drift, train: Sequence[str]) -> None:
    """Somebody trains a model that is worse, and would have it serve."""
    options = cycle_options(train=train, trial_seconds=0)
    reason = "reason=somebody likes a smaller model"
    cycle = retrained(story, [*options, reason], orchestrator="local", drift=drift)
    if "gate" not in cycle or cycle["gate"].facts["accepted"]:
        raise RetrainingError("the gate accepted a model that is worse")
    page = cycle.folder / "gate" / "gate.html"
    story.note("refused", f"the gate: {cycle['gate'].message}", page=page)
    story.ask(1, drift)


def _rolled_back(story: Story, drift: Drift) -> None:
    """Somebody deploys it nevertheless, and takes that back."""
    worst = max(story.registry.status().versions)
    story.call(
        "scripts/promote.py", f"name={NAME}", "action=promote", f"version={worst}", "force=true"
    )
    story.note("forced", f"version {worst} is deployed against the gate", good=False)
    story.ask(1, drift)
    story.call("scripts/promote.py", f"name={NAME}", "action=rollback")
    story.note("rolled back", f"version {story.champion} answers again, by one command")
    story.ask(1, drift)
