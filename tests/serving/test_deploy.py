import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import execution_whitelist
from omegaconf import DictConfig, OmegaConf

from fakenews.config import CONF, TARGETS, register_resolvers
from fakenews.errors import ConfigError, ServingError
from fakenews.serving.deploy import deploy
from fakenews.serving.state import read_state


@pytest.fixture
def composed_by_hydra(tmp_path: Path, stand_in: Any) -> Iterator[Callable[..., DictConfig]]:
    """The configuration of a command about the deployment of the stand-in."""
    port = stand_in.address.rpartition(":")[2]

    def make(*overrides: str) -> DictConfig:
        cfg = compose(
            "deploy",
            overrides=[
                f"serve.dir={tmp_path}",
                f"serve.torchserve.inference_port={port}",
                f"serve.torchserve.management_port={port}",
                "serve.timing={settle: 0, poll: 0.001}",
                "serve.deadline=0.05",
                *overrides,
            ],
            return_hydra_config=True,
        )
        HydraConfig.instance().set_config(cfg)
        job: DictConfig = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
        return job

    register_resolvers()
    with initialize_config_dir(str(CONF)), execution_whitelist(TARGETS):
        yield make
    HydraConfig.instance().cfg = None


@pytest.fixture
def configured(
    composed_by_hydra: Callable[..., DictConfig],
) -> Callable[..., DictConfig]:
    """The same, made once, with values set afterwards: quicker."""
    base = composed_by_hydra()

    def make(*overrides: str) -> DictConfig:
        cfg = copy.deepcopy(base)
        for override in overrides:
            key, _, value = override.partition("=")
            OmegaConf.update(cfg, key.lstrip("+"), yaml.safe_load(value), force_add=True)
        return cfg

    return make


def test_each_action_is_done(
    configured: Callable[..., DictConfig],
    tmp_path: Path,
    make_mar: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def done(*overrides: str) -> tuple[str | None, str | None, str | None]:
        deploy(configured(*overrides))
        state = read_state(tmp_path, name="fakenews")
        canary = state.canary.version if state.canary else None
        return state.champion, state.previous, canary

    one, two = make_mar("a"), make_mar("12e456789012")
    assert done("action=deploy", f"archive={one}") == ("a", None, None)
    assert done("action=canary", f"archive={two}", "share=0.5") == ("a", None, "12e456789012")
    assert done("action=canary", "share=0.7") == ("a", None, "12e456789012")
    assert done("action=promote", "keep_previous=true") == ("12e456789012", "a", None)
    assert done("action=smoke", "version=12e456789012") == ("12e456789012", "a", None)
    assert done("action=scale", "workers=2", "version=a") == ("12e456789012", "a", None)
    assert read_state(tmp_path, name="fakenews").workers["a"] == 2
    assert done("action=undeploy", "version=a") == ("12e456789012", None, None)
    assert done("action=restore") == ("12e456789012", None, None)
    deploy(configured())
    assert "champion" in capsys.readouterr().out
    deploy(configured("json=true"))
    assert json.loads(capsys.readouterr().out)["default"] == "12e456789012"
    assert done("action=deploy", f"archive={one}") == ("a", "12e456789012", None)
    assert done("action=rollback") == ("12e456789012", None, None)
    assert done("action=undeploy") == (None, None, None)


@pytest.mark.parametrize(
    ("overrides", "faults"),
    [
        (["action=deplou"], ["action='deplou': it should be 'deploy', 'status', 'scale',"]),
        (["action=deploy"], ["action=deploy needs archive: give archive=VALUE"]),
        (["action=scale"], ["action=scale needs workers: give workers=VALUE"]),
        (["action=scale", "workers=0"], ["workers=0: it should be greater than or equal to 1"]),
        (["action=canary", "share=1"], ["share=1: it should be less than 1"]),
        (
            ["action=rollback", "version=a", "keep_previous=true"],
            [
                "keep_previous=True does not go with action=rollback",
                "version=a does not go with action=rollback",
            ],
        ),
        (["archive=x.mar"], ["archive=x.mar does not go with action=status"]),
        (["serve.name=a b"], ["serve.name=a b: use letters, digits"]),
        (["serve.deadline=-1"], ["serve.deadline=-1: it should be greater"]),
        (["serve.torchserve.heap=much"], ["serve.torchserve.heap='much': string should match"]),
        (
            ["serve.torchserve.inference_port=0"],
            ["serve.torchserve.inference_port=0: it should"],
        ),
        (["+serve.torchserve.port=1"], ["serve.torchserve.port is not an option of"]),
    ],
)
def test_options_that_are_wrong_or_do_not_go_together(
    configured: Callable[..., DictConfig], overrides: list[str], faults: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        deploy(configured(*overrides))
    found = [any(given.startswith(fault) for given in caught.value.faults) for fault in faults]
    assert all(found), caught.value.faults


def test_a_version_that_looks_like_a_number(
    composed_by_hydra: Callable[..., DictConfig], make_mar: Callable[..., Path]
) -> None:
    cfg = composed_by_hydra("action=deploy", f"archive={make_mar('12e456789012')}")
    deploy(cfg)
    cfg = composed_by_hydra("action=smoke", "version=12e456789012")
    assert not isinstance(cfg.version, str)
    deploy(cfg)


def test_a_program_reads_nothing_but_json(
    configured: Callable[..., DictConfig], make_mar: Callable[..., Path]
) -> None:
    cfg = configured("action=deploy", f"archive={make_mar('a')}")
    deploy(cfg)
    done = subprocess.run(
        [
            *(sys.executable, str(CONF.parent / "scripts" / "deploy.py"), "json=true"),
            f"serve.dir={cfg.serve.dir}",
            f"serve.torchserve.inference_port={cfg.serve.torchserve.inference_port}",
            f"serve.torchserve.management_port={cfg.serve.torchserve.management_port}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["default"] == "a"
    assert done.stderr == ""


def test_what_cannot_be_done_is_told(configured: Callable[..., DictConfig]) -> None:
    with pytest.raises(ServingError, match="there is no previous version to go back to"):
        deploy(configured("action=rollback"))
