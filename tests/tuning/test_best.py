"""The best trial as an experiment composes to the configuration of the trial."""

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from optuna.trial import create_trial

from fakenews.config import register_resolvers
from fakenews.errors import TuningError
from fakenews.tuning.best import MARK, experiment_text, write_best

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """The configuration, and groups of kinds that it does not have itself."""
    folder = tmp_path / "conf"
    shutil.copytree(CONF, folder)
    (folder / "encoder" / "pool").mkdir()
    for name in ("mean", "first"):
        (folder / "encoder" / "pool" / f"{name}.yaml").write_text(f"kind: {name}\n")
    path = folder / "train.yaml"
    nested = "  - encoder/pool: mean\n  - encoder@teacher: tiny\n  - model: fusion\n"
    path.write_text(path.read_text().replace("  - model: fusion\n", nested))
    return folder


@pytest.fixture
def composed(conf: Path) -> Iterator[Callable[..., tuple[Any, dict[str, str]]]]:
    def make(*overrides: str) -> tuple[Any, dict[str, str]]:
        # Opened anew: what was composed before is not looked at again.
        with initialize_config_dir(str(conf)):
            cfg = compose("train", overrides=list(overrides), return_hydra_config=True)
        choices = OmegaConf.to_container(cfg.hydra.runtime.choices)
        content = OmegaConf.to_container(cfg, resolve=False)
        content.pop("hydra")
        for name in ("experiment", "debug"):
            choices.pop(name)
        return content, choices

    register_resolvers()
    return make


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["optimizer.lr=3e-05", "optimizer.weight_decay=0", "optimizer.eps=1.5E-9"],
        ["optimizer=adam", "scheduler=cosine", "model=text", "callbacks=ema"],
        ["experiment=tutorial", "optimizer.lr=1e-4"],
        ["optimizer=adamw", "experiment=tutorial", "model.layer_decay=0.5"],
        ["debug=one_batch", "trainer.max_epochs=2"],
        ["debug=overfit", "experiment=tutorial", "scheduler=cosine", "loader.batch_size=8"],
        ["data=csv", "data.path=news.csv", "data.numeric=[age,followers]"],
        ["data=csv", "data.path='a, b: #c.csv'", "data.label_names={0: fake, 1: real}"],
        ["loader=stream", "data=shards", "data.path=s3://bucket/news"],
        ["trainer.max_time=00:01:00:00", "trainer.precision=bf16-mixed"],
        ["+trainer.fast_dev_run=true", "++trainer.max_epochs=7", "++trainer.new.deep=1"],
        ["seed=7", "data.seed=${seed}", "name=${data.text}-x", "metric=val/macro_f1"],
        ["name='1e-3'", "data.text='null'", "data.label='true'"],
        ['name="3"', "data.text=2020-01-01", "data.label='~'"],
        [r"name=a\,\ b", r"""data.text='it\'s'""", "data.label=yes"],
        ["data.text='first\nsecond'", "data.label=", "data.positive=null"],
        ["optimizer.betas=[0.8,0.95]", "callbacks.early_stopping.patience=5"],
        ["model.network.dropout=0.2", "model={layer_decay: 1, head_lr_scale: 2.5}"],
        ["model={layer_decay: 1}", "model.layer_decay=0.25", "+model.x={a: [1, {b: null}]}"],
        ["optimizer.lr=.inf", "optimizer.eps=1_000", "optimizer.weight_decay=1_0.5"],
        ["optimizer.lr=inf", "data.max_chars=-3", "optimizer.weight_decay=-1e5"],
        ["encoder/pool=first", "encoder@teacher=hub", "teacher.name=bert"],
        ["+optimizer@second=adam", "second.lr=0.5", "+scheduler@third=cosine"],
        ["loader.batch_size=16", "loader.batch_size=64"],
        ["data.path=${oc.env:HOME}/x.csv", "data=csv"],
    ],
)
def test_experiment_composes_as_the_overrides_do(
    overrides: list[str], conf: Path, composed: Callable[..., tuple[Any, dict[str, str]]]
) -> None:
    text = experiment_text(overrides, conf=conf, comment="Of a test.")
    (conf / "experiment" / "x_best.yaml").write_text(text)
    assert composed("experiment=x_best") == composed(*overrides)


def test_a_value_below_a_reference_is_used_where_it_was_given(
    conf: Path, composed: Callable[..., tuple[Any, dict[str, str]]]
) -> None:
    text = experiment_text(["model.optimizer.lr=0.5", "optimizer=adam"], conf=conf, comment="")
    (conf / "experiment" / "x_best.yaml").write_text(text)
    expected, _ = composed("model.optimizer.lr=0.5", "optimizer=adam")
    found, _ = composed("experiment=x_best")
    assert expected["model"]["optimizer"] == "${optimizer}"
    assert found["model"]["optimizer"] == expected["optimizer"]


def test_what_is_not_of_the_trial_is_left_out(
    conf: Path, composed: Callable[..., tuple[Any, dict[str, str]]]
) -> None:
    others = [
        *("sweep=default", "sweep/pruner=median", "+sweep.trials=3", "hydra.verbose=true"),
        *("hydra/launcher=basic", "paths.runs=/tmp", "logger=none", "logger.timeout=3"),
        *("resume=auto", "test=false", "register=null", "+bundle=false", "paths=default"),
    ]
    text = experiment_text([*others, "seed=3"], conf=conf, comment="")
    assert yaml.safe_load(text) == {"seed": 3}
    (conf / "experiment" / "x_best.yaml").write_text(text)
    assert composed("experiment=x_best") == composed("seed=3")


def test_what_no_file_can_say_is_named(conf: Path) -> None:
    unsaid = [
        *("~callbacks.early_stopping", "optimizer.betas[0]=0.5", "optimizer.betas.1=0.6"),
        *(r"data.a\.b=1", "~debug", "seed=1,2"),
    ]
    text = experiment_text([*unsaid, "name=a", "+name.below=b"], conf=conf, comment="One\nTwo")
    assert yaml.safe_load(text) in ({"name": "a"}, {"name": {"below": "b"}})
    lines = text.splitlines()
    assert lines[:4] == ["# @package _global_", MARK, "# One", "# Two"]
    assert "on the command line" in lines[4]
    assert lines[5 : 5 + len(unsaid)] == [f"#   {given}" for given in unsaid]


# A training in this process may have switched subnormal numbers off.
@given(st.floats(allow_nan=False, allow_subnormal=False))
def test_floats_come_back_to_the_bit(value: float) -> None:
    text = experiment_text([f"optimizer.lr={value!r}"], conf=CONF, comment="")
    found = OmegaConf.create(text).optimizer.lr
    assert isinstance(found, float)
    assert found == value


def _study(folder: Path, *, name: str = "news", directions: tuple[str, ...] = ("maximize",)):
    study = optuna.create_study(
        study_name=name, storage=f"sqlite:///{folder}/optuna.db", directions=directions
    )
    study.set_user_attr("name", name)
    study.set_user_attr("objectives", ["val/average_precision", "latency"][: len(directions)])
    return study


def _add(study: optuna.Study, values: list[float], *overrides: str, **attributes: Any) -> None:
    attributes = {"overrides": list(overrides)} | attributes
    study.add_trial(create_trial(values=values, user_attrs=attributes))


def test_best_is_written_and_replaced(
    tmp_path: Path, conf: Path, composed: Callable[..., tuple[Any, dict[str, str]]]
) -> None:
    study = _study(tmp_path, name="news-1.b")
    assert write_best(study, conf) is None
    _add(study, [0.5], "optimizer.lr=1e-4")
    _add(study, [0.75], "optimizer.lr=2e-4", "model=text")
    path = write_best(study, conf)
    assert path == conf / "experiment" / "news-1.b_best.yaml"
    text = path.read_text()
    assert "news-1.b: trial 1, val/average_precision 0.75." in text
    assert "# python train.py experiment=news-1.b_best\n" in text
    assert composed("experiment=news-1.b_best") == composed("optimizer.lr=2e-4", "model=text")
    _add(study, [0.8], "optimizer.lr=3e-4")
    assert write_best(study, conf) == path
    assert composed("experiment=news-1.b_best") == composed("optimizer.lr=3e-4")
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == []


def test_of_a_front_it_is_the_best_in_the_first_objective(tmp_path: Path, conf: Path) -> None:
    study = _study(tmp_path, directions=("maximize", "minimize"))
    _add(study, [0.7, 5.0], "seed=1")
    _add(study, [0.9, 20.0], "seed=2")
    _add(study, [0.9, 30.0], "seed=3")
    path = write_best(study, conf)
    assert path is not None
    assert yaml.safe_load(path.read_text()) == {"seed": 2}
    assert "trial 1, val/average_precision 0.9, latency 20." in path.read_text()


def test_a_file_of_somebody_else_stays(
    tmp_path: Path, conf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = conf / "experiment" / "news_best.yaml"
    path.write_text("# @package _global_\nseed: 5\n")
    study = _study(tmp_path)
    _add(study, [0.5], "seed=1")
    with caplog.at_level(logging.WARNING):
        assert write_best(study, conf) is None
    assert path.read_text() == "# @package _global_\nseed: 5\n"
    message = f"{path} is not written: there is a file that no sweep has written"
    assert caplog.record_tuples[-1][1:] == (logging.WARNING, message)


@pytest.mark.parametrize(
    ("trial", "reason"),
    [
        (("news", ["experiment=news_best", "seed=1"]), "builds on it"),
        (("news", ["experiment=[tutorial,news_best]"]), "builds on it"),
        (("../news", ["seed=1"]), "name is none of an experiment"),
        (("news", None), "does not say its options"),
    ],
)
def test_what_cannot_be_an_experiment_is_logged(
    tmp_path: Path,
    conf: Path,
    caplog: pytest.LogCaptureFixture,
    trial: tuple[str, list[str] | None],
    reason: str,
) -> None:
    name, overrides = trial
    before = {path: path.read_text() for path in conf.rglob("*.yaml")}
    study = _study(tmp_path, name=name)
    _add(study, [0.5], overrides=overrides)
    with caplog.at_level(logging.WARNING):
        assert write_best(study, conf) is None
    assert reason in caplog.text
    assert {path: path.read_text() for path in conf.rglob("*.yaml")} == before


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path, conf: Path) -> None:
    (conf / "experiment" / "news_best.yaml").mkdir()
    study = _study(tmp_path)
    _add(study, [0.5], "seed=1")
    with pytest.raises(TuningError, match=r"news_best\.yaml cannot be written: Is a directory"):
        write_best(study, conf)
