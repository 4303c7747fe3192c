"""The honest baseline: TF-IDF and logistic regression.

Shapes: N rows, V vocabulary, C classes (or 1 row of coefficients for two classes).
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from fakenews.bounds import Positive, PositiveCount
from fakenews.errors import DataError


class TfidfClassifier:
    """Word n-grams, weighted by TF-IDF, into a multinomial logistic regression.

    Args:
        ngrams: Longest word n-gram.
        min_rows: Rows of training that an n-gram must occur in.
        regularisation: Inverse strength C of the L2 penalty.
        balanced: Weight classes inversely to their frequency.
    """

    name = "tfidf"

    def __init__(
        self,
        *,
        ngrams: PositiveCount = 2,
        min_rows: PositiveCount = 2,
        regularisation: Positive = 10.0,
        balanced: bool = True,
    ) -> None:
        self.arguments: dict[str, Any] = {
            "ngrams": ngrams,
            "min_rows": min_rows,
            "regularisation": regularisation,
            "balanced": balanced,
        }
        self._vectorizer = _vectorizer(ngrams=ngrams, min_rows=min_rows, vocabulary=None)
        self._coefficients = np.zeros((1, 0))
        self._intercept = np.zeros(1)

    def fit(
        self,
        texts: Sequence[str],
        codes: NDArray[np.int64],
        *,
        weights: NDArray[np.float64] | None = None,
    ) -> "TfidfClassifier":
        """Fit on training texts.

        Args:
            texts: Training texts [N].
            codes: Their class codes [N], 0..C-1, each present.
            weights: Of the rows [N], not all 0 of a class; None: all the same. The
                vocabulary does not look at them.

        Raises:
            DataError: No word occurs in `min_rows` rows.
        """
        try:
            matrix = self._vectorizer.fit_transform(texts)
        except ValueError as error:
            raise DataError(
                f"no word occurs in {self.arguments['min_rows']} training rows: lower "
                "model.min_rows, or give more rows"
            ) from error
        regression = LogisticRegression(
            C=self.arguments["regularisation"],
            class_weight="balanced" if self.arguments["balanced"] else None,
            max_iter=2000,
        ).fit(
            matrix,
            codes,
            # Scaled so that the regularisation keeps its meaning.
            sample_weight=None if weights is None else weights / weights.mean(),
        )
        self._coefficients = regression.coef_
        self._intercept = regression.intercept_
        return self

    def logits(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Logits [N, C] of texts."""
        scores = self._vectorizer.transform(texts) @ self._coefficients.T + self._intercept
        # With two classes there is one score, the log-odds of the second.
        return np.hstack([-scores / 2, scores / 2]) if scores.shape[1] == 1 else scores

    def attributions(self, text: str, code: int) -> tuple[list[tuple[int, int, float]], float]:
        """What each word adds to a class's logit, less what it adds to all on average.

        What an n-gram adds is shared evenly by its words, wherever it stands.

        Args:
            text: Any string.
            code: Of the class.

        Returns:
            For each place of a word its first character, the one past its last, and what it
            adds; and by how much the sum of these misses the logit above that of no text.
        """
        analyse = self._vectorizer
        found = [m.span() for m in re.finditer(analyse.token_pattern, text.lower())]
        words = [text.lower()[start:end] for start, end in found]
        places: dict[int, list[range]] = {}
        for first in range(len(words)):
            for length in range(1, self.arguments["ngrams"] + 1):
                gram = " ".join(words[first : first + length])
                if first + length <= len(words) and gram in analyse.vocabulary_:
                    places.setdefault(analyse.vocabulary_[gram], []).append(
                        range(first, first + length)
                    )
        row = analyse.transform([text])
        coefficients = self._coefficients
        # With two classes there is one row, of the second's log-odds.
        centred_V = (
            coefficients[0] * (code - 0.5)
            if len(coefficients) == 1
            else coefficients[code] - coefficients.mean(axis=0)
        )
        added = np.zeros(len(words))
        for term, value in zip(row.indices, row.data, strict=True):
            covered = [word for place in places[term] for word in place]
            np.add.at(added, covered, value * centred_V[term] / len(covered))
        error = added.sum() - (row @ centred_V).item()
        # Some characters are two in lower case.
        origin = [number for number, c in enumerate(text) for _ in c.lower()]
        parts = [
            (origin[start], origin[end - 1] + 1, float(value))
            for (start, end), value in zip(found, added, strict=True)
        ]
        return parts, float(error)

    def weights(self) -> dict[str, NDArray[np.float64]]:
        """The fitted arrays: `idf` [V], `coefficients` [C, V], `intercept` [C]."""
        return {
            "idf": np.asarray(self._vectorizer.idf_),
            "coefficients": np.ascontiguousarray(self._coefficients),
            "intercept": self._intercept,
        }

    def architecture(self) -> dict[str, Any]:
        """What `build` needs beside the weights, as plain JSON values."""
        vocabulary = {term: int(index) for term, index in self._vectorizer.vocabulary_.items()}
        return {
            "network": self.name,
            "arguments": self.arguments,
            "vocabulary": sorted(vocabulary, key=vocabulary.__getitem__),
        }

    @classmethod
    def build(
        cls, architecture: dict[str, Any], weights: dict[str, NDArray[np.float64]]
    ) -> "TfidfClassifier":
        """Rebuild a fitted classifier from `architecture()` and `weights()`."""
        model = cls(**architecture["arguments"])
        model._vectorizer = _vectorizer(
            ngrams=model.arguments["ngrams"],
            min_rows=model.arguments["min_rows"],
            vocabulary=architecture["vocabulary"],
        )
        model._vectorizer.idf_ = weights["idf"]
        model._coefficients = weights["coefficients"]
        model._intercept = weights["intercept"]
        return model


def _vectorizer(*, ngrams: int, min_rows: int, vocabulary: list[str] | None) -> TfidfVectorizer:
    return TfidfVectorizer(
        ngram_range=(1, ngrams),
        min_df=min_rows,
        sublinear_tf=True,
        vocabulary=vocabulary,
        dtype=np.float64,
    )
