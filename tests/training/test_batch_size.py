"""The largest batch that memory holds: memory that really ends, in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakenews.training.batch_size import _largest

SEARCH = Path(__file__).with_name("batch_size_search.py")


def search(*settings: dict[str, Any]) -> list[dict[str, Any]]:
    """What a process of its own finds, one after another."""
    done = subprocess.run(
        [sys.executable, str(SEARCH), *map(json.dumps, settings)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@given(holds=st.integers(0, 300), most=st.integers(1, 300))
def test_the_search_ends_near_what_memory_holds(holds: int, most: int):
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= holds

    found = _largest(fits, most)
    assert found <= min(holds, most)
    # What comes next was tried, or is more than was asked for.
    assert found == most or found + max(found // 8, 1) > min(holds, most)
    assert len(tried) == len(set(tried)) <= 2 + 9 + 3
    assert max(tried) <= most


@pytest.mark.slow
def test_memory_that_ends_is_met_and_left():
    none, found = search(
        {"limit": 30, "guarded": False, "tokens": 512},
        {"limit": 300, "guarded": False},
    )
    # A step of this model takes about 15 MB a row.
    assert 4 <= found["found"] <= 30
    # But for what was imported.
    assert found["left"] < 100
    assert found["seeds_are_as_before"]
    message = "memory does not hold one text of encoder.max_length=512 in training: lower"
    assert none["error"].startswith(message)


@pytest.mark.slow
def test_no_more_is_taken_than_a_share_of_what_is_available():
    plain, checkpointed, limited = search(
        {"budget": 300},
        {"budget": 300, "checkpointing": True},
        # What is found is then learned with.
        {"limit": 600},
    )
    assert plain["found"] >= 4
    assert plain["grown"] < 1.25 * 300
    # Gradients are checkpointed as in the fit.
    assert checkpointed["found"] > 1.3 * plain["found"]
    assert limited["found"] >= 4
