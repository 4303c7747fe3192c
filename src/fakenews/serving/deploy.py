"""The command `scripts/deploy.py`: what a running TorchServe serves, and how it changes."""

import json
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, TypedDict

from annotated_types import Gt, Lt
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig

from fakenews.bounds import NonNegative, PositiveCount
from fakenews.config import check, name_faults, option_faults
from fakenews.serving.deployment import Deployment
from fakenews.serving.management import Management
from fakenews.serving.status import read_status, shown
from fakenews.terminal import show

Action = Literal[
    "deploy",
    "status",
    "scale",
    "canary",
    "promote",
    "rollback",
    "undeploy",
    "smoke",
    "restore",
]

# Options of each action, beside those of all.
_OPTIONS: dict[str, set[str]] = {
    "deploy": {
        "archive",
        "workers",
        "share",
        "shadow_seconds",
        "canary_seconds",
        "keep_previous",
    },
    "status": {"json"},
    "scale": {"workers", "version"},
    "canary": {"archive", "share", "workers"},
    "promote": {"keep_previous"},
    "rollback": set(),
    "undeploy": {"version"},
    "smoke": {"version"},
    "restore": {"patience"},
}


class DeployOptions(TypedDict):
    """The options of `conf/deploy.yaml`."""

    action: Action
    archive: str | None
    version: str | int | float | None
    workers: PositiveCount | None
    share: Annotated[float, Gt(0), Lt(1)]
    shadow_seconds: NonNegative
    canary_seconds: NonNegative
    keep_previous: bool
    patience: NonNegative
    json: bool


class ServeOptions(TypedDict):
    """The options of `conf/serve/` that are of no part."""

    dir: str
    name: str
    deadline: NonNegative


def deploy(cfg: DictConfig) -> None:
    """Do what `cfg.action` says.

    Args:
        cfg: The composed `conf/deploy.yaml`.

    Raises:
        ConfigError: An option has no such value, or does not go with the action.
        ServingError: It cannot be done; says what became of it.
    """
    check(cfg, rules=deploy_rules)
    folder = Path(cfg.serve.dir)
    timing = instantiate(cfg.serve.timing)
    with instantiate(cfg.serve.torchserve).client(folder) as client:
        deployment = Deployment(
            folder=folder, name=cfg.serve.name, client=client, timing=timing
        )
        if cfg.action == "status":
            _show(cfg, deployment, client)
        else:
            _act(cfg, deployment)


def deploy_rules(cfg: DictConfig) -> Iterator[str]:
    """Faults of `conf/deploy.yaml` that no single signature shows.

    Args:
        cfg: Composed, and without faults of its nodes.

    Yields:
        A message for each fault.
    """
    found = option_faults(cfg, DeployOptions)
    found += option_faults(cfg.serve, ServeOptions, lambda key: f"serve.{key}")
    yield from found
    yield from name_faults(cfg.serve.name, key="serve.name")
    if found:
        return
    action = cfg.action
    given = {
        "archive": cfg.archive is not None,
        "version": cfg.version is not None,
        "workers": cfg.workers is not None,
        "shadow_seconds": cfg.shadow_seconds > 0,
        "canary_seconds": cfg.canary_seconds > 0,
        "keep_previous": cfg.keep_previous,
        "json": cfg.json,
    }
    yield from misplaced(cfg, given, _OPTIONS[action])
    for needed, option in (("deploy", "archive"), ("scale", "workers")):
        if action == needed and not given[option]:
            yield f"action={action} needs {option}: give {option}=VALUE"


def misplaced(
    cfg: DictConfig, given: Mapping[str, bool], allowed: Collection[str]
) -> Iterator[str]:
    """Options that do not go with `cfg.action`.

    Args:
        cfg: Of a command with actions.
        given: Of each option that only some actions have, whether it is given.
        allowed: Those of the action.

    Yields:
        A message for each, by name.
    """
    for option in sorted(option for option, is_given in given.items() if is_given):
        if option not in allowed:
            yield f"{option}={cfg[option]} does not go with action={cfg.action}"


def _act(cfg: DictConfig, deployment: Deployment) -> None:
    archive = None if cfg.archive is None else Path(cfg.archive)
    version = _version(cfg)
    match cfg.action:
        case "deploy":
            deployment.deploy(
                Path(cfg.archive),
                workers=cfg.workers,
                shadow_seconds=cfg.shadow_seconds,
                canary_seconds=cfg.canary_seconds,
                share=cfg.share,
                keep_previous=cfg.keep_previous,
            )
        case "canary":
            deployment.canary(archive, share=cfg.share, workers=cfg.workers)
        case "promote":
            deployment.promote(keep_previous=cfg.keep_previous)
        case "rollback":
            deployment.rollback()
        case "scale":
            deployment.scale(cfg.workers, version)
        case "undeploy":
            deployment.undeploy(version)
        case "smoke":
            deployment.smoke(version)
        case "restore":
            deployment.restore(patience=cfg.patience)


def _show(cfg: DictConfig, deployment: Deployment, client: Management) -> None:
    status = read_status(deployment.state, client, Path(cfg.serve.dir))
    if cfg.json:
        json.dump(status.plain(), sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
    else:
        show(shown(status))


def _version(cfg: DictConfig) -> str | None:
    """As it was written: Hydra takes 12e456789012 for a number."""
    if cfg.version is None or isinstance(cfg.version, str):
        return cfg.version
    given = [text for text in HydraConfig.get().overrides.task if text.startswith("version=")]
    return given[-1].partition("=")[2]
