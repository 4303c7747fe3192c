"""What a sweep shows while it runs: lines of trials that ended, or a live table."""

import io
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial
from rich.console import Console

from fakenews.errors import DataError
from fakenews.tuning.queue import TrialQueue
from fakenews.tuning.table import Watch, table

MakeQueue = Callable[..., TrialQueue]
Kill = Callable[[TrialQueue, FrozenTrial], None]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What has been said since this was last asked."""
    caplog.set_level(logging.INFO, "fakenews.tuning.table")

    def found() -> list[str]:
        messages = [record.getMessage() for record in caplog.records if "table" in record.name]
        caplog.clear()
        return messages

    return found


def claim(queue: TrialQueue) -> FrozenTrial:
    trial = queue.claim(
        lambda trial: [
            f"lr={trial.suggest_float('optimizer.lr', 1e-5, 1e-5)}",
            f"model={trial.suggest_categorical('model', ['fusion'])}",
        ]
    )
    assert trial is not None
    return trial


KILLED = "its process was killed again and again"
PARAMS = "(optimizer.lr=1e-05 model=fusion)"


def test_each_trial_that_ends_is_a_line(
    make_queue: MakeQueue, kill: Kill, lines: Callable[[], list[str]]
) -> None:
    queue = make_queue(n_trials=9)
    watch = Watch(queue, objectives=["val/auroc"])
    watch.update()
    assert lines() == []
    queue.study.tell(claim(queue).number, 0.5)
    watch.update()
    assert lines() == [f"trial 0 complete 0.5000 {PARAMS}; 1/9; best 0.5000, trial 0"]
    pruned = claim(queue)
    queue.storage.set_trial_intermediate_value(pruned._trial_id, 1, 0.25)
    queue.study.tell(pruned.number, state=TrialState.PRUNED)
    queue.study.tell(claim(queue).number, state=TrialState.PRUNED)
    queue.fail(claim(queue).number, DataError("a.csv: empty"))
    queue.give_back(claim(queue).number)
    watch.update()
    assert lines() == [
        f"trial 1 pruned 0.2500 {PARAMS}; 4/9; best 0.5000, trial 0",
        f"trial 2 pruned {PARAMS}; 4/9; best 0.5000, trial 0",
        f"trial 3 failed: a.csv: empty {PARAMS}; 4/9; best 0.5000, trial 0",
        f"trial 4 stopped {PARAMS}; 4/9; best 0.5000, trial 0",
    ]
    for _ in range(3):
        kill(queue, claim(queue))
    watch.update()
    assert lines() == [
        f"trial 5 stopped {PARAMS}; 5/9; best 0.5000, trial 0",
        f"trial 6 stopped {PARAMS}; 5/9; best 0.5000, trial 0",
        f"trial 7 failed: {KILLED} {PARAMS}; 5/9; best 0.5000, trial 0",
    ]
    watch.update()
    assert lines() == []
    assert watch.ended == 8


def test_what_ended_before_is_not_told_again(
    make_queue: MakeQueue, lines: Callable[[], list[str]]
) -> None:
    queue = make_queue()
    queue.study.tell(claim(queue).number, 0.5)
    running = claim(queue)
    watch = Watch(queue, objectives=["val/auroc"])
    assert watch.ended == 1
    queue.study.tell(running.number, 0.25)
    watch.update()
    assert lines() == [f"trial 1 complete 0.2500 {PARAMS}; 2/3; best 0.5000, trial 0"]
    assert watch.ended == 2


@pytest.mark.parametrize(
    ("direction", "best"), [("maximize", "0.7500, trial 1"), ("minimize", "0.2500, trial 2")]
)
def test_the_best_is_the_most_or_the_least(
    direction: str, best: str, lines: Callable[[], list[str]]
) -> None:
    watch = watched([direction])
    assert lines() == []
    for value in (0.5, 0.75, 0.25, 0.6):
        watch._queue.study.add_trial(create_trial(value=value))
    watch.update()
    assert all(line.endswith(f"best {best}") for line in lines())


def test_several_objectives_have_no_best(lines: Callable[[], list[str]]) -> None:
    watch = watched(["maximize", "minimize"])
    watch._queue.study.add_trial(create_trial(values=[0.5, 12.0]))
    watch.update()
    assert lines() == ["trial 0 complete 0.5000, 12.0000 (); 1/4"]


class Queue:
    """Of a study in memory."""

    n_trials = 4

    def __init__(self, study: Study) -> None:
        self.study = study

    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials()


def watched(directions: Sequence[str], console: Console | None = None) -> Watch:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=directions)
    names = ["val/auroc", "latency"][: len(directions)]
    return Watch(Queue(study), objectives=names, console=console)


def shown(
    trials: Sequence[FrozenTrial],
    *,
    objectives: Sequence[str] = ("val/auroc",),
    best: FrozenTrial | None = None,
) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=200)
    console.print(table(trials, n_trials=500, objectives=objectives, best=best))
    lines: str = console.file.getvalue()
    return [line.split() for line in lines.splitlines() if line.strip(" ─")]


START = datetime(2024, 1, 1, 12)  # noqa: DTZ001 Optuna's have no zone


def trial(number: int, state: TrialState, value: float | None = None, **more) -> FrozenTrial:
    running = state is TrialState.RUNNING
    return FrozenTrial(
        **{
            "number": number,
            "trial_id": number,
            "state": state,
            "value": value,
            "datetime_start": None if state is TrialState.WAITING else START,
            "datetime_complete": None if running else START + timedelta(seconds=65),
            "params": {},
            "distributions": {},
            "user_attrs": {},
            "system_attrs": {},
            "intermediate_values": {},
        }
        | more
    )


def test_the_table_has_states_values_and_parameters() -> None:
    space = {
        "optimizer.lr": FloatDistribution(0, 1),
        "model": CategoricalDistribution(["text"]),
    }
    best = trial(
        0,
        TrialState.COMPLETE,
        0.75,
        params={"optimizer.lr": 0.000123456, "model": "text"},
        distributions=space,
        intermediate_values={1: 0.5, 2: 0.75},
    )
    fail = trial(
        2,
        TrialState.FAIL,
        params={"model": "text"},
        distributions={"model": space["model"]},
        user_attrs={"error": "a.csv: empty"},
    )
    pruned = trial(1, TrialState.PRUNED, 0.25, intermediate_values={1: 0.25})
    title, heading, *rows = shown([best, pruned, fail], best=best)
    assert title == ["3", "of", "500", "trials,", "0", "running"]
    assert heading == ["Trial", "State", "val/auroc", "Validations", "Time", "lr", "model"]
    assert rows == [
        ["0", "complete", "0.7500", "2", "0:01:05", "0.000123", "text"],
        ["1", "pruned", "0.2500", "1", "0:01:05"],
        ["2", "fail", "0:01:05", "text"],
    ]


def test_a_running_trial_shows_its_last_report_and_a_waiting_one_nothing() -> None:
    running = trial(0, TrialState.RUNNING, intermediate_values={1: 0.5, 3: 0.625, 2: 0.75})
    title, _, first, second = shown([running, trial(1, TrialState.WAITING)])
    assert title == ["0", "of", "500", "trials,", "1", "running"]
    assert first[:4] == ["0", "running", "0.6250", "3"]
    assert second == ["1", "waiting"]


def test_two_objectives_are_two_columns() -> None:
    found = trial(0, TrialState.COMPLETE, None, values=[0.75, 12.5])
    _, heading, row = shown([found], objectives=["val/auroc", "latency"])
    assert heading[:4] == ["Trial", "State", "val/auroc", "latency"]
    assert row[:4] == ["0", "complete", "0.7500", "12.5000"]


def test_of_many_trials_the_latest_are_shown() -> None:
    many = [trial(number, TrialState.COMPLETE, number / 1000) for number in range(300)]
    title, _, *rows = shown(many, best=many[7])
    assert title[0] == "300"
    assert [row[0] for row in rows] == [str(number) for number in range(280, 300)]


def test_a_terminal_has_a_table_that_leaves_nothing_behind() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    watch = watched(["maximize"], console)
    watch._queue.study.add_trial(create_trial(value=0.5))
    with watch as entered:
        assert entered is watch
        assert watch._live.is_started
    assert not watch._live.is_started
    text, _, left = console.file.getvalue().rpartition("complete")
    assert "1 of 4 trials, 0 running" in text
    assert left.endswith("\x1b[2K")  # it is erased, line by line


def test_a_file_has_no_table() -> None:
    console = Console(file=io.StringIO())
    with watched(["maximize"], console) as watch:
        watch.update()
    assert console.file.getvalue() == ""


def test_a_table_of_a_study_that_does_not_answer_says_so() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    watch = watched(["maximize"], console)
    del watch._queue.study
    with watch:
        pass
    assert "the study cannot be reached" in console.file.getvalue()
