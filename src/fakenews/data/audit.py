"""What is in the data, and what could mislead a model that learns from it.

The *artefact probe* asks how well format alone (`artefacts`) predicts the label: a
cross-validated logistic regression that never sees a word, scored by average precision
against the base rate. Where it does well, a model can too, and will fail elsewhere.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.table import Table as RichTable
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from fakenews.data import artefacts as artefact
from fakenews.data.sources import Table
from fakenews.data.split import assign_folds
from fakenews.errors import DataError

_QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)
# Smallest lift of the probe that is warned of.
_PROBE_WARNING = 0.1
_PROBE_ROWS = 100_000  # enough for ten columns; more only takes longer


@dataclass(frozen=True)
class Probe:
    """How well format alone predicts the positive class.

    Attributes:
        average_precision: Of out-of-fold scores, over all rows probed.
        base_rate: Share of the positive class, which chance would score.
        lift: ``(average_precision - base_rate) / (1 - base_rate)``: 0 is chance, 1 perfect.
        folds: Folds of the cross-validation.
        rows: Rows probed.
    """

    average_precision: float
    base_rate: float
    lift: float
    folds: int
    rows: int


@dataclass(frozen=True)
class Audit:
    """The findings of `audit`; every figure counts rows of the frame unless it says else.

    Attributes:
        rows: Usable rows.
        rows_per_class: The same by class.
        positive: The positive class.
        base_rate: Its share.
        lengths: Class -> ``words`` or ``chars`` (of the cleaned text) -> quantile -> value.
        exact_duplicates: Rows whose text as decoded repeats that of an earlier row.
        near_duplicates: Other rows that share a group with an earlier row.
        groups: Groups of duplicates, single rows included.
        largest_group: Rows in the largest group.
        conflicting_texts: Rows whose cleaned text occurs with another label too.
        conflicting_groups: Rows whose duplicate group has more than one label.
        encodings: Files of each encoding.
        repaired: Texts in which a wrong decoding was undone.
        clipped: Texts cut to the longest length.
        dropped: Rows left out, by reason.
        artefact_rates: Artefact -> class -> share of its raw texts that have it.
        probe_raw: The probe on the texts as decoded; None with too few rows.
        probe_text: The probe on the texts that a model gets; None with too few rows.
        warnings: What a reader should act on, a sentence each.
    """

    rows: int
    rows_per_class: dict[str, int]
    positive: str
    base_rate: float
    lengths: dict[str, dict[str, dict[str, float]]]
    exact_duplicates: int
    near_duplicates: int
    groups: int
    largest_group: int
    conflicting_texts: int
    conflicting_groups: int
    encodings: dict[str, int]
    repaired: int
    clipped: int
    dropped: dict[str, int]
    artefact_rates: dict[str, dict[str, float]]
    probe_raw: Probe | None
    probe_text: Probe | None
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """The findings as plain dicts, lists, strings and finite numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> "Audit":
        """The audit that `to_json` gave.

        Raises:
            DataError: It is none.
        """
        try:
            probes = {
                name: data[name] and Probe(**data[name]) for name in ("probe_raw", "probe_text")
            }
            return cls(**{**data, **probes})
        except (KeyError, TypeError) as error:
            raise DataError(f"it is no audit ({error})") from error

    def table(self) -> list[RichTable]:
        """Tables for the terminal: the figures, the classes, the artefacts that occur."""
        return [self._figures(), self._classes(), self._artefacts()]

    def _figures(self) -> RichTable:
        table = RichTable("data", "", title="Audit", title_justify="left")
        table.columns[1].justify = "right"
        figures = {
            "rows": self.rows,
            "dropped": sum(self.dropped.values()),
            "exact duplicates": self.exact_duplicates,
            "near duplicates": self.near_duplicates,
            "largest duplicate group": self.largest_group,
            "rows with conflicting labels": self.conflicting_groups,
            "texts repaired": self.repaired,
            "texts clipped": self.clipped,
        }
        for name, count in figures.items():
            table.add_row(name, f"{count:,}")
        table.add_row("encodings", ", ".join(f"{k} ({n})" for k, n in self.encodings.items()))
        table.add_row(f"base rate of {self.positive}", f"{self.base_rate:.3f}")
        for name, probe in (("as found", self.probe_raw), ("as trained on", self.probe_text)):
            score = "too few rows" if probe is None else f"{probe.average_precision:.3f}"
            table.add_row(f"average precision of format alone, {name}", score)
        return table

    def _classes(self) -> RichTable:
        table = RichTable(
            "class", "rows", "share", "words (median, 95%)", "chars (median, 95%)"
        )
        for name, count in self.rows_per_class.items():
            cells = [f"{q['0.5']:.0f}, {q['0.95']:.0f}" for q in self.lengths[name].values()]
            table.add_row(name, f"{count:,}", f"{count / self.rows:.1%}", *cells)
        return table

    def _artefacts(self) -> RichTable:
        table = RichTable("artefact in the raw text", *self.rows_per_class)
        for name, rates in self.artefact_rates.items():
            if any(rates.values()):
                table.add_row(name, *(f"{rate:.1%}" for rate in rates.values()))
        return table


def audit(
    table: Table,
    groups: NDArray[np.int64],
    *,
    classes: list[str],
    positive: str,
    seed: int = 0,
) -> Audit:
    """Count, measure and probe.

    Args:
        table: What was read.
        groups: Duplicate group of each row of ``table.frame`` [N].
        classes: Sorted classes.
        positive: The one of them that the probe predicts.
        seed: Seed of the probe's folds.
    """
    frame = table.frame
    label = frame["label"]
    by_class = {name: frame[label == name] for name in classes}
    exact = int(frame["raw"].duplicated().sum())
    n_groups = len(np.unique(groups))
    found = artefact.artefacts(frame["raw"])
    probe_raw = probe(found, label == positive, groups, seed=seed)
    probe_text = probe(artefact.artefacts(frame["text"]), label == positive, groups, seed=seed)
    base_rate = float((label == positive).mean())
    conflicting_groups = _conflicting(pd.Series(groups, index=frame.index), label)
    largest = int(np.unique(groups, return_counts=True)[1].max())
    return Audit(
        rows=len(frame),
        rows_per_class={name: len(rows) for name, rows in by_class.items()},
        positive=positive,
        base_rate=base_rate,
        lengths={name: _lengths(rows["text"]) for name, rows in by_class.items()},
        exact_duplicates=exact,
        near_duplicates=len(frame) - n_groups - exact,
        groups=n_groups,
        largest_group=largest,
        conflicting_texts=_conflicting(frame["text"], label),
        conflicting_groups=conflicting_groups,
        encodings=dict(Counter(file.encoding for file in table.files)),
        repaired=table.repaired,
        clipped=table.clipped,
        dropped={str(k): int(n) for k, n in table.dropped["reason"].value_counts().items()},
        artefact_rates={
            name: {c: float(found.loc[rows.index, name].mean()) for c, rows in by_class.items()}
            for name in artefact.NAMES
        },
        probe_raw=probe_raw,
        probe_text=probe_text,
        warnings=warnings_of(
            probe_text,
            classes=classes,
            conflicting=conflicting_groups,
            largest=largest,
            rows=len(frame),
        ),
    )


def probe(
    found: pd.DataFrame, positive: pd.Series, groups: NDArray[np.int64], *, seed: int = 0
) -> Probe | None:
    """Predict a class from artefacts alone, cross-validated by duplicate group.

    Args:
        found: Artefacts [N, A].
        positive: Whether a row is of the class [N].
        groups: Duplicate group of each row [N].
        seed: Seed of the folds, and of the sample when there are very many rows.

    Returns:
        The probe, with at most 5 folds; None if a side has fewer than 2 groups.
    """
    y = positive.to_numpy(dtype=bool)
    if len(y) > _PROBE_ROWS:
        rows = np.random.default_rng(seed).choice(len(y), _PROBE_ROWS, replace=False)
        found, y, groups = found.iloc[rows], y[rows], groups[rows]
    scored = probe_scores(found, y, groups, seed=seed)
    if scored is None:
        return None
    scores, folds = scored
    score, base = float(average_precision_score(y, scores)), float(y.mean())
    return Probe(score, base, (score - base) / (1 - base), folds, len(y))


def probe_scores(
    found: pd.DataFrame, positive: NDArray[np.bool_], groups: NDArray[np.int64], *, seed: int
) -> tuple[NDArray[np.float64], int] | None:
    """The probability of a class by artefacts alone [N], out of fold, and how many folds.

    Args:
        found: See `probe`.
        positive: See `probe`.
        groups: See `probe`.
        seed: Seed of the folds.

    Returns:
        None if a side has fewer than 2 groups.
    """
    x, y = found.to_numpy(dtype=np.float64), positive
    folds = min(5, len(np.unique(groups[y])), len(np.unique(groups[~y])))
    if folds < 2:
        return None
    part = assign_folds(np.where(y, "yes", "no").astype(object), groups, folds=folds, seed=seed)
    scores = np.empty(len(y))
    for k in range(folds):
        model = LogisticRegression(max_iter=1000).fit(x[part != k], y[part != k])
        scores[part == k] = model.predict_proba(x[part == k])[:, 1]
    return scores, folds


def _lengths(texts: pd.Series) -> dict[str, dict[str, float]]:
    counts = {"words": texts.str.count(r"\S+"), "chars": texts.str.len()}
    return {
        unit: {str(q): float(n.quantile(q)) for q in _QUANTILES} for unit, n in counts.items()
    }


def _conflicting(key: pd.Series, label: pd.Series) -> int:
    return int((label.groupby(key).transform("nunique") > 1).sum())


def warnings_of(
    found: Probe | None, *, classes: Sequence[str], conflicting: int, largest: int, rows: int
) -> list[str]:
    """What a reader should act on.

    Args:
        found: The probe on the texts that a model gets.
        classes: All of them.
        conflicting: Rows whose duplicate group has more than one label.
        largest: Rows in the largest group.
        rows: All rows.
    """
    warnings = []
    if found is not None and found.lift >= _PROBE_WARNING:
        warnings.append(
            f"format alone predicts the label: average precision {found.average_precision:.2f} "
            f"against a base rate of {found.base_rate:.2f}; a model can cheat on it, "
            "data.normalise=true removes such cues"
        )
    folded = Counter(name.casefold() for name in classes)
    if alike := [name for name in classes if folded[name.casefold()] > 1]:
        warnings.append(
            f"the classes {', '.join(map(repr, alike))} differ in case only: name them as one "
            "with data.label_names"
        )
    if conflicting:
        warnings.append(f"{conflicting:,} rows repeat a text that has another label elsewhere")
    if largest > max(10, rows // 20):
        warnings.append(
            f"one duplicate group holds {largest:,} rows: a template, or a chain of small "
            "changes; look at it, or raise data.near_duplicates"
        )
    return warnings
