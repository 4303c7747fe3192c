import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("serve.gateway.host=300.1.1.1", "the gateway cannot listen on 300.1.1.1:8000"),
        ("serve.gateway.access.rate=lots", "rate=lots: write it as in 600/minute"),
        ("serve.gateway.access.keys_file=none", "the API keys in none cannot be read"),
    ],
)
def test_a_mistake_of_the_gateway_is_one_line_before_anything_starts(
    tmp_path: Path, override: str, said: str
) -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "scripts" / "serve.py"),
            f"paths.root={tmp_path}",
            override,
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {said}")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
