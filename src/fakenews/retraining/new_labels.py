"""How many labels there are that no training has seen."""

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fakenews.retraining.base import classes_of, dataset_of
from fakenews.retraining.dataset import database_in, told
from fakenews.retraining.feedback import Sources, read_feedback
from fakenews.retraining.parts import FEEDBACK
from fakenews.retraining.rows import Columns

_log = logging.getLogger(__name__)

_WHAT = "label, coalesce(id, text) AS said FROM read_parquet"


def count_new_labels(
    *,
    base: str | Path,
    log: str | Path | None = None,
    labels: str | Path | None = None,
    model_version: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    memory: str = "1GB",
) -> int:
    """How many labelled rows with texts there are that a base does not have.

    A label that was corrected is new, too.

    Args:
        base: As for `make_dataset`, as are the others.
        log: The prediction log.
        labels: A table of true classes.
        model_version: Whose predictions count.
        storage_options: Of URLs.
        memory: Most that a database takes.

    Raises:
        RetrainingError: The base is none, or the disk is full.
        FakeNewsError: Something that is read cannot be.
    """
    classes, columns = classes_of(base), Columns()
    sources = Sources(
        log=log,
        labels=labels,
        model_version=model_version,
        storage_options=storage_options,
        memory=memory,
    )
    with tempfile.TemporaryDirectory(prefix="fakenews-labels-") as name, told(Path(name)):
        work = Path(name)
        new, known = work / "new.parquet", work / "known.parquet"
        found = read_feedback(sources, new, classes=classes, columns=columns, work=work)
        for notice in found.notices:
            _log.warning(notice)
        earlier = dataset_of(base)
        if earlier is not None and (earlier / FEEDBACK).is_file():
            known = earlier / FEEDBACK
        else:
            pq.write_table(columns.feedback_schema.empty_table(), known)
        with database_in(work, memory) as database:
            (row,) = database.execute(
                f"SELECT count(*) FROM (SELECT {_WHAT}($new)"  # noqa: S608 ours
                " WHERE list_contains($classes, label)"
                f" EXCEPT SELECT {_WHAT}($known))",
                {"new": str(new), "known": str(known), "classes": classes},
            ).fetchall()
    return int(row[0])
