"""`scripts/serve.py` as a person runs it."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Command = Callable[..., CompletedProcess[str]]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("serve.gateway.host=300.1.1.1", "the gateway cannot listen on 300.1.1.1:8000"),
        ("serve.gateway.access.rate=lots", "rate=lots: write it as in 600/minute"),
        ("serve.gateway.access.keys_file=none", "the API keys in none cannot be read"),
    ],
)
def test_a_mistake_of_the_gateway_is_one_line_before_anything_starts(
    command: Command, tmp_path: Path, override: str, said: str
) -> None:
    done = command("scripts/serve.py", override, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {said}")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
