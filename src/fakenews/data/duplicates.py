"""Which texts are one text: exact and near duplicates, as groups.

Near duplicates are found by MinHash and locality-sensitive hashing (Broder, 1997;
Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3), then checked
by their true Jaccard similarity. Everything after hashing is SQL, run by DuckDB, which
goes to disk where memory ends: a data set of any size is grouped by the same lines.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray
from tqdm import tqdm

if TYPE_CHECKING:
    import duckdb

# N texts, G bands

_WORD = re.compile(r"\w+")
_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
# Of a band's bucket each text is compared with this many others. Up to as many texts a
# bucket is compared whole; in a larger one (a template) chains and other bands do the rest,
# and a million copies of a template cost a million comparisons, not their square.
_NEIGHBOURS = 32


def duplicate_groups(
    texts: Sequence[str],
    *,
    threshold: float = 0.8,
    num_perm: int = 128,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Group exact and near duplicates.

    Exact means equal letters and digits, whatever the case, spacing and punctuation.
    Near means a Jaccard similarity of the two sets of words of at least ``threshold``:
    single words, because one changed word in a headline of twelve already spoils a fifth
    of its word pairs and a third of its triples.
    Groups are the connected components of these pairs, so a chain of small changes
    (templates with another name in each) can join texts that are further apart:
    watch the largest group, which the audit reports.

    Args:
        texts: Cleaned texts [N].
        threshold: Smallest Jaccard similarity of near duplicates, in (0, 1]; 1 finds exact
            duplicates only.
        num_perm: Permutations of the MinHash; more miss fewer pairs and take longer.
        seed: Seed of the permutations.

    Returns:
        int64 [N], the group of each text: the smallest hash of its members, so neither the
        order of the rows nor the process changes it.

    Raises:
        ValueError: ``threshold`` is not in (0, 1].
    """
    sketches = sketch(texts, threshold=threshold, num_perm=num_perm, seed=seed, progress=True)
    groups: NDArray[np.int64] = sketches["key"].to_numpy().copy()
    if threshold < 1 and len(texts):
        # Imported here: a training on shards needs no database.
        import duckdb

        with duckdb.connect() as database:
            database.register("sketch", sketches)
            group_sketches(database, threshold=threshold)
            joined = database.execute("SELECT key, grp FROM duplicate_group").df()
        place = pd.Index(joined["key"]).get_indexer(pd.Index(groups))
        groups[place >= 0] = joined["grp"].to_numpy()[place[place >= 0]]
    return groups


def sketch(
    texts: Sequence[str],
    *,
    threshold: float,
    num_perm: int = 128,
    seed: int = 0,
    progress: bool = False,
) -> pa.Table:
    """What `group_sketches` needs to know of each text, a few hundred bytes.

    Args:
        texts: Cleaned texts [N].
        threshold: See `duplicate_groups`.
        num_perm: See `duplicate_groups`.
        seed: See `duplicate_groups`.
        progress: Show a bar when it takes longer than two seconds.

    Returns:
        N rows of ``key`` (63-bit hash of letters and digits), ``spelling`` (of the text as
        folded), ``words`` (a hash of each different word) and ``buckets`` (one a band; texts
        that share one may be near duplicates). The lists are empty for a threshold of 1.

    Raises:
        ValueError: ``threshold`` is not in (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], not {threshold}")
    folded = [text.casefold() for text in texts]
    # A text without letters and digits (emoji, say) is compared as it stands.
    keys = [_NOT_ALPHANUMERIC.sub("", text) or f"\0{text}" for text in folded]
    words: list[list[int]] = [[] for _ in keys]
    buckets = np.empty((len(keys), 0), dtype=np.int64)
    if threshold < 1 and keys:
        found = [
            sorted(set(_WORD.findall(text))) or [key]
            for key, text in zip(keys, folded, strict=True)
        ]
        words = [[_word_hash(word) for word in each] for each in found]
        buckets = _buckets(found, threshold, num_perm, seed, progress=progress)
    return pa.table(
        {
            "key": pa.array(map(stable_hash, keys), pa.int64()),
            "spelling": pa.array(map(stable_hash, folded), pa.int64()),
            "words": pa.array(words, pa.list_(pa.int64())),
            "buckets": pa.array(list(buckets), pa.list_(pa.int64())),
        }
    )


def group_sketches(database: "duckdb.DuckDBPyConnection", *, threshold: float) -> None:
    """Join near duplicates to groups, inside a database.

    Reads the table or view ``sketch`` (see the function), which may have the same text
    many times, and makes the table ``duplicate_group`` of ``key`` and ``grp``, the smallest
    key of the group; it holds those keys only that are not a group of their own.

    Args:
        database: Its settings bound the memory.
        threshold: See `duplicate_groups`.
    """
    # Spellings that differ in spacing share a key and have other words: which of them
    # stands for the key must not depend on the order of the rows.
    database.execute(
        "CREATE TEMP TABLE different AS "
        "SELECT key, arg_min(words, spelling) AS words, arg_min(buckets, spelling) AS buckets "
        "FROM sketch GROUP BY key"
    )
    database.execute(
        "CREATE TEMP TABLE member AS SELECT key, unnest(buckets) AS bucket FROM different"
    )
    database.execute(
        "CREATE TEMP TABLE candidate AS SELECT DISTINCT key AS a, unnest(others) AS b FROM ("  # noqa: S608
        "  SELECT key, list(key) OVER (PARTITION BY bucket ORDER BY key"
        f"    ROWS BETWEEN 1 FOLLOWING AND {_NEIGHBOURS} FOLLOWING) AS others"
        "  FROM member WHERE bucket IN"
        "    (SELECT bucket FROM member GROUP BY bucket HAVING count(*) > 1))"
    )
    database.execute("DROP TABLE member")
    database.execute(
        "CREATE TEMP TABLE edge AS SELECT a, b FROM ("
        "  SELECT a, b, len(x.words) + len(y.words) AS total,"
        "    len(list_intersect(x.words, y.words)) AS shared"
        "  FROM candidate JOIN different x ON a = x.key JOIN different y ON b = y.key) "
        "WHERE shared >= ?::DOUBLE * (total - shared)",
        [threshold],
    )
    database.execute("DROP TABLE candidate")
    database.execute("DROP TABLE different")
    _join_components(database)


def _join_components(database: "duckdb.DuckDBPyConnection") -> None:
    """From pairs ``edge`` (a < b) to ``duplicate_group``.

    Alternates large-star and small-star operations (Kiveris et al., 2014, "Connected
    Components in MapReduce and Beyond"), which are joins and minima, until every group is
    a star around its smallest key.
    """
    large_star = (
        "WITH arc AS (SELECT a AS u, b AS v FROM edge UNION ALL SELECT b, a FROM edge),"
        "  nearest AS (SELECT u, least(u, min(v)) AS m FROM arc GROUP BY u)"
        "SELECT DISTINCT m AS a, v AS b FROM arc JOIN nearest USING (u) WHERE v > u"
    )
    small_star = (
        "WITH nearest AS (SELECT b, min(a) AS m FROM edge GROUP BY b)"
        "SELECT m AS a, a AS b FROM edge JOIN nearest USING (b) WHERE a <> m"
        " UNION SELECT m, b FROM nearest"
    )
    unfinished = (
        "SELECT count(*) <> count(DISTINCT b)"
        " OR exists(SELECT 1 FROM edge x JOIN edge y ON x.a = y.b) FROM edge"
    )
    while (database.execute(unfinished).fetchone() or (False,))[0]:
        for star in (large_star, small_star):
            database.execute(f"CREATE TEMP TABLE joined AS {star}")
            database.execute("DROP TABLE edge")
            database.execute("ALTER TABLE joined RENAME TO edge")
    database.execute(
        "CREATE TABLE duplicate_group AS"
        " SELECT b AS key, a AS grp FROM edge UNION SELECT a, a FROM edge"
    )
    database.execute("DROP TABLE edge")


def _buckets(
    words: list[list[str]], threshold: float, num_perm: int, seed: int, *, progress: bool
) -> NDArray[np.int64]:
    """The bucket of each text in each band, [N, G]."""
    # A missed pair leaks, a wrong candidate only costs a comparison: hashing starts well
    # below the threshold, and so finds 99% of the pairs that are just above it.
    count, size = _bands(0.8 * threshold, num_perm)
    encoded = ([word.encode("utf-8", "surrogatepass") for word in found] for found in words)
    sketches = tqdm(
        MinHash.generator(encoded, num_perm=num_perm, seed=seed),
        "near duplicates",
        len(words),
        unit=" texts",
        delay=2,
        leave=False,
        disable=not progress,
    )
    values = np.stack([found.hashvalues for found in sketches])
    bands = values[:, : count * size].reshape(len(words), count, size)
    # Multiply-shift hashing of a band's values: a collision costs a comparison, no more.
    factors = np.random.default_rng(0).integers(1, 2**63, (count, size), np.uint64) | 1
    mixed = (bands.astype(np.uint64) * factors).sum(axis=2, dtype=np.uint64)
    mixed ^= mixed >> np.uint64(29)
    buckets: NDArray[np.int64] = (mixed * factors[:, 0]).view(np.int64)
    return buckets


@lru_cache(maxsize=8)
def _bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """How many bands of how many values are best; finding that takes a tenth of a second."""
    index = MinHashLSH(threshold=threshold, num_perm=num_perm, weights=(0.2, 0.8))
    return index.b, index.r


@lru_cache(maxsize=1 << 15)
def _word_hash(word: str) -> int:
    return stable_hash(word)


def stable_hash(key: str) -> int:
    """63 bits, the same in every process."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
