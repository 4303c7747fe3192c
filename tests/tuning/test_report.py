"""What is left of a sweep, whatever became of it."""

import html
import io
import json
import logging
import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.trial import TrialState, create_trial
from rich.console import Console

from fakenews.errors import TuningError
from fakenews.tuning.report import summary, write_report

HOSTILE = "<script>alert('x')</script> & \"$\\alpha$\""
LONG = [f"a.very.long.name.of.an.encoder/with-parts-{n}-{'x' * 30}" for n in range(15)]
SPACE = {
    "optimizer.lr": FloatDistribution(1e-6, 1e-2, log=True),
    "model": CategoricalDistribution(["text", "fusion", None, True]),
    "trainer.max_epochs": IntDistribution(1, 8),
}
OBJECTIVE = "val/average_precision"


def make(
    folder: Path, *, name: str = "news", objectives: Sequence[str] = (OBJECTIVE,)
) -> optuna.Study:
    study = optuna.create_study(
        study_name=name,
        storage=f"sqlite:///{folder}/optuna.db",
        directions=["minimize" if goal == "latency" else "maximize" for goal in objectives],
    )
    study.set_user_attr("name", name)
    study.set_user_attr("objectives", list(objectives))
    space = {key: distribution_to_json(found) for key, found in SPACE.items()}
    condition = {"model": space["model"] + ' when {"a": ["b"]}'}
    study.set_user_attr("space", space | condition | {"loader": "choice(memory, stream)"})
    return study


def add(
    study: optuna.Study,
    values: float | Sequence[float] | None,
    params: dict[str, Any] | None = None,
    *,
    space: dict[str, Any] = SPACE,
    state: TrialState = TrialState.COMPLETE,
    reported: Sequence[float] = (),
    **attributes: Any,
) -> None:
    params = {} if params is None else params
    study.add_trial(
        create_trial(
            state=state,
            values=[values] if isinstance(values, float) else values,
            params=params,
            distributions={key: space[key] for key in params},
            intermediate_values=dict(enumerate(reported, start=1)),
            user_attrs=attributes,
        )
    )


def point(number: int) -> dict[str, Any]:
    """A point of SPACE."""
    generator = random.Random(number)
    return {
        "optimizer.lr": 10.0 ** generator.uniform(-6, -2),
        "model": generator.choice(["text", "fusion", None, True]),
        "trainer.max_epochs": generator.randint(1, 8),
    }


def quality(params: dict[str, Any]) -> float:
    """Best at a learning rate of 1e-4, and slightly so with `fusion`."""
    distance = abs(math.log10(params["optimizer.lr"]) + 4)
    return 0.95 - 0.1 * distance + 0.01 * (params["model"] == "fusion")


def sweep(folder: Path, *, trials: int = 12, **options: Any) -> optuna.Study:
    study = make(folder, **options)
    for number in range(trials):
        params = point(number)
        value = quality(params)
        two = [value, 5.0 + 3 * params["trainer.max_epochs"]]
        add(
            study,
            value if len(study.directions) == 1 else two,
            params,
            reported=[value - 0.1, value] if len(study.directions) == 1 else [],
            overrides=[f"optimizer.lr={params['optimizer.lr']!r}"],
            folder=f"/runs/{number}",
            worker="host:1",
            steps=100 + number,
        )
    return study


def read(folder: Path) -> tuple[str, dict[str, Any], pd.DataFrame]:
    page = (folder / "report.html").read_text("utf-8")
    best = json.loads((folder / "best.json").read_text("utf-8"))
    return page, best, pd.read_csv(folder / "trials.csv", keep_default_na=False)


def text(page: str) -> str:
    """What a reader of the page sees."""
    body = page.split("</style>")[1]
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)))


def check_page(page: str, folder: Path) -> None:
    body = page.split("</head>")[1]
    opened = re.findall(r"<([a-z0-9]+)[ >]", f"<html {body}")
    closed = re.findall(r"</([a-z0-9]+)>", body)
    assert Counter(name for name in opened if name != "img") == Counter(closed)
    for link in re.findall(r'(?:src|href)="(?!data:)([^"]*)"', page):
        assert (folder / link).is_file(), link
    pictures = {path.stem for path in (folder / "plots").glob("*.png")}
    assert page.count("data:image/png;base64,") == len(pictures)
    assert {path.stem for path in (folder / "plots").glob("*.html")} == pictures


def test_report_of_a_sweep(tmp_path: Path) -> None:
    study = sweep(tmp_path)
    for number in (12, 13, 14):
        params = point(number)
        add(study, None, params, state=TrialState.PRUNED, reported=[0.3, 0.4])
    error = f"trial failed: {HOSTILE}"
    add(study, None, point(15), state=TrialState.FAIL, error=error, traceback="T\nX: 1")
    add(study, None, point(16), state=TrialState.FAIL, interrupted=True)
    add(study, None, point(17), state=TrialState.RUNNING, reported=[0.2])
    study.enqueue_trial(point(18))
    folder = tmp_path / "out"
    report = write_report(study, folder)
    assert (report.folder, report.page) == (folder, folder / "report.html")
    page, best, table = read(folder)
    check_page(page, folder)
    assert {path.stem for path in (folder / "plots").glob("*.png")} == {
        *("history", "importances", "intermediate_values", "parallel_coordinate", "slice")
    }
    expected = study.best_trial
    assert best["number"] == expected.number
    assert best["value"] == expected.value
    assert best["params"] == expected.params
    assert best["overrides"] == expected.user_attrs["overrides"]
    seen = text(page)
    assert "12 complete, 3 pruned, 1 failed, 1 running, 1 waiting" in seen
    assert "1 more were interrupted" in seen
    assert f"Parameters of trial {expected.number}, the best" in seen
    assert "1e-06 to 0.01, logarithmic" in seen
    assert 'text, fusion, null, true when {"a": ["b"]}' in seen
    assert f"Trial 15: {error}" in seen
    assert "T X: 1" in seen
    assert "loader" in table
    assert set(table["loader"]) == {""}
    assert "<script" not in page
    assert table["number"].tolist() == list(range(19))
    assert table["state"].tolist()[12:] == [
        *(["pruned"] * 3),
        "failed",
        "interrupted",
        "running",
        "waiting",
    ]
    assert table["error"][15] == error
    assert table["steps"].tolist()[:12] == [str(100 + number) for number in range(12)]
    assert table[OBJECTIVE].tolist()[12:] == [""] * 7
    assert [float(value) for value in table["optimizer.lr"][:12]] == [
        trial.params["optimizer.lr"] for trial in study.trials[:12]
    ]


def test_interactive_plots_need_no_network(tmp_path: Path) -> None:
    write_report(sweep(tmp_path), tmp_path / "out")
    plots = tmp_path / "out" / "plots"
    assert (plots / "plotly.min.js").stat().st_size > 1e6
    for path in plots.glob("*.html"):
        content = path.read_text("utf-8")
        assert 'src="plotly.min.js"' in content
        assert not re.search(r'(src|href)="(https?:)?//', content)
        assert len(content) < 1e6


def test_the_same_trials_give_the_same_page(tmp_path: Path) -> None:
    study = sweep(tmp_path)
    pages = [write_report(study, tmp_path / name).page.read_bytes() for name in ("one", "two")]
    assert pages[0] == pages[1]


def test_two_objectives(tmp_path: Path) -> None:
    study = sweep(tmp_path, objectives=[OBJECTIVE, "latency"], trials=30)
    report = write_report(study, tmp_path / "out")
    page, best, table = read(tmp_path / "out")
    check_page(page, tmp_path / "out")
    assert {path.stem for path in (tmp_path / "out" / "plots").glob("*.png")} == {
        *("pareto_front", "importances", "parallel_coordinate", "slice_1", "slice_2")
    }
    front = best["pareto_front"]
    assert {entry["number"] for entry in front} == {trial.number for trial in study.best_trials}
    assert [entry["values"][OBJECTIVE] for entry in front] == sorted(
        (table[OBJECTIVE].astype(float)[entry["number"]] for entry in front), reverse=True
    )
    assert "latency (ms)" in text(page)
    assert table["latency"].astype(float).min() >= 8
    assert "Pareto front" in shown(report.summary)
    # The latency follows from the epochs alone.
    row = re.search(r"<td>trainer.max_epochs</td><td>[\d.]+%</td><td>([\d.]+)%", page)
    assert row
    assert float(row[1]) > 90


def shown(renderable: Any, width: int = 100) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def _one(study: optuna.Study) -> None:
    add(study, 0.5, point(1), reported=[0.5])


def _two_equal(study: optuna.Study) -> None:
    add(study, 0.5, point(1))
    add(study, 0.5, point(2))


def _two(study: optuna.Study) -> None:
    add(study, 0.5, point(1))
    add(study, 0.6, point(2))


def _single_parameter(study: optuna.Study) -> None:
    for number in range(6):
        lr = point(number)["optimizer.lr"]
        add(study, number / 10, {"optimizer.lr": lr})


def _no_parameter(study: optuna.Study) -> None:
    add(study, 0.5)
    add(study, 0.6)


def _pruned(study: optuna.Study) -> None:
    for number in range(3):
        add(study, None, point(number), state=TrialState.PRUNED, reported=[0.1, 0.2])


def _failed(study: optuna.Study) -> None:
    for number in range(25):
        add(study, None, point(number), state=TrialState.FAIL, error=f"no {number}")
    add(study, None, state=TrialState.FAIL)


def _long_names(study: optuna.Study) -> None:
    space = {"encoder.name": CategoricalDistribution(LONG), "$x_1$": IntDistribution(0, 9)}
    for number in range(30):
        params = {"encoder.name": LONG[number * 7 % 15], "$x_1$": number % 10}
        add(study, number * 7 % 15 / 15, params, space=space)


def _conditional(study: optuna.Study) -> None:
    for number in range(12):
        params = point(number)
        if number % 3:
            del params["trainer.max_epochs"]
        add(study, quality(params), params)


def _not_finite(study: optuna.Study) -> None:
    add(study, math.inf, point(0), reported=[math.nan, 0.5, math.nan, 0.6])
    add(study, 0.5, point(1), reported=[math.nan])
    add(study, 0.6, point(2), reported=[math.inf, -math.inf])


def _one_value(study: optuna.Study) -> None:
    space = {"a": FloatDistribution(0.5, 0.5), "b": CategoricalDistribution(["only"])}
    for number in range(4):
        add(study, number / 4, {"a": 0.5, "b": "only"}, space=space)


@pytest.mark.parametrize(
    ("fill", "sentence", "plots"),
    [
        (lambda study: None, "No trial is complete yet", set()),
        (lambda study: study.enqueue_trial(point(0)), "1 trial: 1 waiting", set()),
        (_one, "judged when two trials are complete", {"history", "slice"}),
        (_two_equal, "have the same value", {"history", "parallel_coordinate", "slice"}),
        (_two, "2 trials: 2 complete", {"history", "parallel_coordinate", "slice"}),
        (_single_parameter, "optimizer.lr 100.0%", {"importances", "slice", "history"}),
        (_no_parameter, "No parameter has more than one value", {"history"}),
        (_pruned, "3 trials: 3 pruned", {"intermediate_values"}),
        (_failed, "The newest 20 of 26", set()),
        (_failed, "Trial 25: its process ended without a word", set()),
        (_long_names, LONG[3], {"importances", "slice", "history"}),
        (_conditional, "not judged: trainer.max_epochs", {"importances", "slice"}),
        (_not_finite, "3 trials: 3 complete", {"history", "intermediate_values"}),
        (_one_value, "No parameter has more than one value", {"slice", "history"}),
    ],
)
def test_whatever_became_of_it(
    tmp_path: Path, fill: Any, sentence: str, plots: set[str]
) -> None:
    study = make(tmp_path)
    fill(study)
    folder = tmp_path / "out"
    report = write_report(study, folder)
    page, best, table = read(folder)
    check_page(page, folder)
    assert sentence in text(page)
    found = {path.stem for path in (folder / "plots").glob("*.png")}
    assert found >= plots
    assert bool(found) == bool(plots)
    assert len(table) == len(study.trials)
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    assert (best["number"] is not None) == bool(complete)
    assert shown(report.summary) == shown(summary(study))
    assert ("Best: trial" in shown(report.summary)) == bool(complete)


def test_what_was_killed_and_repeated_is_no_failure(tmp_path: Path) -> None:
    study = make(tmp_path)
    add(study, None, point(0), state=TrialState.FAIL)
    repeated = create_trial(
        value=0.5,
        params=point(0),
        distributions=SPACE,
        system_attrs={"retry_history": [0], "failed_trial": 0},
    )
    study.add_trial(repeated)
    write_report(study, tmp_path / "out")
    page, _, table = read(tmp_path / "out")
    assert "1 trial: 1 complete." in text(page)
    assert table["state"].tolist() == ["interrupted", "complete"]


@pytest.mark.slow
def test_many_trials_stay_readable(tmp_path: Path) -> None:
    study = sweep(tmp_path, trials=230)
    write_report(study, tmp_path / "out")
    page, _, table = read(tmp_path / "out")
    assert len(table) == 230
    assert "The best 200 of 230; trials.csv has all." in text(page)
    rows = page.split('class="scroll trials"')[1].count("<tr")
    assert rows == 1 + 200
    numbers = re.findall(r"<tr[^>]*><td>(\d+)</td><td>complete</td><td>([\d.]+)", page)
    values = [float(value) for _, value in numbers]
    assert values == sorted(values, reverse=True)
    assert int(numbers[0][0]) == study.best_trial.number
    assert len(page) < 2e6


def test_a_report_replaces_the_older_one(tmp_path: Path) -> None:
    study = sweep(tmp_path, trials=3)
    write_report(study, tmp_path / "out")
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    add(study, 0.99, point(3))
    write_report(study, tmp_path / "out")
    page, best, _ = read(tmp_path / "out")
    assert best["number"] == 3
    assert "4 trials: 4 complete" in text(page)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before


def test_nothing_is_said_by_optuna_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    study = make(tmp_path)
    capfd.readouterr()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        write_report(study, tmp_path / "out")
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TuningError, match="file/out: cannot write the report of the sweep"):
        write_report(make(tmp_path), tmp_path / "file" / "out")
