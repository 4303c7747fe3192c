"""What a wrong sweep is told, and that every sweep of `conf/` is right."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from fakenews.config import check, plain
from fakenews.errors import ConfigError
from fakenews.rules import sweep_rules, training_rules, world_size
from fakenews.tuning.space import read_space
from fakenews.tuning.study import directions

CONF = Path(__file__).resolve().parents[1] / "conf"
SWEEPS = sorted(path.stem for path in (CONF / "sweep").glob("[!_]*.yaml"))
PRUNERS = sorted(path.stem for path in (CONF / "sweep" / "pruner").glob("*.yaml"))

Composed = Callable[..., DictConfig]
Faults = Callable[..., list[str]]


@pytest.fixture
def faults(composed: Composed) -> Faults:
    def find(*overrides: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            check(composed("sweep=random", *overrides), rules=training_rules)
        return list(caught.value.faults)

    return find


def test_there_is_a_sweep_for_each_need() -> None:
    assert {"optuna", "random", "grid", "nsga2"} <= set(SWEEPS)
    assert {"median", "none"} <= set(PRUNERS)


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_sweep_fits_and_can_be_searched(sweep: str, composed: Composed) -> None:
    cfg = composed(f"sweep={sweep}", "name=news")
    check(cfg, rules=training_rules)
    assert cfg.sweep.study == f"news-{sweep}"
    space = read_space(plain(cfg.sweep.params), plain(cfg.sweep.when), [])
    assert "optimizer.lr" in space.distributions
    assert len(directions(cfg)) == len(cfg.sweep.objectives)
    # A sweep never looks at the test split.
    assert (cfg.test, cfg.register, cfg.bundle) == (False, None, False)


def test_a_grid_counts_its_points_itself(composed: Composed) -> None:
    cfg = composed("sweep=grid")
    assert cfg.sweep.n_trials is None
    grid = read_space(plain(cfg.sweep.params), {}, []).grid()
    assert [len(values) for values in grid.values()] == [3, 2]


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_pruner_is_chosen_by_its_short_name(pruner: str, composed: Composed) -> None:
    cfg = composed("sweep=random", f"sweep.pruner={pruner}")
    check(cfg, rules=training_rules)
    expected = OmegaConf.load(CONF / "sweep" / "pruner" / f"{pruner}.yaml")._target_
    assert cfg.sweep.pruner._target_ == expected


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("sweep.n_trials=0", "sweep.n_trials=0: it should be greater than or equal to 1"),
        ("sweep.n_trials=many", "sweep.n_trials='many': it should be a valid integer"),
        ("sweep.n_trials=null", "sweep.n_trials=null is for sweep=grid: give the number"),
        ("sweep.workers=0", "sweep.workers=0: it should be greater"),
        ("sweep.ranks=1.5", "sweep.ranks=1.5: it should be a valid integer"),
        ("sweep.heartbeat=0", "sweep.heartbeat=0: it should be greater"),
        ("sweep.max_failure_rate=1.5", "sweep.max_failure_rate=1.5: it should be less than"),
        ("sweep.max_failure_rate=-0.1", "sweep.max_failure_rate=-0.1: it should be greater"),
        ("sweep.trial=-1", "sweep.trial=-1: it should be greater than or equal to 0"),
        ("sweep.study=null", "sweep.study=None: it should be a valid string"),
        ("sweep.study=a/b", "sweep.study=a/b: use letters, digits, '_', '-' and '.'"),
        ("sweep.study=../up", "sweep.study=../up: use letters"),
        ("sweep.study=''", "sweep.study=: use letters"),
        ("sweep.storage=7", "sweep.storage=7: it should be a valid string"),
        ("sweep.objectives=latency", "sweep.objectives='latency': it should be a valid list"),
        ("sweep.objectives=[]", "sweep.objectives: name one or more, each once"),
        ("sweep.objectives=[val/auc]", "sweep.objectives: val/auc is unknown: choose latency,"),
        ("sweep.objectives=[val/auroc]", "a pruner looks at metric=val/average_precision: set"),
        ("sweep.objectives=[latency]", "latency is known only at a trial's end: add sweep.pru"),
        ("sweep.sampler._target_=os.system", "sweep.sampler._target_=os.system is not allowed"),
        ("sweep.sampler.sead=1", "did you mean sweep.sampler.seed?"),
        ("resume=auto", "resume=auto continues one run: the same command continues a sweep"),
        ("sweep.ranks=2", "sweep.ranks=2 needs trainer=ddp"),
        ("trainer.devices=2", "a sweep trains in one: sweep.ranks=2 trainer=ddp starts each"),
        ("trainer.devices=[0, 1, 2]", "the trainer has 3 processes, and a sweep trains in one"),
        ("trainer.num_nodes=2", "the trainer has 2 processes"),
        ("find_batch_size=true", "find_batch_size=true would give the trials of a sweep diff"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_one_fault(override: str, fault: str, faults: Faults) -> None:
    (found,) = faults(override)
    assert fault in found


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (
            ["sweep.objectives=[val/auroc, latency]"],
            "a trial of several objectives cannot be pruned: add sweep.pruner=none",
        ),
        (
            ["sweep.objectives=[latency, latency]", "sweep.pruner=none"],
            "sweep.objectives: name one or more, each once",
        ),
        (
            ["sweep=cmaes", "sweep.objectives=[val/auroc, latency]", "sweep.pruner=none"],
            "sweep=cmaes needs a single objective: use sweep=nsga2 or optuna",
        ),
        (
            ["trainer=ddp", "sweep.ranks=2", "sweep.workers=3"],
            "sweep.ranks=2 and sweep.workers=3: choose several processes for a trial, or",
        ),
        (["sweep.ranks=2", "trainer.strategy=auto"], "sweep.ranks=2 needs trainer=ddp"),
    ],
)
def test_a_contradiction_is_one_fault(
    overrides: list[str], fault: str, composed: Composed
) -> None:
    chosen = [] if overrides[0].startswith("sweep=") else ["sweep=random"]
    with pytest.raises(ConfigError) as caught:
        check(composed(*chosen, *overrides), rules=training_rules)
    (found,) = caught.value.faults
    assert found.startswith(fault)


def test_all_contradictions_are_reported_together(faults: Faults) -> None:
    found = faults(
        "sweep.study=a b",
        "sweep.n_trials=null",
        "sweep.objectives=[]",
        "sweep.ranks=2",
        "mode=min",
    )
    assert [fault.split("=")[0].split(":")[0] for fault in found] == [
        "mode", "sweep.study", "sweep.n_trials", "sweep.objectives", "sweep.ranks",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "overrides",
    [
        ["sweep=grid", "sweep.n_trials=4"],
        ["sweep=optuna", "sweep.objectives=[val/auroc, latency]", "sweep.pruner=none"],
        ["sweep=random", "sweep.objectives=[latency]", "sweep.pruner=none"],
        ["sweep=random", "metric=val/log_loss", "mode=min"],
        ["sweep=random", "sweep.max_failure_rate=0", "sweep.workers=8"],
        ["sweep=random", "sweep.max_failure_rate=1", "sweep.study=Überschrift-1.2"],
        ["sweep=random", "trainer=ddp", "sweep.ranks=2"],
        ["sweep=random", "trainer=gpu", "sweep.ranks=2"],
        ["sweep=random", "trainer=fsdp", "sweep.ranks=2"],
        # A job of torchrun, which has two processes.
        ["sweep=random", "trainer=ddp", "sweep.ranks=2", "sweep.trial=3", "trainer.devices=2"],
        ["sweep=random", "sweep.storage=postgresql://ann@host/db"],
    ],
    ids=" ".join,
)
def test_what_fits_together_passes(overrides: list[str], composed: Composed) -> None:
    cfg = composed(*overrides)
    assert check(cfg, rules=training_rules) is None


def test_without_a_sweep_there_is_no_rule(composed: Composed) -> None:
    cfg = composed("resume=auto")
    assert cfg.get("sweep") is None
    assert list(sweep_rules(cfg)) == []


@pytest.mark.parametrize(
    ("overrides", "size"),
    [
        ([], 1),
        (["trainer.devices=3"], 3),
        (["trainer.devices=[0, 2]"], 2),
        (["trainer.devices=2", "trainer.num_nodes=2"], 4),
        (["trainer.devices=auto"], 1),
    ],
)
def test_the_size_of_the_world(overrides: list[str], size: int, composed: Composed) -> None:
    assert world_size(composed(*overrides)) == size
