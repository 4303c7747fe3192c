"""The one path from texts to predictions, used by training, commands and serving.

Shapes: N texts, B batch, C classes, F tabular features, H embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from tokenizers import Tokenizer
from tqdm import tqdm

from fakenews.bundle import BundleContent, read_bundle
from fakenews.data.cleaning import Cleaning
from fakenews.engines import Engine, Inputs, Outputs, TfidfEngine, TorchEngine
from fakenews.errors import BundleError, DataError
from fakenews.evaluation.calibration import Calibration
from fakenews.features.batching import plan_batches
from fakenews.features.pipeline import FeaturePipeline
from fakenews.features.text import Tokens, pad, tokenize


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model says of one text.

    Attributes:
        label: The class decided for; None with an `error`.
        probabilities: Calibrated, by class name; empty with an `error`.
        truncated: Whether the text was too long to be read whole.
        error: Why there is no prediction, or None.
    """

    label: str | None
    probabilities: dict[str, float]
    truncated: bool = False
    error: str | None = None


class Predictor:
    """Predicts with a model; `load` makes one from a bundle.

    Args:
        engine: Runs the model.
        tokenizer: Truncating; None for a model that reads no tokens.
        pad_id: Token id of padding.
        features: Fitted; None for a model that reads no features.
        cleaning: As of the training data.
        classes: Sorted class names.
        calibration: Temperature and threshold.
        batch_size: Most texts of a batch.
        batch_tokens: Most tokens of a batch, padding included.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        tokenizer: Tokenizer | None,
        pad_id: int,
        features: FeaturePipeline | None,
        cleaning: Cleaning,
        classes: Sequence[str],
        calibration: Calibration,
        batch_size: int = 64,
        batch_tokens: int = 4096,
    ) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.pad_id = pad_id
        self.features = features
        self.cleaning = cleaning
        self.classes = list(classes)
        self.calibration = calibration
        self.batch_size = batch_size
        self.batch_tokens = batch_tokens

    @classmethod
    def load(cls, bundle: str | Path, *, device: str = "cpu", **arguments: Any) -> Self:
        """Read and verify a bundle, and make its predictor.

        Args:
            bundle: Folder.
            device: As torch names it.
            **arguments: `batch_size`, `batch_tokens`.

        Raises:
            BundleError: The bundle is incomplete, changed or of another format.
        """
        content = read_bundle(bundle)
        try:
            return cls(
                engine=_engine(content, device),
                tokenizer=_tokenizer(content),
                pad_id=int(content.features["pad_id"]),
                features=None
                if content.features["tabular"] is None
                else FeaturePipeline.from_json(content.features["tabular"]),
                cleaning=Cleaning(**content.features["cleaning"]),
                classes=content.labels["classes"],
                calibration=Calibration.from_json(content.calibration),
                **arguments,
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            # The manifest matched, so the bundle was written by a version that differs.
            raise BundleError(f"{bundle} does not fit this version: {error!r}") from error

    @property
    def columns(self) -> list[str]:
        """Columns that a table must have beside the text."""
        if self.features is None:
            return []
        return [*self.features.numeric, *self.features.categorical]

    def predict(self, texts: Sequence[str] | pd.DataFrame) -> list[Prediction]:
        """Predict each text; a text that cannot be used gets an error, the others do not.

        Args:
            texts: Texts as a person wrote them, or a table with a column `text` and the
                `columns`.

        Raises:
            DataError: The model needs columns that are not given.
        """
        table = pd.DataFrame({"text": texts}) if not isinstance(texts, pd.DataFrame) else texts
        table = table.reset_index(drop=True)
        missing = [name for name in ("text", *self.columns) if name not in table.columns]
        if missing:
            raise DataError(
                f"the model needs the column{'s' * (len(missing) > 1)} {', '.join(missing)}"
            )
        faults = [_fault(text) for text in table["text"]]
        usable = np.array([fault is None for fault in faults], dtype=bool)
        frame = table.loc[usable].copy()
        frame["text"] = self.cleaning(frame["text"].tolist()).texts
        empty = frame["text"].to_numpy() == ""
        for position in np.flatnonzero(usable)[empty]:
            faults[position] = "the text is empty"
        frame = frame.loc[~empty]
        predictions = iter(self._predict_clean(frame))
        return [
            next(predictions)
            if fault is None
            else Prediction(label=None, probabilities={}, error=fault)
            for fault in faults
        ]

    def _predict_clean(self, frame: pd.DataFrame) -> list[Prediction]:
        if frame.empty:
            return []
        tokens = self._tokens(frame)
        outputs = self._run(frame, tokens, progress=False)
        probabilities = self.calibration.apply(outputs.logits)
        decided = self.calibration.decide(probabilities, self.classes)
        return [
            Prediction(
                label=self.classes[code],
                probabilities=dict(zip(self.classes, map(float, row), strict=True)),
                truncated=bool(truncated),
            )
            for code, row, truncated in zip(
                decided, probabilities, tokens.truncated, strict=True
            )
        ]

    def outputs(self, frame: pd.DataFrame, *, progress: bool = False) -> Outputs:
        """Logits [N, C] and embeddings [N, H] of a table whose text is already clean.

        Args:
            frame: Columns `text` and `columns`.
            progress: Show a progress bar.
        """
        return self._run(frame, self._tokens(frame), progress=progress)

    def _tokens(self, frame: pd.DataFrame) -> Tokens:
        texts = frame["text"].tolist()
        if self.tokenizer is None:
            return Tokens(
                input_ids=np.empty(0, dtype=np.int32),
                offsets=np.zeros(len(texts) + 1, dtype=np.int64),
                truncated=np.zeros(len(texts), dtype=np.bool_),
            )
        truncation: Any = self.tokenizer.truncation
        max_length = truncation["max_length"]
        return tokenize(texts, self.tokenizer, max_length=max_length)

    def _run(self, frame: pd.DataFrame, tokens: Tokens, *, progress: bool) -> Outputs:
        texts = np.asarray(frame["text"], dtype=object)
        tabular = np.empty((len(frame), 0), dtype=np.float32)
        if self.features is not None and len(frame):
            tabular = self.features.transform(frame)
        batches = plan_batches(
            tokens.lengths, batch_size=self.batch_size, batch_tokens=self.batch_tokens
        )
        parts = []
        with tqdm(
            total=len(frame), desc="predict", unit="row", disable=not progress, leave=False
        ) as bar:
            for rows in batches:
                ids, mask = pad(tokens, rows, self.pad_id)
                parts.append(
                    self.engine.run(Inputs(texts[rows].tolist(), ids, mask, tabular[rows]))
                )
                bar.update(len(rows))
        if not parts:
            return Outputs(np.empty((0, len(self.classes))), np.empty((0, 0), dtype=np.float32))
        back = np.argsort(np.concatenate(batches))
        logits, embeddings = (
            np.concatenate(column)[back] for column in zip(*parts, strict=True)
        )
        return Outputs(logits, embeddings)


def _fault(text: object) -> str | None:
    if not isinstance(text, str):
        return f"the text is {type(text).__name__}, not a string"
    return None if text.strip() else "the text is empty"


def _tokenizer(content: BundleContent) -> Tokenizer | None:
    return None if content.tokenizer is None else Tokenizer.from_str(content.tokenizer)


def _engine(content: BundleContent, device: str) -> Engine:
    if content.model["network"] == "tfidf":
        from fakenews.models.tfidf import TfidfClassifier

        return TfidfEngine(TfidfClassifier.build(content.model, dict(content.weights)))
    import torch

    from fakenews.models.networks import build

    network = build(content.model)
    weights = {name: torch.from_numpy(array) for name, array in content.weights.items()}
    network.load_state_dict(weights)
    return TorchEngine(network, device=device)
