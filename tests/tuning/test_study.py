"""A study goes on with what it was started with, and with nothing else."""

from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from omegaconf import DictConfig, OmegaConf
from optuna.pruners import MedianPruner, NopPruner
from optuna.storages import RDBStorage
from optuna.study import Study, StudyDirection
from optuna.trial import TrialState

from fakenews.errors import TuningError
from fakenews.tuning.space import read_space
from fakenews.tuning.study import directions, find_study, open_study

PARAMS = {"optimizer.lr": "interval(0, 1)", "model": "choice(fusion, text)"}

CONFIG = {
    "name": "news-${model.kind}",
    "seed": 0,
    "metric": "val/auroc",
    "threads": None,
    "data": {"path": "news.csv", "label_names": {0: "real", 1: "fake"}, "numeric": []},
    "model": {"kind": "fusion", "network": {"hidden": 64}},
    "modelling": True,
    "optimizer": {"lr": 0.1, "weight_decay": 0.01},
    "loader": {"num_workers": 2, "pin_memory": False, "batch_size": 32},
    "trainer": {"max_epochs": 3, "devices": 1, "num_nodes": 1, "accelerator": "cpu"},
    "callbacks": {"bar": {"refresh_rate": 1}},
    "paths": {"root": "/here", "runs": "${paths.root}/runs"},
    "logger": {"tracking_uri": "sqlite:///mlflow.db"},
    "sweep": {"study": "news", "workers": 1, "objectives": ["${metric}"], "n_trials": 3},
}


def config(**values: Any) -> DictConfig:
    cfg = OmegaConf.create(CONFIG)
    for name, value in values.items():
        OmegaConf.update(cfg, name.replace("__", "."), value)
    return cfg


def find(
    storage: RDBStorage, cfg: DictConfig | None = None, params: Mapping[str, Any] = PARAMS
) -> Study | None:
    return find_study(storage, cfg or config(), read_space(params, {}, []))


def started(
    storage: RDBStorage,
    cfg: DictConfig | None = None,
    params: Mapping[str, Any] = PARAMS,
    *,
    trials: int = 1,
) -> Study:
    study = open_study(storage, cfg or config(), read_space(params, {}, []), pruner=NopPruner())
    for _ in range(trials):
        study.ask()
    return study


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(TuningError) as caught:
        find(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("objectives", "expected"),
    [
        (["${metric}"], ["maximize"]),
        (["val/log_loss"], ["minimize"]),
        (["${metric}", "latency"], ["maximize", "minimize"]),
        (["latency", "val/macro_f1"], ["minimize", "maximize"]),
    ],
)
def test_less_latency_and_loss_are_better(objectives: list[str], expected: list[str]) -> None:
    assert directions(config(sweep__objectives=objectives)) == expected


def test_a_study_is_found_once_it_has_trials(storage: RDBStorage) -> None:
    assert find(storage) is None
    started(storage, trials=0)
    assert find(storage) is None
    started(storage)
    found = find(storage)
    assert found is not None
    assert [trial.number for trial in found.trials] == [0]


def test_a_study_is_opened_with_what_it_searches(storage: RDBStorage) -> None:
    pruner = MedianPruner()
    cfg = config(sweep__objectives=["val/auroc", "latency"])
    study = open_study(storage, cfg, read_space(PARAMS, {}, []), pruner=pruner)
    assert study.study_name == "news"
    assert study.pruner is pruner
    assert study.directions == [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    assert study.user_attrs["objectives"] == ["val/auroc", "latency"]
    assert study.user_attrs["space"] == {
        "model": "choice(fusion, text)",
        "optimizer.lr": "interval(0.0, 1.0)",
    }
    # What is searched, what changes no result, and what only refers to others is no setting.
    assert study.user_attrs["settings"] == {
        "seed": 0,
        "metric": "val/auroc",
        "data.path": "news.csv",
        "data.label_names.0": "real",
        "data.label_names.1": "fake",
        "data.numeric": [],
        "modelling": True,
        "optimizer.weight_decay": 0.01,
        "loader.batch_size": 32,
        "trainer.max_epochs": 3,
        "trainer.accelerator": "cpu",
    }


def test_opened_again_it_goes_on(storage: RDBStorage) -> None:
    started(storage)
    again = started(storage)
    assert [trial.number for trial in again.trials] == [0, 1]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"seed": 1}, "seed=0 (now: 1)"),
        ({"data__path": "other.csv"}, "data.path=news.csv (now: other.csv)"),
        ({"data__numeric": ["age"]}, "data.numeric=[] (now: ['age'])"),
        ({"loader__batch_size": 8}, "loader.batch_size=32 (now: 8)"),
        ({"optimizer__weight_decay": 0.1}, "optimizer.weight_decay=0.01 (now: 0.1)"),
        ({"optimizer__eps": 1e-6}, "optimizer.eps=None (now: 1e-06)"),
        ({"modelling": False}, "modelling=True (now: False)"),
    ],
)
def test_another_setting_is_refused_with_both_values(
    changes: dict[str, Any], fault: str, storage: RDBStorage
) -> None:
    started(storage)
    message = refusal(storage, config(**changes))
    assert message.startswith(f"the study news was searched with {fault}: its trials cannot")
    assert message.endswith("repeat its settings, or start another with sweep.study=NAME")


@pytest.mark.parametrize(
    ("params", "fault"),
    [
        ({"optimizer.lr": "interval(0, 2)"}, "interval(0.0, 1.0) (now: interval(0.0, 2.0))"),
        ({"model": None}, "model=choice(fusion, text) (now: None)"),
        ({"seed": "range(3)"}, "seed=None (now: int(interval(0, 2)))"),
    ],
)  # fmt: skip
def test_another_space_is_refused_with_both_values(
    params: dict[str, Any], fault: str, storage: RDBStorage
) -> None:
    started(storage)
    assert fault in refusal(storage, params=PARAMS | params)


def test_another_condition_is_refused(storage: RDBStorage) -> None:
    started(storage)
    space = read_space(PARAMS, {"optimizer.lr": {"model": "text"}}, [])
    with pytest.raises(TuningError, match=r'now: interval\(0.0, 1.0\) when {"model": \["text"'):
        find_study(storage, config(), space)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (["val/auroc"], ["val/auroc", "latency"]),
        (["val/auroc", "latency"], ["latency", "val/auroc"]),
        # Both to be maximised.
        (["val/auroc"], ["val/macro_f1"]),
    ],
)
def test_other_objectives_are_refused_with_both(
    before: list[str], now: list[str], storage: RDBStorage
) -> None:
    started(storage, config(sweep__objectives=before))
    message = refusal(storage, config(sweep__objectives=now))
    assert f"sweep.objectives={before} (now: {now})" in message


def test_many_changes_are_counted(storage: RDBStorage) -> None:
    started(storage)
    many = {f"data__new{number}": 1 for number in range(7)}
    message = refusal(storage, config(**many))
    assert "data.new4=None (now: 1); and 2 more: its" in message
    assert "data.new5" not in message


@pytest.mark.parametrize(
    "changes",
    [
        {"paths__root": "/there"},
        {"logger__tracking_uri": "http://server"},
        {"threads": 4},
        {"sweep__n_trials": 100, "sweep__workers": 8},
        {"loader__num_workers": 0, "loader__pin_memory": True},
        {"trainer__devices": 2, "trainer__num_nodes": 2},
        {"callbacks__bar__refresh_rate": 5},
        # The space says what they are.
        {"optimizer__lr": 0.5, "model": {"kind": "text"}},
    ],
)
def test_what_changes_no_result_may_change(
    changes: dict[str, Any], storage: RDBStorage
) -> None:
    started(storage)
    found = find(storage, config(**changes))
    assert found is not None
    assert found.study_name == "news"


def test_a_study_without_trials_may_become_another(storage: RDBStorage) -> None:
    started(storage, trials=0)
    cfg = config(seed=1, sweep__objectives=["val/auroc", "latency"])
    study = started(storage, cfg, {"seed": "range(3)"})
    assert study.user_attrs["space"] == {"seed": "int(interval(0, 2))"}
    assert study.user_attrs["objectives"] == ["val/auroc", "latency"]
    assert study.directions == [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    assert find(storage, cfg, {"seed": "range(3)"}) is not None


def test_a_study_that_became_another_keeps_its_name_and_run(storage: RDBStorage) -> None:
    started(storage, trials=0).set_user_attr("mlflow_run_id", "abc")
    study = started(storage, config(seed=1), trials=0)
    assert study.user_attrs["mlflow_run_id"] == "abc"
    assert len(storage.get_all_studies()) == 1


def test_a_study_that_another_process_has_started_is_refused_when_opened(
    storage: RDBStorage,
) -> None:
    started(storage)
    with pytest.raises(TuningError, match=r"seed=0 \(now: 1\)"):
        started(storage, config(seed=1))
    assert find(storage) is not None


def test_studies_of_other_names_do_not_matter(storage: RDBStorage) -> None:
    started(storage)
    assert find(storage, config(seed=1, sweep__study="other")) is None
    other = started(storage, config(seed=1, sweep__study="other"))
    assert other.study_name == "other"
    assert [trial.state for trial in other.trials] == [TrialState.RUNNING]


def test_a_study_of_someone_else_is_refused(storage: RDBStorage) -> None:
    foreign = optuna.create_study(study_name="news", storage=storage, direction="maximize")
    foreign.ask()
    message = refusal(storage)
    assert "sweep.objectives=None (now: ['val/auroc']); model=None (now: choice" in message
