import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fakenews.serving.deployment import Deployment
from fakenews.serving.management import Management
from fakenews.serving.state import abort_canary
from fakenews.serving.status import Status, read_status, shown
from fakenews.serving.steps import deploying
from fakenews.serving.versions import Timing


@pytest.fixture
def read(
    tmp_path: Path, client: Management, stand_in: Any, make_mar: Callable[..., Path]
) -> Callable[[], Status]:
    deployment = Deployment(
        folder=tmp_path,
        name="fakenews",
        client=client,
        timing=Timing(settle=0, deadline=0, poll=0.001),
    )
    deployment.deploy(make_mar("a"))
    deployment.deploy(make_mar("b"), workers=2)
    deployment.canary(make_mar("c"), share=0.25)
    assert stand_in.models
    return lambda: read_status(deployment.state, client, tmp_path)


def _text(status: Status) -> str:
    console = Console(width=400)
    with console.capture() as captured:
        console.print(shown(status))
    return captured.get()


def _rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_what_is_deployed_stands_in_a_table(read: Callable[[], Status]) -> None:
    status = read()
    assert status.faults == []
    assert status.default == "b"
    text = _text(status)
    assert "TorchServe: Healthy" in text
    rows = {row[0]: row[1:] for row in _rows(text) if row and row[0] in "abc"}
    assert list(rows) == ["b", "a", "c"]
    assert rows["b"][:5] == ["champion", "2", "of", "2", "ready"]
    assert rows["c"][:6] == ["canary", "(25%)", "1", "of", "1", "ready"]
    assert rows["a"][:3] == ["previous", "archive", "only"]
    assert "canary c: share 0.25" in text


def test_programs_get_the_same(read: Callable[[], Status]) -> None:
    found = json.loads(json.dumps(read().plain()))
    assert found["default"] == "b"
    assert [version["version"] for version in found["versions"]] == ["b", "a", "c"]
    assert found["versions"][2]["share"] == 0.25
    assert found["events"][-1]["action"] == "canary"
    assert found["faults"] == []


def test_while_somebody_deploys_that_is_told_and_nothing_is_wrong(
    read: Callable[[], Status], stand_in: Any, tmp_path: Path
) -> None:
    assert read().under_way is None
    stand_in.models["b"]["workers"] = 1
    assert read().faults
    with deploying(tmp_path, "canary"):
        status = read()
    assert status.faults == []
    assert "a deployment is under way: action=canary of process" in _text(status)
    assert read().under_way is None


def test_what_is_not_as_it_should_be_is_told(
    read: Callable[[], Status], stand_in: Any, tmp_path: Path
) -> None:
    abort_canary(tmp_path, "12 errors in 50")
    stand_in.models["x"] = {"url": "fakenews-x", "workers": 1, "looks": 1}
    stand_in.models["b"]["workers"] = 1
    stand_in.default = "x"
    status = read()
    assert status.faults == [
        "version b has 1 workers ready, of 2",
        "the default is x, not b",
        "version x should not be in TorchServe",
    ]
    text = _text(status)
    assert "not as it should be: the default is x, not b" in text
    assert "canary c was given up at 2" in text
    assert ": 12 errors in 50" in text
    assert ["c", "idle"] in [row[:2] for row in _rows(text)]
    stray = next(row for row in _rows(text) if row[:1] == ["x"])
    assert stray[:6] == ["x", "not", "in", "the", "state", "1"]


def test_without_a_torchserve_the_state_is_still_told(
    read: Callable[[], Status], stand_in: Any
) -> None:
    stand_in.key_file.unlink()
    status = read()
    assert (status.answers, status.default, status.faults) == (False, None, [])
    text = _text(status)
    assert "does not exist: start TorchServe" in text
    assert ["b", "champion", "?", "?"] in [row[:4] for row in _rows(text)]


def test_nothing_is_deployed(tmp_path: Path, client: Management) -> None:
    deployment = Deployment(
        folder=tmp_path,
        name="fakenews",
        client=client,
        timing=Timing(settle=0, deadline=0, poll=0.001),
    )
    text = _text(read_status(deployment.state, client, tmp_path))
    assert "nothing is deployed" in text
