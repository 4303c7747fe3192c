"""What a drift is made of: which features moved, which words, and which texts most.

Shapes: W window rows, V tokens of the vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from fakenews.monitoring.comparisons import Classifier, Comparison
from fakenews.monitoring.rows import Floats, Reference, Rows

_PRIOR = 1000.0  # tokens that the prior weighs as much as
_SIGNIFICANT = 3.0  # standard deviations from which a word is named


@dataclass(frozen=True, kw_only=True)
class Mover:
    """A number of the texts that is no more what it was.

    Attributes:
        key: Of the column.
        before: Its mean in the reference.
        now: Its mean in the window.
        shift: Their difference in standard deviations of the reference.
    """

    key: str
    before: float
    now: float
    shift: float


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word that has become more or less usual.

    Attributes:
        word: As the tokenizer has it.
        before: Uses in a thousand tokens of the reference.
        now: The same of the window.
        score: Standard deviations by which its log-odds have changed; below 0: rarer.
    """

    word: str
    before: float
    now: float
    score: float


@dataclass(frozen=True, kw_only=True)
class Example:
    """A text unlike those of the reference.

    Attributes:
        id: Of its prediction.
        text: Itself; None where the log has none.
        label: That was decided.
        score: Of the classifier that tells windows from the reference: the mean of the window
            is 0, one is a standard deviation.
    """

    id: str
    text: str | None
    label: str
    score: float


def movers(rows: Rows, reference: Rows, *, most: int = 10) -> list[Mover]:
    """The numbers whose means have moved most, in standard deviations.

    Args:
        rows: Of a window, at least one.
        reference: To compare with.
        most: How many are named.
    """
    found = []
    for key, usual in reference.scored.items():
        values = rows.scored.get(key)
        deviation = float(usual.std())
        if values is None or deviation == 0:
            continue
        before, now = float(usual.mean()), float(values.mean())
        found.append(Mover(key=key, before=before, now=now, shift=(now - before) / deviation))
    return sorted(found, key=lambda mover: -abs(mover.shift))[:most]


def words(
    texts: Sequence[str], reference: Reference, tokenizer: Tokenizer, *, most: int = 20
) -> list[Word]:
    """The words whose use has changed most.

    By log-odds with an informative Dirichlet prior (Monroe, Colaresi and Quinn, "Fightin'
    Words", Political Analysis 2008): rare words need more evidence than common ones.

    Args:
        texts: Of the window, cleaned.
        reference: To compare with; it must have tokens.
        tokenizer: Of the model, truncating.
        most: How many are named.
    """
    if reference.input_ids is None or not texts:
        return []
    size = tokenizer.get_vocab_size()
    encoded = tokenizer.encode_batch_fast(list(texts))
    now = np.bincount(np.concatenate([found.ids for found in encoded]), minlength=size)
    before = np.bincount(reference.input_ids, minlength=size)
    ends = {token for found in encoded[:1] for token in (found.ids[:1] + found.ids[-1:])}
    for token in ends:  # of every text
        now[token] = before[token] = 0
    scores = log_odds(now, before)
    order = np.argsort(-np.abs(scores), kind="stable")[:most]
    return [
        Word(
            word=str(tokenizer.id_to_token(int(token))),
            before=1000 * before[token] / max(before.sum(), 1),
            now=1000 * now[token] / max(now.sum(), 1),
            score=float(scores[token]),
        )
        for token in order
        if abs(scores[token]) >= _SIGNIFICANT
    ]


def log_odds(now: NDArray[np.int64], before: NDArray[np.int64]) -> Floats:
    """The change of each word's log-odds in its standard deviations, [V].

    Args:
        now: Uses [V] in one corpus.
        before: In the other.
    """
    both = now + before
    prior = _PRIOR * both / max(both.sum(), 1) + 1e-9
    change = np.zeros(len(now))
    for counts, sign in ((now, 1), (before, -1)):
        total = counts.sum() + prior.sum()
        change += sign * np.log((counts + prior) / (total - counts - prior))
    variance = 1 / (now + prior) + 1 / (before + prior)
    return np.asarray(np.where(both > 0, change / np.sqrt(variance), 0.0))


def examples(
    rows: Rows,
    *,
    comparisons: Sequence[Comparison],
    classes: Sequence[str],
    ids: Sequence[str],
    texts: Sequence[str | None],
    most: int = 10,
) -> list[Example]:
    """The texts that a classifier finds least like the reference's.

    Args:
        rows: W of a window.
        comparisons: Those it was judged with; without a classifier among them there are none.
        classes: The sorted class names.
        ids: Of the predictions, [W].
        texts: [W].
        most: How many are named.
    """
    found = [comparison for comparison in comparisons if isinstance(comparison, Classifier)]
    if not found or rows.embeddings is None:
        return []
    scores = found[0].discriminant.unlike(rows.embeddings)
    scores = (scores - scores.mean()) / (scores.std() or 1.0)
    order = np.argsort(-scores, kind="stable")[:most]
    return [
        Example(
            id=ids[at],
            text=texts[at],
            label=classes[int(rows.decided[at])],
            score=float(scores[at]),
        )
        for at in order
    ]
