"""What the documents say is there: links, commands with their options, tests, alarms."""

import copy
import functools
import re
import shlex
from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from fakenews.config import CONF, check, register_resolvers, without_paths
from fakenews.errors import ConfigError
from fakenews.rules import preparation_rules, training_rules
from fakenews.serving.deploy import deploy_rules
from fakenews.serving.export import export_rules
from fakenews.serving.serve import serve_rules

ROOT = CONF.parent
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Their commands count, too; their links lead to the documents above.
WITH_COMMANDS = [*DOCS, *sorted((ROOT / "deploy").rglob("*.md"))]
RULES = ROOT / "deploy" / "prometheus" / "rules" / "fakenews.yaml"
OPERATIONS = ROOT / "docs" / "operations.md"

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
_COMMAND = re.compile(r"^(?:\w+=\S+ )*(python (?:train|scripts/\w+)\.py\b.*)$")

RULES_OF = {
    "train": training_rules,
    "prepare": preparation_rules,
    "deploy": deploy_rules,
    "export": export_rules,
    "serve": serve_rules,
}
# What a reader fills in, or would have by then.
FILLED = {
    "bundle=...": "bundle=runs/NAME/TIME",
    "data=...": "data=sample",
    "data.path=...": "data.path=news.csv",
    "archive=...": "archive=archives/NAME.mar",
    "log=...": "log=predictions.parquet",
}
# What a sweep has left in conf/ by then.
FOUND = re.compile(r"experiment=\S+_best")
# Wrong on purpose, to show what is said.
WRONG = {"python train.py data.pth=news.csv"}


class Command(NamedTuple):
    where: str
    text: str


def prose(text: str) -> str:
    """A document without what stands in it as code."""
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))


def slugs(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", _FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(path: Path) -> Iterator[Command]:
    """The commands of this project in the blocks of a document, each in one line."""
    text = path.read_text()
    fenced = (found[3] for found in _FENCE.finditer(text) if found[2] in ("bash", ""))
    indented = re.findall(r"(?:^    .*\n)+", _FENCE.sub("", text), re.MULTILINE)
    for block in chain(fenced, indented):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            if found := _COMMAND.match(re.sub(r"\s+# .*$", "", line.strip())):
                yield Command(f"{path.relative_to(ROOT)}: {found[1]}", found[1])


def arguments(text: str) -> list[str]:
    """What the shell gives to a command, up to a comment or the next command."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words = []
    for word in lexer:
        if word[0] in "|&;<>":
            break
        words.append(word)
    return words[1:]


def overrides(words: list[str]) -> Iterator[str]:
    """Of a command's arguments those that Hydra composes, with something where `...` stands."""
    several = "-m" in words
    for before, word in pairwise(["", *words]):
        filled = FILLED.get(word, word)
        if filled[0] == "-" or filled == "..." or before == "--cfg" or FOUND.fullmatch(word):
            continue
        key, _, value = filled.partition("=")
        if re.match(r"(tag|int|interval|range|choice)\(", value):
            # A value of a space is composed by the sweep: here that there is such a key.
            yield f"{key}=0.001"
        elif several and re.fullmatch(r"[\w.]+(,[\w.]+)+", value):
            yield f"{key}={value.partition(',')[0]}"
        else:
            yield filled


@pytest.fixture(scope="module")
def composed() -> Iterator[Callable[[str, list[str]], DictConfig]]:
    @functools.cache
    def chosen(root: str, choices: tuple[str, ...]) -> DictConfig:
        cfg = compose(root, overrides=list(choices), return_hydra_config=True)
        with open_dict(cfg):
            cfg.hydra.runtime.output_dir = "."
        return cfg

    def make(root: str, given: list[str]) -> DictConfig:
        # Commands have few choices of groups, and each takes a while.
        choices = tuple(text for text in given if (CONF / text.partition("=")[0]).is_dir())
        cfg = copy.deepcopy(chosen(root, choices))
        values = [text for text in given if text not in choices]
        for value in OverridesParser.create().parse_overrides(values):
            OmegaConf.update(cfg, value.key_or_group, value.value())
        HydraConfig.instance().set_config(cfg)
        job: DictConfig = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
        return job

    register_resolvers()
    with initialize_config_dir(str(CONF)):
        yield make
    HydraConfig.instance().cfg = None


def composes(make: Callable[[str, list[str]], DictConfig], text: str) -> None:
    """Compose a command's configuration and hold it against the code."""
    script, *words = arguments(text)
    root = Path(script).stem
    assert (ROOT / script).is_file(), script
    if any(word in ("--help", "--hydra-help") for word in words):
        return
    cfg = make(root, list(overrides(words)))
    if "--cfg" in words:
        return
    checked = cfg if root in RULES_OF or "paths" not in cfg else without_paths(cfg)
    try:
        check(checked, rules=RULES_OF.get(root))
    except ConfigError as error:
        faults = list(error.faults)
    else:
        faults = []
    if "..." in words:
        faults = [fault for fault in faults if "is not set: give" not in fault]
    assert not faults


# Each once, by the first document that has it.
COMMANDS = [
    Command(where, text)
    for text, where in {
        found.text: found.where
        for path in reversed(WITH_COMMANDS)
        for found in reversed(list(commands(path)))
    }.items()
]


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(path: Path) -> None:
    wrong = []
    for target in _LINK.findall(prose(path.read_text())):
        if re.match(r"https?://|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or not there.is_relative_to(ROOT):
            wrong.append(f"{target}: there is no such file")
        elif anchor and (there.suffix != ".md" or anchor not in slugs(there)):
            wrong.append(f"{target}: there is no such heading")
    assert not wrong, "\n".join(wrong)


def test_every_document_is_in_the_table_of_contents() -> None:
    contents = ROOT / "docs" / "README.md"
    linked = {
        (contents.parent / target.partition("#")[0]).resolve()
        for target in _LINK.findall(contents.read_text())
    }
    assert not {path for path in DOCS[1:] if path != contents} - linked


def test_commands_were_found_in_all_kinds_of_blocks() -> None:
    assert len(COMMANDS) > 60
    texts = {command.text for command in COMMANDS}
    assert "python train.py resume=auto" not in texts  # in a sentence
    assert (
        "python scripts/monitor.py bundle=... log=predictions.parquet labels=labels.csv"
        in texts
    )
    assert any("data.label=verdict out=prepared/news" in text for text in texts)
    assert texts >= WRONG


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.where)
def test_every_command_composes(
    command: Command, composed: Callable[[str, list[str]], DictConfig]
) -> None:
    text = command.text
    if text in WRONG:
        with pytest.raises(Exception, match="pth"):
            composes(composed, text)
        return
    composes(composed, text)


@pytest.mark.parametrize(
    "text",
    [
        "python train.py data.pth=news.csv",
        "python train.py model=nothing",
        "python scripts/nothing.py",
        "python scripts/deploy.py action=destroy",
        "python train.py cluster=torchrun cluster.nodes=2 trainer.max_epochs=none",
    ],
)
def test_a_command_that_does_not_compose_is_noticed(
    text: str, composed: Callable[[str, list[str]], DictConfig]
) -> None:
    with pytest.raises(Exception, match=r"."):
        composes(composed, text)


def test_tests_that_are_named_exist() -> None:
    wrong = []
    for path in DOCS:
        file = ROOT
        for found in re.finditer(
            r"`(?:(tests/[\w/]+\.py)(?:::)?)?(test_\w+)?`", path.read_text()
        ):
            # A name alone is of the file that was named before.
            file = ROOT / found[1] if found[1] else file
            if found[1] is None and (found[2] is None or file == ROOT):
                continue
            if not file.is_file():
                wrong.append(f"{path.name}: {found[0]}: there is no such file")
            elif found[2] and f"def {found[2]}(" not in file.read_text():
                wrong.append(f"{path.name}: {found[0]}: there is no such test")
    assert not wrong, "\n".join(wrong)


def rules() -> list[dict[str, dict[str, str]]]:
    content = yaml.safe_load(RULES.read_text())
    return [rule for group in content["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_every_alarm_has_its_section(rule: dict[str, dict[str, str]]) -> None:
    assert rule["annotations"]["runbook"] == f"docs/operations.md#{str(rule['alert']).lower()}"
    section = re.search(
        rf"^### {rule['alert']}\n(.*?)^##", OPERATIONS.read_text(), re.MULTILINE | re.DOTALL
    )
    assert section is not None
    assert "*Means*" in section[1]


def test_every_state_of_the_monitor_has_its_section() -> None:
    assert {"drift", "decay", "quality", "unknown"} <= slugs(OPERATIONS)


def test_no_section_is_of_an_alarm_that_is_gone() -> None:
    text = OPERATIONS.read_text()
    part = text[text.index("## Alarms of the service") : text.index("## States of the monitor")]
    assert set(re.findall(r"^### (\w+)$", part, re.MULTILINE)) == {
        rule["alert"] for rule in rules()
    }
