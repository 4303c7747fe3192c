"""Checks of a composed configuration, and the resolvers that configuration uses.

The schema of a config node is the signature of its `_target_`: names, types and bounds
stand there once. Importing this module is cheap, so that `--help` is fast.
"""

import copy
import difflib
import inspect
import math
import os
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import InterpolationKeyError, InterpolationToMissingValueError

from fakenews.errors import ConfigError
from fakenews.launch import agreed, has_store, started

RUN_ID = "FAKENEWS_RUN_ID"

TARGETS = (
    "fakenews.*",
    "lightning.Trainer",
    "lightning.pytorch.callbacks.*",
    "lightning.pytorch.loggers.*",
    "lightning.pytorch.profilers.*",
    "lightning.pytorch.strategies.*",
    "torch.optim.*",
    "optuna.samplers.*",
    "optuna.pruners.*",
    # Of Hydra's own configuration: where log lines go.
    "logging.*",
    "hydra.*",
)
"""What a configuration may make; add your own package here."""


CONF = Path(__file__).resolve().parents[2] / "conf"
"""The folder of the configuration."""


def register_resolvers() -> None:
    """Make the resolvers of `conf/` known to OmegaConf; safe to call again.

    `${root:}` is the working copy, `${run_dir:RUNS,NAME,RESUME}` the folder of this run,
    `${unchanged:FOLDER}` refuses options with which its run cannot be resumed,
    `${job_dir:NAME,NUMBER}` is that of a sweep's job within RUNS, and `${options:}` lists
    every config group with its options, for the help text. `${devices:}` on each of `${nodes:}`
    are the processes that a launcher has started.
    """
    OmegaConf.register_resolver("root", _root, replace=True)
    OmegaConf.register_resolver("run_dir", _run_dir, replace=True, use_cache=True)
    OmegaConf.register_resolver("unchanged", _unchanged, replace=True)
    OmegaConf.register_resolver("job_dir", _job_dir, replace=True)
    OmegaConf.register_resolver("options", _options, replace=True)
    OmegaConf.register_resolver("devices", lambda: started()[0], replace=True)
    OmegaConf.register_resolver("nodes", lambda: started()[1], replace=True)


def _root() -> str:
    return str(CONF.parent)


def _run_dir(runs: str, name: str, resume: str | None) -> str:
    """The folder of this run, equal for every process of it."""
    return agreed("run_dir", lambda: _own_run_dir(runs, name, resume))


def _own_run_dir(runs: str, name: str, resume: str | None) -> str:
    from fakenews.tracking.folder import find_run

    if faults := list(name_faults(name)):
        raise ConfigError(faults)
    if resume is not None and (found := find_run(Path(runs) / name, str(resume))) is not None:
        return str(found)
    return str(Path(runs) / name / run_id())


def _unchanged(folder: str, *, _root_: DictConfig) -> str:
    """The folder, if it is new or its run can go on with this configuration."""
    # Here, because Hydra writes into the folder before the job begins.
    if _root_.resume is not None:
        from fakenews.tracking.resume import refuse_changes

        refuse_changes(_root_, Path(folder))
    return folder


def _job_dir(name: str, number: int) -> str:
    """Where a sweep's job works, beside the runs that were started alone."""
    if faults := list(name_faults(name)):
        raise ConfigError(faults)
    return f"{name}/{agreed('run_id', run_id)}_{number}"


def run_id() -> str:
    """What names this run: for one process, the time at which it was first asked.

    Raises:
        ConfigError: There are several processes, and nothing names what they share.
    """
    found = os.environ.get(RUN_ID)
    if found is None:
        found = datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S.%f")[:-3]
        if math.prod(started()) > 1 and not has_store():
            found = os.environ.get("SLURM_JOB_ID", "")
            if not found:
                raise ConfigError(
                    "several processes were started, and each would make a run folder: give "
                    f"them one with {RUN_ID}=NAME in their environment, or hydra.run.dir=FOLDER"
                )
        os.environ[RUN_ID] = found
    return found


def set_output(config: DictConfig, folder: str) -> None:
    """Say where a run works, before it does: what refers to that can then be resolved.

    Args:
        config: Composed, with Hydra's own part.
        folder: Of the run.
    """
    from hydra.core.hydra_config import HydraConfig

    with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = folder
    HydraConfig.instance().set_config(config)


def task(config: DictConfig) -> DictConfig:
    """The configuration without Hydra's own part."""
    keys = [str(key) for key in config if key != "hydra"]
    found: DictConfig = OmegaConf.masked_copy(config, keys)
    return found


def name_faults(name: object, *, key: str = "name") -> Iterator[str]:
    """What is wrong with the name of runs, or of one."""
    # It names a folder, an MLflow experiment and a registered model.
    if not re.fullmatch(r"\w[\w.-]*", str(name)):
        yield f"{key}={name}: use letters, digits, '_', '-' and '.'"


def _options(*, _root_: DictConfig) -> str:
    """A line for each group: its options, the chosen one marked."""
    from hydra.core.global_hydra import GlobalHydra

    loader = GlobalHydra.instance().config_loader()
    choices = _root_.hydra.runtime.choices
    groups = sorted(name for name in choices if "/" not in name and name not in _NO_CHOICE)
    width = max(map(len, groups), default=0)
    lines = []
    for group in groups:
        options = public_options(loader.get_group_options(group))
        marked = [f"{name}*" if name == choices[group] else name for name in options]
        lines.append(f"  {group:<{width}}  {' '.join(marked)}")
    return "\n".join(lines)


_NO_CHOICE = ("hydra", "paths")


def options_with(key: str) -> list[str]:
    """The choices of a group that have an option, as `logger=mlflow` has `tracking_uri`.

    Args:
        key: The option with its group, as in `logger.tracking_uri`.
    """
    group, *names = key.split(".")
    folder = CONF / group
    choices = public_options(path.stem for path in folder.glob("*.yaml"))
    return [f"{group}={choice}" for choice in choices if _has(folder, choice, names)]


def options_ending(name: str) -> list[str]:
    """The options of groups that have this name, as `data.storage_options`."""
    groups = sorted(path.name for path in CONF.iterdir() if path.is_dir())
    return [f"{group}.{name}" for group in groups if options_with(f"{group}.{name}")]


def _has(folder: Path, choice: str, names: list[str]) -> bool:
    content: Any = OmegaConf.to_container(OmegaConf.load(folder / f"{choice}.yaml"))
    # Of a file for the whole configuration, the group is a part.
    node = content.get(folder.name, content)
    for name in names:
        if not isinstance(node, dict) or name not in node:
            break
        node = node[name]
    else:
        return bool(names)
    defaults = (base for base in content.get("defaults", ()) if isinstance(base, str))
    # Without the package that it is put in, as in _default@trainer.
    bases = [base.partition("@")[0] for base in defaults]
    return any(_has(folder, base, names) for base in bases if base != "_self_")


def public_options(options: Iterable[str]) -> list[str]:
    """The options of a group that can be chosen: `_NAME` is a base of others."""
    return sorted(name for name in options if not name.startswith("_"))


def check(
    cfg: DictConfig, *, rules: Callable[[DictConfig], Iterator[str]] | None = None
) -> None:
    """Check every `_target_` node against its signature, then the rules between nodes.

    Args:
        cfg: The composed configuration.
        rules: Yields a message for each contradiction between fields.

    Raises:
        ConfigError: With all faults found.
    """
    faults = list(dict.fromkeys(_signature_faults(cfg, "")))
    if not faults and rules is not None:
        faults += rules(cfg)
    if faults:
        raise ConfigError(faults)


def without_paths(cfg: DictConfig) -> DictConfig:
    """A configuration that is one call, without `paths`, to which its options refer."""
    found = copy.deepcopy(cfg)
    with read_write(found), open_dict(found):
        OmegaConf.resolve(found)
        del found["paths"]
    return found


def closest(word: str, words: Iterable[str]) -> str | None:
    """The word most like `word`, if one is near."""
    matches = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return matches[0] if matches else None


def plain(cfg: Any) -> Any:
    """Resolve a configuration into dicts, lists and values; a value is itself."""
    return OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg


def _signature_faults(node: Any, path: str) -> Iterator[str]:
    if OmegaConf.is_list(node):
        for index in range(len(node)):
            yield from _signature_faults(node[index], f"{path}[{index}]")
        return
    if not OmegaConf.is_dict(node):
        return
    values, faults = _resolved(node, path)
    yield from faults
    if "_target_" in values:
        yield from _call_faults(node, values, path)
    # A node that stands elsewhere is checked there.
    elsewhere = {str(key) for key in node if OmegaConf.is_interpolation(node, key)}
    for key in (key for key in values if key not in elsewhere):
        yield from _signature_faults(values[key], _join(path, key))


def _resolved(node: DictConfig, path: str) -> tuple[dict[str, Any], list[str]]:
    """The values of a node that can be had, and why others cannot."""
    values: dict[str, Any] = {}
    faults = []
    for key in node:
        name = _join(path, str(key))
        if OmegaConf.is_missing(node, key):
            faults.append(f"{name} is not set: give {name}=VALUE")
            continue
        try:
            values[str(key)] = node[key]
        except InterpolationToMissingValueError:
            continue  # a fault where that value stands
        except InterpolationKeyError as error:
            faults.append(f"{name}: {error.msg or error}")
    return values, faults


def _call_faults(node: DictConfig, values: Mapping[str, Any], path: str) -> Iterator[str]:
    """Faults of the resolved `values` of a node that makes its `_target_`."""
    from hydra.utils import get_object

    target = str(values["_target_"])
    refusal = (
        f"{path}._target_={target} is not allowed: add it to TARGETS in fakenews/config.py"
    )
    if not any(target == name or target.startswith(name.rstrip("*")) for name in TARGETS):
        yield refusal
        return
    try:
        function = get_object(target)
    # Whatever an import raises, the name is wrong.
    except Exception as error:  # noqa: BLE001
        reason = next(iter(str(error).splitlines()), repr(error))
        yield f"{path}._target_={target} cannot be imported: {reason}"
        return
    # A module's attributes are whatever it imports: fakenews.cli.os.system is not ours.
    home = str(getattr(function, "__module__", "")).partition(".")[0]
    if home != target.partition(".")[0] or not callable(function):
        yield refusal
        return
    try:
        parameters = inspect.signature(function).parameters
        hints = typing.get_type_hints(
            function.__init__ if inspect.isclass(function) else function, include_extras=True
        )
    # A library's own signature may be beyond introspection: it will check itself.
    except (ValueError, TypeError, NameError):
        return
    raw = OmegaConf.to_container(node, resolve=False)
    assert isinstance(raw, dict)  # noqa: S101 of a DictConfig it is one
    values = {key: value for key, value in values.items() if not key.startswith("_")}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in sorted(values.keys() - parameters.keys()):
            near = closest(key, parameters)
            hint = f": did you mean {_join(path, near)}?" if near else ""
            yield f"{_join(path, key)} is not an option of {target}{hint}"

    def written_at(key: str) -> str:
        # A value that stands elsewhere is wrong there, and only once.
        source = re.fullmatch(r"\$\{(\w[\w.]*)\}", str(raw[key]))
        return source[1] if source else _join(path, key)

    yield from value_faults(values, hints, written_at)


def option_faults(
    node: Mapping[str, Any], options: type, written_at: Callable[[str], str] = str
) -> list[str]:
    """Values of a node that do not fit the type and the bounds that options have.

    Args:
        node: Has them all.
        options: A typed dictionary.
        written_at: Makes an option's name of its key.
    """
    hints = typing.get_type_hints(options, include_extras=True)
    return list(value_faults({name: node[name] for name in hints}, hints, written_at))


def value_faults(
    values: Mapping[str, Any], hints: Mapping[str, Any], written_at: Callable[[str], str]
) -> Iterator[str]:
    """Values that do not fit the type and the bounds of their hint."""
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
    from pydantic_core import SchemaError

    for key, value in values.items():
        if key not in hints or (OmegaConf.is_dict(value) and "_target_" in value):
            continue
        given = plain(value) if OmegaConf.is_config(value) else value
        try:
            adapter = TypeAdapter(hints[key], config=ConfigDict(arbitrary_types_allowed=True))
            # Text is no number, nor is a truth value, however much they look like one.
            adapter.validate_python(given, strict=isinstance(given, str | bool) or None)
        except (PydanticUserError, SchemaError):
            continue  # an annotation that pydantic cannot check, as a protocol
        except ValidationError as error:
            found = error.errors()
            # What a configuration cannot hold is no advice.
            sayable = [fault for fault in found if fault["type"] != "is_instance_of"]
            reasons: dict[str, dict[str, None]] = {}
            for fault in sayable or found:
                name, wrong = written_at(key), given
                for step in fault["loc"]:
                    name, wrong = _within(name, wrong, step)
                unknown = fault["loc"][-1:] == ("[key]",)
                place = f"{name} is not an option" if unknown else f"{name}={wrong!r}"
                reasons.setdefault(place, {})[fault["msg"]] = None
            for place, messages in reasons.items():
                reason = ", or ".join(messages).replace("Input should", "it should")
                yield f"{place}: {reason[0].lower()}{reason[1:]}"


def _within(name: str, value: Any, step: int | str) -> tuple[str, Any]:
    """One step into a mapping; what else pydantic counts as one leads nowhere."""
    if isinstance(value, Mapping) and step in value:
        return _join(name, str(step)), value[step]
    return name, value


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
