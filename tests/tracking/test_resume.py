"""Options of a resumed run against those it was started with."""

from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from fakenews.errors import TrainingError
from fakenews.tracking.resume import changed_options, refuse_changes

OPTIONS = {
    "seed": 0,
    "resume": None,
    "data": {"path": "a.csv", "val_size": 0.1, "label_names": None, "cache_dir": "${cache}"},
    "features": {"numeric": "${data.numeric}", "processes": 1},
    "loader": {"batch_size": 8, "num_workers": 0, "seed": "${seed}"},
    "encoder": {"gradient_checkpointing": False},
    "model": {
        "optimizer": "${optimizer}",
        "network": {"hidden_size": 4, "dropout": 0.1},
        "file": "${cache}/x",
    },
    "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.1, "betas": [0.9, 0.999]},
    "trainer": {"max_time": None, "max_epochs": 3},
    "callbacks": {"stop": {"max_time": "${trainer.max_time}"}},
    "cache": "cache",
}


def options(*changes: str) -> DictConfig:
    cfg = OmegaConf.create(OPTIONS)
    OmegaConf.update(cfg, "data.numeric", ["age"])
    for change in changes:
        key, _, value = change.partition("=")
        OmegaConf.update(cfg, key, yaml.safe_load(value))
    return cfg


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    resolved = OmegaConf.to_container(options(), resolve=True)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(resolved))
    return tmp_path


def test_the_same_options_are_no_change(folder: Path) -> None:
    cfg = options("resume=auto", "trainer.max_time=00:01:00:00")
    refuse_changes(cfg, folder)
    assert changed_options(cfg, folder) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("seed=1", "seed=1 (before: 0)"),
        ("data.val_size=0.2", "data.val_size=0.2 (before: 0.1)"),
        ("data.numeric=[age, size]", 'data.numeric=["age", "size"] (before: ["age"])'),
        ("loader.batch_size=16", "loader.batch_size=16 (before: 8)"),
        ("model.network.hidden_size=8", "model.network.hidden_size=8 (before: 4)"),
        (
            "optimizer._target_=torch.optim.Adam",
            "optimizer._target_=torch.optim.Adam (before: torch.optim.AdamW)",
        ),
    ],
)
def test_what_a_checkpoint_does_not_fit_is_refused_once_where_it_is_written(
    change: str, told: str, folder: Path
) -> None:
    with pytest.raises(TrainingError) as caught:
        refuse_changes(options(change), folder)
    assert str(caught.value) == (
        f"a run cannot be resumed with {told}: repeat its settings, or start without resume"
    )


def test_all_are_told_together(folder: Path) -> None:
    with pytest.raises(TrainingError, match=r"seed=1 \(.*, loader\.batch_size=4 \(before: 8\)"):
        refuse_changes(options("seed=1", "loader.batch_size=4", "optimizer.lr=1"), folder)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("optimizer.lr=0.2", "optimizer.lr"),
        ("optimizer.betas=[0.8, 0.9]", "optimizer.betas"),
        ("data.path=moved/a.csv", "data.path"),
        ("model.network.dropout=0.2", "model.network.dropout"),
        ("features.processes=2", "features.processes"),
        ("encoder.gradient_checkpointing=true", "encoder.gradient_checkpointing"),
        ("loader.num_workers=2", "loader.num_workers"),
        ("trainer.max_epochs=5", "trainer.max_epochs"),
    ],
)
def test_what_may_change_is_named_once(change: str, name: str, folder: Path) -> None:
    refuse_changes(options(change), folder)
    assert changed_options(options(change), folder) == [name]


def test_options_that_came_and_went(folder: Path) -> None:
    cfg = options("seed=0")
    del cfg.optimizer["betas"]
    OmegaConf.update(cfg, "loader.window_rows", 5, force_add=True)
    refuse_changes(cfg, folder)
    assert changed_options(cfg, folder) == ["loader.window_rows", "optimizer.betas"]


def test_what_cannot_be_resolved_yet_is_no_change(folder: Path) -> None:
    cfg = options("loader.num_workers=${nowhere:}/x")
    cfg.hydra = {"run": {"dir": "${nowhere:}"}}
    refuse_changes(cfg, folder)
    assert changed_options(cfg, folder) == []


@pytest.mark.parametrize("content", [None, "", "data: {path: ["])
def test_a_configuration_that_was_cut_off_stops_nothing(
    content: str | None, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "config.yaml").write_text(content)
    refuse_changes(options("seed=1"), tmp_path)
