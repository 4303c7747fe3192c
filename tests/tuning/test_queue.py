"""The trials of a study: as many as asked for, and what is told of them."""

import itertools
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import psutil
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, Trial, TrialState

from fakenews.errors import DataError, TuningError
from fakenews.tuning import storage as storage_module
from fakenews.tuning.queue import RESULT, TrialQueue, is_alive, is_counted, one_line, own_id

Child = Callable[..., "Popen[str]"]
MakeQueue = Callable[..., TrialQueue]
Claim = Callable[[TrialQueue], FrozenTrial]
Kill = Callable[[TrialQueue, FrozenTrial], None]


def states(queue: TrialQueue) -> list[str]:
    return [trial.state.name for trial in queue.trials()]


def nothing(trial: Trial) -> list[str]:
    del trial
    return []


def interrupted(trial: Trial) -> list[str]:
    del trial
    raise KeyboardInterrupt


def test_a_claimed_trial_says_who_runs_what_and_where(
    make_queue: MakeQueue, tmp_path: Path, claim: Claim
) -> None:
    queue = make_queue()
    trial = claim(queue)
    assert trial.state is TrialState.RUNNING
    assert trial.user_attrs == {
        "worker": own_id(),
        "folder": str(tmp_path / "sweep" / "trial_0"),
        "overrides": [f"x={trial.params['x']}"],
    }
    assert queue.storage._get_stale_trial_ids(queue.study._study_id) == []


def test_as_many_are_given_out_as_were_asked_for(make_queue: MakeQueue, claim: Claim) -> None:
    queue = make_queue(n_trials=3)
    numbers = [claim(queue).number for _ in range(3)]
    assert numbers == [0, 1, 2]
    assert queue.claim(nothing) is None
    assert not queue.is_done()
    for number in numbers:
        queue.study.tell(number, 1.0)
    assert queue.is_done()
    assert queue.claim(nothing) is None


def test_the_number_of_trials_may_change(make_queue: MakeQueue, claim: Claim) -> None:
    queue = make_queue(n_trials=2)
    for _ in range(2):
        queue.study.tell(claim(queue).number, 1.0)
    more, fewer = make_queue(n_trials=3), make_queue(n_trials=1)
    assert not more.is_done()
    assert claim(more).number == 2
    assert fewer.claim(nothing) is None
    assert not fewer.is_done()
    more.study.tell(2, 1.0)
    assert fewer.is_done()
    assert len(fewer.trials()) == 3


def test_what_has_ended_counts_and_what_was_stopped_does_not(
    make_queue: MakeQueue, claim: Claim, kill: Kill
) -> None:
    queue = make_queue(n_trials=4)
    complete, pruned, failed, stopped = (claim(queue) for _ in range(4))
    queue.study.tell(complete.number, 1.0)
    queue.study.tell(pruned.number, state=TrialState.PRUNED)
    queue.fail(failed.number, DataError("a.csv: empty"))
    kill(queue, stopped)
    assert [is_counted(trial) for trial in queue.trials()] == [True, True, True, False, False]
    assert states(queue)[3:] == ["FAIL", "WAITING"]
    assert not queue.is_done()


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
    study, storage, n_trials=25, max_failure_rate=1, sampler=RandomSampler, folder=Path(folder)
)
print("ready", flush=True)
sys.stdin.readline()
while (trial := queue.claim(lambda trial: [f"x={trial.suggest_float('x', 0, 1)}"])) is not None:
    print(trial.number, flush=True)
    sys.stdin.readline()  # at an end once everybody has a first trial
    study.tell(trial.number, 1.0)
"""


def go(process: "Popen[str]") -> None:
    process.stdin.write("go\n")
    process.stdin.flush()


def test_processes_that_claim_at_once_share_the_trials(
    make_queue: MakeQueue, url: str, tmp_path: Path, child: Child
) -> None:
    queue = make_queue(n_trials=25)
    processes = [child(CLAIMS, url, tmp_path) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        go(process)
    claimed = [[int(process.stdout.readline())] for process in processes]
    for process in processes:
        process.stdin.close()
    for numbers, process in zip(claimed, processes, strict=True):
        numbers += [int(line) for line in process.stdout]
    assert [process.wait() for process in processes] == [0] * 4
    assert sorted(itertools.chain(*claimed)) == list(range(25))
    assert Counter(states(queue)) == {"COMPLETE": 25}
    assert queue.is_done()


def test_what_has_ended_is_not_given_back(make_queue: MakeQueue, claim: Claim) -> None:
    queue = make_queue()
    trial = claim(queue)
    queue.study.tell(trial.number, 1.0)
    queue.give_back(trial.number)
    assert states(queue) == ["COMPLETE"]


def write_result(trial: FrozenTrial, **result: object) -> Path:
    file = Path(trial.user_attrs["folder"]) / RESULT
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"number": trial.number} | result))
    return file


@pytest.mark.parametrize("find", ["killed", "stopped", "failed"])
@pytest.mark.parametrize(
    ("state", "values"), [("COMPLETE", [0.75]), ("PRUNED", None)], ids=["complete", "pruned"]
)
def test_a_result_that_the_study_was_not_told_is_found_in_the_folder(
    *,
    find: str,
    state: str,
    values: list[float] | None,
    make_queue: MakeQueue,
    claim: Claim,
    kill: Kill,
) -> None:
    queue = make_queue()
    trial = claim(queue)
    write_result(trial, state=state, values=values)
    if find == "killed":
        kill(queue, trial)
    elif find == "stopped":
        queue.give_back(trial.number)
    else:
        queue.fail(trial.number, TuningError("the storage does not answer"))
    (found,) = queue.trials()
    assert (found.state.name, found.values) == (state, values)
    assert "error" not in found.user_attrs


@pytest.mark.parametrize("content", ['{"number": 7, "state": "COMPLETE"}', "[]", "{", ""])
def test_a_result_of_something_else_is_none(
    content: str, make_queue: MakeQueue, claim: Claim, kill: Kill
) -> None:
    queue = make_queue()
    trial = claim(queue)
    write_result(trial).write_text(content)
    kill(queue, trial)
    assert states(queue) == ["FAIL", "WAITING"]


def test_a_study_that_starts_over_finds_no_results_of_the_one_before(
    make_queue: MakeQueue, tmp_path: Path, claim: Claim
) -> None:
    # Its database was deleted; its folder was not.
    left = tmp_path / "sweep" / "trial_0"
    (left / "checkpoints").mkdir(parents=True)
    (left / "checkpoints" / "last.ckpt").touch()
    (left / RESULT).write_text('{"number": 0, "state": "COMPLETE", "values": [1.0]}')
    queue = make_queue()
    claim(queue)
    queue.queue_killed_again()
    assert states(queue) == ["RUNNING"]
    assert not left.exists()


def test_a_trial_that_nobody_signed_is_queued_again(
    make_queue: MakeQueue, claim: Claim
) -> None:
    queue = make_queue()
    # Its process was killed between two lines of `claim`.
    queue.study.ask()
    assert claim(queue).number == 1
    assert states(queue) == ["FAIL", "RUNNING"]


def test_parameters_that_cannot_be_drawn_leave_no_trial_behind(
    make_queue: MakeQueue, claim: Claim
) -> None:
    queue = make_queue()
    with pytest.raises(KeyboardInterrupt):
        queue.claim(interrupted)
    assert states(queue) == ["FAIL", "WAITING"]
    assert claim(queue).number == 1


def test_a_claim_is_repeated_when_the_storage_did_not_answer(
    make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_module, "_FIRST_PAUSE", 0.01)
    queue = make_queue(n_trials=1)
    failures = [StorageInternalError("in the commit")] * 2

    def flaky(trial: Trial) -> list[str]:
        if failures:
            raise failures.pop()
        return nothing(trial)

    trial = queue.claim(flaky)
    assert trial is not None
    assert [found.number for found in queue.trials() if found.state is TrialState.RUNNING] == [
        trial.number
    ]
    queue.study.tell(trial.number, 1.0)
    assert queue.is_done()


def test_a_failure_is_noted_once(make_queue: MakeQueue, claim: Claim) -> None:
    queue = make_queue()
    trial = claim(queue)
    queue.fail(trial.number, ZeroDivisionError("division by zero\nand more"))
    queue.fail(trial.number, ValueError("later"))
    (found,) = queue.trials()
    assert found.state is TrialState.FAIL
    assert found.user_attrs["error"] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("rate", "n_trials", "allowed"),
    [(0.0, 4, 0), (0.25, 4, 1), (0.5, 3, 1), (1.0, 2, 2), (0.58, 50, 29)],
)
def test_the_share_that_may_fail_is_of_the_whole_study(
    rate: float, n_trials: int, allowed: int, make_queue: MakeQueue
) -> None:
    queue = make_queue(n_trials=n_trials, max_failure_rate=rate)
    for _ in range(allowed):
        queue.fail(queue.study.ask().number, DataError("a.csv: empty"))
    queue.check_failures()
    if allowed == n_trials:
        return
    queue.fail(queue.study.ask().number, DataError("a.csv: empty"))
    with pytest.raises(TuningError, match=f"^{allowed + 1} of {n_trials} trials have failed"):
        queue.check_failures()


def test_reasons_are_grouped_the_most_frequent_first(make_queue: MakeQueue) -> None:
    queue = make_queue(n_trials=9)
    reasons = ["once", "often", "often", *(f"r{number}" for number in range(5)), "often"]
    for reason in reasons:
        queue.fail(queue.study.ask().number, DataError(reason))
    with pytest.raises(TuningError) as caught:
        queue.check_failures()
    message = str(caught.value)
    assert (
        "than sweep.max_failure_rate=0.25 allows: often (3 times); once; r0; r1; r2. "
        in message
    )
    assert "\n" not in message


def test_a_process_knows_itself_and_who_lives(child: Child, dead: str) -> None:
    host, pid, _ = own_id().split("/")
    assert int(pid) == os.getpid()
    assert is_alive(own_id())
    assert not is_alive(dead)
    assert is_alive("elsewhere.invalid/1/1.00")
    other = child("from fakenews.tuning.queue import own_id; print(own_id()); input()")
    assert is_alive(other.stdout.readline().strip())
    assert not is_alive(f"{host}/{other.pid}/1.00")  # its number was another's


def test_a_clock_that_was_set_kills_nobody(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = child("from fakenews.tuning.queue import own_id; print(own_id()); input()")
    name = process.stdout.readline().strip()
    before = psutil.boot_time()
    monkeypatch.setattr("psutil._psplatform.boot_time", lambda: before + 3600)
    assert is_alive(name)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DataError("a.csv: empty"), "a.csv: empty"),
        (DataError(["one", "two"]), "one; two"),
        (ValueError("first\nsecond"), "ValueError: first"),
        (ZeroDivisionError(), "ZeroDivisionError"),
    ],
)
def test_an_error_is_told_in_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line
