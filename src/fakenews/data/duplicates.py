"""Which texts are one text: exact and near duplicates, as groups.

Near duplicates are found by MinHash and locality-sensitive hashing (Broder, 1997;
Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3), then checked
by their true Jaccard similarity.
"""

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

_WORD = re.compile(r"\w+")
_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")


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
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], not {threshold}")
    if not len(texts):
        return np.empty(0, dtype=np.int64)
    folded = [text.casefold() for text in texts]
    # A text without letters and digits (emoji, say) is compared as it stands.
    keys = [_NOT_ALPHANUMERIC.sub("", f) or f"\0{f}" for f in folded]
    unique, inverse = np.unique(np.array(keys, dtype=object), return_inverse=True)
    hashes = np.array([_hash(key) for key in unique], dtype=np.int64)
    if threshold == 1:
        return hashes[inverse]
    # Spellings that differ in spacing share a key and have other words: which of them
    # stands for the key must not depend on the order of the rows.
    spelling: dict[str, str] = {}
    for key, text in zip(keys, folded, strict=True):
        spelling[key] = min(text, spelling.get(key, text))
    words = [frozenset(_WORD.findall(spelling[key])) or frozenset([key]) for key in unique]
    pairs = _near_pairs(words, threshold, num_perm, seed)
    links = coo_array(
        (np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(unique),) * 2
    )
    _, component = connected_components(links, directed=False)
    smallest = np.full(component.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(smallest, component, hashes)
    groups: NDArray[np.int64] = smallest[component][inverse]
    return groups


def _hash(key: str) -> int:
    """63 bits."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _near_pairs(
    words: list[frozenset[str]], threshold: float, num_perm: int, seed: int
) -> NDArray[np.int64]:
    """The pairs (i, j), j < i, of at least this similarity [P, 2]."""
    # A missed pair leaks, a wrong candidate only costs a comparison: hashing starts well
    # below the threshold, and so finds 99% of the pairs that are just above it.
    index = MinHashLSH(threshold=0.8 * threshold, num_perm=num_perm, weights=(0.2, 0.8))
    encoded = ([word.encode() for word in found] for found in words)
    sketches = MinHash.generator(encoded, num_perm=num_perm, seed=seed)
    pairs = []
    bar = tqdm(sketches, "near duplicates", len(words), unit=" texts", delay=2, leave=False)
    for i, sketch in enumerate(bar):
        for j in index.query(sketch):
            shared = len(words[i] & words[j])
            if shared >= threshold * (len(words[i]) + len(words[j]) - shared):
                pairs.append((i, j))
        index.insert(i, sketch)
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)
