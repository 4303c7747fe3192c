"""What happens in the demonstration, in order, and what is seen of it."""

import json
import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx

from fakenews.data.sample import Drift
from fakenews.demo import traffic
from fakenews.demo.traffic import Window
from fakenews.errors import RetrainingError, ServingError
from fakenews.monitoring.verdict import EXIT, State
from fakenews.retraining.commands import run
from fakenews.retraining.cycle import Cycle
from fakenews.retraining.registry import Registry

log = logging.getLogger(__name__)

NAME = "demo"
_START = 180.0  # seconds for the servers to answer


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that was done or found.

    Attributes:
        at: When, with a zone.
        after: Windows that people had asked by then.
        what: In a few words, for the plot.
        detail: As a sentence.
        page: Of a report, below the folder of the demonstration; None for none.
        good: Whether it is good news.
    """

    at: datetime
    after: int
    what: str
    detail: str
    page: str | None = None
    good: bool = True


@dataclass(kw_only=True)
class Story:
    """What has happened so far.

    Attributes:
        out: Folder, in which everything lies.
        root: The working copy.
        address: Of the gateway.
        rows: Headlines that people ask in a window.
        windows: What they asked, and how well it was answered.
        events: What else happened.
    """

    out: Path
    root: Path
    address: str
    rows: int
    windows: list[Window] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def call(self, command: str, *options: str, ends: Sequence[int] = (0,)) -> int:
        """Run a command of the project on the folder of the demonstration."""
        return run(
            command,
            [*options, f"paths.root={self.out}"],
            root=self.root,
            log_file=self.out / "demo.log",
            ends=ends,
        )

    def note(
        self, what: str, detail: str, *, page: Path | None = None, good: bool = True
    ) -> None:
        """Take down an event."""
        shown = None if page is None else page.relative_to(self.out).as_posix()
        self.events.append(
            Event(
                at=datetime.now(UTC),
                after=len(self.windows),
                what=what,
                detail=detail,
                page=shown,
                good=good,
            )
        )
        log.info("== %s: %s", what, detail)

    def ask(self, windows: int, drift: Drift | None = None) -> None:
        """Let people ask some windows, which are all of other headlines."""
        for _ in range(windows):
            number = len(self.windows)
            window = traffic.ask(self.address, rows=self.rows, seed=1000 + number, drift=drift)
            self.windows.append(window)
            log.info(
                "window %d: average precision %.3f, macro-F1 %.3f, answered by %s",
                number + 1,
                window.average_precision,
                window.macro_f1,
                ", ".join(window.versions),
            )

    def monitor(self) -> bool:
        """Judge the newest windows; whether that is an alarm."""
        status = self.call(
            "scripts/monitor.py",
            f"registered={NAME}@champion",
            "every=null",
            f"rows={self.rows}",
            "latest=4",
            ends=(0, EXIT[State.ALARM]),
        )
        verdict = json.loads((self.out / "monitoring" / "verdict.json").read_text())
        alarms = [check["key"] for check in verdict["checks"] if check["state"] == State.ALARM]
        kept = self.out / f"monitoring-{len(self.windows)}.html"
        kept.write_bytes((self.out / "monitoring" / "report.html").read_bytes())
        if alarms:
            shown = ", ".join(alarms[:3]) + (f" and {len(alarms) - 3} more" * (len(alarms) > 3))
            self.note("alarm", f"the monitor sees {shown}", page=kept, good=False)
        else:
            self.note("all is well", "the monitor sees no change that lasts", page=kept)
        return status == EXIT[State.ALARM]

    def save(self) -> None:
        """Write `story.json`."""
        content = {
            "windows": [asdict(window) for window in self.windows],
            "events": [asdict(event) | {"at": event.at.isoformat()} for event in self.events],
        }
        (self.out / "story.json").write_text(json.dumps(content, indent=2) + "\n")

    @property
    def champion(self) -> int | None:
        """Number of the registered version that answers."""
        return self.registry.aliases().champion

    @property
    def registry(self) -> Registry:
        """The versions of the model."""
        return Registry(uri=f"sqlite:///{self.out}/mlflow.db", model=NAME)


@contextmanager
def served(story: Story) -> Iterator[None]:
    """TorchServe and the gateway, as long as it takes.

    Raises:
        ServingError: They do not answer.
    """
    command = [
        *(sys.executable, str(story.root / "scripts" / "serve.py")),
        # What was asked is learnt from later: so its text is kept.
        "serve.gateway.log.text=true",
        # Trainings take the cores meanwhile.
        "serve.deadline=60",
        f"paths.root={story.out}",
    ]
    log.info("python scripts/serve.py %s", shlex.join(command[2:]))
    with (story.out / "serve.log").open("wb") as out:
        server = subprocess.Popen(  # noqa: S603 our own command
            command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait(story, server)
            yield
        finally:
            server.terminate()
            server.wait()


def _wait(story: Story, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline:
        if server.poll() is not None:
            last = (story.out / "serve.log").read_text(errors="replace").splitlines()[-1:]
            raise ServingError(f"the servers ended: {' '.join(last).removeprefix('error: ')}")
        try:
            if httpx.get(f"{story.address}/health/live").is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise ServingError(f"{story.address} does not answer: see {story.out}/serve.log")


def cycle_options(*, train: Sequence[str], trial_seconds: float) -> list[str]:
    """Options of `scripts/retrain.py` here: what takes days elsewhere takes seconds."""
    return [
        f"name={NAME}",
        f"commands.train={_list(train)}",
        f"trial.seconds={trial_seconds:g}",
        "policy.cool_down_days=0",
        # The newest labels say most of a world that has changed.
        "data.feedback_weight=2",
    ]


def retrained(
    story: Story, options: Sequence[str], *, orchestrator: str, drift: Drift | None
) -> Cycle:
    """Run a cycle while people go on asking.

    Args:
        story: So far.
        options: Of `scripts/retrain.py`.
        orchestrator: `local` or `airflow`.
        drift: Of what people ask.

    Returns:
        The cycle, which has ended.

    Raises:
        RetrainingError: It failed.
    """
    with traffic.background(story.address, seed=5000 + len(story.windows), drift=drift):
        if orchestrator == "airflow":
            _by_airflow(story, options)
        else:
            story.call("scripts/retrain.py", *options, ends=(0, 2))
    folder = max((story.out / "retraining").iterdir(), key=lambda path: path.stat().st_mtime)
    cycle = Cycle.begin(folder, name=NAME)
    if cycle.end is None:
        raise RetrainingError(f"{folder} has not ended: its logs are in {folder / 'logs'}")
    return cycle


def _by_airflow(story: Story, options: Sequence[str]) -> None:
    """Run the DAG of retraining once, in a process of Airflow's own environment."""
    starter = story.root / "deploy" / "airflow" / "standalone"
    environment = os.environ | {
        "AIRFLOW_HOME": str(story.out / "airflow"),
        "FAKENEWS_PYTHON": sys.executable,
        "FAKENEWS_MODEL": NAME,
        "FAKENEWS_RETRAIN": shlex.join([*options[1:], f"paths.root={story.out}"]),
    }
    with (story.out / "airflow.log").open("ab") as out:
        for command in (("db", "migrate"), ("dags", "test", "fakenews_retraining")):
            log.info("airflow %s", " ".join(command))
            done = subprocess.run(  # noqa: S603 our own script
                [str(starter), *command],
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                check=False,
            )
            if done.returncode:
                raise RetrainingError(
                    f"airflow {' '.join(command)} failed: see {story.out / 'airflow.log'}; "
                    "`make airflow` installs it, and demo.orchestrator=local does without"
                )


def _list(options: Sequence[str]) -> str:
    """A list as Hydra reads it."""
    return f"[{','.join(json.dumps(option) for option in options)}]"
