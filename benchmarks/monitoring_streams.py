"""The streams of `monitoring.py`: clean windows, and windows that have drifted.

Shapes: W rows of a window.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from monitoring_pools import Bundle, Pool
from numpy.typing import NDArray

from fakenews.data.sample import Drift as Generated
from fakenews.data.sample import generate
from fakenews.data.sources import read_table
from fakenews.monitoring.rows import Codes, Reference, Rows

Index = NDArray[np.int64]

_CLEAN = 20_000  # generated rows
_PART = 4_000  # of a kind of drift
_TWEETS = 2_000  # at most


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """Rows of a pool that came one after the other.

    Attributes:
        index: Which [W].
        labels: Their true classes [W].
    """

    index: Index
    labels: Codes


@dataclass(frozen=True, kw_only=True, eq=False)
class Drift:
    """How windows differ from clean ones.

    Attributes:
        kind: Of the difference.
        strength: Of it: a share of rows or labels.
        others: Rows of the pool that replace clean ones.
        share: Of the window that is replaced.
        labels: True classes of the pool's rows, where they are others than usual.
        flipped: Share of labels that are another class.
    """

    kind: str
    strength: float
    others: Index | None = None
    share: float = 0.0
    labels: Codes | None = None
    flipped: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """A reference and the clean windows that are compared with it.

    Attributes:
        name: `bundle`, or a number: it was drawn from rows of which the model knows nothing.
        reference: Its rows.
        clean: Windows by size.
    """

    name: str
    reference: Reference
    clean: Mapping[int, Sequence[Window]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Stream:
    """What one bundle is monitored with.

    Attributes:
        name: Of it.
        pool: Rows of all windows.
        texts: Of the bundle's reference.
        splits: The bundle's own reference first.
        drifts: All kinds and strengths.
        base: Clean rows of the pool.
    """

    name: str
    pool: Pool
    texts: NDArray[np.object_]
    splits: Sequence[Split]
    drifts: Sequence[Drift]
    base: Index

    def rows(self, window: Window) -> Rows:
        """Of a window."""
        return self.pool.take(window.index, window.labels)

    def drifted(self, drift: Drift, size: int, count: int, *, seed: int) -> list[Window]:
        """Windows of a kind and strength.

        Args:
            drift: What differs.
            size: Rows of each.
            count: How many.
            seed: Of the draws.
        """
        rng = np.random.default_rng((seed, size))
        return [self._drifted(drift, size, rng) for _ in range(count)]

    def _drifted(self, drift: Drift, size: int, rng: np.random.Generator) -> Window:
        others = 0 if drift.others is None else int(rng.binomial(size, drift.share))
        index = _draw(rng, self.base, size - others)
        if drift.others is not None:
            index = np.concatenate([index, _draw(rng, drift.others, others)])
        index = rng.permutation(index)
        labels = (self.pool.rows.labels if drift.labels is None else drift.labels)[index]
        turned = rng.random(size) < drift.flipped
        width = self.pool.rows.probabilities.shape[1]
        move = rng.integers(1, width, size)
        return Window(index=index, labels=np.where(turned, (labels + move) % width, labels))


def _draw(rng: np.random.Generator, some: Index, count: int) -> Index:
    """Rows without repetition, as long as there are enough."""
    return rng.choice(some, count, replace=count > len(some))


def sample_stream(
    bundle: Bundle,
    *,
    windows: int,
    references: int,
    sizes: Sequence[int],
    seed: int,
    rows: int = _CLEAN,
    part_rows: int = _PART,
) -> Stream:
    """Generated headlines, other than the model was trained on.

    There are so many that windows hardly share any, and that they are what the population is.

    Args:
        bundle: Of a run with `data=sample`.
        windows: Clean ones of each size.
        references: That are drawn beside the bundle's own.
        sizes: Rows of a window.
        seed: Of the rows; other than that of the training.
        rows: Clean ones that are generated.
        part_rows: Rows that are generated of a kind of drift.
    """
    settings = bundle.content.provenance["config"]["data"]["fetch"]
    rate, noise = settings["positive_rate"], settings["label_noise"]
    count = len(bundle.reference.rows)

    def made(wanted: int, number: int, drift: Generated | None = None) -> pd.DataFrame:
        frame = next(
            generate(
                wanted,
                seed=1000 * (seed + 1) + number,
                positive_rate=rate,
                label_noise=noise,
                drift=drift,
                chunk_rows=wanted,
            )
        )
        # As texts are cleaned before a model sees them.
        return frame.assign(text=bundle.cleaning(frame["text"].tolist()).texts)

    frames = {
        "clean": made(rows, 0),
        "references": made(max(references, 1) * count, 1),
        "topics": made(part_rows, 2, Generated(topics=1.0)),
        "class rate": made(part_rows, 3, Generated(positive_rate=0.9)),
    }
    pool, parts = _pool(bundle, frames)
    drifts = [
        *(
            _mixed("new topics", parts["topics"], share)
            for share in (0.05, 0.1, 0.25, 0.5, 1.0)
        ),
        # Of 0.3 to 0.35, 0.4, 0.5 and 0.7.
        *(
            replace(
                _mixed("class rate", parts["class rate"], more / (0.9 - rate)), strength=more
            )
            for more in (0.05, 0.1, 0.2, 0.4)
        ),
        *(_ruled(bundle, pool, made(rows, 0, Generated(rule=s)), s) for s in (0.1, 0.25, 0.5)),
        *(Drift(kind="labels flipped", strength=s, flipped=s) for s in (0.05, 0.1, 0.2)),
    ]
    rng = np.random.default_rng((seed, 1))
    by_size = drawn(rng, parts["clean"], pool.rows.labels, sizes, windows)
    splits = [Split(name="bundle", reference=bundle.reference, clean=by_size)]
    for number in range(references):
        some = parts["references"][number * count : (number + 1) * count]
        splits.append(
            Split(
                name=str(number),
                reference=replace(bundle.reference, rows=pool.take(some)),
                clean=by_size,
            )
        )
    return Stream(
        name="sample",
        pool=pool,
        texts=bundle.reference_texts(bundle.dataset()),
        splits=splits,
        drifts=drifts,
        base=parts["clean"],
    )


def _ruled(bundle: Bundle, pool: Pool, frame: pd.DataFrame, strength: float) -> Drift:
    """The same texts with labels of another rule."""
    codes = pd.Categorical(frame["label"], categories=bundle.reference.classes).codes
    labels = pool.rows.labels.copy()
    labels[: len(codes)] = codes
    return Drift(kind="label rule", strength=strength, labels=labels)


def covid_stream(
    bundle: Bundle,
    *,
    path: Path,
    constraint: Path | None,
    windows: int,
    references: int,
    sizes: Sequence[int],
    seed: int,
) -> Stream:
    """COVID headlines of which the model knows nothing, and tweets.

    The test split is one sample of a thousand rows. Each clean window is drawn from it without
    repetition, so that it is as far from the reference as a fresh one; but windows are no
    independent trials. So that the rate does not hang on one unlucky split, the rows of test
    and validation are dealt again, once for each further reference.

    Args:
        bundle: Of a run with `data=covid`.
        path: Of the data.
        constraint: Tweets; None: none are mixed in.
        windows: Clean ones of each size.
        references: That are drawn beside the bundle's own.
        sizes: Rows of a window.
        seed: Of the draws.
    """
    data = bundle.dataset(path)
    frames = {"test": data.part("test"), "val": data.part("val")}
    frames["lower"] = frames["test"].assign(text=frames["test"]["text"].str.lower())
    if constraint is not None:
        frames["tweets"] = _tweets(bundle, constraint, seed)
    pool, parts = _pool(bundle, frames)
    labels = pool.rows.labels
    test = parts["test"]
    shares = (0.05, 0.1, 0.25, 0.5, 1.0)
    drifts = [
        *(_mixed("tweets", parts["tweets"], share) for share in shares if "tweets" in parts),
        *(_mixed("lower case", parts["lower"], share) for share in shares),
        *(
            _mixed(f"only {name}", test[labels[test] == code], share)
            for code, name in enumerate(bundle.reference.classes)
            for share in (0.5, 1.0)
        ),
        *(Drift(kind="labels flipped", strength=s, flipped=s) for s in (0.02, 0.05, 0.1)),
    ]
    rng = np.random.default_rng((seed, 1))
    unseen = np.concatenate([test, parts["val"]])
    splits = [
        Split(
            name="bundle",
            reference=bundle.reference,
            clean=drawn(rng, test, labels, sizes, windows),
        )
    ]
    count = len(bundle.reference.rows)
    for number in range(references):
        dealt = rng.permutation(unseen)
        splits.append(
            Split(
                name=str(number),
                reference=replace(bundle.reference, rows=pool.take(dealt[:count])),
                clean=drawn(rng, dealt[count:], labels, sizes, windows),
            )
        )
    return Stream(
        name="covid",
        pool=pool,
        texts=bundle.reference_texts(data),
        splits=splits,
        drifts=drifts,
        base=test,
    )


def drawn(
    rng: np.random.Generator, some: Index, labels: Codes, sizes: Sequence[int], windows: int
) -> dict[int, list[Window]]:
    """Clean windows by size, of those sizes that there are rows for.

    Args:
        rng: For the draws.
        some: Rows that they have.
        labels: Of the pool.
        sizes: Rows of a window.
        windows: How many of each size.
    """
    found: dict[int, list[Window]] = {}
    for size in sizes:
        if size <= len(some):
            several = [rng.choice(some, size, replace=False) for _ in range(windows)]
            found[size] = [Window(index=index, labels=labels[index]) for index in several]
    return found


def _tweets(bundle: Bundle, path: Path, seed: int) -> pd.DataFrame:
    cleaning = bundle.cleaning
    table = read_table(
        path,
        text="tweet",
        label="label",
        normalise=cleaning.normalise,
        max_chars=cleaning.max_chars,
    ).frame.drop_duplicates("text")
    return table.sample(min(len(table), _TWEETS), random_state=seed)


def _mixed(kind: str, others: Index, share: float) -> Drift:
    return Drift(kind=kind, strength=share, others=others, share=share)


def _pool(bundle: Bundle, frames: Mapping[str, pd.DataFrame]) -> tuple[Pool, dict[str, Index]]:
    pools = {name: bundle.predict(name, frame) for name, frame in frames.items()}
    parts, start = {}, 0
    for name, found in pools.items():
        parts[name] = np.arange(start, start + len(found))
        start += len(found)
    first, *rest = pools.values()
    return sum(rest, start=first), parts
