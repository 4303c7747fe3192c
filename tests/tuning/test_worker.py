"""One process that works on a study, and the jobs that it starts."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from optuna.trial import FrozenTrial, Trial, TrialState

from fakenews.errors import DataError, Interrupted, TuningError
from fakenews.tuning import worker as module
from fakenews.tuning.queue import TrialQueue
from fakenews.tuning.worker import launched, spawned, work

MakeQueue = Callable[..., TrialQueue]


def draw(trial: Trial) -> list[str]:
    return [f"x={trial.suggest_float('x', 0, 1)}"]


def states(queue: TrialQueue) -> list[str]:
    return [trial.state.name for trial in queue.trials()]


class Jobs:
    """Runs jobs that do nothing but to tell the study; some go wrong."""

    def __init__(self, queue: TrialQueue, errors: dict[int, BaseException] | None = None):
        self.queue = queue
        self.errors = errors or {}
        self.batches: list[list[int]] = []

    def __call__(self, trials: Sequence[FrozenTrial]) -> list[BaseException | None]:
        self.batches.append([trial.number for trial in trials])
        found: list[BaseException | None] = []
        for trial in trials:
            error = self.errors.get(trial.number)
            if error is None:
                self.queue.study.tell(trial.number, 1.0)
            elif not isinstance(error, Exception):
                raise error
            found.append(error)
        return found


class Watched:
    """Counts how often it is told that something has changed."""

    def __init__(self) -> None:
        self.updates = 0

    def update(self) -> None:
        self.updates += 1


def test_a_worker_runs_one_trial_after_another_until_there_are_enough(
    make_queue: MakeQueue,
) -> None:
    queue = make_queue(n_trials=3)
    jobs, watch = Jobs(queue), Watched()
    work(queue, jobs, draw, watch=watch)
    assert jobs.batches == [[0], [1], [2]]
    assert states(queue) == ["COMPLETE"] * 3
    assert watch.updates >= 3
    work(queue, jobs, draw)
    assert len(jobs.batches) == 3


def test_a_batch_is_launched_together(make_queue: MakeQueue) -> None:
    queue = make_queue(n_trials=5)
    jobs = Jobs(queue)
    work(queue, jobs, draw, batch=2)
    assert jobs.batches == [[0, 1], [2, 3], [4]]


def test_what_a_job_could_not_say_itself_is_noted(make_queue: MakeQueue) -> None:
    queue = make_queue(n_trials=4, max_failure_rate=0.5)
    over = Interrupted("trainer.max_time is over", status=75)
    work(queue, Jobs(queue, {1: DataError("a.csv: empty"), 2: over}), draw, batch=4)
    assert states(queue) == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"]
    reasons = [trial.user_attrs.get("error") for trial in queue.trials()]
    assert reasons == [None, "a.csv: empty", "trainer.max_time is over", None]


def test_too_many_failures_stop_the_worker(make_queue: MakeQueue) -> None:
    queue = make_queue(n_trials=8, max_failure_rate=0.25)
    jobs = Jobs(queue, {number: DataError("a.csv: empty") for number in range(8)})
    with pytest.raises(TuningError, match=r"3 of 8 trials .*a\.csv: empty \(3 times\)"):
        work(queue, jobs, draw)
    assert jobs.batches == [[0], [1], [2]]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143)], ids=repr)
def test_an_interrupted_worker_gives_back_all_that_it_has_not_done(
    error: BaseException, make_queue: MakeQueue
) -> None:
    queue = make_queue(n_trials=6)
    jobs = Jobs(queue, {2: error})
    with pytest.raises(type(error)):
        work(queue, jobs, draw, batch=4)
    assert jobs.batches == [[0, 1, 2, 3]]
    assert states(queue) == ["COMPLETE", "COMPLETE", "FAIL", "FAIL", "WAITING", "WAITING"]
    work(queue, Jobs(queue), draw)
    done = [trial for trial in queue.trials() if trial.state is TrialState.COMPLETE]
    assert len(done) == 6
    assert len({trial.params["x"] for trial in done}) == 6


@pytest.mark.parametrize("status", [130, 143])
def test_a_job_that_was_interrupted_interrupts_the_worker(
    status: int, make_queue: MakeQueue
) -> None:
    queue = make_queue(n_trials=3)
    jobs = Jobs(queue, {1: Interrupted("stopped", status=status)})
    with pytest.raises(Interrupted) as caught:
        work(queue, jobs, draw)
    assert caught.value.status == status
    assert states(queue) == ["COMPLETE", "FAIL", "WAITING"]
    queue.check_failures()


def test_an_interruption_that_a_library_hid_is_none_of_the_trials_failures(
    make_queue: MakeQueue,
) -> None:
    hidden = AttributeError("half a copy")
    hidden.__context__ = KeyboardInterrupt()
    queue = make_queue(n_trials=3)
    with pytest.raises(KeyboardInterrupt):
        work(queue, Jobs(queue, {1: hidden}), draw)
    assert states(queue) == ["COMPLETE", "FAIL", "WAITING"]
    queue.check_failures()


def test_an_interruption_while_trials_are_claimed_loses_none(make_queue: MakeQueue) -> None:
    queue = make_queue(n_trials=3)
    jobs = Jobs(queue)

    def interrupted(trial: Trial) -> list[str]:
        if trial.number == 1:
            raise KeyboardInterrupt
        return draw(trial)

    with pytest.raises(KeyboardInterrupt):
        work(queue, jobs, interrupted, batch=3)
    assert jobs.batches == []
    assert sorted(states(queue)) == ["FAIL", "FAIL", "WAITING", "WAITING"]
    work(queue, jobs, draw, batch=3)
    assert sorted(states(queue)) == ["COMPLETE"] * 3 + ["FAIL"] * 2


def test_a_worker_waits_for_others_and_takes_over_what_they_leave(
    make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = make_queue(n_trials=2)
    other = queue.claim(draw)
    assert other is not None
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        # Meanwhile, elsewhere.
        pauses.append(seconds)
        queue.give_back(other.number)

    monkeypatch.setattr(module.time, "sleep", pause)
    jobs = Jobs(queue)
    work(queue, jobs, draw)
    assert jobs.batches == [[1], [2]]
    assert len(pauses) == 1
    assert queue.trials()[2].params == other.params


class Fake(Launcher):
    """Returns what it is told to."""

    def __init__(self, *returns: JobReturn) -> None:
        self.returns = returns
        self.calls: list[tuple[object, int]] = []

    def setup(self, **options: object) -> None:
        pass

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        self.calls.append((job_overrides, initial_job_idx))
        return self.returns


def test_a_launcher_gets_the_overrides_and_gives_errors_back(make_queue: MakeQueue) -> None:
    queue = make_queue(n_trials=3)
    trials = [queue.claim(draw) for _ in range(3)]
    error = DataError("a.csv: empty")
    launcher = Fake(
        JobReturn(_return_value=0.5, status=JobStatus.COMPLETED),
        JobReturn(_return_value=error, status=JobStatus.FAILED),
    )
    assert launched(launcher, trials[1:]) == [None, error]
    expected = [[f"x={trial.params['x']}"] for trial in trials[1:]]
    assert launcher.calls == [(expected, 1)]


SCRIPT = """
import os, sys, time
rank = os.environ["RANK"]
print("rank", rank, "of", os.environ["WORLD_SIZE"], sys.argv[1:], flush=True)
open(f"{sys.argv[-1].partition('=')[2]}/rank{rank}", "w").close()
if "fail=true" in sys.argv:
    print("error: trainer=ddp is not possible", flush=True)
    sys.exit(1)
if "hang=true" in sys.argv:
    time.sleep(600)
"""


@pytest.fixture
def spawn(
    make_queue: MakeQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Sequence[BaseException | None]]:
    """Runs a script in place of ours as a trial of two processes."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    monkeypatch.setattr(sys, "argv", [str(script), "-m", "sweep=random"])
    queue = make_queue()

    def run(override: str) -> Sequence[BaseException | None]:
        trial = queue.claim(lambda _: [override])
        return spawned([trial], ranks=2, folder=tmp_path / "sweep")

    return run


@pytest.mark.slow
def test_a_trial_of_several_processes(
    spawn: Callable[..., Sequence[BaseException | None]], tmp_path: Path
) -> None:
    assert spawn("x=1") == [None]
    run = tmp_path / "sweep" / "trial_0"
    lines = (run / "torchrun.log").read_text().splitlines()
    for rank in (0, 1):
        assert f"rank {rank} of 2 ['x=1', 'hydra.run.dir={run}']" in lines
    (error,) = spawn("fail=true")
    assert isinstance(error, TuningError)
    assert str(error) == "trainer=ddp is not possible"


def test_a_trial_of_several_processes_ends_with_its_worker(
    spawn: Callable[..., Sequence[BaseException | None]], tmp_path: Path
) -> None:
    run = tmp_path / "sweep" / "trial_0"

    def interrupt() -> None:
        while len(list(run.glob("rank*"))) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        spawn("hang=true")
    thread.join()
    left = subprocess.run(
        ["pgrep", "-f", f"hydra.run.dir={run}"], capture_output=True, text=True, check=False
    )
    assert left.stdout == ""
