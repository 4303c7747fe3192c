"""Texts that were predicted once, from which `monitoring.py` draws its windows.

Shapes: N rows of a pool.
"""

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fakenews.bundle import BundleContent, find_bundle, read_bundle
from fakenews.data.cleaning import Cleaning
from fakenews.data.dataset import Dataset, load
from fakenews.data.sample import fetch
from fakenews.features.text import unknown_counts, unknown_id
from fakenews.monitoring.rows import (
    Codes,
    Reference,
    Rows,
    tabular_columns,
    token_columns,
)
from fakenews.predictor import Predictor

_CHUNK = 2_000  # rows that are predicted and kept at once


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """N predicted texts.

    Attributes:
        rows: What monitoring knows of them.
        texts: Objects [N].
    """

    rows: Rows
    texts: NDArray[np.object_]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.texts)

    def take(self, index: NDArray[np.int64], labels: Codes | None = None) -> Rows:
        """Those rows, with their labels or others."""
        rows = self.rows.take(index)
        return rows if labels is None else replace(rows, labels=labels)

    def __add__(self, other: Self) -> Self:
        """Both, one after the other."""
        a, b = self.rows, other.rows
        known = a.embeddings is not None and b.embeddings is not None
        rows = Rows(
            columns={
                key: np.concatenate([a.columns[key], b.columns[key]]) for key in a.columns
            },
            embeddings=np.concatenate([a.embeddings, b.embeddings]) if known else None,  # type: ignore[list-item]
            probabilities=np.concatenate([a.probabilities, b.probabilities]),
            decided=np.concatenate([a.decided, b.decided]),
            labels=np.concatenate([a.labels, b.labels]),
        )
        return replace(self, rows=rows, texts=np.concatenate([self.texts, other.texts]))


class Bundle:
    """A model, its reference, and the data that it was made of.

    Args:
        run: Folder of the run, or of the bundle.
        folder: Where predictions are kept.
    """

    def __init__(self, run: Path, *, folder: Path) -> None:
        self.path = find_bundle(run)
        self.content: BundleContent = read_bundle(run)
        self.reference = Reference.of(self.content)
        self._folder = folder
        self._manifest = (self.path / "manifest.json").read_bytes()
        self._predictor: Predictor | None = None

    @property
    def cleaning(self) -> Cleaning:
        """What texts go through before the model sees them."""
        return Cleaning(**self.content.features["cleaning"])

    @property
    def predictor(self) -> Predictor:
        """The model; loaded when something is not predicted yet."""
        if self._predictor is None:
            self._predictor = Predictor.from_content(
                self.content, engine="torch", cache_dir=self._folder
            )
        return self._predictor

    def dataset(self, path: Path | None = None) -> Dataset:
        """The data of the run, split as it was.

        Args:
            path: The file, wherever it is now; None generates the sample again.
        """
        settings: dict[str, Any] = dict(self.content.provenance["config"]["data"])
        del settings["_target_"]
        again = settings.pop("fetch")
        if path is None:
            arguments = {k: v for k, v in again.items() if not k.startswith("_")}
            (path,) = fetch(**arguments, cache_dir=self._folder)
        data = load(**settings | {"path": str(path), "cache_dir": None})
        if data.manifest["data_hash"] != self.content.provenance["data"]["data_hash"]:
            sys.exit(f"error: {path} is not the data that {self.path} was trained on")
        return data

    def reference_texts(self, data: Dataset) -> NDArray[np.object_]:
        """Of the reference's rows, in their order."""
        some = self.content.reference["rows"]
        return data.part("val")["text"].to_numpy(object)[some]

    def predict(self, name: str, frame: pd.DataFrame) -> Pool:
        """The predictions of a table: those of an earlier call, or made now.

        Args:
            name: For people.
            frame: Clean `text` and `label`, which is a class.
        """
        texts = frame["text"].to_numpy(object)
        codes = pd.Categorical(frame["label"], categories=self.reference.classes).codes
        found = self._arrays(name, texts)
        calibration, features = self.reference.calibration, self.reference.features
        probabilities = calibration.apply(found["logits"])
        columns = tabular_columns(found["tabular"], features) if features else {}
        if self.content.tokenizer is not None:
            columns |= token_columns(found["tokens"], found["unknown"])
        return Pool(
            rows=Rows(
                columns=columns,
                embeddings=found["embeddings"].astype(np.float32)
                if found["embeddings"].shape[1]
                else None,
                probabilities=probabilities,
                decided=calibration.decide(probabilities, classes=self.reference.classes),
                labels=codes.astype(np.int64),
            ),
            texts=texts,
        )

    def _arrays(self, name: str, texts: NDArray[np.object_]) -> Mapping[str, NDArray[Any]]:
        parts = [
            self._chunk(f"{name}, rows from {start:,}", texts[start : start + _CHUNK])
            for start in range(0, len(texts), _CHUNK)
        ]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def _chunk(self, name: str, texts: NDArray[np.object_]) -> dict[str, NDArray[Any]]:
        key = hashlib.sha256(self._manifest)
        for text in texts:
            key.update(text.encode() + b"\0")
        path = self._folder / f"{key.hexdigest()[:24]}.npz"
        if not path.is_file():
            print(f"predicting: {name}", file=sys.stderr)
            draft = path.with_name(f".{uuid4().hex}.npz")
            np.savez(draft, **self._predicted(pd.DataFrame({"text": texts})))
            draft.replace(path)
        with np.load(path) as arrays:
            return dict(arrays)

    def _predicted(self, frame: pd.DataFrame) -> dict[str, NDArray[Any]]:
        predictor = self.predictor
        outputs = predictor.outputs(frame, progress=True)
        tokens = predictor.tokens(frame)
        unknown = None if predictor.tokenizer is None else unknown_id(predictor.tokenizer)
        return {
            "logits": outputs.logits,
            # As a bundle keeps its reference's.
            "embeddings": outputs.embeddings.astype(np.float16),
            "tabular": np.empty((len(frame), 0), dtype=np.float32)
            if predictor.features is None
            else predictor.features.transform(frame),
            "tokens": tokens.lengths,
            "unknown": unknown_counts(tokens, unknown),
        }
