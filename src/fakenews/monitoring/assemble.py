"""Rows of the log as monitoring compares them; what a log lacks is made from its texts.

Shapes: N rows, C classes.
"""

import numpy as np
import pandas as pd

from fakenews.monitoring.rows import Floats, Reference, Rows, tabular_columns, token_columns
from fakenews.monitoring.windows import LoggedRows
from fakenews.predictor import Predictor


def assembled(
    logged: LoggedRows, reference: Reference, *, predictor: Predictor | None = None
) -> tuple[Rows, pd.DataFrame]:
    """Rows to be compared, and their lines of the log.

    What the model read of a text and what it made of it are in the log, unless that was
    turned off. Then they are computed, where texts are logged.

    Args:
        logged: Of a window.
        reference: To compare with.
        predictor: Of the bundle; None computes nothing.

    Returns:
        N rows with probabilities, and the frame of the same N rows.
    """
    if predictor is not None and _lacks(logged, reference):
        logged = _completed(logged, predictor)
    usable = np.asarray(np.isfinite(logged.probabilities).all(axis=1))
    columns: dict[str, Floats] = {}
    if logged.tabular is not None and len(reference.features):
        columns |= tabular_columns(logged.tabular, reference.features)
        usable &= np.isfinite(logged.tabular).all(axis=1)
    embeddings = logged.embeddings if reference.rows.embeddings is not None else None
    if embeddings is not None:
        usable &= np.isfinite(embeddings).all(axis=1)
    tokens = _number(logged.frame, "tokens")
    if tokens is not None and "text.tokens" in reference.rows.columns:
        unknown = _number(logged.frame, "unknown_tokens")
        columns |= token_columns(tokens, unknown)
        usable &= np.isfinite(tokens)
        if unknown is not None:
            usable &= np.isfinite(unknown)
    labels = _codes(logged.frame["true_label"], reference.classes)
    decided = _codes(logged.frame["label"], reference.classes)
    computed = reference.calibration.decide(
        np.nan_to_num(logged.probabilities), classes=reference.classes
    )
    rows = Rows(
        columns=columns,
        embeddings=embeddings,
        probabilities=logged.probabilities,
        decided=np.where(decided >= 0, decided, computed),
        labels=labels,
    )
    return rows.take(usable), logged.frame.loc[usable].reset_index(drop=True)


def _lacks(logged: LoggedRows, reference: Reference) -> bool:
    """Whether a part is in no row of the log."""
    return (
        (bool(reference.features) and logged.tabular is None)
        or (reference.rows.embeddings is not None and logged.embeddings is None)
        or ("text.tokens" in reference.rows.columns and _number(logged.frame, "tokens") is None)
    )


def _completed(logged: LoggedRows, predictor: Predictor) -> LoggedRows:
    """The rows whose texts are logged, with what the model sees of them."""
    frame = logged.frame
    known = frame["text"].notna().to_numpy(dtype=bool)
    if not known.any():
        return logged
    frame = frame[known].reset_index(drop=True)
    table = pd.DataFrame({"text": frame["text"].astype(object)})
    for name in predictor.columns:
        table[name] = [(columns or {}).get(name) for columns in frame["columns"]]
    predictions = predictor.predict(table, seen=True)
    good = np.array([found.seen is not None for found in predictions], dtype=bool)
    seen = [found.seen for found in predictions if found.seen is not None]
    frame = frame[good].reset_index(drop=True)
    frame["tokens"] = pd.array([found.tokens for found in seen], dtype="Int64")
    frame["unknown_tokens"] = pd.array([found.unknown_tokens for found in seen], dtype="Int64")
    return LoggedRows(
        frame=frame,
        probabilities=logged.probabilities[known][good],
        tabular=_stacked([found.tabular for found in seen]),
        embeddings=_stacked([found.embedding for found in seen]),
    )


def _stacked(
    arrays: list[np.ndarray[tuple[int], np.dtype[np.float32]] | None],
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]] | None:
    present = [array for array in arrays if array is not None]
    return np.stack(present) if present and len(present) == len(arrays) else None


def _number(frame: pd.DataFrame, name: str) -> Floats | None:
    """A column [N]; None if it has no value at all."""
    values = pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return None if np.isnan(values).all() else values


def _codes(
    labels: "pd.Series[str]", classes: tuple[str, ...]
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Codes [N]; -1 for what is none of the classes, and for what is not known."""
    codes = {name: code for code, name in enumerate(classes)}
    return np.array([codes.get(label, -1) for label in labels], dtype=np.int64)
