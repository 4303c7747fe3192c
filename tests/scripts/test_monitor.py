"""`scripts/monitor.py` as people, cron and Airflow run it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import httpx
import pytest

Command = Callable[..., CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["policy.references=4", "policy.windows=20"]


def test_help_lists_what_can_be_set(command: Command, tmp_path: Path) -> None:
    done = command("scripts/monitor.py", "--help", cwd=tmp_path)
    assert done.returncode == 0
    for word in ("bundle", "every", "alerts", "schedule", "Exit status: 0 ok"):
        assert word in done.stdout
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["bundle=latest"], "has no finished run: train one first"),
        (["bundle=x", "policy.neded=1"], "did you mean"),
        (["bundle=x", "policy.false_alarms=2", "sample=0"], "policy.false_alarms=2"),
        (["bundle=x", "alerts=[email]"], "alerts.email.host is not set"),
        (["bundle=x", "alerts=[pigeon]"], "pigeon"),
        (["bundle=x", "schedule=often"], "schedule=often: write a number"),
    ],
)
def test_mistakes_are_one_line(
    command: Command, tmp_path: Path, overrides: list[str], message: str
) -> None:
    done = command("scripts/monitor.py", *overrides, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_the_exit_status_is_the_verdict(
    command: Command, tiny_bundle: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log.csv"
    log.write_text("time,label\n")
    done = command(
        "scripts/monitor.py",
        f"bundle={tiny_bundle}",
        f"log={log}",
        *QUICK,
        fresh=True,
        cwd=tmp_path,
    )
    assert done.returncode == 3, done.stderr
    assert "there are no predictions" in (tmp_path / "monitoring" / "verdict.json").read_text()


@pytest.mark.slow
def test_a_schedule_serves_metrics_until_it_is_ended(tiny_bundle: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("time,label\n")
    command = [
        *(sys.executable, str(ROOT / "scripts" / "monitor.py"), f"bundle={tiny_bundle}"),
        *(f"log={log}", "schedule=1s", "metrics_port=0", *QUICK),
    ]
    environment = os.environ | {"FAKENEWS_ROOT": str(tmp_path)}
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, **output) as process:
        assert process.stdout is not None
        try:
            line = next(line for line in process.stdout if "metrics at " in line)
            address = line.partition("metrics at ")[2].partition(";")[0]
            deadline = time.monotonic() + 60
            while "fakenews_monitor_state" not in (text := httpx.get(address).text):
                assert time.monotonic() < deadline, text
                time.sleep(0.2)
            # A run that fails is told, and the next one is made.
            log.unlink()
            assert any("log.csv" in line and "error" in line for line in process.stdout)
            log.write_text("time,label\n")
            assert any("newest window" in line.lower() for line in process.stdout)
        finally:
            process.send_signal(signal.SIGTERM)
            rest = process.stdout.read()
        assert process.wait(30) == 143, rest
