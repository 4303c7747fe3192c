"""The command `scripts/monitor.py`: a prediction log is read, judged, reported and told of."""

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from fakenews.bounds import Count, Positive, PositiveCount
from fakenews.bundle import BundleContent
from fakenews.data.validation import RowSchema
from fakenews.errors import (
    ConfigError,
    FakeNewsError,
    Interrupted,
    MonitoringError,
    TrackingError,
)
from fakenews.holding import holding
from fakenews.monitoring.account import Account
from fakenews.monitoring.alerts import Channel, Notifier
from fakenews.monitoring.answering import Answering
from fakenews.monitoring.assemble import assembled
from fakenews.monitoring.checks import Policy
from fakenews.monitoring.evidently_report import write_evidently
from fakenews.monitoring.explain import examples, movers, words
from fakenews.monitoring.judge import Judge, Judgement
from fakenews.monitoring.log import open_log
from fakenews.monitoring.metrics import Metrics, Port
from fakenews.monitoring.quality import Arrivals, Limits, quality_checks, schema_check
from fakenews.monitoring.report import table, write
from fakenews.monitoring.rows import Reference, Rows
from fakenews.monitoring.totals import Totals
from fakenews.monitoring.track import track
from fakenews.monitoring.verdict import Check, Kind, State, Verdict
from fakenews.monitoring.windows import WindowData
from fakenews.predictor import Predictor
from fakenews.terminal import show
from fakenews.tracking.store import check_address

_log = logging.getLogger(__name__)

_LOG = "a log has the columns time, and prediction, label or probabilities"
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def monitor(
    *,
    bundle: str | None = None,
    registered: str | None = None,
    registry_uri: str = "sqlite:///mlflow.db",
    log: str,
    runs: str = "runs",
    policy: Policy,
    limits: Limits,
    name: str = "fakenews",
    labels: str | None = None,
    model_version: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    out: str = "monitoring",
    every: str | None = "1d",
    rows: PositiveCount | None = None,
    latest: PositiveCount = 14,
    sample: PositiveCount = 2000,
    seed: Count = 0,
    alerts: Mapping[str, Channel] | None = None,
    repeat_hours: Positive = 24,
    unknown_after: PositiveCount = 2,
    report: str | None = None,
    evidently: str | None = None,
    tracking_uri: str | None = None,
    experiment: str = "monitoring",
    schedule: str | int | None = None,
    metrics_host: str = "127.0.0.1",
    metrics_port: Port = 9105,
) -> State:
    """Judge the newest window of a prediction log, once or on a schedule.

    Args:
        bundle: Folder of the bundle that answers, or of its run; `latest`: the newest run.
        registered: Or a registered model, NAME@ALIAS or NAME/VERSION; an alias is looked up at
            every run.
        registry_uri: MLflow's store that has it.
        runs: Folder of runs, for that.
        log: The prediction log, see `open_log`.
        policy: What differs, and when that is an alarm.
        limits: Of errors, latency and volume.
        name: Of the served model.
        labels: A table of true classes by prediction.
        model_version: Whose predictions are judged; None: those of all.
        storage_options: Of URLs.
        out: Folder of the report; one that is there is replaced.
        every: Length of a window; or
        rows: predictions of one.
        latest: Windows that are looked at.
        sample: Rows of a window that are compared.
        seed: Of samples and resamples.
        alerts: Channels by name, which are told what is new.
        repeat_hours: See `Notifier`.
        unknown_after: See `Notifier`.
        report: Address of the report that people are told; None: its path.
        evidently: Python of an environment with Evidently, for its report, too.
        tracking_uri: MLflow's store; None: no run is logged.
        experiment: Of MLflow.
        schedule: Time between runs, as `15m`; None: one run. Metrics are served meanwhile.
        metrics_host: Where.
        metrics_port: Where; 0 takes a free one.

    Returns:
        The state of the last verdict.

    Raises:
        ConfigError: Options contradict each other.
        BundleError: The bundle is damaged, or has no reference.
        MonitoringError: There is no such log, or alerts, metrics, report or the run of MLflow
            could not be written; what could be was.
        TrackingError: `tracking_uri` is no address of a store, or the registry has no such
            model.
    """
    if (every is None) == (rows is None):
        raise ConfigError("give one of every and rows: every=null rows=1000, or every=1d")
    pause = None if schedule is None else _pause(schedule)
    if tracking_uri is not None:
        # Whether it answers is seen when there is something to log, and people have been told.
        check_address(tracking_uri, option="tracking_uri")
    answering = Answering(
        bundle=bundle, registered=registered, uri=registry_uri, runs=Path(runs)
    )
    make_judging = partial(
        _Judging,
        name=name,
        policy=policy,
        limits=limits,
        seed=seed,
        sample=sample,
        source={
            "path": log,
            "labels": labels,
            "model_version": model_version,
            "storage_options": storage_options,
        },
        spans={"every": every, "rows": rows, "latest": latest},
    )
    judging = make_judging(content=answering.content())
    folder = Path(out)
    outlet = _Outlet(
        folder=folder,
        metrics=Metrics(model=name),
        notifier=Notifier(
            channels=alerts or {},
            state=str(folder / "alerts.json"),
            repeat_hours=repeat_hours,
            unknown_after=unknown_after,
        ),
        name=name,
        evidently=evidently,
        store=None if tracking_uri is None else (tracking_uri, experiment),
    )
    shown = report or str(folder / "report.html")
    if pause is None:
        return outlet.run(judging, shown)
    with outlet.metrics.serve(metrics_host, metrics_port) as address:
        _log.info("metrics at %s; a run every %s", address, schedule)
        while True:
            began = time.monotonic()
            try:
                if answering.changed():
                    judging = make_judging(content=answering.content())
                outlet.run(judging, shown)
            except Interrupted:
                raise
            except FakeNewsError as error:
                _log.error("error: %s", error)
            time.sleep(max(0.0, pause - (time.monotonic() - began)))


@dataclass(frozen=True, kw_only=True)
class _Outlet:
    """Where a verdict goes.

    Attributes:
        folder: Of the report.
        metrics: Of the latest verdict.
        notifier: Tells people.
        name: Of the served model.
        evidently: See `write_evidently`; None for no such report.
        store: MLflow's, and the experiment; None for no run.
    """

    folder: Path
    metrics: Metrics
    notifier: Notifier
    name: str
    evidently: str | None
    store: tuple[str, str] | None

    def run(self, judging: "_Judging", shown: str) -> State:
        """Judge, and say so everywhere; or say everywhere that it failed."""
        # Two at once would tell people twice, or forget what was told.
        lock = self.folder / "monitor.lock"
        with holding(lock, work="monitoring", action="judge", error=MonitoringError):
            return self._run(judging, shown)

    def _run(self, judging: "_Judging", shown: str) -> State:
        try:
            account = judging.account(shown=shown)
        except Interrupted:
            raise
        except FakeNewsError as error:
            now = datetime.now(UTC)
            self.metrics.failed(now)
            for fault in self.notifier.notify(_no_verdict(self.name, now, str(error))):
                _log.error("error: %s", fault)
            self.metrics.write(self.folder)
            raise
        self._publish(account)
        return account.verdict.state

    def _publish(self, account: Account) -> None:
        verdict = account.verdict
        files = write(account, self.folder)
        self.metrics.judged(verdict)
        files.append(self.metrics.write(self.folder))
        show(table(account))
        faults = self.notifier.notify(verdict)
        if self.evidently is not None:
            try:
                page = write_evidently(account, self.folder, python=self.evidently)
                files += [] if page is None else [page]
            except MonitoringError as error:
                faults.append(str(error))
        if self.store is not None:
            uri, experiment = self.store
            try:
                track(verdict, files, self.folder, tracking_uri=uri, experiment=experiment)
            except TrackingError as error:
                faults.append(str(error))
        if faults:
            raise MonitoringError("; ".join(faults))


class _Judging:
    """A bundle, and how a log is judged by it; thresholds are kept between runs."""

    def __init__(
        self,
        *,
        content: BundleContent,
        name: str,
        policy: Policy,
        limits: Limits,
        seed: int,
        sample: int,
        source: Mapping[str, Any],
        spans: Mapping[str, Any],
    ) -> None:
        self.reference = Reference.of(content)
        self.predictor = Predictor.from_content(content)
        self._name = name
        self._limits = limits
        self._seed, self._sample = seed, sample
        self._source, self._spans = source, spans
        self._judge = Judge(self.reference, policy=policy, seed=seed, progress=True)
        rules = content.provenance.get("config", {}).get("validation") or {}
        self._schema = RowSchema(
            numeric=self.predictor.numeric,
            categorical=self.predictor.categorical,
            expectations=rules.get("columns"),
        )

    def account(self, *, shown: str) -> Account:
        """What there is to say now.

        Args:
            shown: Where people find the report.
        """
        now = datetime.now(UTC)
        with open_log(
            classes=self.reference.classes,
            calibration=self.reference.calibration,
            now=now,
            **self._source,
        ) as opened:
            spans = opened.windows(**self._spans)
            if opened.useless is not None:
                raise MonitoringError(f"log={opened.useless}: {_LOG}")
            windows: list[WindowData] = []
            judgements: list[Judgement] = []
            rows: Rows | None = None
            for span in tqdm(spans, desc="windows", disable=None, leave=False):
                data = opened.read(span, most=self._sample, seed=self._seed)
                rows, frame = assembled(data.sample, self.reference, predictor=self.predictor)
                labelled, _ = assembled(data.labelled, self.reference)
                judgements.append(self._judge.judge(rows, labelled))
                windows.append(data)
            notices = opened.notices
        newest = windows[-1]
        assert rows is not None  # noqa: S101 there is at least one window
        invalid = self._invalid(frame)
        arrivals = [Arrivals.of(window) for window in windows]
        checks: list[Check] = [
            *quality_checks(arrivals, limits=self._limits, invalid=invalid),
            *self._judge.checks(judgements),
            *self._labels(windows),
        ]
        versions = [name or "unknown" for name in newest.totals.versions]
        texts = [text if isinstance(text, str) else None for text in frame["text"]]
        enough = bool(judgements[-1].findings)
        return Account(
            verdict=Verdict(
                model=self._name,
                model_version=", ".join(versions) or "none",
                checked_at=now,
                window=newest.span,
                checks=tuple(checks),
                notices=(*self._judge.notices, *notices, *newest.notices),
                report=shown,
            ),
            reference=self.reference,
            policy=self._judge.policy,
            spans=spans,
            judgements=judgements,
            totals=[Totals.of(window.totals) for window in windows],
            rows=rows,
            movers=movers(rows, self.reference.rows) if enough else (),
            words=self._words([text for text in texts if text]) if enough else (),
            examples=examples(
                rows,
                comparisons=self._judge.comparisons,
                classes=self.reference.classes,
                ids=[str(found) for found in frame["id"]],
                texts=texts,
            )
            if enough
            else (),
        )

    def _labels(self, windows: Sequence[WindowData]) -> Iterator[Check]:
        """That labels were given, and none is of what is looked at."""
        if self._source["labels"] is not None and not any(w.totals.labelled for w in windows):
            yield Check(
                key="decay.measured",
                kind=Kind.DECAY,
                state=State.UNKNOWN,
                message="labels: none is of a prediction of these windows",
            )

    def _words(self, texts: Sequence[str]) -> Any:
        if self.predictor.tokenizer is None:
            return ()
        cleaned = self.predictor.cleaning(list(texts)).texts
        return words(cleaned, self.reference, self.predictor.tokenizer)

    def _invalid(self, frame: Any) -> Check | None:
        if self._limits.invalid is None:
            return None
        known = frame[frame["text"].notna()]
        if not len(known):
            return None
        given = known[["text"]].reset_index(drop=True)
        for column in self.predictor.columns:
            given[column] = [(found or {}).get(column) for found in known["columns"]]
        for column in self.predictor.numeric:
            given[column] = given[column].astype("float64")
        for column in self.predictor.categorical:
            given[column] = given[column].fillna("").astype("str")
        return schema_check(given, self._schema, limit=self._limits.invalid)


def _no_verdict(name: str, at: datetime, reason: str) -> Verdict:
    return Verdict(
        model=name,
        model_version="unknown",
        checked_at=at,
        window=None,
        checks=(),
        notices=(reason,),
    )


def _pause(schedule: str | int) -> float:
    """Seconds between runs."""
    found = re.fullmatch(r"(\d{1,5})([smhd])", str(schedule))
    if found is None or int(found[1]) == 0:
        raise ConfigError(f"schedule={schedule}: write a number with s, m, h or d, as in 15m")
    return timedelta(**{_UNITS[found[2]]: int(found[1])}).total_seconds()
