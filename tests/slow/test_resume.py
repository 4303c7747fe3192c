"""Stopping and resuming real runs: the end must be that of a run that was never stopped."""

import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient

from fakenews.bundle import sha256
from fixtures.commands import Commands

pytestmark = [
    pytest.mark.slow,
    # MLflow's own use of its database library.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
]

ROOT = Path(__file__).resolve().parents[2]
EPOCHS, STEPS = 3, 30
SETTINGS = (
    "name=run",
    "data.fetch.rows=300",
    "encoder=tiny",
    "features=headline",
    "loader.batch_size=8",
    f"trainer.max_epochs={EPOCHS}",
    "trainer.log_every_n_steps=1",
    "bootstrap=10",
    "register=null",
)


@dataclass
class Place:
    """A folder of runs, and the command that works in it."""

    root: Path
    cache: Path
    command: Commands
    settings: tuple[str, ...] = SETTINGS

    def arguments(self, *overrides: str) -> list[str]:
        places = (f"paths.root={self.root}", f"paths.cache={self.cache}")
        return [*self.settings, *places, *overrides]

    def run(self, *overrides: str) -> "subprocess.CompletedProcess[str]":
        """To its end."""
        return self.command(
            "train.py", *self.arguments(*overrides), cwd=self.root, COLUMNS="200"
        )

    def stop(self, number: int, when: str, *overrides: str) -> tuple[int, str]:
        """Send a signal as soon as the output has `when`; return status and output."""
        seen, sent = "", False
        with subprocess.Popen(
            [self.command.python, str(ROOT / "train.py"), *self.arguments(*overrides)],
            cwd=self.root,
            env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            while character := process.stdout.read(1):
                seen += character
                if not sent and seen.endswith(when):
                    process.send_signal(number)
                    sent = True
            assert sent, seen
            return process.wait(timeout=60), seen

    @property
    def folder(self) -> Path:
        (found,) = (self.root / "runs" / "run").iterdir()
        return found

    @property
    def state(self) -> str:
        return str(json.loads((self.folder / "run.json").read_text())["state"])

    @property
    def weights(self) -> str:
        return sha256(self.folder / "bundle" / "weights.safetensors")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: Path, command: Commands) -> Place:
    """A run that was never stopped."""
    place = Place(tmp_path_factory.mktemp("whole"), cache, command)
    done = place.run()
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def place(tmp_path: Path, cache: Path, command: Commands) -> Place:
    return Place(tmp_path, cache, command)


def last_line(output: str) -> str:
    return output.replace("\r", "\n").rstrip().splitlines()[-1]


def histories(place: Place) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """Of the only MLflow run, every metric's values by step."""
    client = MlflowClient(f"sqlite:///{place.root}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'run'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    names = {name for name in run.data.metrics if not name.startswith("system/")}
    # Lightning itself logs the epoch with the training and with the validation metrics.
    for name in sorted(names - {"epoch"}):
        values = client.get_metric_history(run.info.run_id, name)
        yield name, [(value.step, value.value) for value in values]


def assert_same_end(place: Place, whole: Place) -> None:
    assert place.state == "finished"
    assert place.weights == whole.weights
    assert (place.folder / "result.json").read_bytes() == (
        whole.folder / "result.json"
    ).read_bytes()
    expected, found = dict(histories(whole)), dict(histories(place))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        twice = [
            step for step, count in Counter(s for s, _ in found[name]).items() if count > 1
        ]
        assert twice == [], name
        assert sorted(found[name]) == sorted(values), name


def test_the_uninterrupted_run_has_all_steps(whole: Place):
    found = dict(histories(whole))
    assert [step for step, _ in found["train/loss"]] == list(range(EPOCHS * STEPS))
    rates = [
        value for name, values in found.items() if name.startswith("lr-") for _, value in values
    ]
    assert min(rates) >= 0
    assert len(pd.DataFrame(found["val/auroc"])) >= EPOCHS


def test_one_seed_gives_one_result_and_another_another(whole: Place, place: Place):
    assert place.run("logger=none").returncode == 0
    assert place.weights == whole.weights
    other = replace(place, root=place.root / "other")
    other.root.mkdir()
    assert other.run("logger=none", "seed=1").returncode == 0
    assert other.weights != whole.weights


def test_terminated_in_an_epoch(whole: Place, place: Place):
    status, output = place.stop(signal.SIGTERM, "Epoch 1:  2")
    assert status == 143
    assert "resume=auto to continue" in last_line(output)
    assert "Traceback" not in output
    assert place.state == "interrupted"
    steps = torch.load(place.folder / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert STEPS < steps < 2 * STEPS
    done = place.run("resume=auto")
    assert done.returncode == 0, done.stderr
    assert_same_end(place, whole)


def test_interrupted_in_an_epoch(whole: Place, place: Place):
    status, output = place.stop(signal.SIGINT, "Epoch 0:  3")
    assert status == 130
    assert "SIGINT received: saved step" in last_line(output)
    assert place.run("resume=auto").returncode == 0
    assert_same_end(place, whole)


def test_killed_in_an_epoch(whole: Place, place: Place):
    often = "callbacks.last.every_n_train_steps=3"
    status, _ = place.stop(signal.SIGKILL, "Epoch 1:  5", often)
    assert status == -signal.SIGKILL
    assert place.state == "running"
    done = place.run("resume=auto", often)
    assert done.returncode == 0, done.stderr
    assert_same_end(place, whole)


def test_killed_before_the_first_checkpoint(place: Place):
    status, _ = place.stop(signal.SIGKILL, "Epoch 0:  3")
    assert status == -signal.SIGKILL
    done = place.run("resume=auto")
    assert done.returncode == 0, done.stderr
    assert "no run of this name is unfinished, so a new one starts" in done.stdout + done.stderr


def test_out_of_time_again_and_again(whole: Place, place: Place):
    times = 0
    # Longer each time, as a slow machine needs some of it before the first step.
    for seconds in range(2, 40, 2):
        done = place.run("resume=auto", f"trainer.max_time=00:00:00:{seconds:02}")
        if done.returncode != 75:
            break
        times += 1
        assert "trainer.max_time is over" in last_line(done.stderr)
        assert place.state == "interrupted"
    assert done.returncode == 0, done.stderr
    assert times >= 1
    assert_same_end(place, whole)


def test_terminated_in_validation(whole: Place, place: Place):
    # The second epoch's bar is full, and validation begins.
    status, output = place.stop(signal.SIGTERM, "Epoch 1: 100%")
    assert status == 143
    assert f"saved step {2 * STEPS}" in last_line(output)
    assert place.run("resume=auto").returncode == 0
    assert_same_end(place, whole)


def test_terminated_in_evaluation(whole: Place, place: Place):
    status, output = place.stop(signal.SIGTERM, "predict:")
    assert status == 143
    assert "resume=auto to evaluate it" in last_line(output)
    assert place.state == "interrupted"
    assert place.run("resume=auto").returncode == 0
    assert_same_end(place, whole)


def test_early_stopping_and_averaged_weights(tmp_path: Path, cache: Path, command: Commands):
    settings = (
        *SETTINGS,
        "callbacks=ema",
        "callbacks.early_stopping.patience=1",
        "callbacks.ema.decay=0.9",
        "optimizer.lr=1e-3",
        "logger=none",
    )
    whole, stopped, late = (Place(tmp_path / name, cache, command, settings) for name in "abc")
    for each in (whole, stopped, late):
        each.root.mkdir()
    assert whole.run("trainer.max_epochs=8").returncode == 0
    assert stopped.stop(signal.SIGTERM, "Epoch 1:  5", "trainer.max_epochs=8")[0] == 143
    assert stopped.run("trainer.max_epochs=8", "resume=auto").returncode == 0
    assert stopped.weights == whole.weights
    # After it has stopped early, resuming must not train on.
    assert late.stop(signal.SIGTERM, "predict:", "trainer.max_epochs=8")[0] == 143
    done = late.run("trainer.max_epochs=8", "resume=auto")
    assert done.returncode == 0, done.stderr
    assert late.weights == whole.weights


def test_a_finished_run_says_so(whole: Place):
    done = whole.run(f"resume={whole.folder}")
    assert done.returncode == 1
    assert "the run is finished" in last_line(done.stderr)
    assert whole.state == "finished"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, cache: Path, command: Commands) -> Place:
    place = Place(tmp_path_factory.mktemp("stopped"), cache, command)
    assert (
        place.stop(signal.SIGTERM, "Epoch 1:  2", "logger.tracking_uri=sqlite:///x.db")[0]
        == 143
    )
    return place


def copy(stopped: Place, to: Path) -> Place:
    shutil.copytree(stopped.root, to, dirs_exist_ok=True)
    return replace(stopped, root=to)


def test_a_run_folder_by_name(stopped: Place, whole: Place, tmp_path: Path):
    place = copy(stopped, tmp_path)
    done = place.run(f"resume={place.folder}", "logger=csv")
    assert done.returncode == 0, done.stderr
    assert place.weights == whole.weights


@pytest.mark.parametrize("change", ["loader.batch_size=16", "seed=3", "data.fetch.rows=700"])
def test_other_settings_are_refused(stopped: Place, tmp_path: Path, change: str):
    place = copy(stopped, tmp_path)
    done = place.run("resume=auto", change, "logger=none")
    assert done.returncode == 1
    assert f"cannot be resumed with {change} (before: " in last_line(done.stderr)
    assert done.stderr.count("\n") == 1
    assert place.state == "interrupted"


def test_a_damaged_checkpoint(stopped: Place, tmp_path: Path):
    place = copy(stopped, tmp_path)
    last = place.folder / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    done = place.run("resume=auto", "logger=none")
    assert done.returncode == 1
    assert "last.ckpt cannot be read" in last_line(done.stderr)
    assert place.state == "interrupted"
    assert "Traceback" not in done.stderr
