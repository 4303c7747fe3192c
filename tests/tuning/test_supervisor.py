"""Several workers on one machine, and what becomes of them when one of them dies."""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import psutil
import pytest
from optuna.trial import TrialState

from fakenews.errors import TuningError
from fakenews.tuning import supervisor as module
from fakenews.tuning.queue import TrialQueue
from fakenews.tuning.supervisor import WORKER, _devices, supervise
from fakenews.tuning.table import Watch

pytestmark = pytest.mark.slow

Child = Callable[..., "Popen[str]"]
MakeQueue = Callable[..., TrialQueue]

# Stands for `train.py`; each worker notes that it has started, and in which environment.
SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
import optuna
from optuna.samplers import RandomSampler
from fakenews.errors import FakeNewsError, Interrupted
from fakenews.tuning.queue import TrialQueue
from fakenews.tuning.storage import open_storage
from fakenews.tuning.supervisor import follow_parent
from fakenews.tuning.worker import work

url, folder, n_trials, mode = sys.argv[1:]
folder = Path(folder)
worker = os.environ["FAKENEWS_SWEEP_WORKER"]
names = ("FAKENEWS_SWEEP_WORKER", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
note = {name: os.environ.get(name) for name in names}
(folder / f"started_{os.getpid()}.json").write_text(json.dumps(note))


def terminate(number, frame):
    raise Interrupted("terminated", status=143)


signal.signal(signal.SIGTERM, terminate)
follow_parent(sys.stdin.fileno())
if mode == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (folder / f"hangs_{worker}").touch()
    time.sleep(600)
if mode == "error":
    print("some news", flush=True)
    print("error: the data are gone", flush=True)
    sys.exit(1)
storage = open_storage(url, heartbeat=60)
study = optuna.load_study(study_name="news", storage=storage)
queue = TrialQueue(
    study, storage, n_trials=int(n_trials), max_failure_rate=0.25,
    sampler=RandomSampler, folder=folder,
)


def launch(trials):
    (trial,) = trials
    if mode == "kill one" and trial.number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "poison" and trial.params["x"] == study.trials[0].params["x"]:
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "hang":
        (folder / f"hangs_{trial.number}").touch()
        time.sleep(600)
    study.tell(trial.number, trial.params["x"])
    return [None]


try:
    work(queue, launch, lambda trial: [f"x={trial.suggest_float('x', 0, 1)}"])
except FakeNewsError as error:
    print(f"error: {error}", flush=True)
    sys.exit(getattr(error, "status", 1))
"""

Supervise = Callable[..., TrialQueue]


@pytest.fixture
def start(
    make_queue: MakeQueue, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Supervise:
    """Supervises workers that run the script in some mode."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def run(
        mode: str,
        *,
        workers: int = 2,
        n_trials: int = 4,
        watch: Callable[[TrialQueue], object] | None = None,
    ) -> TrialQueue:
        monkeypatch.setattr(sys, "argv", [str(script), url, str(tmp_path), str(n_trials), mode])
        queue = make_queue(n_trials=n_trials)
        watched = Watch(queue, objectives=["x"]) if watch is None else watch(queue)
        supervise(queue, watched, workers=workers, folder=tmp_path)
        return queue

    return run


def notes(folder: Path) -> list[dict[str, str | None]]:
    return [json.loads(path.read_text()) for path in folder.glob("started_*.json")]


def alive(folder: Path) -> list[int]:
    """Workers that still run."""
    found = []
    for path in folder.glob("started_*.json"):
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(path.stem.partition("_")[2]))
            if str(folder) in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


def test_workers_share_the_trials_and_the_machine(start: Supervise, tmp_path: Path) -> None:
    queue = start("work", n_trials=6)
    assert [trial.state for trial in queue.trials()] == [TrialState.COMPLETE] * 6
    assert queue.is_done()
    assert sorted(str(note[WORKER]) for note in notes(tmp_path)) == ["0", "1"]
    threads = str(max(len(os.sched_getaffinity(0)) // 2, 1))
    assert {note["OMP_NUM_THREADS"] for note in notes(tmp_path)} == {threads}
    logs = sorted(path.name for path in (tmp_path / "workers").iterdir())
    assert logs == ["0.log", "1.log"]
    assert alive(tmp_path) == []


def test_a_worker_that_was_killed_is_replaced(
    start: Supervise, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queue = start("kill one", n_trials=4)
    states = [trial.state for trial in queue.trials()]
    assert states.count(TrialState.COMPLETE) == 4
    assert states[1] is TrialState.FAIL
    assert len(states) == 5
    assert len(notes(tmp_path)) == 3
    (message,) = [text for text in caplog.messages if text.startswith("worker")]
    assert message.endswith("was killed (SIGKILL); another takes its place")


def test_a_trial_that_kills_each_worker_fails_and_the_others_are_done(
    start: Supervise, tmp_path: Path
) -> None:
    queue = start("poison", n_trials=4)
    counts = [trial.state for trial in queue.trials()]
    assert counts.count(TrialState.COMPLETE) == 3
    assert counts.count(TrialState.FAIL) == 3
    assert queue.is_done()
    assert len(notes(tmp_path)) == 5


def test_workers_that_die_again_and_again_end_the_sweep(
    start: Supervise, tmp_path: Path
) -> None:
    with pytest.raises(TuningError, match=r"worker \d ended with status -9: no output"):
        start("die")
    assert 4 <= len(notes(tmp_path)) <= 6
    assert alive(tmp_path) == []


def test_an_error_of_a_worker_ends_the_sweep_with_its_last_line(
    start: Supervise, tmp_path: Path
) -> None:
    with pytest.raises(
        TuningError, match=r"^worker \d ended with status 1: the data are gone$"
    ):
        start("error")
    assert alive(tmp_path) == []


class Impatient:
    """Interrupts the sweep when all workers have something to do."""

    ended = 0

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder, self.workers = folder, workers

    def update(self) -> None:
        if len(list(self.folder.glob("hangs_*"))) == self.workers:
            raise KeyboardInterrupt


def test_an_interrupted_sweep_leaves_no_worker_and_loses_no_trial(
    start: Supervise, make_queue: MakeQueue, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        start("hang", watch=lambda _: Impatient(tmp_path, 2))
    assert alive(tmp_path) == []
    trials = make_queue().trials()
    assert [trial.state.name for trial in trials] == ["FAIL", "FAIL", "WAITING", "WAITING"]
    assert {trial.params["x"] for trial in trials[2:]} == {
        trial.params["x"] for trial in trials[:2]
    }
    assert sum("interrupted" in trial.user_attrs for trial in trials) == 2


def test_a_worker_that_does_not_end_when_asked_to_is_killed(
    start: Supervise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GRACE", 0.2)
    with pytest.raises(KeyboardInterrupt):
        start("stubborn", watch=lambda _: Impatient(tmp_path, 2))
    assert len(notes(tmp_path)) == 2
    assert alive(tmp_path) == []


PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE)
print(child.pid, flush=True)
sys.stdin.read()
"""
FOLLOWER = """
import sys, time
from fakenews.tuning.supervisor import follow_parent
follow_parent(sys.stdin.fileno())
print("follows", flush=True)
time.sleep(600)
"""


def test_a_worker_ends_when_its_parent_is_killed(child: Child) -> None:
    parent = child(PARENT, FOLLOWER)
    lines = {parent.stdout.readline(), parent.stdout.readline()}
    assert "follows\n" in lines
    (number,) = lines - {"follows\n"}
    follower = psutil.Process(int(number))
    assert follower.is_running()
    parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    with contextlib.suppress(psutil.NoSuchProcess):
        while follower.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert not follower.is_running() or follower.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("visible", "workers", "shares"),
    [
        ("0,1,2,3", 2, ["0,2", "1,3"]),
        ("0,1,2", 2, ["0,2", "1"]),
        ("4,7", 2, ["4", "7"]),
        ("0,1", 3, ["0", "1", "0"]),
        ("GPU-ab12", 2, ["GPU-ab12", "GPU-ab12"]),
        ("", 2, [None, None]),
    ],
)
def test_workers_share_the_devices(
    visible: str, workers: int, shares: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [_devices(number, workers) for number in range(workers)] == shares


def test_without_a_gpu_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    import torch

    shares = [_devices(number, 2) for number in range(2)]
    if torch.cuda.device_count() == 0:
        assert shares == [None, None]
    else:
        assert set(shares[0].split(",")).isdisjoint(shares[1].split(","))
