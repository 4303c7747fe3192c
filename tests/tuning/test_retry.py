"""Trials whose process was killed are tried again, and nothing else changes by that."""

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from subprocess import Popen

import pytest
from optuna.samplers import GridSampler, RandomSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from fakenews.errors import TuningError
from fakenews.tuning.queue import TrialQueue, is_counted, own_id

Child = Callable[..., "Popen[str]"]
MakeQueue = Callable[..., TrialQueue]
Claim = Callable[[TrialQueue], FrozenTrial]
Kill = Callable[[TrialQueue, FrozenTrial], None]

CLAIMS = """
import sys
from pathlib import Path
import optuna
from optuna.samplers import RandomSampler
from fakenews.tuning.queue import TrialQueue
from fakenews.tuning.storage import open_storage

url, folder = sys.argv[1:]
storage = open_storage(url, heartbeat=60)
study = optuna.load_study(study_name="news", storage=storage)
queue = TrialQueue(
    study, storage, n_trials=3, max_failure_rate=1, sampler=RandomSampler, folder=Path(folder)
)
trial = queue.claim(lambda trial: [f"x={trial.suggest_float('x', 0, 1)}"])
print(trial.number, flush=True)
while True:
    sys.stdin.readline()
    storage.record_heartbeat(trial._trial_id)
    print("beat", flush=True)
"""


def hung(child: Child, url: str, folder: Path) -> "Popen[str]":
    """A process that has claimed a trial, and hangs."""
    process = child(CLAIMS, url, folder)
    assert process.stdout.readline() == "0\n"
    return process


def move(queue: TrialQueue, trial: FrozenTrial) -> None:
    """As if another machine ran it."""
    queue.storage.set_trial_user_attr(trial._trial_id, "worker", "elsewhere.invalid/1/1.00")


def states(queue: TrialQueue) -> list[str]:
    return [trial.state.name for trial in queue.trials()]


@pytest.mark.parametrize("reaped", [True, False])
def test_a_trial_of_a_killed_process_is_queued_again_at_once(
    *,
    reaped: bool,
    make_queue: MakeQueue,
    claim: Claim,
    url: str,
    tmp_path: Path,
    child: Child,
) -> None:
    queue = make_queue()
    process = hung(child, url, tmp_path)
    queue.queue_killed_again()
    assert states(queue) == ["RUNNING"]
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | (0 if reaped else os.WNOWAIT))
    again = claim(queue)
    assert again.number == 1
    assert again.params == queue.trials()[0].params
    assert again.user_attrs["overrides"][0] == f"x={again.params['x']}"
    assert again.user_attrs["worker"] == own_id()
    assert again.user_attrs["folder"].endswith("trial_1")
    assert states(queue) == ["FAIL", "RUNNING"]


@pytest.mark.slow
def test_a_trial_of_another_machine_is_queued_again_when_its_heartbeat_stops(
    make_queue: MakeQueue, claim: Claim, url: str, tmp_path: Path, child: Child
) -> None:
    queue = make_queue()
    queue.storage.heartbeat_interval, queue.storage.grace_period = 1, 4
    process = hung(child, url, tmp_path)
    move(queue, queue.trials()[0])
    process.send_signal(signal.SIGKILL)
    process.wait()
    queue.queue_killed_again()
    assert states(queue) == ["RUNNING"]
    deadline = time.monotonic() + 60
    while states(queue) == ["RUNNING"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
        queue.queue_killed_again()
    assert states(queue) == ["FAIL", "WAITING"]
    assert claim(queue).params == queue.trials()[0].params


def age(url: str, seconds: int) -> None:
    """As if nothing had been heard of all trials for so long."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.execute(
            "UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, ?)",
            [f"-{seconds} seconds"],
        )
        connection.commit()


def test_a_trial_of_another_machine_that_beats_is_left_alone(
    make_queue: MakeQueue, url: str, tmp_path: Path, child: Child
) -> None:
    queue = make_queue()
    process = hung(child, url, tmp_path)
    move(queue, queue.trials()[0])
    age(url, 1000)
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "beat\n"
    age(url, 200)
    queue.queue_killed_again()
    assert states(queue) == ["RUNNING"]
    age(url, 100)
    queue.queue_killed_again()
    assert states(queue) == ["FAIL", "WAITING"]


@pytest.mark.parametrize("how", ["killed", "silent"])
def test_parameters_that_kill_again_and_again_have_failed(
    how: str, make_queue: MakeQueue, claim: Claim, kill: Kill, url: str
) -> None:
    queue = make_queue(n_trials=2)
    seen = []
    for number in range(3):
        trial = claim(queue)
        seen.append(trial.params["x"])
        assert trial.number == number
        if how == "killed":
            kill(queue, trial)
        else:
            age(url, 1000)
            queue.queue_killed_again()
        assert sum(map(is_counted, queue.trials())) == (number == 2)
    assert len(set(seen)) == 1
    assert states(queue) == ["FAIL"] * 3
    with pytest.raises(TuningError, match=r"1 of 2 .*its process was killed again and again"):
        queue.check_failures()
    other = claim(queue)
    assert other.params["x"] != seen[0]
    queue.study.tell(other.number, 1.0)
    assert queue.is_done()


def test_what_was_given_back_was_not_killed(
    make_queue: MakeQueue, claim: Claim, kill: Kill
) -> None:
    queue = make_queue(n_trials=1)
    for how in ["give", "kill", "give", "kill", "give", "give"]:
        trial = claim(queue)
        if how == "give":
            queue.give_back(trial.number)
        else:
            kill(queue, trial)
        assert sum(map(is_counted, queue.trials())) == 0
        assert states(queue)[-1] == "WAITING"
    queue.check_failures()
    kill(queue, claim(queue))
    assert sum(map(is_counted, queue.trials())) == 1
    assert states(queue) == ["FAIL"] * 7
    assert len({trial.params["x"] for trial in queue.trials()}) == 1


def interrupted(trial: Trial) -> Sequence[str]:
    del trial
    raise KeyboardInterrupt


def searched(
    queue: TrialQueue, claim: Claim, kill: Kill, interruptions: dict[int, str]
) -> list[float]:
    """The parameters of the trials that complete, where some claims are interrupted."""
    count = 0
    while not queue.is_done():
        how = interruptions.get(count)
        count += 1
        if how == "early":
            with suppress(KeyboardInterrupt):
                queue.claim(interrupted)
            continue
        trial = claim(queue)
        if how == "kill":
            kill(queue, trial)
        elif how == "give":
            queue.give_back(trial.number)
        else:
            queue.study.tell(trial.number, 1.0)
    return [trial.params["x"] for trial in queue.trials() if trial.state is TrialState.COMPLETE]


@pytest.mark.parametrize(
    "interruptions",
    [
        {1: "kill"},
        {0: "give", 1: "kill", 4: "give"},
        {2: "early"},
        {0: "kill", 1: "early", 2: "give"},
    ],
    ids=str,
)
def test_an_interrupted_sweep_tries_what_one_never_interrupted_does(
    interruptions: dict[int, str], make_queue: MakeQueue, claim: Claim, kill: Kill
) -> None:
    def seeded(before: int) -> RandomSampler:
        return RandomSampler(seed=before)

    expected = [RandomSampler(seed=number)._rng.rng.uniform(0, 1) for number in range(5)]
    found = searched(make_queue(n_trials=5, sampler=seeded), claim, kill, interruptions)
    assert found == pytest.approx(expected)


def test_a_grid_is_searched_to_its_end_whatever_is_killed(
    make_queue: MakeQueue, claim: Claim, kill: Kill
) -> None:
    values = {"x": [0.0, 0.25, 0.5, 1.0]}

    queue = make_queue(n_trials=4, sampler=lambda _: GridSampler(values, seed=0))
    found = searched(queue, claim, kill, {1: "kill", 3: "give", 5: "kill", 6: "give"})
    assert sorted(found) == values["x"]
