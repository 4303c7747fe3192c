"""The data stage: files in, a clean table out, audited and split."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fakenews.bounds import Count, Fraction, PositiveCount, Probability
from fakenews.data.audit import Audit, audit
from fakenews.data.checks import WEIGHT
from fakenews.data.cleaning import Cleaning
from fakenews.data.duplicates import duplicate_groups
from fakenews.data.manifest import manifest
from fakenews.data.sources import Table, read_table, weight_faults
from fakenews.data.sources import classes as find_classes
from fakenews.data.split import assign_splits, official_splits
from fakenews.errors import ConfigError, DataError

Split = Literal["train", "val", "test"]
Paths = str | Path | Sequence[str | Path]


class LabelledData(Protocol):
    """What a training asks of its data, held in memory (`Dataset`) or streamed."""

    # Read-only, so that frozen classes fit.
    @property
    def classes(self) -> list[str]:
        """Sorted class names; a class code is a place here."""

    @property
    def positive(self) -> str:
        """The class of interest."""

    @property
    def numeric(self) -> list[str]:
        """Extra columns that are numeric features."""

    @property
    def categorical(self) -> list[str]:
        """Extra columns that are categorical features."""

    @property
    def cleaning(self) -> Cleaning:
        """How `text` was made from `raw`."""

    @property
    def audit(self) -> Audit:
        """What the audit found."""

    @property
    def manifest(self) -> dict[str, Any]:
        """Where the data come from; with `data_hash`."""

    def part(self, split: Split) -> pd.DataFrame:
        """Rows of one split."""

    def codes(self, split: Split) -> NDArray[np.int64]:
        """Class codes of the rows of `part`."""

    def class_counts(self, split: Split) -> dict[str, int]:
        """Rows of each class in one split."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A clean table with a split, and what is known of it.

    Attributes:
        frame: Columns `raw`, `text`, `label`, the extra columns, `sample_weight` if rows
            have weights, `file`, `row`, `group` (rows that are near-duplicates share one)
            and `split`.
        classes: Sorted class names; a row's class code is its label's place here.
        positive: The class of interest.
        numeric: Extra columns that are numeric features.
        categorical: Extra columns that are categorical features.
        cleaning: How `text` was made from `raw`.
        audit: What the audit found.
        manifest: Files, counts and settings; with `data_hash`, which identifies the split.
    """

    frame: pd.DataFrame
    classes: list[str]
    positive: str
    numeric: list[str]
    categorical: list[str]
    cleaning: Cleaning
    audit: Audit
    manifest: dict[str, Any]

    def part(self, split: Split) -> pd.DataFrame:
        """Rows of one split, in file order."""
        return self.frame[self.frame["split"] == split].reset_index(drop=True)

    def codes(self, split: Split) -> NDArray[np.int64]:
        """Class codes of one split's rows."""
        labels = pd.Categorical(self.part(split)["label"], categories=self.classes)
        return labels.codes.astype(np.int64)

    def class_counts(self, split: Split) -> dict[str, int]:
        """Rows of each class in one split."""
        counts = self.part(split)["label"].value_counts()
        return {name: int(counts.get(name, 0)) for name in self.classes}


def load(
    *,
    path: Paths | None,
    fetch: Callable[..., Sequence[Path]] | None = None,
    val_path: Paths | None = None,
    test_path: Paths | None = None,
    text: str,
    label: str,
    label_names: Mapping[Any, str] | None = None,
    positive: str | None = None,
    numeric: Sequence[str] = (),
    categorical: Sequence[str] = (),
    weight: str | None = None,
    normalise: bool = False,
    max_chars: PositiveCount = 5000,
    val_size: Probability = 0.1,
    test_size: Probability = 0.1,
    folds: PositiveCount | None = None,
    fold: Count = 0,
    near_duplicates: Fraction = 0.8,
    seed: Count = 0,
    cache_dir: str | Path | None = None,
) -> Dataset:
    """Read, clean, audit and split a table.

    Args:
        path: File, glob, folder, or a list of them; None to `fetch` the files.
        fetch: Gets the files when there is no `path`; is given `cache_dir`.
        val_path: Files of an official validation split; None takes it from `path`.
        test_path: Files of an official test split; None takes it from `path`.
        text: Column of the text.
        label: Column of the label.
        label_names: Name of each raw label; None keeps the raw labels.
        positive: The class of interest; None takes the rarest.
        numeric: Extra columns that become numeric features.
        categorical: Extra columns that become one-hot features.
        weight: Column of how much each training row counts in the loss, finite and at least
            0, empty for 1; None: all the same. Files of `val_path` and `test_path` need none.
        normalise: Remove cues of format (see `cleaning.remove_cues`).
        max_chars: Characters after which a text is cut.
        val_size: Share of each class's rows for validation.
        test_size: Share of each class's rows for test.
        folds: Cross-validate with this many folds in place of `test_size`.
        fold: The fold that is the test split, from 0.
        near_duplicates: Jaccard similarity of word shingles from which two texts are
            near-duplicates and stay on one side of the split.
        seed: Of the split.
        cache_dir: Where `fetch` keeps what it got.

    Raises:
        DataError: Files cannot be found, read, or used for this task.
        ConfigError: Neither `path` nor `fetch` is given.
    """
    paths = {"train": path, "val": val_path, "test": test_path}
    if path is None:
        if fetch is None:
            raise ConfigError("data.path is not set: give a file, e.g. data.path=news.csv")
        paths |= roles_of(fetch(cache_dir=None if cache_dir is None else Path(cache_dir)))
    tables = {
        role: read_table(
            files,
            text=text,
            label=label,
            label_names=label_names,
            numeric=numeric,
            categorical=categorical,
            weight=weight if role == "train" else None,
            normalise=normalise,
            max_chars=max_chars,
        )
        for role, files in paths.items()
        if files is not None
    }
    frame = pd.concat([table.frame for table in tables.values()], ignore_index=True)
    if weight is not None:
        frame[WEIGHT] = frame[WEIGHT].fillna(1.0)  # of official splits
    classes, positive = find_classes(frame, positive)
    frame["group"] = duplicate_groups(frame["text"].tolist(), threshold=near_duplicates)
    if len(tables) == 1:
        frame["split"] = assign_splits(
            frame["label"],
            frame["group"],
            val_size=val_size,
            test_size=test_size,
            folds=folds,
            fold=fold,
            seed=seed,
        )
    else:
        given = [role for role, table in tables.items() for _ in range(len(table.frame))]
        frame["split"] = official_splits(
            given,
            frame["label"],
            frame["group"],
            val_size=val_size,
            test_size=test_size,
            seed=seed,
        )
    if weight is not None:
        train = frame[frame["split"] == "train"]
        totals = train.groupby("label")[WEIGHT].sum()
        if faults := weight_faults({str(n): float(w) for n, w in totals.items()}, weight):
            raise DataError(faults)
    settings = {
        "text": text,
        "label": label,
        "numeric": list(numeric),
        "categorical": list(categorical),
        "weight": weight,
        "normalise": normalise,
        "max_chars": max_chars,
        "val_size": val_size,
        "test_size": test_size,
        "folds": folds,
        "fold": fold,
        "near_duplicates": near_duplicates,
        "seed": seed,
    }
    whole = Table(
        frame=frame,
        files=[file for table in tables.values() for file in table.files],
        dropped=pd.concat([table.dropped for table in tables.values()], ignore_index=True),
        repaired=sum(table.repaired for table in tables.values()),
        clipped=sum(table.clipped for table in tables.values()),
    )
    return Dataset(
        frame=frame,
        classes=classes,
        positive=positive,
        numeric=list(numeric),
        categorical=list(categorical),
        cleaning=Cleaning(normalise=normalise, max_chars=max_chars),
        audit=audit(
            whole, frame["group"].to_numpy(), classes=classes, positive=positive, seed=seed
        ),
        manifest=manifest(
            [whole],
            frame,
            frame["split"],
            classes=classes,
            positive=positive,
            settings=settings,
        ),
    )


def roles_of(fetched: Sequence[Path]) -> dict[str, Path]:
    """Fetched files in the order train, test or train, val, test."""
    names = {1: ("train",), 2: ("train", "test"), 3: ("train", "val", "test")}
    return dict(zip(names[len(fetched)], fetched, strict=True))
