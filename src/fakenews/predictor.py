"""The one path from texts to predictions, used by training, commands and serving.

Shapes: N texts, B batch, C classes, D text dim, F tabular features, H embedding.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tqdm import tqdm

from fakenews.bundle import BundleContent, read_bundle
from fakenews.data.cleaning import Cleaning
from fakenews.engines import Batch, Engine, EngineName, Outputs, make_engine
from fakenews.errors import BundleError, DataError
from fakenews.evaluation.calibration import Calibration
from fakenews.features.batching import Rows, cheapest_batches
from fakenews.features.given import EMPTY, numbers, text_fault
from fakenews.features.pipeline import FeaturePipeline
from fakenews.features.text import (
    Tokens,
    bundled_tokenizer,
    pad,
    tokenize,
    unknown_counts,
    unknown_id,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What a model saw of one text, as a bundle's reference has it of validation's.

    Attributes:
        tokens: How many, special ones included; None for a model that reads no tokens.
        unknown_tokens: Those of them that stand for what the tokenizer does not know.
        tabular: Standardised features [F]; None for a model that reads none.
        embedding: What the network decided from [H]; None for a model without any.
    """

    tokens: int | None
    unknown_tokens: int | None
    tabular: NDArray[np.float32] | None
    embedding: NDArray[np.float32] | None


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model says of one text.

    Attributes:
        label: The class decided for; None with an `error`.
        probabilities: Calibrated, by class name; empty with an `error`.
        truncated: Whether the text was too long to be read whole.
        error: Why there is no prediction, or None.
        seen: What the model saw, if that was asked for.
    """

    label: str | None
    probabilities: dict[str, float]
    truncated: bool = False
    error: str | None = None
    seen: Seen | None = field(default=None, compare=False)


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
                engine=make_engine(content, engine, device=device, threads=threads),
                tokenizer=bundled_tokenizer(content.tokenizer),
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

    def predict(
        self, texts: Sequence[str] | pd.DataFrame, *, seen: bool = False
    ) -> list[Prediction]:
        """Predict each text; a row that cannot be used gets an error, the others do not.

        Args:
            texts: Texts as a person wrote them, or a table with a column `text` and the
                `columns`; a missing number counts as the mean of the training rows.
            seen: Give what the model saw, too.

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
        faults = [text_fault(text) for text in given]
        columns = {name: numbers(table[name], faults) for name in self.numeric}
        for name in self.categorical:
            # As files are read: a category is its text without the space around it.
            values = [v.strip() if isinstance(v, str) else v for v in table[name]]
            columns[name] = np.fromiter(values, dtype=object, count=len(values))
        usable = [row for row, fault in enumerate(faults) if fault is None]
        cleaned = self.cleaning([given[row] for row in usable])
        rows, legible, clipped = [], [], []
        for row, text, cut in zip(usable, cleaned.texts, cleaned.clipped, strict=True):
            if text == "":
                faults[row] = EMPTY
                continue
            rows.append(row)
            legible.append(text)
            clipped.append(cut)
        # Objects: pandas' strings cannot hold half a surrogate pair, and JSON can.
        frame = pd.DataFrame(
            {"text": pd.Series(legible, dtype=object)}
            | {n: pd.Series(column[rows], dtype=column.dtype) for n, column in columns.items()}
        )
        clipped_N = np.array(clipped, dtype=bool)
        predictions = iter(self._predict_clean(frame, clipped_N, seen=seen))
        return [
            next(predictions)
            if fault is None
            else Prediction(label=None, probabilities={}, error=fault)
            for fault in faults
        ]

    def _predict_clean(
        self, frame: pd.DataFrame, clipped: NDArray[np.bool_], *, seen: bool
    ) -> list[Prediction]:
        if not len(frame):
            return []
        tokens = self.tokens(frame)
        tabular, outputs = self._run(frame, tokens)
        probabilities = self.calibration.apply(outputs.logits)
        decided = self.calibration.decide(probabilities, self.classes)
        return [
            Prediction(
                label=self.classes[code],
                probabilities=dict(zip(self.classes, row, strict=True)),
                truncated=truncated,
                seen=found,
            )
            for code, row, truncated, found in zip(
                decided.tolist(),
                probabilities.tolist(),
                (tokens.truncated | clipped).tolist(),
                self._seen(tokens, tabular, outputs) if seen else [None] * len(frame),
                strict=True,
            )
        ]

    @cached_property
    def _unknown_id(self) -> int | None:
        return None if self.tokenizer is None else unknown_id(self.tokenizer)

    def _seen(
        self, tokens: Tokens, tabular: NDArray[np.float32], outputs: Outputs
    ) -> list[Seen]:
        if self.tokenizer is None:
            counts: list[tuple[int | None, int | None]] = [(None, None)] * len(tabular)
        else:
            unknown = unknown_counts(tokens, self._unknown_id)
            counts = list(zip(tokens.lengths.tolist(), unknown.tolist(), strict=True))
        return [
            Seen(
                tokens=count,
                unknown_tokens=unknown_count,
                tabular=features if features.size else None,
                embedding=embedding if embedding.size else None,
            )
            for (count, unknown_count), features, embedding in zip(
                counts, tabular, outputs.embeddings, strict=True
            )
        ]

    def outputs(self, frame: pd.DataFrame, *, progress: bool = False) -> Outputs:
        """Logits [N, C] and embeddings [N, H] of a table whose text is already clean.

        Args:
            frame: Columns `text` and `columns`.
            progress: Show a progress bar.
        """
        return self._run(frame, self.tokens(frame), progress=progress)[1]

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
        return tokenize(texts, self.tokenizer, max_length=truncation["max_length"])

    def batches(self, tokens: Tokens) -> list[Rows]:
        """Numbers of the rows that the engine runs together, which take it least time."""
        return cheapest_batches(
            tokens.lengths,
            batch_size=self.batch_size,
            batch_tokens=self.batch_tokens,
            overhead=self.engine.overhead,
        )

    def _run(
        self, frame: pd.DataFrame, tokens: Tokens, *, progress: bool = False
    ) -> tuple[NDArray[np.float32], Outputs]:
        """Standardised features [N, F], 0 for a model that reads none, and what it says."""
        if not len(frame):
            nothing = np.empty((0, 0), dtype=np.float32)
            return nothing, Outputs(np.empty((0, len(self.classes))), nothing)
        stop = Event()
        if self.features is None:
            tabular = np.empty((len(frame), 0), dtype=np.float32)
            vectors = self._encode(frame, tokens, stop, progress=progress)
        else:
            # The engine leaves Python's lock to the features, which take as long, on one core.
            encoded = self._aside.submit(self._encode, frame, tokens, stop, progress=progress)
            try:
                tabular = self.features.transform(frame, progress=progress)
                vectors = encoded.result()
            except BaseException:
                stop.set()
                raise
        return tabular, self.engine.classify(vectors, tabular)

    @cached_property
    def _aside(self) -> ThreadPoolExecutor:
        # Kept: with every thread that computes, torch makes others.
        return ThreadPoolExecutor()

    def _encode(
        self, frame: pd.DataFrame, tokens: Tokens, stop: Event, *, progress: bool
    ) -> NDArray[Any]:
        """The engine's vectors of texts, [N, D]; of fewer once they are not wanted."""
        texts = np.asarray(frame["text"], dtype=object)
        batches = self.batches(tokens)
        parts = []
        with tqdm(
            total=len(frame), desc="predict", unit="row", disable=not progress, leave=False
        ) as bar:
            for rows in batches:
                ids, mask = pad(tokens, rows, self.pad_id)
                parts.append(self.engine.encode(Batch(texts[rows].tolist(), ids, mask)))
                bar.update(len(rows))
                if stop.is_set():
                    break
        return np.concatenate(parts)[np.argsort(np.concatenate(batches[: len(parts)]))]
