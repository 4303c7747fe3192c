"""Of which checks people are told, and when.

A check that becomes an alarm is told at once, again while it stays so only after
`repeat_hours`, and once more when it is ok. Each channel is told by itself, so that one
that fails gets at the next run what it has missed.
"""

import logging
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from fakenews.bounds import Positive, PositiveCount
from fakenews.data.storage import Storage
from fakenews.errors import ConfigError, DataError, MonitoringError, interruption
from fakenews.monitoring.messages import Message, News, What, compose
from fakenews.monitoring.verdict import Check, Kind, State, Verdict, worst

log = logging.getLogger(__name__)

NOTHING_JUDGED = "monitoring"
"""Key of the check that there are checks: a verdict without any is no good news either."""

_MOST_BYTES = 10_000_000


class Channel(Protocol):
    """A way to tell people, or their programs."""

    def tell(self, verdict: Verdict, message: Message | None) -> None:
        """Send what is new.

        Args:
            verdict: Of this run.
            message: None when there is nothing new: only who keeps numbers needs the verdict.

        Raises:
            MonitoringError: It was not sent; one line without secrets.
        """


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Told(_Record):
    """A check that is not ok, as a channel knows it: its worst state, first and last told."""

    state: State
    since: AwareDatetime
    at: AwareDatetime
    sent: bool


class _Memory(_Record):
    """What was told: by channel, then by check; `unknown` counts runs in a row."""

    format: Literal[1] = 1
    model: str
    unknown: dict[str, int] = {}
    told: dict[str, dict[str, _Told]] = {}


class Notifier:
    """Tells channels what is new of a verdict.

    Args:
        channels: By their names.
        state: File that keeps what was told; a path, or a URL that fsspec knows.
        repeat_hours: After which people are told again of what has not become better.
        unknown_after: Runs in a row that could not judge a check before people are told so.

    Raises:
        ConfigError: `state` names no file.
    """

    def __init__(
        self,
        *,
        channels: Mapping[str, Channel],
        state: str,
        repeat_hours: Positive = 24,
        unknown_after: PositiveCount = 2,
    ) -> None:
        folder, _, self._name = str(state).rpartition("/")
        if not self._name:
            raise ConfigError(f"the state of the alerts is {str(state)!r}: give a file")
        self._channels = channels
        self._folder = Storage(folder or ("/" if str(state).startswith("/") else Path()))
        self._repeat = timedelta(hours=repeat_hours)
        self._unknown_after = unknown_after

    def notify(self, verdict: Verdict) -> list[str]:
        """Tell every channel what is new to it.

        A run that failed is told as a verdict without checks, with the reason as its notice.

        Args:
            verdict: Of this run.

        Returns:
            A line for each thing that failed; what was not sent is tried again at the next
            run.
        """
        memory, notices = self._recall(verdict.model)
        checks = {check.key: check for check in (*verdict.checks, _judged(verdict))}
        unknown = {
            key: memory.unknown.get(key, 0) + 1
            for key, check in checks.items()
            if check.state is State.UNKNOWN
        }
        told = {name: memory.told.get(name, {}) for name in self._channels}
        failures, fault = [], None
        for name, channel in self._channels.items():
            news = list(self._news(verdict, checks, unknown, told[name]))
            message = None
            if news:
                others = sorted(told[name].keys() - {one.key for one in news})
                message = compose(verdict, news, others=others, notices=notices)
            failure = _tell(name, channel, verdict, message)
            if failure is not None:
                failures.append(failure)
            after = _missed if failure is not None else _heard
            told[name] = after(told[name], news, verdict.checked_at)
            memory = memory.model_copy(update={"unknown": unknown, "told": told})
            # Now, so that a process that is killed has told nobody twice.
            fault = self._remember(memory)
        return failures if fault is None else [*failures, fault]

    def _news(
        self,
        verdict: Verdict,
        checks: Mapping[str, Check],
        unknown: Mapping[str, int],
        told: Mapping[str, _Told],
    ) -> Iterator[News]:
        """What a channel should be told."""
        now = verdict.checked_at
        for key, check in checks.items():
            bad = check.state is State.ALARM or unknown.get(key, 0) >= self._unknown_after
            before = told.get(key)
            if before is None:
                if bad:
                    yield News(what=What.NEW, key=key, check=check, since=now)
                continue
            if check.state is State.OK:
                what = What.RECOVERED
            elif not before.sent:
                what = What.NEW
            elif bad and worst([check.state, before.state]) is not before.state:
                what = What.WORSE
            elif self._long_ago(before, now):
                what = What.STILL
            else:
                continue
            yield News(what=what, key=key, check=check, since=before.since)
        # Without any checks nothing is known of those that are open.
        gone = told.keys() - checks.keys() if verdict.checks else set()
        for key in sorted(gone):
            before = told[key]
            if self._long_ago(before, now) or not before.sent:
                yield News(what=What.GONE, key=key, check=None, since=before.since)

    def _long_ago(self, told: _Told, now: datetime) -> bool:
        # A time to come is of a clock that was wrong.
        return not timedelta() <= now - told.at < self._repeat

    def _recall(self, model: str) -> tuple[_Memory, list[str]]:
        """What was told, and what is wrong with the record of it."""
        try:
            if (size := self._folder.size(self._name)) is None:
                return _Memory(model=model), []
            if size > _MOST_BYTES:
                reason = "is too large to be one"
            else:
                content = self._folder.read_bytes(self._name)
                memory = _Memory.model_validate_json(content)
                if memory.model == model:
                    return memory, []
                reason = f"is of the model {memory.model}"
        except DataError as error:
            reason = f"cannot be read ({error})"
        except ValidationError:
            reason = "is damaged"
        notice = (
            f"The record of earlier alerts, {self._name}, {reason}: it begins anew, and what "
            "was told before may be told again."
        )
        log.warning("%s", notice)
        return _Memory(model=model), [notice]

    def _remember(self, memory: _Memory) -> str | None:
        """Keep what was told; a line that says why that failed."""
        try:
            self._folder.write_bytes(self._name, memory.model_dump_json(indent=2).encode())
        except DataError as error:
            return f"the record of alerts cannot be kept, they will be told again: {error}"
        return None


def _judged(verdict: Verdict) -> Check:
    reason = f": {verdict.notices[0]}" if verdict.notices else "."
    return Check(
        key=NOTHING_JUDGED,
        kind=Kind.QUALITY,
        state=State.OK if verdict.checks else State.UNKNOWN,
        message="Checks were made." if verdict.checks else f"Nothing was checked{reason}",
    )


def _tell(name: str, channel: Channel, verdict: Verdict, message: Message | None) -> str | None:
    """Tell a channel; a line that says why that failed."""
    try:
        channel.tell(verdict, message)
    except MonitoringError as error:
        return f"{name}: {error}"
    # A fault in one must not keep the others from being told.
    except Exception as error:
        if interruption(error) is not None:
            raise
        log.exception("%s: a bug", name)
        return f"{name}: {type(error).__name__}, a bug: its traceback is in the log"
    return None


def _heard(told: Mapping[str, _Told], news: list[News], now: datetime) -> dict[str, _Told]:
    """What a channel knows after it was told."""
    after = dict(told)
    for one in news:
        if one.check is None or one.what is What.RECOVERED:
            del after[one.key]
            continue
        state = worst([one.check.state, *([told[one.key].state] if one.key in told else [])])
        after[one.key] = _Told(state=state, since=one.since, at=now, sent=True)
    return after


def _missed(told: Mapping[str, _Told], news: list[News], now: datetime) -> dict[str, _Told]:
    """What it knows when that failed: even what has passed by then is told at the next run."""
    added = {
        one.key: _Told(state=one.check.state, since=one.since, at=now, sent=False)
        for one in news
        if one.what is What.NEW and one.check is not None
    }
    return {**added, **told}
