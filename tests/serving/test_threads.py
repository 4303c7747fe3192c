"""Cores that a worker may use, and the threads it takes."""

import os
from pathlib import Path

import pytest
import torch

from fakenews.serving.threads import cores, set_threads


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 4),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("900000 100000", 4),
        ("nonsense", 4),
        (None, 4),
    ],
)
def test_cores_within_a_containers_quota(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str | None, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(quota)
    assert cores(file) == expected


def test_cores_of_this_process() -> None:
    assert 1 <= cores() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("threads", "parallel"), [(1, "false"), (2, "true")])
def test_threads(monkeypatch: pytest.MonkeyPatch, threads: int, parallel: str) -> None:
    for name in ("RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
    before = torch.get_num_threads()
    set_threads(threads)
    assert torch.get_num_threads() == threads
    assert os.environ["RAYON_NUM_THREADS"] == str(threads)
    assert os.environ["TOKENIZERS_PARALLELISM"] == parallel
    torch.set_num_threads(before)
