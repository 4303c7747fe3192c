"""Whether a bundle may have learnt from the rows that it is judged on, as far as can be told.

Three ways to find out: the file is one that it was trained from; the text is in a training file
that is still there; the tokens are those of a row of its validation split, which every bundle
keeps. What none of them finds may still have been seen.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fakenews.bundle import sha256
from fakenews.data.cleaning import Cleaning
from fakenews.data.sources import read_table
from fakenews.errors import DataError
from fakenews.retraining.contestants import Contestant, Rows
from fakenews.retraining.gate_policy import GatePolicy
from fakenews.retraining.gate_verdict import Check, Outcome

_MOST_BYTES = 200_000_000  # of training files that are read for this
_SHOWN = 60


def seen_check(
    place: str, rows: Rows, champion: Contestant, challenger: Contestant, policy: GatePolicy
) -> tuple[Check, list[str]]:
    """Whether too many rows are known to be in the challenger's training.

    Args:
        place: `test` or `window`, of the key.
        rows: That are judged on.
        champion: Of which it is only told.
        challenger: Of which it refuses.
        policy: What is borne.

    Returns:
        The check, and notices.
    """
    found = {
        role: _seen(side, rows)
        for role, side in (("champion", champion), ("challenger", challenger))
    }
    notices = [
        f"{place}: {note} ({role})" for role, (_, notes) in found.items() for note in notes
    ]
    numbers: dict[str, Any] = {"rows": len(rows.frame), "borne": policy.max_seen}
    for role, (kinds, _) in found.items():
        numbers |= {f"{role}_{kind}": int(mask.sum()) for kind, mask in kinds.items()}
    trained = found["challenger"][0]["trained"]
    too_many = bool(trained.mean() > policy.max_seen)
    example = ""
    if too_many:
        text = str(rows.frame["text"].iloc[int(trained.argmax())])
        example = f", as {text[:_SHOWN]!r}"
    if too_many:
        message = f"{int(trained.sum()):,} of {len(trained):,} rows were trained on{example}"
    else:
        message = f"{int(trained.sum()):,} of {len(trained):,} rows are known to be trained on"
    return (
        Check(
            key=f"{place}.unseen",
            outcome=Outcome.FAILED if too_many else Outcome.PASSED,
            message=f"{place}: {message}",
            numbers=numbers,
        ),
        notices,
    )


def _seen(side: Contestant, rows: Rows) -> tuple[dict[str, NDArray[np.bool_]], list[str]]:
    """Rows that were trained on, and validated on; and what is to be told."""
    trained = np.zeros(len(rows.frame), dtype=bool)
    notices = []
    learnt, tested, settings = _sources(side)
    # Without files of their own, its test rows are some of those that it read.
    drawn = not tested
    for file in rows.files:
        if file.sha256 not in {one["sha256"] for one in learnt}:
            continue
        if drawn:
            notices.append(
                f"{file.path} is a file that its training rows were drawn from: give rows of "
                "its test split alone"
            )
        else:
            trained |= (rows.frame["file"] == file.path).to_numpy()
    clean = {file.path for file in rows.files if file.sha256 in tested}
    # Of its own test files, training has left out whatever they repeat.
    others = ~rows.frame["file"].isin(clean).to_numpy()
    if not drawn and others.any():
        texts = _texts(learnt, settings, side.predictor.cleaning)
        if texts is None:
            notices.append("the files that it was trained on are not there to compare with")
        else:
            cleaned = side.predictor.cleaning(rows.frame["raw"].tolist()).texts
            trained |= others & np.array([text.casefold() in texts for text in cleaned])
    validated = _validated(side, rows)
    if validated.any():
        notices.append(
            f"{int(validated.sum()):,} of {len(validated):,} rows are of its validation split, "
            "by which it was calibrated"
        )
    return {"trained": trained, "validated": validated}, notices


def _sources(
    side: Contestant,
) -> tuple[list[Mapping[str, Any]], set[str], Mapping[str, Any]]:
    """Files that a bundle learnt from; hashes of those of its tests; how they were read."""
    provenance = side.content.provenance
    data = provenance.get("data", {})
    config = provenance.get("config", {}).get("data", {})
    if inputs := data.get("inputs"):  # of a prepared dataset
        learnt = [one for one in inputs if one["role"] == "train"]
        tested = {one["sha256"] for one in inputs if one["role"] == "test"}
        return learnt, tested, data.get("settings", {})
    files: Sequence[Mapping[str, Any]] = data.get("files", ())
    tests = _paths(config.get("test_path"))
    apart = [*tests, *_paths(config.get("val_path"))]
    tested = {file["sha256"] for file in files if _within(file["path"], tests)}
    return [file for file in files if not _within(file["path"], apart)], tested, config


def _paths(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(value)] if isinstance(value, str | Path) else [str(path) for path in value]


def _within(file: str, paths: Sequence[str]) -> bool:
    return any(Path(path) in (Path(file), *Path(file).parents) for path in paths)


def _texts(
    files: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], cleaning: Cleaning
) -> set[str] | None:
    """The texts of training files; None if they are not as they were, or too many."""
    paths = [Path(str(file.get("path"))) for file in files]
    if not paths or sum(int(file.get("bytes", 0)) for file in files) > _MOST_BYTES:
        return None
    try:
        if any(
            sha256(path) != file.get("sha256") for path, file in zip(paths, files, strict=True)
        ):
            return None
        found = read_table(
            paths,
            text=str(settings.get("text")),
            label=None,
            normalise=cleaning.normalise,
            max_chars=cleaning.max_chars,
        )
    except (OSError, DataError):
        return None
    return {text.casefold() for text in found.frame["text"]}


def _validated(side: Contestant, rows: Rows) -> NDArray[np.bool_]:
    reference = side.content.reference
    if side.predictor.tokenizer is None or "input_ids" not in reference:
        return np.zeros(len(rows.frame), dtype=bool)
    known = set(_token_keys(reference["input_ids"], reference["offsets"]))
    cleaned = side.predictor.cleaning(rows.frame["raw"].tolist()).texts
    tokens = side.predictor.tokens(rows.frame.assign(text=cleaned))
    return np.array(
        [key in known for key in _token_keys(tokens.input_ids, tokens.offsets)], dtype=bool
    )


def _token_keys(ids: NDArray[Any], offsets: NDArray[Any]) -> Iterator[bytes]:
    ids = np.asarray(ids, dtype=np.int64)
    for start, end in pairwise(offsets):
        yield ids[start:end].tobytes()
