"""The command: its options, the verdicts it reads, and the status it shows."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import execution_whitelist
from omegaconf import DictConfig, OmegaConf

from fakenews.config import CONF, TARGETS, register_resolvers
from fakenews.errors import ConfigError, RetrainingError
from fakenews.retraining.journal import Journal
from fakenews.retraining.promote import promote, read_gate
from fakenews.retraining.promotion import Promotion
from fakenews.retraining.registry import Registry
from fakenews.retraining.served import How
from fakenews.retraining.standing import Aliases
from fakenews.serving.state import abort_canary, read_state

pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader")

Configured = Callable[..., DictConfig]


@pytest.fixture
def configured(tmp_path: Path, uri: str, stand_in: Any) -> Iterator[Configured]:
    """The configuration of the command, for the store and the stand-in."""
    port = stand_in.address.rpartition(":")[2]
    register_resolvers()
    with initialize_config_dir(str(CONF)), execution_whitelist(TARGETS):
        base = compose(
            "promote",
            overrides=[
                "name=news",
                f"tracking_uri={uri}",
                f"serve.dir={tmp_path}",
                f"serve.torchserve.inference_port={port}",
                f"serve.torchserve.management_port={port}",
                "serve.timing={settle: 0, poll: 0.001}",
                "serve.deadline=0.05",
                f"export.out={tmp_path}/archives",
            ],
        )

        def make(*overrides: str) -> DictConfig:
            cfg = copy.deepcopy(base)
            for override in overrides:
                key, _, value = override.partition("=")
                OmegaConf.update(cfg, key.lstrip("+"), yaml.safe_load(value), force_add=True)
            return cfg

        yield make


def test_each_action_is_done(
    configured: Configured,
    promotion: Promotion,
    registry: Registry,
    tmp_path: Path,
) -> None:
    def done(*overrides: str) -> tuple[Aliases, str | None, str | None]:
        promote(configured(*overrides))
        state = read_state(tmp_path, name="fakenews")
        return registry.aliases(), state.champion, state.canary and state.canary.version

    promotion.promote(1)
    # Versions have archives that were served before: none is exported here.
    promotion.promote(2)
    promotion.promote(1)
    for number in (1, 2):
        assert registry.status().find(number).archive == f"v{number}"
    assert done("action=challenge", "version=2") == (
        Aliases(champion=1, challenger=2, previous=2),
        "v1",
        None,
    )
    assert done("action=challenge", "version=2", "trial=true", "share=0.4")[1:] == ("v1", "v2")
    assert done("action=rollback", "version=2")[1:] == ("v1", None)
    assert done("action=rollback", "serving=none")[0].champion in (1, 2)


@pytest.mark.parametrize(
    ("overrides", "faults"),
    [
        (["action=challenge"], ["action=challenge needs version: give version=N"]),
        (["version=2"], ["version=2 does not go with action=status"]),
        (
            ["action=rollback", "force=true", "gate=x"],
            [
                "force=True does not go with action=rollback",
                "gate=x does not go with action=rollback",
            ],
        ),
        (["action=promote", "trial=true"], ["trial=True does not go with action=promote"]),
        (
            ["action=promote", "serving=none", "canary_seconds=5"],
            ["canary_seconds=5 does not go with serving=none"],
        ),
        (["action=promote", "version=0"], ["version=0: it should be greater than or equal"]),
        (["serving=vertex"], ["serving='vertex': it should be 'torchserve' or 'none'"]),
        (["share=1"], ["share=1: it should be less than 1"]),
        (["timeout=0"], ["timeout=0: it should be greater than 0"]),
        (["export.engine=tensorrt"], ["export.engine='tensorrt': it should be 'torch', 'onnx"]),
        (["serve.name=a b"], ["serve.name=a b: use letters, digits"]),
    ],
)
def test_options_that_are_wrong_or_do_not_go_together(
    configured: Configured, overrides: list[str], faults: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        promote(configured(*overrides))
    found = [any(told.startswith(fault) for told in caught.value.faults) for fault in faults]
    assert all(found), caught.value.faults


def test_verdicts_of_the_gate(tmp_path: Path) -> None:
    path = tmp_path / "gate.json"
    checks = [{"key": key, "passed": key != "recall"} for key in ("ap", "f1", "recall")]
    path.write_text(json.dumps({"accepted": False, "checks": checks}))
    gate = read_gate(path)
    assert (gate.accepted, gate.summary) == (False, "2 of 3 checks passed; failed: recall")
    path.write_text(json.dumps({"accepted": True, "checks": checks[:1]}))
    assert str(read_gate(path)) == "accepted (1 of 1 checks passed)"
    # As the gate writes it.
    sides = {"challenger": {"run_id": "a"}, "champion": {"run_id": "b", "sha256": "c"}}
    verdict = {"accepted": False, "checks": checks, "reason": "refused: recall fell", **sides}
    path.write_text(json.dumps(verdict))
    found = read_gate(path)
    assert (found.summary, found.run, found.against) == ("recall fell", "a", "b")
    for content in ("{", "[]", "{}", '{"accepted": "yes", "checks": []}', '{"accepted": true}'):
        path.write_text(content)
        with pytest.raises(RetrainingError, match="is no verdict of the gate") as caught:
            read_gate(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(RetrainingError, match="absent cannot be read: No such file"):
        read_gate(tmp_path / "absent")


def test_the_status_for_people(
    configured: Configured,
    promotion: Promotion,
    alone: Promotion,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    promote(configured())
    assert "no version is champion: make one with action=promote" in capsys.readouterr().out
    promotion.promote(1)
    alone.challenge(3)
    alone.rollback(3)
    promotion.challenge(2, how=How(share=0.2))
    promote(configured())
    shown = capsys.readouterr().out
    lines = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert all(word in lines["1"] for word in ("champion", "accepted", "v1", "0.810"))
    assert all(word in lines["2"] for word in ("challenger", "canary", "v2"))
    assert "taken back" in lines["3"]
    assert "accepted" not in lines["4"]
    abort_canary(Path(configured().serve.dir), "too slow")
    monkeypatch.setattr(Journal, "clear", lambda journal: None)
    alone.promote(3)
    promote(configured())
    shown = " ".join(capsys.readouterr().out.split())
    assert "the champion is version 3 (archive none yet), and v1 is served: promote" in shown
    assert "the gateway gave up the trial of v2: too slow" in shown
    assert "action=promote of version 3 has been under way since" in shown


def test_the_status_for_programs(
    configured: Configured, promotion: Promotion, capsys: pytest.CaptureFixture[str]
) -> None:
    promotion.promote(1)
    capsys.readouterr()
    promote(configured("json=true"))
    found = json.loads(capsys.readouterr().out)
    assert found["aliases"] == {"champion": 1, "challenger": None, "previous": None}
    assert (found["model"], found["served"], found["begun"]) == ("news", "v1", None)
    assert [one["version"] for one in found["versions"]] == [4, 3, 2, 1]
    first = found["versions"][-1]
    assert (first["serving"], first["archive"], first["aliases"]) == (
        ["champion"],
        "v1",
        ["champion"],
    )
    assert (first["gate"]["accepted"], first["gate"]["summary"]) == (
        True,
        "9 of 9 checks passed",
    )
    assert (first["metrics"], first["data_hash"]) == ({"test_macro_f1": 0.81}, "d1")
