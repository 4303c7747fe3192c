"""A verdict as metrics of Prometheus: in a file for node_exporter, or at an address."""

import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from fakenews.data.storage import Storage
from fakenews.errors import DataError, MonitoringError
from fakenews.monitoring.verdict import State, Verdict

log = logging.getLogger(__name__)

LEVELS = {State.OK: 0, State.WARNING: 1, State.UNKNOWN: 2, State.ALARM: 3}
"""States as numbers."""

TEXTFILE = "monitor.prom"
"""The file, in the folder that node_exporter reads."""

Port = Annotated[int, Ge(0), Le(65535)]
"""0 takes a free one."""

_LAST_RUN = "fakenews_monitor_last_run_timestamp_seconds"


class Metrics(Collector):
    """The latest verdict, as Prometheus reads it.

    Args:
        model: Name of the served model, for runs that fail before there is a verdict.
    """

    def __init__(self, *, model: str) -> None:
        self._model = model
        self._verdict: Verdict | None = None
        self._ran: datetime | None = None
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def judged(self, verdict: Verdict) -> None:
        """Show a new verdict, whole."""
        self._verdict, self._ran = verdict, verdict.checked_at

    def failed(self, at: datetime) -> None:
        """Take note of a run that came to no verdict; the last one stays."""
        self._ran = at

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The metrics."""
        verdict, ran = self._verdict, self._ran
        if ran is not None:
            yield self._of_model(_LAST_RUN, "When it ran last, well or not", ran.timestamp())
        if verdict is None:
            return
        yield self._of_model(
            "fakenews_monitor_last_success_timestamp_seconds",
            "When it came to a verdict last",
            verdict.checked_at.timestamp(),
        )
        info = GaugeMetricFamily(
            "fakenews_monitor_info",
            "1, for the version that was judged",
            labels=["model", "model_version"],
        )
        info.add_metric([verdict.model, verdict.model_version], 1)
        yield info
        if verdict.window is not None:
            rows, labelled = verdict.window.rows, verdict.window.labelled
            yield self._of_model("fakenews_monitor_window_rows", "Predictions judged", rows)
            yield self._of_model(
                "fakenews_monitor_window_labelled",
                "Predictions judged whose true class is known",
                labelled,
            )
        yield from _of_checks(verdict)

    def render(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)

    def write(self, folder: Path) -> Path:
        """Write `monitor.prom` for node_exporter's textfile collector, whole or not at all.

        After a run that failed in a process of its own, the file keeps the last verdict.

        Args:
            folder: That node_exporter reads.

        Returns:
            The file.

        Raises:
            MonitoringError: It cannot be written.
        """
        content = self.render()
        storage = Storage(folder)
        try:
            if self._verdict is None and storage.size(TEXTFILE) is not None:
                content = _kept(storage.read_bytes(TEXTFILE), content)
            storage.write_bytes(TEXTFILE, content)
        except DataError as error:
            raise MonitoringError(f"the metrics cannot be written: {error}") from error
        return folder / TEXTFILE

    @contextmanager
    def serve(self, host: str, port: int) -> Iterator[str]:
        """Answer Prometheus as long as the block runs.

        Args:
            host: Address to listen on; 127.0.0.1 for this machine only.
            port: 0 takes a free one.

        Yields:
            The address of the metrics.

        Raises:
            MonitoringError: The address is taken, or is none of this machine.
        """
        try:
            server, thread = start_http_server(port, addr=host, registry=self._registry)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise MonitoringError(
                f"the metrics cannot be served at {host}:{port}: {reason}; choose another place"
            ) from error
        taken = server.server_port
        try:
            yield f"http://{f'[{host}]' if ':' in host else host}:{taken}/metrics"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _of_model(self, name: str, about: str, number: float) -> GaugeMetricFamily:
        model = self._model if self._verdict is None else self._verdict.model
        family = GaugeMetricFamily(name, about, labels=["model"])
        family.add_metric([model], number)
        return family


def _of_checks(verdict: Verdict) -> Iterator[GaugeMetricFamily]:
    about = {
        "state": "0 ok, 1 warning, 2 could not be judged, 3 alarm",
        "value": "What was measured",
        "threshold": "That an alarm's value passes",
        "p_value": "How often a clean window has such a value",
        "effect": "How much has changed",
    }
    for name, text in about.items():
        family = GaugeMetricFamily(
            f"fakenews_monitor_{name}", text, labels=["model", "check", "kind"]
        )
        for check in verdict.checks:
            number = LEVELS[check.state] if name == "state" else getattr(check, name)
            if number is not None and math.isfinite(number):
                family.add_metric([verdict.model, check.key, check.kind], number)
        yield family


def _kept(before: bytes, now: bytes) -> bytes:
    """The metrics before, with the time of the last run as it is now."""
    line = re.compile(rb"^" + _LAST_RUN.encode() + rb"\{.*$", re.MULTILINE)
    latest = line.search(now)
    if latest is None or line.search(before) is None:
        return now
    return line.sub(lambda _: latest[0], before)
