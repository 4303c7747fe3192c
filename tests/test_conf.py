"""Every option of every group composes, resolves and fits the code it configures."""

import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from fakenews.config import TARGETS, check, register_resolvers, without_paths
from fakenews.demo.job import demo
from fakenews.errors import ConfigError
from fakenews.monitoring.checks import Policy
from fakenews.monitoring.job import monitor
from fakenews.monitoring.quality import Limits
from fakenews.retraining.decision import Policy as DecisionPolicy
from fakenews.retraining.gate_policy import GatePolicy
from fakenews.retraining.promote import promote_rules
from fakenews.retraining.served import How
from fakenews.retraining.setting import Commands, Trial
from fakenews.retraining.source import DataSource
from fakenews.rules import METRICS, preparation_rules, training_rules
from fakenews.serving.archive import ModelConfig
from fakenews.serving.deploy import deploy_rules
from fakenews.serving.export import export_rules
from fakenews.serving.optimise import Tolerances

Command = Callable[..., CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
SCRIPTS = ["train.py", *sorted(f"scripts/{path.name}" for path in ROOT.glob("scripts/*.py"))]

# What an option cannot go without: a value that only a user can give.
NEEDED = {
    ("features", "none"): ["data.numeric=[age]"],
    ("data", "csv"): ["data.path=news.csv"],
    ("data", "shards"): ["data.path=prepared"],
    ("loader", "stream"): ["data=shards", "data.path=prepared"],
    ("encoder", "hub"): ["encoder.name=bert"],
}


def _options() -> list[tuple[str, str]]:
    files = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml"))
    return [
        (path.parent.as_posix(), path.stem)
        for path in files
        if path.parent != Path() and not path.stem.startswith("_")
    ]


OPTIONS = _options()


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Callable[..., DictConfig]]:
    def make(*overrides: str, root: str = "train") -> DictConfig:
        cfg = compose(
            root,
            overrides=[*overrides, f"paths.runs={tmp_path}"],
            return_hydra_config=True,
        )
        with open_dict(cfg):
            cfg.hydra.runtime.output_dir = str(tmp_path)
        HydraConfig.instance().set_config(cfg)
        job: DictConfig = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
        return job

    register_resolvers()
    with initialize_config_dir(str(CONF)):
        yield make
    HydraConfig.instance().cfg = None


TRAINS = [
    group
    for entry in OmegaConf.load(CONF / "train.yaml").defaults
    if not isinstance(entry, str)
    for group in entry
]


def test_every_group_was_found_however_deep() -> None:
    assert ("model", "fusion") in OPTIONS
    assert len(OPTIONS) == len(set(OPTIONS)) > 30
    assert {group for group, _ in OPTIONS} >= {
        str(folder.relative_to(CONF))
        for folder in CONF.rglob("*")
        if folder.is_dir() and any(folder.glob("*.yaml"))
    }


@pytest.mark.parametrize(("group", "option"), [pair for pair in OPTIONS if pair[0] in TRAINS])
def test_option_composes_resolves_and_fits_the_code(
    group: str, option: str, composed: Callable[..., DictConfig]
) -> None:
    cfg = composed(f"{group}={option}", *NEEDED.get((group, option), []))
    check(cfg, rules=training_rules)
    assert "${" not in OmegaConf.to_yaml(cfg, resolve=True)
    assert HydraConfig.get().runtime.choices[group] == option


@pytest.mark.parametrize(
    ("group", "option"),
    # Shards are prepared already.
    [
        pair
        for pair in OPTIONS
        if pair[0] in ("data", "encoder", "features") and pair[1] != "shards"
    ],
)
def test_what_can_be_prepared(
    group: str, option: str, composed: Callable[..., DictConfig]
) -> None:
    cfg = composed(
        f"{group}={option}", "out=prepared", *NEEDED.get((group, option), []), root="prepare"
    )
    check(cfg, rules=preparation_rules)
    assert "${" not in OmegaConf.to_yaml(cfg, resolve=True)


@pytest.mark.parametrize("option", [name for group, name in OPTIONS if group == "serve"])
def test_how_models_are_served(option: str, composed: Callable[..., DictConfig]) -> None:
    cfg = composed(f"serve={option}", root="deploy")
    check(cfg, rules=deploy_rules)
    assert "${" not in OmegaConf.to_yaml(cfg, resolve=True)
    assert Path(cfg.serve.torchserve.log_config).is_file()
    # The gateway is for others: TorchServe itself cannot be reached from elsewhere.
    assert not {name for name in cfg.serve.torchserve if "host" in name} - {"metrics_host"}


ALERTS = [name for group, name in OPTIONS if group == "alerts"]
# What of a channel only a user can give.
GIVEN = {
    "email": [
        "alerts.email.host=127.0.0.1",
        "alerts.email.sender=monitor@example.org",
        "alerts.email.to=[people@example.org]",
    ],
    "sns": ["alerts.sns.topic_arn=arn:aws:sns:eu-central-1:123456789012:alerts"],
    "webhook": ["alerts.webhook.url=https://example.org/alerts"],
}


def test_who_is_told_of_alerts(composed: Callable[..., DictConfig]) -> None:
    given = [text for name in ALERTS for text in GIVEN.get(name, [])]
    cfg = composed("bundle=x", f"alerts=[{','.join(ALERTS)}]", *given, root="monitor")
    check(cfg.alerts)
    assert "${" not in OmegaConf.to_yaml(cfg.alerts, resolve=True)
    # A file is called as what it adds.
    assert sorted(cfg.alerts) == ALERTS == ["cloudwatch", "email", "sns", "webhook"]
    channels = instantiate(cfg.alerts, _execution_whitelist_=TARGETS, _convert_="all")
    assert all(callable(channel.tell) for channel in channels.values())
    for name, node in cfg.alerts.items():
        # What is written here for all to see are the defaults of the code.
        parameters = inspect.signature(type(channels[name])).parameters
        for key, parameter in parameters.items():
            if parameter.default is not parameter.empty:
                assert node[key] == parameter.default, f"{name}.{key}"


@pytest.mark.parametrize("name", ["email", "sns"])
def test_a_channel_says_what_it_needs(name: str, composed: Callable[..., DictConfig]) -> None:
    with pytest.raises(ConfigError) as caught:
        check(composed("bundle=x", f"alerts=[{name}]", root="monitor").alerts)
    needed = [text.partition("=")[0].removeprefix("alerts.") for text in GIVEN[name]]
    assert sorted(caught.value.faults) == sorted(
        f"{key} is not set: give {key}=VALUE" for key in needed
    )


def test_what_is_monitored(composed: Callable[..., DictConfig]) -> None:
    cfg = without_paths(composed("bundle=latest", root="monitor"))
    check(cfg)
    assert "${" not in OmegaConf.to_yaml(cfg, resolve=True)
    assert "paths" not in cfg
    assert Path(cfg.out).name == "monitoring"
    # What is written here for all to see are the defaults of the code, but for the floors.
    policy = instantiate(cfg.policy, _execution_whitelist_=TARGETS, _convert_="all")
    assert replace(policy, floors={}, skip=()) == Policy()
    assert instantiate(cfg.limits, _execution_whitelist_=TARGETS) == Limits()
    parameters = inspect.signature(monitor).parameters
    for key, parameter in parameters.items():
        # Below paths.root there, and here, where it is called.
        here = key in ("runs", "out", "registry_uri")
        if parameter.default not in (parameter.empty, None) and not here:
            assert cfg[key] == parameter.default, key


def test_what_is_retrained(composed: Callable[..., DictConfig]) -> None:
    cfg = without_paths(composed("name=news", root="retrain"))
    check(cfg)
    assert "${" not in OmegaConf.to_yaml(cfg, resolve=True)
    # What is written here for all to see are the defaults of the code.
    kept = {"_execution_whitelist_": TARGETS, "_convert_": "all"}
    assert instantiate(cfg.trial, **kept) == Trial()
    assert instantiate(cfg.commands, **kept) == Commands(
        train=[], evaluate=[], gate=[], promote=[]
    )
    assert instantiate(cfg.policy, **kept) == DecisionPolicy(ignore=[])
    assert replace(instantiate(cfg.data, **kept), log=None) == DataSource()


def test_what_is_shown_in_minutes(composed: Callable[..., DictConfig]) -> None:
    cfg = composed(root="demo")
    check(cfg)
    parameters = inspect.signature(demo).parameters
    for key, parameter in parameters.items():
        if parameter.default not in (parameter.empty, ()):
            assert cfg.demo[key] == parameter.default, key


def test_what_is_gated(composed: Callable[..., DictConfig]) -> None:
    cfg = without_paths(composed("champion=x", "challenger=y", "test=z", root="gate"))
    check(cfg)
    assert "${" not in OmegaConf.to_yaml(cfg, resolve=True)
    assert Path(cfg.out).name == "gate"
    # What is written here for all to see are the defaults of the code.
    policy = instantiate(cfg.policy, _execution_whitelist_=TARGETS, _convert_="all")
    assert replace(policy, directions=()) == GatePolicy()


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("policy.wrong_refusal=0", "policy.wrong_refusal=0: it should be greater than 0"),
        (
            "policy.margins.brier=2",
            "policy.margins.brier=2: it should be less than or equal to 1",
        ),
        (
            "+policy.margins.recall=0.1",
            "policy.margins.recall is not an option: it should be 'average",
        ),
        ("policy.slice_row=1", "did you mean policy.slice_rows"),
    ],
)
def test_a_policy_that_cannot_be(
    override: str, fault: str, composed: Callable[..., DictConfig]
) -> None:
    key = override if override.startswith("+") else f"++{override}"
    cfg = composed("champion=x", "challenger=y", "test=z", key, root="gate")
    with pytest.raises(ConfigError) as caught:
        check(without_paths(cfg))
    assert fault in str(caught.value)


def test_what_is_exported(composed: Callable[..., DictConfig]) -> None:
    cfg = composed("bundle=latest", "engine=onnx-int8", root="export")
    check(cfg, rules=export_rules)
    assert "${" not in OmegaConf.to_yaml(cfg, resolve=True)
    assert Path(cfg.handler).is_file()
    # What is written here for all to see are the defaults of the code.
    assert instantiate(cfg.tolerances, _execution_whitelist_=TARGETS) == Tolerances()
    assert instantiate(cfg.config, _execution_whitelist_=TARGETS) == ModelConfig()


def test_what_is_promoted(composed: Callable[..., DictConfig]) -> None:
    cfg = composed("name=news", root="promote")
    check(cfg, rules=promote_rules)
    assert "${" not in OmegaConf.to_yaml(cfg, resolve=True)
    # Archives are made as by scripts/export.py.
    alone = composed("bundle=x", root="export")
    assert {key: alone[key] for key in cfg.export} == cfg.export
    # What is written here for all to see are the defaults of the code.
    how = How()
    assert {name: cfg[name] for name in asdict(how)} == asdict(how)


@pytest.mark.parametrize("model", ["fusion", "text", "tabular", "seed", "tfidf"])
def test_models_go_with_a_test_encoder_and_the_quick_features(
    model: str, composed: Callable[..., DictConfig]
) -> None:
    cfg = composed(f"model={model}", "features=headline", "encoder=tiny")
    check(cfg, rules=training_rules)
    assert cfg.name == f"sample-{model}"


@pytest.mark.parametrize("trainer", ["gpu", "fsdp"])
def test_a_gpu_brings_what_belongs_to_it_and_gives_way(
    trainer: str, composed: Callable[..., DictConfig]
) -> None:
    cfg = composed(f"trainer={trainer}", "data=shards", "data.path=x", "trainer.max_epochs=7")
    check(cfg, rules=training_rules)
    assert (cfg.matmul_precision, cfg.loader.pin_memory) == ("high", True)
    assert cfg.loader._target_.endswith("StreamingDataModule")
    assert cfg.trainer.precision == "bf16-mixed"
    assert (cfg.trainer.devices, cfg.trainer.max_epochs) == (1, 7)
    cfg = composed(f"trainer={trainer}", "loader.pin_memory=false", "matmul_precision=medium")
    assert (cfg.matmul_precision, cfg.loader.pin_memory) == ("medium", False)


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["compile=true"], "compile=true does not go with trainer=fsdp: leave one of them out"),
        (
            ["callbacks=ema"],
            "callbacks.ema averages whole weights: leave trainer=fsdp or it out",
        ),
        (["matmul_precision=low"], "matmul_precision='low': it should be 'highest', 'high' or"),
        (
            ["trainer.precision=16-mixed"],
            "trainer.precision=16-mixed cannot clip gradients with",
        ),
        (["compile=2"], "compile=2: it should be a valid boolean"),
        (
            ["trainer.strategy.sharding_strategy=HALF"],
            "trainer.strategy.sharding_strategy='HALF': it should be 'FULL_SHARD',",
        ),
    ],
)
def test_what_does_not_go_with_split_weights(
    overrides: list[str], fault: str, composed: Callable[..., DictConfig]
) -> None:
    with pytest.raises(ConfigError) as caught:
        check(composed("trainer=fsdp", *overrides), rules=training_rules)
    (found,) = caught.value.faults
    assert found.startswith(fault)


def test_the_metrics_a_rule_knows_are_those_the_model_logs() -> None:
    from fakenews.models import classifier

    assert classifier._EPOCH_METRICS == METRICS


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


def test_every_target_is_allowed_and_can_be_imported() -> None:
    found = {
        target
        for path in CONF.rglob("*.yaml")
        for target in _targets(OmegaConf.to_container(OmegaConf.load(path)))
    }
    assert "fakenews.models.networks.FusionNet" in found
    for target in sorted(found):
        assert any(target.startswith(name.rstrip("*")) for name in TARGETS), target
        assert callable(get_object(target)), target


def test_bases_say_so_by_their_name_and_miss_something_alone(
    composed: Callable[..., DictConfig],
) -> None:
    assert (CONF / "model" / "_classifier.yaml").is_file()
    with pytest.raises(ConfigError, match=r"model\.network is not set"):
        check(composed("model=_classifier", "name=base"))


def test_help_names_groups_and_their_options_without_bases(
    command: Command, tmp_path: Path
) -> None:
    done = command("train.py", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = {
        words[0]: [word.rstrip("*") for word in words[1:]]
        for words in map(str.split, done.stdout.splitlines())
        if words
    }
    groups = {group for group, _ in OPTIONS if group in TRAINS} - {"hydra", "paths"}
    for group in groups:
        assert lines[group] == [option for name, option in OPTIONS if name == group]
    assert "_classifier" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 96


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_imports_nothing_heavy(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", script, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "python " in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "hydra" in imported
    heavy = {"torch", "lightning", "mlflow", "pandas", "numpy", "transformers", "spacy"}
    assert not heavy & imported


@pytest.mark.parametrize(
    "given", ["{}.endpoint_url=http://x", "+{}.anon=true", "{}={{anon: true}}"]
)
@pytest.mark.parametrize(
    ("arguments", "node"),
    [
        (["train.py", "data=shards", "data.path=x"], "data.storage_options"),
        (["scripts/prepare.py"], "storage_options"),
    ],
    ids=["train", "prepare"],
)
def test_storage_options_are_given_one_by_one_or_together(
    command: Command, tmp_path: Path, arguments: list[str], node: str, given: str
) -> None:
    done = command(*arguments, "--cfg", "job", given.format(node), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    options = OmegaConf.select(OmegaConf.create(done.stdout), node)
    assert {name: value for name, value in options.items() if value is not None} in (
        {"endpoint_url": "http://x"},
        {"anon": True},
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_config_is_shown(command: Command, tmp_path: Path, script: str) -> None:
    done = command(script, "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = OmegaConf.create(done.stdout)
    assert len(shown) > 3 or len(shown.demo) > 3


def test_resolved_config_holds_no_reference(command: Command, tmp_path: Path) -> None:
    done = command(
        "train.py", "--cfg", "job", "--resolve", "data=csv", "data.path=x.csv", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "${" not in done.stdout
    assert OmegaConf.create(done.stdout).name == "csv-fusion"
