"""What a launcher has started, and what must agree with it."""

import logging

import pytest

from fakenews.errors import ConfigError
from fakenews.launch import RankFormatter, check_world, final, started, verdict

SLURM = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "5"}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK", *SLURM):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, (1, 1)),
        ({"WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3"}, (3, 2)),
        ({"WORLD_SIZE": "4"}, (1, 4)),  # an operator's pods
        (SLURM, (4, 2)),
        # A batch script is no rank.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, (1, 1)),
    ],
)
def test_processes_on_each_node(
    environment: dict[str, str], found: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert started() == found
    check_world(*found)


def test_a_mismatch_names_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"make 4 processes, and only one is running"):
        check_world(4, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"make 8 processes, and 2 were started"):
        check_world(4, 2)


def test_lines_of_several_ranks_begin_with_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    record = logging.LogRecord("a", logging.INFO, "", 0, "saved", None, None)
    assert RankFormatter("%(message)s").format(record) == "saved"
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert RankFormatter("%(message)s").format(record) == "[5/8] saved"


def test_one_rank_says_what_no_restart_will_change(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verdict() is None
    assert final(1)  # no one listens, so each says it
    monkeypatch.setenv("FAKENEWS_VERDICT", str(tmp_path_factory.mktemp("v") / "status"))
    assert verdict() is None
    assert final(75)
    assert not final(1)
    assert verdict() == 75
