"""Rows -> train, val and test, stratified by class, with no duplicate on two sides.

The same rows and seed give the same split in whatever order the rows come, as long as
the group numbers do not follow that order either (`duplicates.duplicate_groups`).
Nothing is sampled twice here: imbalance is met by class weights or the loss, later.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from fakenews.errors import DataError

SPLITS = ("train", "val", "test")


def assign_splits(
    labels: Sequence[str] | pd.Series,
    groups: ArrayLike,
    *,
    val_size: float = 0.1,
    test_size: float = 0.1,
    folds: int | None = None,
    fold: int = 0,
    seed: int = 0,
) -> pd.Series:
    """Draw a stratified split by group.

    Args:
        labels: Class of each row [N].
        groups: Duplicate group of each row [N]; a group stays together.
        val_size: Share of all rows for ``val``, 0 for none.
        test_size: Share of all rows for ``test``, 0 for none. Not used with ``folds``.
        folds: Cut into this many folds; ``fold`` is ``test``, ``val`` comes from the rest.
        fold: Which fold is ``test``, from 0.
        seed: Seed of the draw. The folds depend on it and not on ``fold``.

    Returns:
        ``train``, ``val`` or ``test`` for each row [N], indexed like ``labels``.

    Raises:
        DataError: Sizes or fold make no sense, or a class has too few groups of rows to
            be in every split.
    """
    faults = _size_faults(val_size, 0.0 if folds else test_size)
    if folds is not None and folds < 2:
        faults.append(f"folds={folds}: at least 2 are needed")
    elif folds is not None and not 0 <= fold < folds:
        faults.append(f"fold={fold}: must be from 0 to folds-1={folds - 1}")
    elif folds is not None and val_size + 1 / folds >= 1:
        faults.append(f"val_size={val_size} with folds={folds} leaves nothing to train on")
    if faults:
        raise DataError(faults)
    index = labels.index if isinstance(labels, pd.Series) else None
    if folds is None:
        shares = {"train": 1 - val_size - test_size, "val": val_size, "test": test_size}
        split = _draw(labels, groups, shares, seed)
    else:
        part = assign_folds(labels, groups, folds=folds, seed=seed)
        split = np.where(part == fold, "test", "train").astype(object)
        rest = split == "train"
        share = val_size / (1 - 1 / folds)
        split[rest] = _draw(
            np.asarray(labels)[rest],
            np.asarray(groups)[rest],
            {"train": 1 - share, "val": share},
            seed,
        )
    return pd.Series(split, index=index, name="split", dtype="str")


def assign_folds(
    labels: Sequence[str] | pd.Series | NDArray[np.object_],
    groups: ArrayLike,
    *,
    folds: int,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Cut rows into folds of equal size and class shares; a group stays in one fold.

    Returns:
        int64 [N], from 0 to ``folds - 1``.

    Raises:
        DataError: A class has fewer groups of rows than there are folds.
    """
    shares = {f"fold {k}": 1 / folds for k in range(folds)}
    names = _draw(labels, groups, shares, seed)
    return np.array([int(str(name).split()[1]) for name in names], dtype=np.int64)


def official_splits(
    given: Sequence[str] | pd.Series,
    labels: Sequence[str] | pd.Series,
    groups: ArrayLike,
    *,
    val_size: float = 0.1,
    test_size: float = 0.1,
    seed: int = 0,
) -> pd.Series:
    """Respect splits that come as separate files, and complete them.

    Rows given as ``val`` and ``test`` stay what they are, whatever they repeat. A row
    given as ``train`` that is in one group with any of them is ``dropped``: it would leak.
    A split that was not given is drawn from the rows of ``train`` that remain.

    Args:
        given: ``train``, ``val`` or ``test`` for each row [N], by the file it is from.
        labels: Class of each row [N].
        groups: Duplicate group of each row [N], over all files together.
        val_size: Share of the remaining ``train`` rows to draw when no ``val`` is given.
        test_size: The same for ``test``.
        seed: Seed of the draw.

    Returns:
        ``train``, ``val``, ``test`` or ``dropped`` for each row [N], indexed like ``given``.

    Raises:
        DataError: A split lacks a class, or sizes make no sense.
    """
    split = np.asarray(given, dtype=object).copy()
    classes, groups = np.asarray(labels, dtype=object), np.asarray(groups)
    drawn = {
        "val": 0.0 if (split == "val").any() else val_size,
        "test": 0.0 if (split == "test").any() else test_size,
    }
    if faults := _size_faults(drawn["val"], drawn["test"]):
        raise DataError(faults)
    train = split == "train"
    split[train & np.isin(groups, groups[~train])] = "dropped"
    rest = split == "train"
    if not rest.any():
        raise DataError("every training row repeats a row of the validation or test files")
    shares = {"train": 1 - sum(drawn.values()), **drawn}
    split[rest] = _draw(classes[rest], groups[rest], shares, seed)
    missing = [
        f"the {name} rows have none of class {label!r}; give a file that has"
        for name in SPLITS
        for label in sorted(set(classes))
        if (split == name).any() and not ((split == name) & (classes == label)).any()
    ]
    if missing:
        raise DataError(missing)
    index = given.index if isinstance(given, pd.Series) else None
    return pd.Series(split, index=index, name="split", dtype="str")


def _size_faults(val_size: float, test_size: float) -> list[str]:
    sizes = {"val_size": val_size, "test_size": test_size}
    faults = [f"{k}={v}: must be in [0, 1)" for k, v in sizes.items() if not 0 <= v < 1]
    if not faults and val_size + test_size >= 1:
        faults.append(
            f"val_size={val_size} and test_size={test_size} leave nothing to train on"
        )
    return faults


# --- the draw ------------------------------------------------------------------------
# N rows, G groups, C classes, S splits


def _draw(
    labels: Sequence[str] | pd.Series | NDArray[np.object_],
    groups: ArrayLike,
    shares: dict[str, float],
    seed: int,
) -> NDArray[np.object_]:
    """A split name for each row, in these shares of every class, by group."""
    shares = {name: share for name, share in shares.items() if share > 0}
    names, label_N = np.unique(np.asarray(labels, dtype=object), return_inverse=True)
    ids, group_N = np.unique(np.asarray(groups), return_inverse=True)
    counts_GC = np.zeros((len(ids), len(names)), dtype=np.int64)
    np.add.at(counts_GC, (group_N, label_N), 1)

    scarce = [
        f"class {name!r} has {n} separate rows or duplicate groups, fewer than the "
        f"{len(shares)} parts to fill ({', '.join(shares)}): add rows, ask for fewer parts, "
        "or raise data.near_duplicates"
        for name, n in zip(names, (counts_GC > 0).sum(axis=0), strict=True)
        if n < len(shares)
    ]
    if scarce:
        raise DataError(scarce)

    share_S = np.array(list(shares.values()))
    target_SC = np.stack([_target(n, share_S) for n in counts_GC.sum(axis=0)], axis=1)
    rng = np.random.default_rng(seed)
    split_G = _place_groups(counts_GC, target_SC, rng)
    _fill_gaps(split_G, counts_GC, list(shares), names)
    return np.array(list(shares), dtype=object)[split_G[group_N]]


def _apportion(total: int, weight_S: NDArray[np.float64]) -> NDArray[np.int64]:
    """Cut a number into whole parts by weight: largest remainders (Hamilton's method)."""
    exact = total * weight_S / weight_S.sum()
    parts: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    parts[np.argsort(parts - exact, kind="stable")[: total - parts.sum()]] += 1
    return parts


def _target(total: int, share_S: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows of a class for each split, at least one where there are enough."""
    parts = _apportion(total, share_S)
    while total >= len(parts) and (parts == 0).any():
        parts[parts.argmin()] += 1
        parts[parts.argmax()] -= 1
    return parts


def _place_groups(
    counts_GC: NDArray[np.int64], target_SC: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Choose a split for each group: several rows greedily first, then single rows."""
    size_G = counts_GC.sum(axis=1)
    split_G = np.full(len(size_G), -1, dtype=np.int64)
    placed_SC = np.zeros_like(target_SC)
    weight_C = 1.0 / target_SC.sum(axis=0) ** 2
    shuffled = rng.permutation(len(size_G))
    several = shuffled[size_G[shuffled] > 1]
    for g in several[np.argsort(-size_G[several], kind="stable")]:
        # The growth of the squared distance to the targets, each class on its own scale.
        growth_SC = counts_GC[g] * (counts_GC[g] + 2 * (placed_SC - target_SC))
        split_G[g] = (growth_SC * weight_C).sum(axis=1).argmin()
        placed_SC[split_G[g]] += counts_GC[g]
    for c in range(counts_GC.shape[1]):
        single = shuffled[(size_G[shuffled] == 1) & (counts_GC[shuffled, c] == 1)]
        room_S = np.clip(target_SC[:, c] - placed_SC[:, c], 0, None).astype(np.float64)
        if len(single):
            take_S = _apportion(len(single), room_S)
            split_G[single] = np.repeat(np.arange(len(take_S)), take_S)
    return split_G


def _fill_gaps(
    split_G: NDArray[np.int64],
    counts_GC: NDArray[np.int64],
    shares: list[str],
    names: NDArray[np.object_],
) -> None:
    """Move the smallest groups that give every split every class, in place."""
    has_GC = counts_GC > 0
    size_G = counts_GC.sum(axis=1)
    for _ in range(len(shares) * len(names) * 2):
        present_SC = np.stack([has_GC[split_G == s].sum(axis=0) for s in range(len(shares))])
        gaps = np.argwhere(present_SC == 0)
        if not len(gaps):
            return
        s, c = gaps[0]
        # A group may leave when its split keeps another one of each of its classes.
        spare_G = ((present_SC[split_G] > 1) | ~has_GC).all(axis=1) & has_GC[:, c]
        if not spare_G.any():
            break
        candidates = np.flatnonzero(spare_G)
        split_G[candidates[size_G[candidates].argmin()]] = s
    raise DataError(
        f"class {names[c]!r} cannot be in {shares[s]!r} without tearing a duplicate group "
        "apart: add rows, ask for fewer parts, or raise data.near_duplicates"
    )
