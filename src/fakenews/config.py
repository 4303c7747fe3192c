"""Checks of a composed configuration, and the resolvers that configuration uses.

The schema of a config node is the signature of its `_target_`: names, types and bounds
stand there once. Importing this module is cheap, so that `--help` is fast.
"""

import difflib
import inspect
import os
import typing
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fakenews.errors import ConfigError

RUN_ID = "FAKENEWS_RUN_ID"

TARGETS = (
    "fakenews.*",
    "lightning.Trainer",
    "lightning.pytorch.callbacks.*",
    "lightning.pytorch.loggers.*",
    "lightning.pytorch.profilers.*",
    "lightning.pytorch.strategies.*",
    "torch.optim.*",
    # Of Hydra's own configuration: where log lines go.
    "logging.*",
    "hydra.*",
)
"""What a configuration may make; add your own package here."""


def register_resolvers() -> None:
    """Make `${run_dir:...}` and `${root:}` known to OmegaConf; safe to call again."""
    OmegaConf.register_resolver("root", _root, replace=True)
    OmegaConf.register_resolver("run_dir", _run_dir, replace=True, use_cache=True)


def _root() -> str:
    return str(Path(__file__).resolve().parents[2])


def _run_dir(runs: str, name: str, resume: str | None) -> str:
    """The folder of this run, equal for every process of it.

    All ranks of a run inherit one id from the environment, because a clock read by each
    would give each a folder of its own.
    """
    from fakenews.tracking.folder import find_run

    if resume is not None and (found := find_run(Path(runs) / name, resume)) is not None:
        return str(found)
    run_id = os.environ.get(RUN_ID)
    if run_id is None:
        run_id = datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S.%f")[:-3]
        os.environ[RUN_ID] = run_id
    return str(Path(runs) / name / run_id)


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
    faults = [*_missing(cfg), *_signature_faults(cfg, "")]
    if not faults and rules is not None:
        faults += rules(cfg)
    if faults:
        raise ConfigError(faults)


def training_rules(cfg: DictConfig) -> Iterator[str]:
    """Contradictions between fields of `conf/train.yaml`."""
    data = cfg.data
    if data.val_size + data.test_size >= 1:
        yield (
            f"data.val_size {data.val_size} and data.test_size {data.test_size} leave "
            "nothing to train on"
        )
    if data.folds is not None and not 0 <= data.fold < data.folds:
        yield f"data.fold is {data.fold}: it must be 0 to {data.folds - 1}, data.folds less 1"
    if data.folds is not None and data.test_path is not None:
        yield "data.folds and data.test_path exclude each other: choose one test split"
    columns = [data.text, data.label, *data.numeric, *data.categorical]
    for column in sorted({column for column in columns if columns.count(column) > 1}):
        yield f"the column {column!r} is used twice in data.text, label, numeric, categorical"
    if cfg.loader.batch_tokens is not None and cfg.loader.batch_tokens < cfg.encoder.max_length:
        yield (
            f"loader.batch_tokens is {cfg.loader.batch_tokens}, less than one text of "
            f"encoder.max_length={cfg.encoder.max_length}"
        )
    known = ("average_precision", "macro_f1", "auroc", "accuracy", "log_loss")
    if cfg.metric.removeprefix("val/") not in known:
        near = closest(cfg.metric.removeprefix("val/"), known)
        yield f"metric is {cfg.metric!r}: choose val/{near or ', val/'.join(known)}"
    if (cfg.mode == "min") != (cfg.metric == "val/log_loss"):
        yield f"mode={cfg.mode} does not fit metric={cfg.metric}"


def closest(word: str, words: typing.Iterable[str]) -> str | None:
    """The word most like `word`, if one is near."""
    matches = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return matches[0] if matches else None


def plain(cfg: Any) -> Any:
    """Resolve a configuration into dicts, lists and values."""
    return OmegaConf.to_container(cfg, resolve=True)


def _missing(cfg: DictConfig) -> Iterator[str]:
    for key in sorted(OmegaConf.missing_keys(cfg)):
        yield f"{key} is not set: give {key}=VALUE"


def _signature_faults(node: Any, path: str) -> Iterator[str]:
    if node is None:
        return
    if OmegaConf.is_list(node):
        for index in range(len(node)):
            yield from _signature_faults(node[index], f"{path}[{index}]")
        return
    if not OmegaConf.is_dict(node):
        return
    keys = [key for key in node if not OmegaConf.is_missing(node, key)]
    if "_target_" in node:
        values = {str(key): node[key] for key in keys if not str(key).startswith("_")}
        yield from _call_faults(str(node["_target_"]), values, path)
    for key in keys:
        yield from _signature_faults(node[key], f"{path}.{key}" if path else str(key))


def _call_faults(target: str, values: Mapping[str, Any], path: str) -> Iterator[str]:
    if not any(target == name or target.startswith(name.rstrip("*")) for name in TARGETS):
        yield (
            f"{path}._target_={target} is not allowed: add it to TARGETS in fakenews/config.py"
        )
        return
    from hydra.utils import get_object
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

    try:
        function = get_object(target)
        parameters = inspect.signature(function).parameters
        hints = typing.get_type_hints(
            function.__init__ if inspect.isclass(function) else function, include_extras=True
        )
    # A library's own signature may be beyond introspection: it will check itself.
    except (ValueError, TypeError, NameError):
        return
    # Anything that cannot be imported is a mistake in the config.
    except Exception as error:  # noqa: BLE001
        yield f"{path}._target_={target} cannot be imported: {error}"
        return
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key, value in values.items():
        if key not in parameters:
            if not takes_any:
                near = closest(key, parameters)
                hint = f": did you mean {path}.{near}?" if near else ""
                yield f"{path}.{key} is not an option of {target}{hint}"
            continue
        if key not in hints or (OmegaConf.is_config(value) and "_target_" in value):
            continue
        try:
            adapter = TypeAdapter(hints[key], config=ConfigDict(arbitrary_types_allowed=True))
            adapter.validate_python(plain(value) if OmegaConf.is_config(value) else value)
        except PydanticUserError:
            continue  # an annotation that pydantic cannot check
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            yield f"{path}.{key}={value!r}: {reason[0].lower()}{reason[1:]}"
