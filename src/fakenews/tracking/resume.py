"""Options of a run that is resumed: which are others than before, and which may be."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fakenews.errors import TrainingError

# What a checkpoint stands for: the rows and their order, what is made of them, the shapes
# of the weights.
_FIXED = (
    "seed",
    "data",
    "features",
    "encoder",
    "model._target_",
    "model.network",
    "optimizer._target_",
    "loader._target_",
    "loader.batch_size",
    "loader.batch_tokens",
    "loader.window_rows",
    "loader.seed",
)
# Parts of these that change neither. Files may have moved: what is in them is compared
# when it is read.
_MOVABLE = re.compile(
    r"data\.(path|val_path|test_path|cache_dir|storage_options\b.*|verify|evaluation_rows|test)"
    r"|features\.(cache_dir|processes)"
    r"|(encoder|model\.network)\.(attention_)?dropout\d*"
    r"|encoder\.gradient_checkpointing"
)
# What may differ without a word.
_FREE = ("resume", "cluster", "trainer.max_time", "trainer.devices", "trainer.num_nodes")

_REFERENCE = re.compile(r"\$\{\w[\w.]*\}")
_ABSENT = "(absent)"


def refuse_changes(cfg: DictConfig, folder: Path) -> None:
    """Refuse options that cannot change in the middle of a run; nothing is written.

    Args:
        cfg: The composed configuration; `hydra` is passed over.
        folder: Of the run to resume.

    Raises:
        TrainingError: Names them, with their values now and before.
    """
    refused = [
        f"{name}={_shown(now)} (before: {_shown(before)})"
        for name, (before, now) in _changes(cfg, folder).items()
        # An option that a run of an older version did not have is none that was changed.
        if _is_fixed(name) and _ABSENT not in (before, now)
    ]
    if refused:
        raise TrainingError(
            f"a run cannot be resumed with {', '.join(refused)}: repeat its settings, or start "
            "without resume"
        )


def changed_options(cfg: DictConfig, folder: Path) -> list[str]:
    """Names of all options that are others than when the run was last started.

    Args:
        cfg: As for `refuse_changes`.
        folder: Of the run to resume.
    """
    return [
        name
        for name in _changes(cfg, folder)
        if not any(_within(name, start) for start in _FREE)
    ]


def recorded(folder: Path, name: str, default: Any) -> Any:
    """The value of an option when the run was last started.

    Args:
        folder: Of the run.
        name: As in `loader.batch_size`.
        default: Where that is not known.
    """
    return _recorded(folder).get(name, default)


def _recorded(folder: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load((folder / "config.yaml").read_text())
    except (OSError, yaml.YAMLError):
        return {}  # it was killed before, or while, that was written
    return {_name(path): value for path, value in leaves(found or {})}


def _changes(cfg: DictConfig, folder: Path) -> dict[str, tuple[Any, Any]]:
    """Options with their values before and now, each where it is written."""
    if not (before := _recorded(folder)):
        return {}
    raw = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(raw, dict)  # noqa: S101 of a DictConfig it is one
    raw.pop("hydra", None)
    now, names = {}, []
    for path, value in leaves(raw):
        names.append(_name(path))
        if isinstance(value, str) and _REFERENCE.fullmatch(value):
            continue  # it is compared where it stands
        # What cannot be resolved, or not yet, has not changed.
        with suppress(OmegaConfBaseException):
            now[_name(path)] = _resolved(cfg, path)
    if now.get("find_batch_size"):
        now.pop("loader.batch_size", None)  # the run goes on with what was found
    values = {name: (before.get(name, _ABSENT), value) for name, value in now.items()}
    values |= {
        name: (value, _ABSENT)
        for name, value in before.items()
        if value is not None and not any(_within(name, other) for other in names)
    }
    return {name: pair for name, pair in values.items() if pair[0] != pair[1]}


def leaves(
    values: dict[Any, Any], start: tuple[Any, ...] = ()
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The values of nested dictionaries, each with the keys that lead to it."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*start, key))
        else:
            yield (*start, key), value


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))


def _within(name: str, start: str) -> bool:
    return f"{name}.".startswith(f"{start}.")


def _resolved(cfg: DictConfig, path: tuple[Any, ...]) -> Any:
    value: Any = cfg
    for key in path:
        value = value[key]
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=True)
    return json.loads(json.dumps(value))  # as it comes from a file


def _is_fixed(name: str) -> bool:
    fixed = any(_within(name, start) for start in _FIXED)
    return fixed and not _MOVABLE.fullmatch(name)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
