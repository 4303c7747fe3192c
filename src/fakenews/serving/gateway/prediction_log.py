"""Every prediction, written down before it is answered; and what was refused or failed.

One thread writes the lines of all requests that wait, together. What a process has written
outlives it, however it ends; with `fsync` also the machine.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from fakenews.data.cleaning import Cleaning
from fakenews.serving.details import decode_details
from fakenews.serving.gateway.ids import new_id
from fakenews.serving.gateway.requests import Answer, Item
from fakenews.serving.gateway.segments import OPEN, left_over, open_segment, seal, write_all

log = logging.getLogger(__name__)

_GROUP = 500  # requests written together at most
_NOTES = 1000  # that wait at most, of those that nobody waits for
_LOOK = 1.0  # seconds between looks at a segment's age
_RETRY = 30.0  # seconds until what could not be sealed is tried again
_TIDY = 3600.0  # seconds between looks for what is too old
_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
_clean = Cleaning()


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A prediction to be written down, or why there is none.

    Attributes:
        id: Of the prediction.
        milliseconds: Since 1970, as in the id.
        route: By which it was answered; None if it was refused before.
        item: That was asked about; None if it was none.
        answer: The prediction with its `details`, or an `error`.
        seconds: From the item's arrival to its answer; None if it took other work, too.
        shadow_of: Id of the prediction that was answered, for a shadow's.
    """

    id: str
    milliseconds: int
    route: str | None
    item: Item | None
    answer: Answer
    seconds: float | None = None
    shadow_of: str | None = None


class PredictionLog:
    """Writes records; `start` it before, and `close` it after the last.

    Args:
        folder: Of the log.
        text: Whether texts are written.
        fsync: Whether lines must have reached the disk.
        segment_bytes: Size at which a segment becomes Parquet.
        segment_seconds: Age at which it does.
        failed: Is told of records that could not be written, and of lines that were damaged.
        tidy: Removes what is too old; called at the start and every hour.
    """

    def __init__(
        self,
        *,
        folder: Path,
        text: bool,
        fsync: bool,
        segment_bytes: int,
        segment_seconds: float,
        failed: Callable[[int], None],
        tidy: Callable[[], None],
    ) -> None:
        self.folder = folder
        self.fault: str | None = None
        """What was wrong when it was written last; None when all is well."""
        self._text = text
        self._fsync = fsync
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._failed = failed
        self._tidy = tidy
        self._waiting: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._to_seal: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._segment: _Segment | None = None
        self._writer = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._sealer = threading.Thread(target=self._seal_all, name="seal", daemon=True)

    def start(self) -> None:
        """Begin to write, and make Parquet of what an earlier process left."""
        for path in left_over(self.folder):
            self._to_seal.put(path)
        self._writer.start()
        self._sealer.start()

    def close(self) -> None:
        """Write what waits, and make Parquet of it; blocks."""
        self._waiting.put(None)
        self._writer.join()
        self._to_seal.put(None)
        self._sealer.join()

    async def write(self, records: Sequence[Record]) -> bool:
        """Write records; returns whether they were."""
        loop = asyncio.get_running_loop()
        written: asyncio.Future[bool] = loop.create_future()
        self._waiting.put(_Entry(records, loop, written))
        return await written

    def note(self, records: Sequence[Record]) -> None:
        """Write records that nobody waits for; not those that a stuck disk would pile up."""
        if self._waiting.qsize() >= _NOTES:
            self._failed(len(records))
            return
        self._waiting.put(_Entry(records, None, None))

    # --- the thread that writes -----------------------------------------------------------

    def _write_all(self) -> None:
        running = True
        while running:
            entries: list[_Entry] = []
            with contextlib.suppress(queue.Empty):
                entry = self._waiting.get(timeout=_LOOK)
                while entry is not None:
                    entries.append(entry)
                    if len(entries) == _GROUP:
                        break
                    entry = self._waiting.get_nowait()
                else:
                    running = False
            if entries:
                self._write_group(entries)
            self._rotate(now=not running)

    def _write_group(self, entries: "list[_Entry]") -> None:
        try:
            lines = b"".join(
                orjson.dumps(_line(record, text=self._text), option=_OPTIONS)
                for entry in entries
                for record in entry.records
            )
            if self._segment is None:
                self._segment = _Segment(self.folder / OPEN / f"{new_id()}.jsonl")
            self._segment.write(lines, fsync=self._fsync)
        except Exception as error:  # noqa: BLE001 predictions are answered all the same
            self._note_fault(error, sum(len(entry.records) for entry in entries))
            written = False
        else:
            written, self.fault = True, None
        _tell(entries, written)

    def _note_fault(self, error: Exception, records: int) -> None:
        reason = getattr(error, "strerror", None) or repr(error)
        if self.fault is None:
            log.error("%s: predictions cannot be logged: %s", self.folder, reason)
        self.fault = f"predictions are not logged: {reason}"
        self._failed(records)

    def _rotate(self, *, now: bool) -> None:
        segment = self._segment
        if segment is None:
            return
        age = time.monotonic() - segment.began
        full = segment.size >= self._segment_bytes or age >= self._segment_seconds
        if now or full or segment.broken:
            segment.close()
            self._segment = None
            self._to_seal.put(segment.path)

    # --- the thread that makes Parquet ------------------------------------------------------

    def _seal_all(self) -> None:
        again: list[Path] = []
        tidied = -_TIDY
        while True:
            if time.monotonic() - tidied >= _TIDY:
                self._remove_old()
                tidied = time.monotonic()
            try:
                path = self._to_seal.get(timeout=_RETRY if again else _TIDY)
            except queue.Empty:
                again = [path for path in again if not self._seal(path)]
                continue
            if path is None:
                return  # what is left is sealed at the next start
            if not self._seal(path):
                again.append(path)

    def _remove_old(self) -> None:
        try:
            self._tidy()
        except Exception as error:  # noqa: BLE001 another time will do
            log.warning("%s: what is too old cannot be removed: %r", self.folder, error)

    def _seal(self, path: Path) -> bool:
        try:
            done = seal(path, self.folder)
        except FileNotFoundError:
            return True
        except Exception as error:  # noqa: BLE001 the lines stay, and another time will do
            log.warning("%s cannot become Parquet yet: %r", path, error)
            return False
        if done.damaged:
            log.warning("%s had %d damaged lines, which are lost", path, done.damaged)
            self._failed(done.damaged)
        return True


@dataclass(frozen=True, slots=True)
class _Entry:
    records: Sequence[Record]
    loop: asyncio.AbstractEventLoop | None
    written: "asyncio.Future[bool] | None"


class _Segment:
    """A file of lines, of which none is cut short but for the last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.began = time.monotonic()
        self.size = 0
        self.broken = False
        self._descriptor = open_segment(path)

    def write(self, lines: bytes, *, fsync: bool) -> None:
        try:
            write_all(self._descriptor, lines)
            if fsync:
                os.fsync(self._descriptor)
        except OSError:
            try:
                # What went before the disk was full.
                os.ftruncate(self._descriptor, self.size)
            except OSError:
                self.broken = True
            raise
        self.size += len(lines)

    def close(self) -> None:
        os.close(self._descriptor)


def _tell(entries: Sequence[_Entry], written: bool) -> None:
    """Wake those who wait, all of one loop at once."""
    waiting: dict[asyncio.AbstractEventLoop, list[asyncio.Future[bool]]] = {}
    for entry in entries:
        if entry.loop is not None and entry.written is not None:
            waiting.setdefault(entry.loop, []).append(entry.written)
    for loop, futures in waiting.items():
        with contextlib.suppress(RuntimeError):  # it was closed: nobody waits
            loop.call_soon_threadsafe(_set, futures, written)


def _set(futures: "Sequence[asyncio.Future[bool]]", written: bool) -> None:
    for future in futures:
        if not future.done():
            future.set_result(written)


def _line(record: Record, *, text: bool) -> dict[str, Any]:
    answer = record.answer
    when = datetime.fromtimestamp(record.milliseconds / 1000, UTC)
    return {
        "id": record.id,
        "time": when.isoformat(timespec="milliseconds"),
        "model": answer.get("model"),
        "model_version": answer.get("model_version"),
        "route": record.route,
        "shadow_of": record.shadow_of,
        "label": answer.get("label"),
        "probabilities": answer.get("probabilities", {}),
        "unsure": answer.get("unsure"),
        "truncated": answer.get("truncated"),
        **_of_item(record.item, text=text),
        **decode_details(answer.get("details")),
        "latency_ms": None if record.seconds is None else round(record.seconds * 1000, 3),
        "error": answer["error"]["code"] if "error" in answer else None,
    }


def _of_item(item: Item | None, *, text: bool) -> dict[str, Any]:
    if item is None:
        names = ("characters", "words", "has_num", "text_sha256", "text")
        return {**dict.fromkeys(names), "columns": {}}
    (cleaned,) = _clean([item["text"]]).texts
    return {
        "characters": len(cleaned),
        "words": len(cleaned.split()),
        "has_num": any(map(str.isdecimal, cleaned)),
        "columns": {name: v for name, v in item.items() if name != "text"},
        "text_sha256": hashlib.sha256(cleaned.encode()).hexdigest(),
        "text": item["text"] if text else None,
    }
