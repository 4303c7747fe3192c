"""New training data: the rows of a base, and what people have labelled since.

    base, labels -> near-duplicate groups -> rules -> audit of labels -> a new version

The frozen test set is copied, byte for byte; the newest labelled rows are held out as a window;
nothing that is trained on is a near-duplicate of either. A version is a function of its input:
made again from the same, or from itself with nothing new, it is the same version.
"""

import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from fakenews.bounds import Count, Fraction, NonNegative, Positive
from fakenews.data.cleaning import Cleaning
from fakenews.errors import ConfigError, RetrainingError
from fakenews.retraining import selection
from fakenews.retraining.base import Base, open_base
from fakenews.retraining.feedback import Found, Sources, read_feedback, unknown_classes
from fakenews.retraining.manifest import (
    DatasetManifest,
    read_dataset,
    version_of,
    write_manifest,
)
from fakenews.retraining.parts import FEEDBACK, ISSUES, Weights, write_parts
from fakenews.retraining.review import find_issues, write_issues
from fakenews.retraining.rows import read_batches
from fakenews.retraining.selection import TRAIN, WINDOW

_log = logging.getLogger(__name__)

_DRAFT = ".draft-"

Conflicts = Literal["majority", "drop"]
Audit = Literal["off", "flag", "drop"]


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """What becomes of labelled rows; see `make_dataset`."""

    conflicts: Conflicts
    feedback_weight: float
    half_life_days: float | None
    max_share: float | None
    window_rows: int
    audit: Audit

    @property
    def majority(self) -> bool:
        return self.conflicts == "majority"


def make_dataset(
    *,
    base: str | Path,
    out: str | Path,
    log: str | Path | None = None,
    labels: str | Path | None = None,
    bundle: str | Path | None = None,
    conflicts: Conflicts = "majority",
    feedback_weight: NonNegative = 1.0,
    half_life_days: Positive | None = None,
    max_share: Fraction | None = 0.5,
    window_rows: Count = 200,
    audit: Audit = "flag",
    model_version: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    memory: str = "1GB",
) -> DatasetManifest:
    """Make a version of the training data.

    Args:
        base: Folder of the run, the prepared dataset or the version to start from.
        out: Folder of versions.
        log: The prediction log, with texts; None: there is none.
        labels: A table of true classes, or many: `id` and `label` of predictions of the log,
            or `text` and `label`, also `time`, `id`, `user` and the extra columns of the base.
        bundle: Of the champion, for the audit; None takes that of the run that the base is.
        conflicts: Of a text with several classes, `majority` takes that of most people, and of
            one that the base has with another class that of the labelled rows, which are newer;
            `drop` leaves it out.
        feedback_weight: Of a labelled row in the loss; a row of the base has 1, or its own.
        half_life_days: After so long a labelled row counts half as much, from the newest on;
            None: all count the same.
        max_share: Of the labelled rows that one user (`user` of a table) may have; None: all.
        window_rows: Of the newest labelled rows that are held out, at most half of them.
        audit: Of labels by the bundle: `flag` lists those that are doubted, `drop` leaves them
            out too.
        model_version: Whose predictions of the log count; None: those of all.
        storage_options: Of URLs.
        memory: Most that a database takes before it goes to disk.

    Returns:
        The manifest; the version is the folder of its name in `out`.

    Raises:
        RetrainingError: There is nothing to learn, the base has changed, another process works
            in `out`, or the disk is full. Nothing half-written is left.
        FakeNewsError: Something that is read cannot be.
    """
    rules = _Rules(
        conflicts=conflicts,
        feedback_weight=feedback_weight,
        half_life_days=half_life_days,
        max_share=max_share,
        window_rows=window_rows,
        audit=audit,
    )
    sources = Sources(
        log=log,
        labels=labels,
        model_version=model_version,
        storage_options=storage_options,
        memory=memory,
    )
    folder = Path(out)
    with told(folder), _alone(folder):
        for left in folder.glob(f"{_DRAFT}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        opened = open_base(base)
        draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=folder))
        try:
            manifest = _Making(
                base=opened,
                sources=sources,
                rules=rules,
                bundle=opened.bundle if bundle is None else Path(bundle),
                draft=draft,
            ).make()
            return _publish(draft, manifest, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


@dataclass(frozen=True, kw_only=True)
class _Making:
    """One version on its way.

    Attributes:
        base: To start from.
        sources: Of labelled rows.
        rules: Of what becomes of them.
        bundle: For the audit, if there is one.
        draft: Folder that becomes the version.
    """

    base: Base
    sources: Sources
    rules: _Rules
    bundle: Path | None
    draft: Path

    @property
    def work(self) -> Path:
        """What is made on the way."""
        return self.draft / ".work"

    @property
    def feedback(self) -> Path:
        """All labelled rows, sorted; their outcomes are not known yet."""
        return self.work / "feedback.parquet"

    def make(self) -> DatasetManifest:
        (self.work / "sketches").mkdir(parents=True)
        with database_in(self.work, self.sources.memory) as database:
            found = self._read(database)
            self._group(database)
            selection.choose(
                database,
                classes=self.base.classes,
                majority=self.rules.majority,
                max_share=self.rules.max_share,
                window_rows=self.rules.window_rows,
            )
            audit = self._audit(database, found.notices)
            selection.settle_with_base(database, majority=self.rules.majority)
            outcomes = [str(outcome) for outcome in selection.outcomes(database)]
            removed = selection.removed(database)
            newest = selection.newest(database)
            labels = selection.labels(database)
        if (unknown := unknown_classes(labels, self.base.classes)) is not None:
            found.notices.append(unknown)
        if not {TRAIN, WINDOW} & set(outcomes):
            raise RetrainingError(_nothing_left(outcomes, found.notices))
        written = write_parts(
            self.draft,
            self.base,
            self.feedback,
            outcomes=outcomes,
            removed=removed,
            weights=Weights(
                weight=self.rules.feedback_weight,
                half_life_days=self.rules.half_life_days,
                newest=newest,
            ),
        )
        shutil.rmtree(self.work)
        base, sources = self.base, self.sources
        return DatasetManifest(
            version=version_of(written.files),
            parent=None if base.parent is None else base.parent.version,
            base=base.told,
            classes=base.classes,
            positive=base.positive,
            numeric=list(base.columns.numeric),
            categorical=list(base.columns.categorical),
            reading=base.reading,
            files=written.files,
            rows=written.rows,
            left_out=written.left_out,
            audit=audit,
            newest=None if newest is None else newest.replace(tzinfo=UTC).isoformat(),
            notices=list(dict.fromkeys(found.notices)),
            settings={
                **asdict(self.rules),
                "log": None if sources.log is None else str(sources.log),
                "labels": None if sources.labels is None else str(sources.labels),
                "model_version": sources.model_version,
            },
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _read(self, database: duckdb.DuckDBPyConnection) -> Found:
        read = self.work / "read.parquet"
        columns = self.base.columns
        found = read_feedback(
            self.sources, read, classes=self.base.classes, columns=columns, work=self.work
        )
        if found.textless and not found.rows:
            raise RetrainingError(
                f"{self.sources.log}: {found.textless:,} predictions have a label and none has "
                "a text, from which nothing can be learnt: set serve.gateway.log.text=true, "
                "and those that come from then on can"
            )
        files = [read]
        # What was labelled before, and may not be in the log any more.
        if self.base.folder is not None and (self.base.folder / FEEDBACK).is_file():
            files.append(self.base.folder / FEEDBACK)
        selection.sort_feedback(database, files, self.feedback, columns.feedback_schema)
        if not pq.read_metadata(self.feedback).num_rows:
            advice = "give a prediction log with feedback, or a table of labels"
            raise RetrainingError(
                f"there are no labelled rows: {'; '.join(found.notices) or advice}"
            )
        return found

    def _group(self, database: duckdb.DuckDBPyConnection) -> None:
        reading = self.base.reading
        names = self.base.columns.feedback_schema.names
        parts = {
            "base": self.base.batches("base"),
            "test": self.base.batches("test"),
            "feedback": read_batches([self.feedback], names),
        }
        for part, tables in parts.items():
            selection.write_sketches(
                self.work / "sketches" / f"{part}.parquet",
                part,
                tables,
                cleaning=Cleaning(
                    normalise=reading["normalise"], max_chars=reading["max_chars"]
                ),
                threshold=reading["near_duplicates"],
            )
        selection.make_tables(
            database,
            self.work / "sketches",
            self.feedback,
            threshold=reading["near_duplicates"],
        )

    def _audit(self, database: duckdb.DuckDBPyConnection, notices: list[str]) -> dict[str, Any]:
        if self.rules.audit == "off":
            return {"audit": "off"}
        if self.bundle is None:
            notices.append(
                "labels were not audited: there is no bundle whose probabilities could tell"
            )
            return {"audit": "no bundle"}
        places = {
            place: TRAIN if outcome is None else WINDOW
            for place, outcome in enumerate(selection.outcomes(database))
            if outcome in (None, WINDOW)
        }
        names = self.base.columns.feedback_schema.names
        issues, looked_at = find_issues(
            read_batches([self.feedback], names),
            places,
            bundle=self.bundle,
            classes=self.base.classes,
        )
        write_issues(self.draft / ISSUES, issues, read_batches([self.feedback], names), places)
        if self.rules.audit == "drop":
            selection.doubt(database, [issue.place for issue in issues])
        return {
            "audit": self.rules.audit,
            "bundle": str(self.bundle),
            "labels": looked_at,
            "doubted": len(issues),
        }


def _publish(draft: Path, manifest: DatasetManifest, out: Path) -> DatasetManifest:
    place = out / manifest.version
    if place.exists():
        _log.info("%s is made of this already: nothing to do", place)
        return read_dataset(place)
    write_manifest(draft, manifest)
    draft.chmod(0o755)  # temporary folders are private, results are not
    draft.rename(place)
    _log.info(
        "%s: %s rows to train on, %s of them labelled since; %s held out",
        place,
        f"{manifest.count(TRAIN):,}",
        f"{manifest.count(TRAIN, 'feedback'):,}",
        f"{manifest.count(WINDOW):,}",
    )
    return manifest


def _nothing_left(outcomes: Sequence[str], notices: Sequence[str]) -> str:
    counts = Counter(outcomes).most_common()
    reasons = ", ".join(f"{rows:,} x {reason}" for reason, rows in counts)
    return "; ".join(
        [f"none of {len(outcomes):,} labelled rows can be learnt from: {reasons}", *notices]
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise RetrainingError(
            f"another process is making a dataset in {folder}: wait for it, or stop it"
        ) from None


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """Tell a fault of the disk in one line.

    Raises:
        RetrainingError: The block met one.
    """
    try:
        yield
    except OSError as error:
        raise RetrainingError(
            f"{folder}: the dataset cannot be made ({error.strerror or error}): free the disk, "
            "or choose another"
        ) from error
    except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
        raise RetrainingError(
            f"{folder}: the dataset needs more room ({str(error).splitlines()[0]}): free the "
            "disk, or give more memory"
        ) from error


@contextmanager
def database_in(work: Path, memory: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database that goes to disk where memory ends.

    Args:
        work: Folder for that.
        memory: As in `1GB`.

    Raises:
        ConfigError: `memory` cannot be used.
    """
    spill = str(work / "spill")
    try:
        database = duckdb.connect(
            ":memory:", config={"memory_limit": memory, "temp_directory": spill}
        )
    except duckdb.Error as error:
        raise ConfigError(f"memory={memory}: {str(error).splitlines()[0]}") from error
    with database:
        database.execute("SET TimeZone = 'UTC'")
        yield database
