"""The one path from texts to predictions, used by training, commands and serving.

Shapes: N texts, B batch, C classes, F tabular features, H embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tqdm import tqdm

from fakenews.bundle import BundleContent, read_bundle
from fakenews.data.cleaning import Cleaning
from fakenews.engines import (
    Engine,
    EngineName,
    Inputs,
    OnnxEngine,
    Outputs,
    TfidfEngine,
    TorchEngine,
)
from fakenews.errors import BundleError, ConfigError, DataError
from fakenews.evaluation.calibration import Calibration
from fakenews.features.batching import plan_batches
from fakenews.features.pipeline import FeaturePipeline
from fakenews.features.text import Tokens, pad, tokenize

_EMPTY = "the text is empty"


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
    def load(
        cls,
        bundle: str | Path,
        *,
        engine: EngineName | None = None,
        device: str = "cpu",
        threads: int | None = None,
        batch_size: int = 64,
        batch_tokens: int = 4096,
    ) -> Self:
        """Read and verify a bundle, and make its predictor.

        Args:
            bundle: Its folder, or the run folder that has it.
            engine: What runs the model; None: what the bundle was exported for, where `device`
                is a CPU, else torch, which every bundle has.
            device: As torch names it.
            threads: Of ONNX Runtime; None: as many as torch has.
            batch_size: Most texts of a batch.
            batch_tokens: Most tokens of a batch, padding included.

        Raises:
            BundleError: The bundle is incomplete, changed or of another format.
            ConfigError: There is no such device.
            FeatureError: The spaCy model it needs is not installed.
        """
        content = read_bundle(bundle)
        try:
            return cls.from_content(
                content,
                engine=engine,
                device=device,
                threads=threads,
                batch_size=batch_size,
                batch_tokens=batch_tokens,
            )
        except BundleError as error:
            raise BundleError(f"{bundle}: {error}") from error

    @classmethod
    def from_content(
        cls,
        content: BundleContent,
        *,
        engine: EngineName | None = None,
        device: str = "cpu",
        threads: int | None = None,
        batch_size: int = 64,
        batch_tokens: int = 4096,
        cache_dir: Path | None = None,
    ) -> Self:
        """The predictor of a bundle in memory.

        Args:
            content: As `read_bundle` returns it.
            engine: See `load`.
            device: See `load`.
            threads: See `load`.
            batch_size: See `load`.
            batch_tokens: See `load`.
            cache_dir: Where entity counts are kept; None keeps none.

        Raises:
            BundleError: The content does not fit this version.
            ConfigError: See `load`.
            FeatureError: See `load`.
        """
        try:
            calibration = Calibration.from_json(content.calibration)
            calibration.check(content.labels["classes"])
            return cls(
                engine=_engine(content, engine, device, threads),
                tokenizer=_tokenizer(content),
                pad_id=int(content.features["pad_id"]),
                features=None
                if content.features["tabular"] is None
                else FeaturePipeline.from_json(
                    content.features["tabular"], cache_dir=cache_dir
                ),
                cleaning=Cleaning(**content.features["cleaning"]),
                classes=content.labels["classes"],
                calibration=calibration,
                batch_size=batch_size,
                batch_tokens=batch_tokens,
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            # The manifest matched, so the bundle was written by a version that differs.
            raise BundleError(f"it does not fit this version: {error!r}") from error

    @property
    def columns(self) -> list[str]:
        """Columns that a table must have beside the text."""
        return [*self.numeric, *self.categorical]

    @property
    def numeric(self) -> list[str]:
        """Those of the `columns` that hold numbers."""
        return [] if self.features is None else list(self.features.numeric)

    @property
    def categorical(self) -> list[str]:
        """Those of the `columns` that hold categories."""
        return [] if self.features is None else list(self.features.categorical)

    def predict(self, texts: Sequence[str] | pd.DataFrame) -> list[Prediction]:
        """Predict each text; a row that cannot be used gets an error, the others do not.

        Args:
            texts: Texts as a person wrote them, or a table with a column `text` and the
                `columns`; a missing number counts as the mean of the training rows.

        Returns:
            A prediction for each text, in order.

        Raises:
            DataError: The model needs columns that are not given.
            TypeError: One text was given, not a list of them.
        """
        if isinstance(texts, str):
            raise TypeError("predict takes a list of texts: write predict([text])")
        # Few tables are made on the way: of one text they would take longer than all else.
        table: Any = texts if isinstance(texts, pd.DataFrame) else {"text": list(texts)}
        missing = [name for name in ("text", *self.columns) if name not in table]
        if missing:
            raise DataError(
                f"the model needs the column{'s' * (len(missing) > 1)} {', '.join(missing)}"
            )
        given = list(table["text"])
        faults = [_fault(text) for text in given]
        columns = {name: _numbers(table[name], faults) for name in self.numeric}
        for name in self.categorical:
            # As files are read: a category is its text without the space around it.
            values = [v.strip() if isinstance(v, str) else v for v in table[name]]
            columns[name] = np.fromiter(values, dtype=object, count=len(values))
        usable = [row for row, fault in enumerate(faults) if fault is None]
        cleaned = self.cleaning([given[row] for row in usable])
        rows, legible, clipped = [], [], []
        for row, text, cut in zip(usable, cleaned.texts, cleaned.clipped, strict=True):
            if text == "":
                faults[row] = _EMPTY
                continue
            rows.append(row)
            legible.append(text)
            clipped.append(cut)
        # Objects: pandas' strings cannot hold half a surrogate pair, and JSON can.
        frame = pd.DataFrame(
            {"text": pd.Series(legible, dtype=object)}
            | {n: pd.Series(column[rows], dtype=column.dtype) for n, column in columns.items()}
        )
        predictions = iter(self._predict_clean(frame, np.array(clipped, dtype=bool)))
        return [
            next(predictions)
            if fault is None
            else Prediction(label=None, probabilities={}, error=fault)
            for fault in faults
        ]

    def _predict_clean(
        self, frame: pd.DataFrame, clipped: NDArray[np.bool_]
    ) -> list[Prediction]:
        if not len(frame):
            return []
        tokens = self.tokens(frame)
        outputs = self._run(frame, tokens, progress=False)
        probabilities = self.calibration.apply(outputs.logits)
        decided = self.calibration.decide(probabilities, self.classes)
        return [
            Prediction(
                label=self.classes[code],
                probabilities=dict(zip(self.classes, row, strict=True)),
                truncated=truncated,
            )
            for code, row, truncated in zip(
                decided.tolist(),
                probabilities.tolist(),
                (tokens.truncated | clipped).tolist(),
                strict=True,
            )
        ]

    def outputs(self, frame: pd.DataFrame, *, progress: bool = False) -> Outputs:
        """Logits [N, C] and embeddings [N, H] of a table whose text is already clean.

        Args:
            frame: Columns `text` and `columns`.
            progress: Show a progress bar.
        """
        return self._run(frame, self.tokens(frame), progress=progress)

    def tokens(self, frame: pd.DataFrame) -> Tokens:
        """Token ids of a table's clean texts; none for a model that reads no tokens.

        Args:
            frame: With a column `text`.
        """
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
            tabular = self.features.transform(frame, progress=progress)
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


def _fault(text: Any) -> str | None:
    if isinstance(text, str):
        return None if text.strip() else _EMPTY
    if pd.isna(text) is True:  # of an array, isna is an array
        return "the text is missing"
    return f"the text is of type {type(text).__name__}, not a string"


def _numbers(column: "pd.Series[Any]", faults: list[str | None]) -> NDArray[np.float64]:
    """The numbers [N] of a column, NaN for gaps; what is no finite number is a fault."""
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(
        np.float64, copy=True, na_value=np.nan
    )
    for row in np.flatnonzero(~np.isfinite(numbers)):
        value = column.iloc[row]
        # As files are read: an empty cell is a gap.
        empty = isinstance(value, str) and value.strip().lower() in ("", "nan")
        if np.isnan(numbers[row]) and (empty or pd.isna(value)):
            continue
        numbers[row] = np.nan
        if faults[row] is None:
            faults[row] = f"column {column.name!r}: {value!r} is not a finite number"
    return numbers


def _tokenizer(content: BundleContent) -> Tokenizer | None:
    if content.tokenizer is None:
        return None
    try:
        tokenizer = Tokenizer.from_str(content.tokenizer)
    except Exception as error:  # tokenizers raises bare Exception
        raise BundleError(f"tokenizer.json is not a readable tokenizer ({error})") from error
    if tokenizer.truncation is None:
        raise BundleError("tokenizer.json sets no truncation, so no longest text")
    return tokenizer


def _engine(
    content: BundleContent, name: EngineName | None, device: str, threads: int | None
) -> Engine:
    exported: str = (content.engine or {}).get("name", "torch")
    wanted = name or (exported if device == "cpu" else "torch")
    if wanted not in (known := get_args(EngineName)):
        raise ConfigError(f"engine={wanted}: choose {', '.join(known[:-1])} or {known[-1]}")
    if wanted not in ("torch", exported):
        raise BundleError(f"it has no engine {wanted}: export it with engine={wanted}")
    if wanted != "torch":
        if device != "cpu":
            raise ConfigError(f"engine={wanted} is for device=cpu: choose engine=torch")
        if content.onnx is None:
            raise BundleError(
                f"engine/model.onnx is missing, which engine.json says is {wanted}"
            )
        return OnnxEngine(content.onnx, threads=threads)
    if content.model["network"] == "tfidf":
        from fakenews.models.tfidf import TfidfClassifier

        return TfidfEngine(TfidfClassifier.build(content.model, dict(content.weights)))
    import torch

    from fakenews.models.networks import build

    network = build(content.model)
    weights = {name: torch.from_numpy(array) for name, array in content.weights.items()}
    network.load_state_dict(weights)
    return TorchEngine(network, device=device)
