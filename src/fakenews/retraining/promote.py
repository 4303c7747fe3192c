"""The command `scripts/promote.py`: which registered version answers, and who wants to."""

import functools
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from annotated_types import Gt, Lt
from hydra.utils import instantiate
from omegaconf import DictConfig

from fakenews.bounds import NonNegative, Positive, PositiveCount
from fakenews.config import check, name_faults, option_faults
from fakenews.errors import RetrainingError
from fakenews.retraining.halves import Halves
from fakenews.retraining.journal import Journal
from fakenews.retraining.overview import Overview, shown
from fakenews.retraining.promotion import Promotion
from fakenews.retraining.registry import Registry
from fakenews.retraining.served import How, Serving
from fakenews.retraining.standing import Gate
from fakenews.serving.archive import Made
from fakenews.serving.deploy import ServeOptions, misplaced
from fakenews.serving.deployment import Deployment
from fakenews.serving.export import ArchiveOptions, export_bundle
from fakenews.serving.state import read_state
from fakenews.terminal import show

Action = Literal["status", "promote", "rollback", "challenge"]

# Options of each action, beside those of all.
_HOW = {"workers", "share"}
_OPTIONS: dict[str, set[str]] = {
    "status": {"json"},
    "promote": {
        *("version", "gate", "force", "canary_seconds", "shadow_seconds", "keep_previous"),
        *_HOW,
    },
    "challenge": {"version", "gate", "force", "trial", *_HOW},
    "rollback": {"version"},
}


class PromoteOptions(TypedDict):
    """The options of `conf/promote.yaml`."""

    action: Action
    name: str
    version: PositiveCount | None
    tracking_uri: str
    timeout: Positive
    serving: Literal["torchserve", "none"]
    gate: str | None
    force: bool
    trial: bool
    workers: PositiveCount | None
    share: Annotated[float, Gt(0), Lt(1)]
    shadow_seconds: NonNegative
    canary_seconds: NonNegative
    keep_previous: bool
    json: bool


def promote(cfg: DictConfig) -> None:
    """Do what `cfg.action` says.

    Args:
        cfg: The composed `conf/promote.yaml`.

    Raises:
        ConfigError: An option has no such value, or does not go with the action.
        FakeNewsError: It cannot be done; see `Promotion`.
    """
    check(cfg, rules=promote_rules)
    if cfg.action == "status":
        _show(cfg)
        return
    with _promotion(cfg) as promotion:
        _act(cfg, promotion)


def promote_rules(cfg: DictConfig) -> Iterator[str]:
    """Faults of `conf/promote.yaml` that no single signature shows.

    Args:
        cfg: Composed, and without faults of its nodes.

    Yields:
        A message for each fault.
    """
    found = option_faults(cfg, PromoteOptions)
    found += option_faults(cfg.serve, ServeOptions, lambda key: f"serve.{key}")
    found += option_faults(cfg.export, ArchiveOptions, lambda key: f"export.{key}")
    yield from found
    yield from name_faults(cfg.serve.name, key="serve.name")
    if found:
        return
    given = {
        "version": cfg.version is not None,
        "gate": cfg.gate is not None,
        "workers": cfg.workers is not None,
        **{name: bool(cfg[name]) for name in ("force", "trial", "json", "keep_previous")},
        **{name: cfg[name] > 0 for name in ("shadow_seconds", "canary_seconds")},
    }
    yield from misplaced(cfg, given, _OPTIONS[cfg.action])
    if cfg.action == "challenge" and not given["version"]:
        yield "action=challenge needs version: give version=N"
    if cfg.serving == "none":
        for option in ("trial", "workers", "shadow_seconds", "canary_seconds"):
            if given[option]:
                yield f"{option}={cfg[option]} does not go with serving=none"


def read_gate(path: Path) -> Gate:
    """The verdict that `scripts/gate.py` has left.

    Args:
        path: Of its `gate.json`.

    Raises:
        RetrainingError: It is none.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        accepted, checks = content["accepted"], content["checks"]
        failed = [str(found["key"]) for found in checks if not found["passed"]]
        reason = content.get("reason", _counted(len(checks), failed))
        runs = [content.get(of, {}).get("run_id") for of in ("challenger", "champion")]
        if not isinstance(accepted, bool):
            raise TypeError("accepted is no truth value")  # noqa: TRY301 told below
    except OSError as error:
        raise RetrainingError(f"gate={path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RetrainingError(
            f"gate={path} is no verdict of the gate ({error}): give its gate.json"
        ) from error
    summary = str(reason).removeprefix("accepted: ").removeprefix("refused: ")
    return Gate(accepted=accepted, summary=summary, run=runs[0], against=runs[1])


def _counted(checks: int, failed: list[str]) -> str:
    passed = f"{checks - len(failed)} of {checks} checks passed"
    return f"{passed}; failed: {', '.join(failed)}" if failed else passed


@contextmanager
def _promotion(cfg: DictConfig) -> Iterator[Promotion]:
    folder = Path(cfg.serve.dir)
    registry, journal = _registry(cfg), Journal(folder)
    if cfg.serving == "none":
        yield Promotion(Halves(registry=registry, serving=None, journal=journal))
        return
    with instantiate(cfg.serve.torchserve).client(folder) as client:
        deployment = functools.partial(
            Deployment,
            folder=folder,
            name=cfg.serve.name,
            client=client,
            timing=instantiate(cfg.serve.timing),
        )
        serving = Serving(
            folder=folder,
            deployment=deployment,
            export=functools.partial(_export, cfg),
            archives=Path(cfg.export.out),
        )
        yield Promotion(Halves(registry=registry, serving=serving, journal=journal))


def _act(cfg: DictConfig, promotion: Promotion) -> None:
    gate = None if cfg.gate is None else read_gate(Path(cfg.gate))
    how = How(
        workers=cfg.workers,
        shadow_seconds=cfg.shadow_seconds,
        canary_seconds=cfg.canary_seconds,
        share=cfg.share,
        keep_previous=cfg.keep_previous,
    )
    match cfg.action:
        case "promote":
            promotion.promote(cfg.version, how=how, gate=gate, force=cfg.force)
        case "challenge":
            promotion.challenge(
                cfg.version, how=how if cfg.trial else None, gate=gate, force=cfg.force
            )
        case "rollback":
            promotion.rollback(cfg.version)


def _export(cfg: DictConfig, version: int) -> Made:
    options: dict[str, Any] = {key: cfg.export[key] for key in ArchiveOptions.__annotations__}
    return export_bundle(
        registered=f"{cfg.name}/{version}",
        tracking_uri=cfg.tracking_uri,
        tolerances=instantiate(cfg.export.tolerances),
        config=instantiate(cfg.export.config),
        settings=instantiate(cfg.export.settings, _convert_="all"),
        **options,
    )


def _registry(cfg: DictConfig) -> Registry:
    return Registry(uri=cfg.tracking_uri, model=cfg.name, timeout=cfg.timeout)


def _show(cfg: DictConfig) -> None:
    folder = Path(cfg.serve.dir)
    served = cfg.serving != "none"
    overview = Overview(
        standing=_registry(cfg).status(),
        state=read_state(folder, name=cfg.serve.name) if served else None,
        begun=Journal(folder).read(),
    )
    if cfg.json:
        json.dump(overview.plain(), sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
    else:
        show(shown(overview))
