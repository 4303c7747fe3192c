"""Rows as monitoring compares them: of the bundle's reference, or of a window of the log.

Shapes: N rows, C classes, D embedding size.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from fakenews.bundle import BundleContent
from fakenews.errors import BundleError
from fakenews.evaluation.calibration import Calibration
from fakenews.features.pipeline import FeaturePipeline
from fakenews.features.text import Tokens, unknown_counts, unknown_id

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """What is known of N texts and their predictions.

    Attributes:
        columns: Numbers [N] by key, as `tabular.words` or `text.tokens`.
        embeddings: float32 [N, D] of the texts; None when the model has none, or they are
            not known.
        probabilities: [N, C], calibrated.
        decided: Codes [N] of the decided classes.
        labels: Codes [N] of the true classes, -1 where unknown.
    """

    columns: Mapping[str, Floats]
    embeddings: NDArray[np.float32] | None
    probabilities: Floats
    decided: Codes
    labels: Codes

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.probabilities)

    def take(self, some: NDArray[Any]) -> Self:
        """Those rows.

        Args:
            some: Indices or a mask.
        """
        return replace(
            self,
            columns={key: values[some] for key, values in self.columns.items()},
            embeddings=None if self.embeddings is None else self.embeddings[some],
            probabilities=self.probabilities[some],
            decided=self.decided[some],
            labels=self.labels[some],
        )

    @property
    def scored(self) -> Mapping[str, Floats]:
        """`columns`, and what is read off the predictions."""
        found = dict(self.columns)
        # Of two classes each tells the other.
        for code in range(1 if self.probabilities.shape[1] == 2 else 0, _width(self)):
            found[f"prediction.score{code}"] = self.probabilities[:, code]
        found["prediction.confidence"] = self.probabilities.max(axis=1, initial=0)
        return found


def _width(rows: Rows) -> int:
    return int(rows.probabilities.shape[1])


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """What a model's texts looked like when it was made: its validation split.

    Attributes:
        rows: Those of the bundle's reference.
        classes: The C sorted class names.
        calibration: Of the model.
        input_ids: Of the texts, one after the other; None for a model that reads no tokens.
        offsets: [N + 1], where each text begins in them.
        features: Names of the tabular features, in the order in which the model reads them.
    """

    rows: Rows
    classes: tuple[str, ...]
    calibration: Calibration
    input_ids: NDArray[np.int32] | None
    offsets: NDArray[np.int64] | None
    features: tuple[str, ...]

    @classmethod
    def of(cls, content: BundleContent) -> Self:
        """The reference of a bundle.

        Raises:
            BundleError: It has no reference rows, or others than this version writes.
        """
        try:
            return cls._of(content)
        except (KeyError, ValueError, TypeError) as error:
            raise BundleError(
                f"the bundle's reference rows cannot be compared with ({error!r}): archives "
                "leave out a part of them, so monitor with the bundle itself"
            ) from error

    @classmethod
    def _of(cls, content: BundleContent) -> Self:
        reference = content.reference
        calibration = Calibration.from_json(content.calibration)
        classes = tuple(content.labels["classes"])
        probabilities = calibration.apply(reference["logits"])
        columns: dict[str, Floats] = {}
        features: tuple[str, ...] = ()
        if content.features["tabular"] is not None:
            features = tuple(FeaturePipeline.from_json(content.features["tabular"]).names)
            columns |= tabular_columns(reference["tabular"], features)
        input_ids, offsets = reference.get("input_ids"), reference.get("offsets")
        if input_ids is not None and offsets is not None:
            columns |= token_columns(np.diff(offsets), _unknown(content, input_ids, offsets))
        labels = reference["labels"].astype(np.int64)
        if len(labels) == 0:
            raise ValueError("there are none")
        return cls(
            rows=Rows(
                columns=columns,
                embeddings=reference["embeddings"].astype(np.float32)
                if reference["embeddings"].shape[1]
                else None,
                probabilities=probabilities,
                decided=calibration.decide(probabilities, classes=classes),
                labels=labels,
            ),
            classes=classes,
            calibration=calibration,
            input_ids=input_ids,
            offsets=offsets,
            features=features,
        )


def tabular_columns(tabular: NDArray[Any], features: tuple[str, ...]) -> dict[str, Floats]:
    """Tabular features [N, F] by key."""
    if tabular.shape[1] != len(features):
        raise ValueError(f"{tabular.shape[1]} tabular features, the model has {len(features)}")
    return {
        f"tabular.{name}": tabular[:, at].astype(np.float64) for at, name in enumerate(features)
    }


def token_columns(tokens: NDArray[Any], unknown: NDArray[Any] | None) -> dict[str, Floats]:
    """Length in tokens [N], and the share of them that the vocabulary lacks, by key."""
    columns = {"text.tokens": tokens.astype(np.float64)}
    if unknown is not None:
        columns["text.unknown"] = unknown / np.maximum(tokens, 1)
    return columns


def _unknown(
    content: BundleContent, input_ids: NDArray[np.int32], offsets: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """Unknown tokens of each text [N]; None when the tokenizer knows everything."""
    if content.tokenizer is None:
        return None
    unknown = unknown_id(Tokenizer.from_str(content.tokenizer))
    if unknown is None:
        return None
    whole = np.zeros(len(offsets) - 1, dtype=np.bool_)
    tokens = Tokens(input_ids=input_ids, offsets=offsets, truncated=whole)
    return unknown_counts(tokens, unknown)
