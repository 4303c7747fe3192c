"""The best trial of a sweep as an experiment: `python train.py experiment=NAME_best`."""

import logging
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.trial import FrozenTrial

from fakenews.config import name_faults
from fakenews.errors import TuningError
from fakenews.tuning.findings import find, shown

log = logging.getLogger(__name__)

MARK = "# Written by a sweep, which replaces this file: copy it to change it."
"""The line by which a file of ours is known."""

# What belongs to the sweep and the machine, not to what was found.
_LEFT_OUT = {"sweep", "hydra", "paths", "logger"}
_LEFT_OUT_KEYS = {"resume", "test", "register", "bundle"}

# Places in a list, and keys with escaped characters, are none of a mapping's.
_KEY = re.compile(r"[^\W\d][\w-]*(\.[^\W\d][\w-]*)*")


def experiment_text(overrides: Sequence[str], *, conf: Path, comment: str) -> str:
    """Say overrides of `train.py` as a file of `conf/experiment/`.

    Args:
        overrides: As given on a command line or by a sweep.
        conf: The configuration's folder: its folders are the groups.
        comment: What stands at the top of the file, of any number of lines.

    Returns:
        The file: with it, the configuration is composed as with the overrides, but for
        those of the sweep itself, Hydra, paths, the logger, `resume`, `test`, `register`
        and `bundle`. Overrides that no file can say stand in a comment.

    Raises:
        HydraException: An override cannot be parsed.
    """
    bases: dict[str, list[str]] = {"experiment": []}
    choices: dict[str, Any] = {}
    values = OmegaConf.create()
    unsaid: list[str] = []
    late = _from_experiment_on(conf)
    for given in OverridesParser.create().parse_overrides(list(overrides)):
        if _left_out(given):
            continue
        value = given.value()
        if given.is_delete() or given.is_list_extend() or not _plain(given):
            unsaid.append(str(given.input_line))
        elif _is_group(given, conf):
            if given.key_or_group in late and given.package is None:
                chosen = value if isinstance(value, list) else [value]
                bases[given.key_or_group] = [f"/{given.key_or_group}/{name}" for name in chosen]
            else:
                choices[_entry(given)] = value
        elif not _set(values, given):
            unsaid.append(str(given.input_line))
    defaults: list[Any] = [path for paths in bases.values() for path in paths]
    # Entries that override must stand last.
    order = sorted(choices, key=lambda entry: entry.startswith("override "))
    defaults += [{entry: choices[entry]} for entry in order]
    return "\n".join(_lines(defaults, values, unsaid, comment))


def write_best(study: optuna.Study, conf: Path, *, root: Path | None = None) -> Path | None:
    """Write `conf/experiment/NAME_best.yaml` with the configuration of the best trial.

    Of several objectives, it is the trial of the Pareto front that is best in the first.

    Args:
        study: Whose trials have the attribute `overrides`.
        conf: The configuration's folder: its folders are the groups.
        root: Where `conf/experiment/` is written to, if it is not there.

    Returns:
        The file; None where there is nothing to write, or a file of somebody else. The log
        says which.

    Raises:
        TuningError: The file cannot be written.
    """
    findings = find(study)
    if not findings.best:
        return None
    best = findings.best[0]
    option = f"{findings.name}_best"
    path = (conf if root is None else root / "conf") / "experiment" / f"{option}.yaml"
    try:
        if obstacle := _obstacle(best, findings.name, path):
            log.warning("%s is not written: %s", path, obstacle)
            return None
        values = zip(findings.objectives, best.values, strict=True)
        comment = (
            f"The best of the sweep {findings.name}: trial {best.number}, "
            f"{', '.join(f'{name} {shown(value)}' for name, value in values)}.\n"
            f"python train.py experiment={option}"
        )
        overrides = best.user_attrs["overrides"]
        _replace(path, experiment_text(overrides, conf=conf, comment=comment))
    except OSError as error:
        raise TuningError(
            f"{path} cannot be written: {error.strerror or error}; mend that and run "
            f"python scripts/sweep_report.py study={findings.name}"
        ) from error
    return path


def _obstacle(best: FrozenTrial, name: str, path: Path) -> str | None:
    """Why the best trial cannot be written to this file."""
    overrides = best.user_attrs.get("overrides")
    if overrides is None:
        return f"trial {best.number} does not say its options"
    if list(name_faults(name)):
        return "the study's name is none of an experiment"
    if path.stem in _experiments(overrides):
        return f"trial {best.number} builds on it; give the study another name"
    if path.exists() and MARK not in path.read_text(encoding="utf-8").splitlines():
        return "there is a file that no sweep has written"
    return None


def _left_out(given: Override) -> bool:
    head = re.split(r"[./@]", given.key_or_group)[0]
    return (
        head in _LEFT_OUT or given.key_or_group in _LEFT_OUT_KEYS or given.is_hydra_override()
    )


def _plain(given: Override) -> bool:
    """Whether it has one value."""
    return given.value_type is ValueType.ELEMENT


def _is_group(given: Override, conf: Path) -> bool:
    if given.is_value_path or isinstance(given.value(), dict):
        return False
    return (conf / given.key_or_group).is_dir()


def _entry(given: Override) -> str:
    """The name of a choice in a defaults list."""
    package = f"@{given.package}" if given.package else ""
    added = given.is_add()
    return f"{'' if added else 'override '}/{given.key_or_group}{package}"


def _from_experiment_on(conf: Path) -> set[str]:
    """Groups that an experiment cannot override: itself, and those that come later."""
    content: Any = OmegaConf.load(conf / "train.yaml")
    defaults = content.get("defaults") or []
    groups = [str(next(iter(entry))) for entry in defaults if OmegaConf.is_dict(entry)]
    return set(groups[groups.index("experiment") :]) if "experiment" in groups else set()


def _set(values: DictConfig, given: Override) -> bool:
    """Set a value as Hydra would; False if no mapping can say it."""
    key = given.key_or_group
    if not _KEY.fullmatch(key):
        return False
    try:
        OmegaConf.update(values, key, given.value(), merge=True, force_add=True)
    except OmegaConfBaseException:  # below a reference to what is not in this file
        return False
    return True


def _lines(
    defaults: Sequence[Any], values: DictConfig, unsaid: Sequence[str], comment: str
) -> Iterator[str]:
    yield "# @package _global_"
    yield MARK
    yield from (f"# {line}".rstrip() for line in comment.splitlines())
    if unsaid:
        yield "# No file can say these: add these on the command line."
        yield from (f"#   {line}" for text in unsaid for line in text.splitlines())
    if defaults:
        yield OmegaConf.to_yaml(OmegaConf.create({"defaults": defaults})).rstrip()
    if values:
        if defaults:
            yield ""
        yield OmegaConf.to_yaml(values).rstrip()
    yield ""


def _experiments(overrides: Sequence[str]) -> list[Any]:
    """The experiments that overrides choose."""
    for given in OverridesParser.create().parse_overrides(list(overrides)):
        if given.key_or_group == "experiment":
            chosen = given.value()
            return chosen if isinstance(chosen, list) else [chosen]
    return []


def _replace(path: Path, content: str) -> None:
    """Write the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        draft = Path(file.name)
        file.write(content)
    draft.chmod(0o644)  # temporary files are private, a configuration is not
    draft.replace(path)
