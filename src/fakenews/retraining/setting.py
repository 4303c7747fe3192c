"""What the steps of a cycle know: where things lie, and how the commands are called."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fakenews.bounds import NonNegative, Share
from fakenews.retraining.commands import run
from fakenews.retraining.cycle import Cycle, Step
from fakenews.retraining.decision import Policy
from fakenews.retraining.registry import Registry
from fakenews.retraining.source import DataSource
from fakenews.serving.state import State, read_state

EVALUATE = "scripts/evaluate.py"
"""The command that writes nowhere else than it is told, and so has no options for that."""


@dataclass(frozen=True, kw_only=True)
class Commands:
    """Options of the commands that a cycle runs, beside those that it gives itself.

    Attributes:
        train: Of `train.py`, where they differ from those of the champion.
        sweep: Of `train.py -m`, to search before; None: no search.
        prepare: Of `scripts/prepare.py`, to stream the data; None: they are read to memory.
        evaluate: Of `scripts/evaluate.py`.
        gate: Of `scripts/gate.py`.
        promote: Of `scripts/promote.py`, whatever its action.
    """

    train: Sequence[str] = ()
    sweep: Sequence[str] | None = None
    prepare: Sequence[str] | None = None
    evaluate: Sequence[str] = ()
    gate: Sequence[str] = ()
    promote: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How a challenger that was accepted is tried on requests.

    Attributes:
        share: Of the requests that it answers.
        seconds: For which it is watched; 0: it is not tried.
    """

    share: Share = 0.2
    seconds: NonNegative = 300


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the steps of a cycle know.

    Attributes:
        name: Of the registered model.
        tracking_uri: MLflow's store.
        served: Folder of the deployment and the served model's name; None: nothing is served.
        report: The monitor's `verdict.json`.
        policy: When a model is retrained.
        source: Of new training data.
        datasets: Folder of the datasets.
        cycles: Folder of the cycles.
        commands: Options of the commands.
        trial: Of a challenger.
        root: The working copy.
        paths: Options that say where things lie, of commands that write elsewhere than they
            are told.
    """

    name: str
    tracking_uri: str
    served: tuple[Path, str] | None
    report: Path
    policy: Policy
    source: DataSource
    datasets: Path
    cycles: Path
    commands: Commands
    trial: Trial
    root: Path
    paths: Sequence[str]

    @property
    def registry(self) -> Registry:
        """The versions of the model."""
        return Registry(uri=self.tracking_uri, model=self.name)

    @property
    def state(self) -> State | None:
        """What is served; None where that is nothing."""
        if self.served is None:
            return None
        folder, name = self.served
        found = read_state(folder, name=name)
        return found if found.champion is not None else None

    def call(
        self, cycle: Cycle, step: Step, command: str, *options: str, ends: Sequence[int] = (0,)
    ) -> int:
        """Run a command as a part of a step.

        Returns:
            Its exit status, one of `ends`.

        Raises:
            RetrainingError: It failed.
        """
        return run(
            command,
            [*options, *(() if command == EVALUATE else self.paths)],
            root=self.root,
            log_file=cycle.folder / "logs" / f"{step}.log",
            ends=ends,
        )

    def promote(self, cycle: Cycle, step: Step, action: str, *options: str) -> None:
        """Run `scripts/promote.py`; as `call`."""
        self.call(
            cycle,
            step,
            "scripts/promote.py",
            f"name={self.name}",
            f"action={action}",
            f"version={cycle['train'].facts['version']}",
            f"tracking_uri={self.tracking_uri}",
            *options,
            *(["serving=none"] if self.state is None and "serving=none" not in options else []),
            *self.commands.promote,
        )
