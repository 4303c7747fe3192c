"""Rules, routing and dashboards before the real Prometheus and the real Alertmanager."""

import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox
from prometheus_client import start_http_server

from fakenews.monitoring.metrics import Metrics
from fakenews.monitoring.verdict import Check, Kind, Span, State, Verdict
from fakenews.serving.gateway.metrics import Metrics as GatewayMetrics

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = PROMETHEUS / "rules"
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))

# By the name that it has of its maker, or of Debian.
ALERTMANAGER = shutil.which("alertmanager") or shutil.which("prometheus-alertmanager")
NEEDED = {
    "prometheus": shutil.which("prometheus"),
    "promtool": shutil.which("promtool"),
    "alertmanager": ALERTMANAGER,
    "amtool": shutil.which("amtool"),
}


@pytest.fixture(autouse=True)
def _installed() -> None:
    if missing := [name for name, path in NEEDED.items() if path is None]:
        pytest.skip(f"{', '.join(missing)}: not installed (Debian: prometheus, -alertmanager)")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


# Files


def test_prometheus_reads_its_files() -> None:
    done = run("promtool", "check", "config", PROMETHEUS / "prometheus.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "16 rules found" in done.stdout


def test_each_rule_fires_when_it_should_and_only_then() -> None:
    done = run("promtool", "test", "rules", RULES / "fakenews_test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('kind="decay"}[1h])) == 3', 'kind="decay"}[1h])) == 2'),
        ("fakenews_ready) == 0", "fakenews_ready) == 1"),
        ("[5m])) > 0.25", "[5m])) > 0.75"),
        (" or absent(up", " or absent(down"),
        ("> 7200", "> 72000"),
        ("last_over_time(fakenews_monitor_state{", "max_over_time(fakenews_monitor_state{"),
        ("increase(fakenews_canary_aborts_total[1h])", "fakenews_canary_aborts_total"),
    ],
)
def test_a_rule_that_was_changed_is_noticed(tmp_path: Path, old: str, new: str) -> None:
    text = (RULES / "fakenews.yaml").read_text()
    assert old in text
    (tmp_path / "fakenews.yaml").write_text(text.replace(old, new))
    shutil.copy(RULES / "fakenews_test.yaml", tmp_path)
    done = run("promtool", "test", "rules", tmp_path / "fakenews_test.yaml")
    assert done.returncode != 0


def test_every_expression_of_the_dashboards_is_one(tmp_path: Path) -> None:
    expressions = [
        expression.replace("$__rate_interval", "5m")
        for path in DASHBOARDS
        for expression in re.findall(r'"expr": ("(?:[^"\\]|\\.)*")', path.read_text())
    ]
    assert len(expressions) > 50

    def checked(*asked: str) -> int:
        rules = [{"record": f"r:{n}", "expr": text} for n, text in enumerate(asked)]
        path = tmp_path / "rules.yaml"
        path.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
        return run("promtool", "check", "rules", path).returncode

    assert checked(*map(json.loads, expressions)) == 0
    assert checked("sum by (a (b)") != 0


def routing(webhook: str) -> str:
    """Alertmanager's configuration, with an address in place of the file with one.

    Debian's version does not know that option of newer ones yet.
    """
    text = (PROMETHEUS / "alertmanager.yaml").read_text()
    assert "url_file: /run/secrets/webhook_url" in text
    return text.replace("url_file: /run/secrets/webhook_url", f"url: {webhook}")


def test_alertmanager_reads_its_file_and_routes(tmp_path: Path) -> None:
    path = tmp_path / "alertmanager.yaml"
    path.write_text(routing("https://example.org/"))
    done = run("amtool", "check-config", path)
    assert done.returncode == 0, done.stdout + done.stderr
    for severity, receiver in (("critical", "chat and mail"), ("warning", "chat")):
        test = ("amtool", "config", "routes", "test", f"--config.file={path}")
        assert run(*test, f"severity={severity}").stdout.strip() == receiver


# Servers


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def started(log: Path, *command: str) -> Iterator[None]:
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, cwd=log.parent
        ) as process,
    ):
        try:
            yield
        finally:
            process.terminate()


@contextmanager
def webhook_receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def exported(registry: Any, port: int) -> Iterator[None]:
    server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def verdict(**states: State) -> Verdict:
    now = datetime.now(UTC)
    return Verdict(
        model="fakenews",
        model_version="1",
        checked_at=now,
        window=Span(start=now, end=now, rows=5, labelled=0),
        checks=tuple(
            Check(key=key, kind=Kind.DRIFT, state=state, message="", value=1.0)
            for key, state in states.items()
        ),
    )


def wait_for(true: Callable[[], object], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(0.2)


class Stack:
    """Prometheus and Alertmanager by the files of `deploy/`, a hundred times as quick."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.monitor = Metrics(model="fakenews")
        self.gateway_port, monitor_port = free_port(), free_port()
        self.webhook, self.told = stack.enter_context(webhook_receiver())
        self.mails = Controller(
            Mailbox(folder / "mails"), hostname="127.0.0.1", port=free_port()
        )
        self.mails.start()
        stack.callback(self.mails.stop)
        stack.enter_context(self.monitor.serve("127.0.0.1", monitor_port))
        self.prometheus, self.alertmanager = (
            f"http://127.0.0.1:{free_port()}",
            f"http://127.0.0.1:{free_port()}",
        )
        targets = {
            "serve:8000": f"127.0.0.1:{self.gateway_port}",
            "monitor:9105": f"127.0.0.1:{monitor_port}",
            "alertmanager:9093": self.alertmanager.removeprefix("http://"),
        }
        self._write_prometheus(targets)
        self._write_alertmanager()
        self.log = folder / "log"
        stack.enter_context(
            started(
                folder / "alertmanager.log",
                str(ALERTMANAGER),
                f"--config.file={folder}/alertmanager.yaml",
                f"--storage.path={folder}/alertmanager",
                "--cluster.listen-address=",
                f"--web.listen-address={self.alertmanager.removeprefix('http://')}",
            )
        )
        stack.enter_context(
            started(
                self.log,
                "prometheus",
                f"--config.file={folder}/prometheus.yaml",
                f"--storage.tsdb.path={folder}/prometheus",
                f"--web.listen-address={self.prometheus.removeprefix('http://')}",
            )
        )

    def _write_prometheus(self, targets: dict[str, str]) -> None:
        text = (PROMETHEUS / "prometheus.yaml").read_text()
        for old, new in targets.items():
            assert old in text
            text = text.replace(f'"{old}"', f'"{new}"')
        text = re.sub(r"(scrape|evaluation)_interval: 15s", r"\1_interval: 200ms", text)
        (self.folder / "prometheus.yaml").write_text(text)
        (self.folder / "rules").mkdir()
        rules = (RULES / "fakenews.yaml").read_text()
        (self.folder / "rules" / "fakenews.yaml").write_text(
            re.sub(r"for: 1m\n", "for: 1s\n", rules)
        )

    def _write_alertmanager(self) -> None:
        text = routing(self.webhook)
        text = re.sub(r"group_wait: \d+s", "group_wait: 1s", text)
        text = text.replace("group_interval: 5m", "group_interval: 1s")
        # The server of the test has no certificate and asks nobody.
        text = re.sub(r"  smtp_auth_\w+: .*\n", "", text)
        text = text.replace("smtp_require_tls: true", "smtp_require_tls: false")
        text = text.replace("smtp.example.org:587", f"127.0.0.1:{self.mails.port}")
        (self.folder / "alertmanager.yaml").write_text(text)

    def heard(self, name: str, status: str) -> list[str]:
        """The checks (or empty) of the alerts that were told, by name and status."""
        return [
            alert["labels"].get("check", "")
            for message in self.told
            for alert in message["alerts"]
            if (alert["labels"]["alertname"], alert["status"]) == (name, status)
        ]

    def firing(self) -> dict[tuple[str, str], str]:
        """Whether each alert that Alertmanager has is active or suppressed."""
        answer = httpx.get(f"{self.alertmanager}/api/v2/alerts").json()
        return {
            (one["labels"]["alertname"], one["labels"].get("check", "")): one["status"]["state"]
            for one in answer
        }


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with ExitStack() as opened:
        yield Stack(tmp_path, opened)


def test_an_alarm_reaches_people_and_so_does_its_end(stack: Stack) -> None:
    gateway = GatewayMetrics()
    gateway.ready.set(1)
    stack.monitor.judged(verdict(a=State.OK, b=State.OK))
    with exported(gateway.registry, stack.gateway_port):
        wait_for(lambda: stack.log.exists() and up(stack) >= {"gateway", "monitor"}, stack.log)
        stack.monitor.judged(verdict(a=State.ALARM, b=State.OK))
        wait_for(lambda: stack.heard("ModelInputDrifted", "firing") == ["a"], stack.log)
        assert stack.heard("GatewayDown", "firing") == []
        (alert,) = [
            alert
            for message in stack.told
            for alert in message["alerts"]
            if alert["labels"]["alertname"] == "ModelInputDrifted"
        ]
        assert alert["annotations"]["summary"] == (
            "fakenews is asked other things than before (a)"
        )
        assert alert["labels"]["severity"] == "warning"
        stack.monitor.judged(verdict(a=State.OK, b=State.OK))
        wait_for(lambda: stack.heard("ModelInputDrifted", "resolved") == ["a"], stack.log)
        assert list((stack.folder / "mails" / "new").iterdir()) == []

    # The gateway has ended: somebody gets a mail, and what else goes wrong is no news.
    wait_for(lambda: stack.heard("GatewayDown", "firing"), stack.log)
    wait_for(lambda: any((stack.folder / "mails" / "new").iterdir()), stack.log)
    mail = next((stack.folder / "mails" / "new").iterdir()).read_text()
    assert "To: on-call@example.org" in mail
    assert "GatewayDown" in mail
    stack.monitor.judged(verdict(a=State.OK, b=State.ALARM))
    wait_for(lambda: ("ModelInputDrifted", "b") in stack.firing(), stack.log)
    assert stack.firing()["ModelInputDrifted", "b"] == "suppressed"
    assert stack.firing()["GatewayDown", ""] == "active"
    time.sleep(3)
    assert "b" not in stack.heard("ModelInputDrifted", "firing")

    # It is back, and the other trouble is still there.
    with exported(gateway.registry, stack.gateway_port):
        wait_for(lambda: stack.heard("GatewayDown", "resolved"), stack.log)
        wait_for(lambda: "b" in stack.heard("ModelInputDrifted", "firing"), stack.log)


def up(stack: Stack) -> set[str]:
    """The jobs that Prometheus reads."""
    try:
        answer = httpx.get(f"{stack.prometheus}/api/v1/query", params={"query": "up == 1"})
        found = answer.raise_for_status().json()["data"]["result"]
    except httpx.HTTPError:
        return set()
    return {one["metric"]["job"] for one in found}
