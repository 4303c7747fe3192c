"""From a frame to the tabular input of a model: the same steps to train and to serve.

What is learnt from the training split is plain JSON that a bundle carries, and a row
gives the same numbers alone as in a batch.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from fakenews.errors import ConfigError, DataError, FeatureError
from fakenews.features.entities import EntityCounter, spacy_version
from fakenews.features.raw import RawFeatures
from fakenews.features.state import EntityState, FeatureState
from fakenews.features.statistics import Statistics
from fakenews.features.tabular import (
    HEADLINE_FEATURES,
    has_number,
    headline_features,
)

if TYPE_CHECKING:
    import pandas as pd

# N rows, F features, S standardised features, L entity labels, M numeric columns

_log = logging.getLogger(__name__)
# A value ten standard deviations out says no more at a thousand, and could ruin a step.
_CLIP = 10.0
_RESERVED = frozenset({"raw", "text", "label", "file", "row"})


class FeaturePipeline:
    """Tabular features of a frame, standardised with statistics of the training split.

    The columns, in order: headline features, entity counts, numeric columns (these are
    standardised), `<name>_missing` for each numeric column with gaps in training, and
    a column for each category of training and one for all others (these are 0 or 1).
    Of counts the logarithm of 1 + count is taken first, because a few long texts would
    otherwise set the scale. A feature that was constant in training is 0, a numeric gap
    is the training mean, and everything is cut to +-10 standard deviations.

    Args:
        headline: Style features of the text.
        entities: The spaCy model whose entities are counted, or None.
        numeric: Numeric columns of the frame; None is none.
        categorical: Columns of the frame that hold a few different strings; None is none.
        max_categories: Most categories of a column that get one of their own, the most
            frequent first.
        cache_dir: Where entity counts are kept.
        processes: Worker processes that count entities.

    Raises:
        ConfigError: A column is named twice or is no extra column, or `max_categories`
            is below 1.
        FeatureError: The spaCy model is not installed.
    """

    def __init__(
        self,
        *,
        headline: bool = True,
        entities: str | None = None,
        numeric: Sequence[str] | None = (),
        categorical: Sequence[str] | None = (),
        max_categories: int = 50,
        cache_dir: str | Path | None = None,
        processes: int = 1,
    ) -> None:
        self.headline = headline
        self.numeric = tuple(numeric or ())
        self.categorical = tuple(categorical or ())
        self.max_categories = max_categories
        self._check_arguments()
        self.counter = (
            EntityCounter(
                model=entities,
                processes=processes,
                cache_dir=None if cache_dir is None else Path(cache_dir),
            )
            if entities is not None
            else None
        )
        self._state: FeatureState | None = None

    def fit(self, frame: "pd.DataFrame", *, progress: bool = False) -> Self:
        """Learn means, scales and categories from the training split.

        Raises:
            DataError: The frame has no rows, or a fault that `transform` names.
            FeatureError: The spaCy model cannot be loaded.
        """
        if len(frame) == 0:
            raise DataError("no training rows to fit features on; check the split")
        raw = self.extract(frame, progress=progress)
        return self.fit_statistics(
            Statistics.of(raw.unscaled),
            missing=[
                name
                for name, column_N in zip(self.numeric, raw.numeric.T, strict=True)
                if np.isnan(column_N).any()
            ],
            categories={
                name: frequent(Counter(values)) for name, values in raw.categories.items()
            },
            entities=self._entity_state(),
        )

    def fit_statistics(
        self,
        statistics: Statistics,
        *,
        missing: Sequence[str],
        categories: Mapping[str, Sequence[str]],
        entities: EntityState | None,
    ) -> Self:
        """Learn from what is already known of the training split; needs no spaCy.

        Args:
            statistics: Of `RawFeatures.unscaled` of the training rows.
            missing: Numeric columns with gaps.
            categories: By categorical column, its values, the most frequent first.
            entities: The model that counted the entities, or None.
        """
        self._state = FeatureState(
            headline=self.headline,
            entities=entities,
            numeric=self.numeric,
            numeric_missing=tuple(name for name in self.numeric if name in missing),
            categories={
                name: tuple(sorted(categories[name][: self.max_categories]))
                for name in self.categorical
            },
            mean=tuple(statistics.mean.tolist()),
            scale=tuple(statistics.scale.tolist()),
        )
        return self

    def transform(
        self, frame: "pd.DataFrame", *, progress: bool = False
    ) -> NDArray[np.float32]:
        """Features of each row.

        Args:
            frame: Has `text` and the extra columns; `file` and `row`, if there, are
                used in messages, other columns are not looked at.
            progress: Show a bar while entities are counted.

        Returns:
            [N, F], columns as in `names`; finite, within +-10.

        Raises:
            DataError: A column is missing, a text is not text, or a numeric column has
                a value that is infinite or no number; all such columns are named.
            FeatureError: `fit` was not called, or the spaCy model cannot be loaded or
                has other labels than at training.
        """
        state = self._fitted()
        raw = self.extract(frame, progress=progress)
        if self.counter and state.entities and self.counter.labels != state.entities.labels:
            raise FeatureError(
                f"spaCy model {self.counter.model!r} {self.counter.version} has other entity "
                f"labels than version {state.entities.version}, which the features were "
                "fitted with; install that version"
            )
        return self.apply(raw)

    def extract(self, frame: "pd.DataFrame", *, progress: bool = False) -> RawFeatures:
        """What `transform` reads off each row: the part that takes time, and needs no fit.

        Args:
            frame: See `transform`.
            progress: See `transform`.

        Raises:
            DataError: See `transform`.
            FeatureError: The spaCy model cannot be loaded.
        """
        texts, numeric_NM = self._read(frame)
        return RawFeatures(
            headline=headline_features(texts)
            if self.headline
            else np.empty((len(texts), 0), dtype=np.float32),
            entities=self._entities(texts, progress=progress),
            numeric=numeric_NM,
            categories={name: _categories(frame[name]) for name in self.categorical},
        )

    def apply(self, raw: RawFeatures) -> NDArray[np.float32]:
        """Standardise what `extract` gave: see `transform`. Needs no spaCy.

        Raises:
            FeatureError: `fit` was not called.
        """
        state = self._fitted()
        columns = [_standardise(raw.unscaled, np.array(state.mean), np.array(state.scale))]
        for name in state.numeric_missing:
            gaps_N = np.isnan(raw.numeric[:, self.numeric.index(name)])
            columns.append(gaps_N[:, None].astype(np.float64))
        for name, categories in state.categories.items():
            columns.append(_one_hot(raw.categories[name], categories))
        return np.concatenate(columns, axis=1, dtype=np.float32, casting="same_kind")

    @property
    def names(self) -> list[str]:
        """Names of the columns of `transform`; needs `fit`."""
        return self._fitted().names

    @property
    def dim(self) -> int:
        """Number of columns of `transform`, F; needs `fit`."""
        return len(self.names)

    def entity_counts(
        self, frame: "pd.DataFrame", *, progress: bool = False
    ) -> NDArray[np.int16]:
        """Entities of each row by label, [N, L]; L is 0 without entity features."""
        return self._entities(frame["text"].tolist(), progress=progress)

    def slices(
        self, frame: "pd.DataFrame", *, progress: bool = False
    ) -> dict[str, NDArray[np.bool_]]:
        """Groups of rows to evaluate apart, each a mask [N].

        `has_num` (a digit in the text) and, with entity features, `has_entity`.
        """
        masks = {"has_num": has_number(frame["text"].tolist())}
        if self.counter is not None:
            masks["has_entity"] = self.entity_counts(frame, progress=progress).sum(axis=1) > 0
        return masks

    def to_json(self) -> dict[str, Any]:
        """The fitted state as JSON types: the content of `features.json`.

        Raises:
            FeatureError: `fit` was not called.
        """
        return self._fitted().to_json()

    @classmethod
    def from_json(
        cls, data: object, *, cache_dir: Path | None = None, processes: int = 1
    ) -> Self:
        """The fitted pipeline whose `to_json` gave this.

        Logs a warning when spaCy or its model is of another version than at training.

        Raises:
            BundleError: A field of `features.json` is wrong; all of them are named.
            FeatureError: The spaCy model is not installed.
        """
        state = FeatureState.from_json(data)
        pipeline = cls(
            headline=state.headline,
            entities=state.entities.model if state.entities else None,
            numeric=state.numeric,
            categorical=tuple(state.categories),
            cache_dir=cache_dir,
            processes=processes,
        )
        pipeline._state = state
        if pipeline.counter and state.entities:
            for what, fitted, installed in (
                ("spaCy", state.entities.spacy_version, spacy_version()),
                (state.entities.model, state.entities.version, pipeline.counter.version),
            ):
                if fitted != installed:
                    _log.warning(
                        "%s %s is installed, but features were fitted with %s: entity counts"
                        " may differ; install %s to be sure",
                        what,
                        installed,
                        fitted,
                        fitted,
                    )
        return pipeline

    def _entity_state(self) -> EntityState | None:
        if self.counter is None:
            return None
        return EntityState(
            model=self.counter.model,
            version=self.counter.version,
            spacy_version=spacy_version(),
            labels=self.counter.labels,
        )

    def _fitted(self) -> FeatureState:
        if self._state is None:
            raise FeatureError("features are not fitted; call fit on the training split first")
        return self._state

    def _check_arguments(self) -> None:
        extra = Counter((*self.numeric, *self.categorical))
        faults = [f"column {name!r} is named twice" for name, n in extra.items() if n > 1]
        taken = _RESERVED | (set(HEADLINE_FEATURES) if self.headline else set())
        faults += [
            f"extra column {name!r} has the name of another; rename it"
            for name in extra
            if name in taken
        ]
        if self.max_categories < 1:
            faults.append(f"max_categories={self.max_categories} must be at least 1")
        if faults:
            raise ConfigError(faults)

    def _read(self, frame: "pd.DataFrame") -> tuple[list[str], NDArray[np.float64]]:
        """The texts, and the numeric columns [N, M] with NaN for gaps."""
        wanted = ("text", *self.numeric, *self.categorical)
        faults = [
            f"column {name!r} is missing; there are {', '.join(map(str, frame.columns))}"
            for name in wanted
            if name not in frame
        ]
        if faults:
            raise DataError(faults)
        texts = frame["text"].tolist()
        for position, text in enumerate(texts):
            if not isinstance(text, str):
                faults.append(f"{_place(frame, position)}: text is {text!r}, not a string")
                break
        numeric_NM = np.empty((len(frame), len(self.numeric)))
        for column, name in enumerate(self.numeric):
            try:
                numeric_NM[:, column] = frame[name].to_numpy(np.float64, na_value=np.nan)
            except (ValueError, TypeError) as error:
                faults.append(f"column {name!r} is not numeric ({error})")
                continue
            infinite = np.flatnonzero(np.isinf(numeric_NM[:, column]))
            if infinite.size:
                faults.append(
                    f"{_place(frame, int(infinite[0]))}: column {name!r} is infinite, as in "
                    f"{infinite.size} row(s); give a number or leave it empty"
                )
        if faults:
            raise DataError(faults)
        return texts, numeric_NM

    def _entities(self, texts: Sequence[str], *, progress: bool) -> NDArray[np.int16]:
        if self.counter is None:
            return np.zeros((len(texts), 0), dtype=np.int16)
        return self.counter.counts(texts, progress=progress)


def _place(frame: "pd.DataFrame", position: int) -> str:
    if "file" in frame and "row" in frame:
        return f"{frame['file'].iloc[position]}, row {frame['row'].iloc[position]}"
    return f"row {position + 1}"


def _standardise(
    values_NS: NDArray[np.float64], mean_S: NDArray[np.float64], scale_S: NDArray[np.float64]
) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):  # an infinite quotient is clipped like a large one
        quotient_NS = np.divide(
            values_NS - mean_S, scale_S, out=np.zeros_like(values_NS), where=scale_S > 0
        )
    clipped_NS: NDArray[np.float64] = np.clip(quotient_NS, -_CLIP, _CLIP)
    return np.nan_to_num(clipped_NS, nan=0.0)


def _categories(column: "pd.Series[Any]") -> list[str]:
    """The values as strings, a missing one as the empty string."""
    missing = column.isna().to_numpy()
    return [
        "" if gap else str(value) for value, gap in zip(column.tolist(), missing, strict=True)
    ]


def frequent(counts: Mapping[str, int]) -> list[str]:
    """Values by falling count, equal ones by name, the empty string left out."""
    return sorted((v for v in counts if v), key=lambda value: (-counts[value], value))


def _one_hot(values: Sequence[str], categories: Sequence[str]) -> NDArray[np.float64]:
    column_of = {category: column for column, category in enumerate(categories)}
    columns = [column_of.get(value, len(categories)) for value in values]
    return np.eye(len(categories) + 1)[columns]
