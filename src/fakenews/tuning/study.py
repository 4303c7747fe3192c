"""A study that is continued only with what it was started with."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.pruners import BasePruner
from optuna.storages import RDBStorage
from optuna.study import Study

from fakenews.errors import TuningError
from fakenews.tracking.resume import leaves
from fakenews.tuning.space import Space
from fakenews.tuning.storage import exclusive

# Options that may differ between those who work on a study: they change no result.
_FREE = (
    *("sweep", "cluster", "paths", "logger", "threads"),
    *("trainer.devices", "trainer.num_nodes"),
)
_FREE_ENDS = (".num_workers", ".pin_memory", ".refresh_rate")
_SHOWN = 5


Direction = Literal["minimize", "maximize"]


def directions(cfg: DictConfig) -> list[Direction]:
    """Of each objective, whether more is better."""
    less = ("latency", "val/log_loss")
    return ["minimize" if name in less else "maximize" for name in cfg.sweep.objectives]


def find_study(storage: RDBStorage, cfg: DictConfig, space: Space) -> Study | None:
    """The study, if it has trials.

    Raises:
        TuningError: It was searched with another space or other settings.
    """
    try:
        study = optuna.load_study(study_name=cfg.sweep.study, storage=storage)
    except KeyError:
        return None
    if not study.get_trials(deepcopy=False):
        return None
    before = study.user_attrs
    objectives = {"sweep.objectives": list(cfg.sweep.objectives)}
    faults = [
        *_faults({"sweep.objectives": before.get("objectives")}, objectives),
        *_faults(before.get("space", {}), space.to_json()),
        *_faults(before.get("settings", {}), _settings(cfg, space)),
    ]
    if faults:
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        raise TuningError(
            f"the study {cfg.sweep.study} was searched with "
            f"{'; '.join([*faults[:_SHOWN], *more])}: its trials cannot be compared with new "
            "ones; repeat its settings, or start another with sweep.study=NAME"
        )
    return study


def open_study(
    storage: RDBStorage, cfg: DictConfig, space: Space, *, pruner: BasePruner
) -> Study:
    """The study, made if there is none of that name.

    Raises:
        TuningError: Another process has just made one that is searched otherwise.
    """
    with exclusive(storage, cfg.sweep.study):
        if find_study(storage, cfg, space) is None:
            _discard_other(storage, cfg)
            study = optuna.create_study(
                study_name=cfg.sweep.study,
                storage=storage,
                directions=directions(cfg),
                load_if_exists=True,
            )
            study.set_user_attr("objectives", list(cfg.sweep.objectives))
            study.set_user_attr("space", space.to_json())
            study.set_user_attr("settings", _settings(cfg, space))
    return optuna.load_study(study_name=cfg.sweep.study, storage=storage, pruner=pruner)


def _discard_other(storage: RDBStorage, cfg: DictConfig) -> None:
    """Make room where a study without trials has other directions, which cannot change."""
    with contextlib.suppress(KeyError):
        study = optuna.load_study(study_name=cfg.sweep.study, storage=storage)
        if [direction.name.lower() for direction in study.directions] != directions(cfg):
            optuna.delete_study(study_name=cfg.sweep.study, storage=storage)


def _settings(cfg: DictConfig, space: Space) -> dict[str, Any]:
    """What the trials have in common, by option; a reference is compared where it leads."""
    raw = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(raw, dict)  # noqa: S101 of a DictConfig it is one
    named = {".".join(map(str, path)): value for path, value in leaves(raw)}
    free = (*_FREE, *space.distributions)
    return {
        name: value
        for name, value in named.items()
        if "${" not in str(value)
        and not any(f"{name}.".startswith(f"{start}.") for start in free)
        and not name.endswith(_FREE_ENDS)
    }


def _faults(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            yield f"{name}={before.get(name)} (now: {now.get(name)})"
