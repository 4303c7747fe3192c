"""What a sweep costs: with and without pruning, beside training, and with uneven trials.

    python benchmarks/sweeps.py                       # all parts, some 20 minutes
    python benchmarks/sweeps.py --parts pruning --seeds 0 1 2

pruning   the same space, seed and number of trials, with sweep.pruner=median and none:
          training steps, and the best value found
overhead  seconds of a trial that trains a single step, after the first in one process
uneven    12 trials of 1 or 30 epochs: sweep.workers=2 beside hydra-optuna-sweeper with
          batches of 2 (joblib), which run the same trials in the same order
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]

# A small model, so that what is measured is the sweep.
SMALL = ("encoder=tiny", "features=headline", "logger=none")
SPACE = (
    "optimizer.lr=tag(log, interval(1e-4, 1e-2))",
    "model.head_lr_scale=tag(log, interval(0.3, 10))",
    "model.layer_decay=interval(0.6, 1.0)",
    "model.network.dropout=interval(0, 0.5)",
    "scheduler.warmup=interval(0, 0.3)",
)

Row = tuple[str, str]


def train(folder: Path, *overrides: str) -> float:
    """Run train.py in a folder of its own; give its seconds."""
    started = time.perf_counter()
    command = [
        *(sys.executable, str(ROOT / "train.py"), "-m", *overrides),
        *(f"paths.root={folder}", f"paths.cache={folder}/cache"),
    ]
    done = subprocess.run(  # noqa: S603 our own command
        command,
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        # Joblib's workers take a core each, as ours do.
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)
    return time.perf_counter() - started


def trials(folder: Path, study: str) -> list[FrozenTrial]:
    """The trials of a study, by number."""
    found = optuna.load_study(study_name=study, storage=f"sqlite:///{folder}/optuna.db")
    return found.get_trials(deepcopy=False)


def pruning(folder: Path, arguments: argparse.Namespace) -> Iterator[Row]:
    """Steps and best value, with and without a pruner, for each seed."""
    values: dict[str, list[float]] = {}
    steps: dict[str, list[int]] = {}
    arms = [(pruner, seed) for seed in arguments.seeds for pruner in (arguments.pruner, "none")]
    for pruner, seed in tqdm(arms, desc="pruning", unit="sweep", leave=False):
        study = f"{pruner}-{seed}"
        train(
            folder,
            *("sweep=optuna", f"sweep.study={study}", f"sweep.pruner={pruner}", f"seed={seed}"),
            *(f"data.fetch.rows={arguments.rows}", f"trainer.max_epochs={arguments.epochs}"),
            *(f"sweep.n_trials={arguments.trials}", *SMALL, *SPACE),
        )
        found = trials(folder, study)
        complete = [trial.values[0] for trial in found if trial.state.name == "COMPLETE"]
        values.setdefault(pruner, []).append(max(complete))
        steps.setdefault(pruner, []).append(sum(t.user_attrs["steps"] for t in found))
    ratios = [a / b for a, b in zip(steps[arguments.pruner], steps["none"], strict=True)]
    gains = [a - b for a, b in zip(values[arguments.pruner], values["none"], strict=True)]
    yield f"training steps, {arguments.pruner} / none", _range(ratios, 2)
    yield f"best value, {arguments.pruner}", _range(values[arguments.pruner], 4)
    yield "best value, none", _range(values["none"], 4)
    yield "difference, same seed", _range(gains, 4)


def overhead(folder: Path, arguments: argparse.Namespace) -> Iterator[Row]:
    """Seconds from one trial's start to the next one's, when a trial trains one step."""
    data = [f"data.fetch.rows={arguments.rows}"]
    if arguments.data:
        data = ["data=csv", f"data.path={arguments.data}", *arguments.columns]
    train(
        folder,
        *("sweep=random", "sweep.study=overhead", "sweep.pruner=none", "sweep.n_trials=12"),
        *(*data, "trainer.max_epochs=1", "trainer.limit_train_batches=1", *SMALL),
        *("logger=mlflow", *SPACE),
    )
    starts = [trial.datetime_start for trial in trials(folder, "overhead")]
    times = [
        (later - earlier).total_seconds()
        for earlier, later in itertools.pairwise(starts[1:])
        if earlier and later
    ]
    yield "seconds of a trial with one step, after the first", _range(times, 2)


def uneven(folder: Path, arguments: argparse.Namespace) -> Iterator[Row]:
    """Seconds of the same grid, with workers and with batches."""
    grid = ("trainer.max_epochs=choice(1, 30)", "model.network.dropout=range(0, 0.6, 0.1)")
    # As long as they say: none is stopped early.
    settings = (
        f"data.fetch.rows={arguments.rows}",
        "callbacks.early_stopping.patience=100",
        *SMALL,
    )
    ours = ("sweep=grid", "sweep.pruner=none", "sweep.workers=2", "optimizer.lr=1e-3")
    plugin = (
        *("hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "hydra/launcher=joblib"),
        *("hydra.sweeper.n_jobs=2", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_trials=12"),
        *("hydra.sweeper.direction=maximize", "hydra.sweeper.sampler.seed=0"),
        *("test=false", "register=null", "bundle=false", "optimizer.lr=1e-3", "threads=1"),
    )
    ratios = []
    for number in tqdm(range(arguments.repeats), desc="uneven", unit="pair", leave=False):
        # In turns, and each other first.
        order: list[tuple[str, Callable[[], float]]] = [
            (
                "ours",
                lambda n=number: train(
                    folder, *ours, f"sweep.study=uneven-{n}", *settings, *grid
                ),
            ),
            ("plugin", lambda: train(folder, *plugin, *settings, *grid)),
        ]
        seconds = {name: run() for name, run in (order if number % 2 else order[::-1])}
        ratios.append(seconds["plugin"] / seconds["ours"])
    yield "12 uneven trials, plugin's batches of 2 / workers=2, seconds", _range(ratios, 2)


PARTS = {"pruning": pruning, "overhead": overhead, "uneven": uneven}


def _range(values: list[float], digits: int) -> str:
    middle = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    """Measure the parts asked for, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pruner", default="median", help="a sweep.pruner")
    parser.add_argument("--trials", type=int, default=30, help="of a sweep with pruning")
    parser.add_argument("--rows", type=int, default=1500, help="generated headlines")
    parser.add_argument("--epochs", type=int, default=8, help="of a trial with pruning")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of the part uneven")
    parser.add_argument("--data", type=Path, help="of the part overhead; else generated")
    parser.add_argument(
        "--columns", nargs="+", default=[], help="data.text=... data.label=... of --data"
    )
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    table = Table("figure", "median (range)")
    found: dict[str, str] = {}
    for part in arguments.parts:
        with tempfile.TemporaryDirectory() as folder:
            for name, value in PARTS[part](Path(folder), arguments):
                found[name] = value
                table.add_row(name, value)
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
