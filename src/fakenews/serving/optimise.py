"""A bundle gets an engine that is quicker than torch, and is held against torch.

Shapes: N reference rows, C classes.
"""

import dataclasses
import importlib.util
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray
from tqdm import tqdm

from fakenews.bundle import BundleContent
from fakenews.engines import Batch, Engine, EngineName, OnnxEngine, TorchEngine
from fakenews.errors import BundleError, ConfigError, ServingError
from fakenews.evaluation.metrics import classification_metrics
from fakenews.features.text import Tokens, pad
from fakenews.predictor import Predictor
from fakenews.provenance import versions

if TYPE_CHECKING:
    from fakenews.models.networks import Network

log = logging.getLogger(__name__)

Share = Annotated[float, Ge(0), Le(1)]

# Reference rows that show integers their range: so many, and this share of all at most. The
# others are for the check.
_EXAMPLES, _EXAMPLE_SHARE = 256, 0.25
_TOOLS = ("onnx", "onnxruntime", "onnxscript")
# Of what is written into the bundle: further digits differ between machines.
_DIGITS = 4


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """How far an engine's answers may be from torch's.

    Attributes:
        onnx_max_difference: Of any probability, with `engine=onnx`.
        int8_mean_difference: Of probabilities, the mean over rows, with `engine=onnx-int8`;
            and so the others.
        int8_decided_otherwise: Share of rows.
        int8_average_precision_drop: Of average precision.
        int8_ece_rise: Of the expected calibration error.
    """

    onnx_max_difference: Share = 1e-3
    int8_mean_difference: Share = 0.01
    int8_decided_otherwise: Share = 0.01
    int8_average_precision_drop: Share = 0.005
    int8_ece_rise: Share = 0.01


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An engine beside torch, on the same rows; pairs are of torch and of the engine.

    Attributes:
        rows: N.
        max_difference: Of any probability.
        mean_difference: Of a row's probabilities the largest, and its mean over rows.
        decided_otherwise: Share of rows.
        average_precision: Not a number where the rows are all of one class.
        ece: Expected calibration error.
        speed: Rows a second, in batches of like length, side by side.
    """

    rows: int
    max_difference: float
    mean_difference: float
    decided_otherwise: float
    average_precision: tuple[float, float]
    ece: tuple[float, float]
    speed: tuple[float, float]

    def excess(self, engine: EngineName, tolerances: Tolerances) -> dict[str, float]:
        """The numbers that are beyond the tolerances, by the names of these."""
        precision, ece = self.average_precision, self.ece
        numbers = {
            "onnx_max_difference": self.max_difference,
            "int8_mean_difference": self.mean_difference,
            "int8_decided_otherwise": self.decided_otherwise,
            "int8_average_precision_drop": precision[0] - precision[1],
            "int8_ece_rise": ece[1] - ece[0],
        }
        kind = "onnx_" if engine == "onnx" else "int8_"
        return {
            name: number
            for name, number in numbers.items()
            # What is undefined exceeds nothing.
            if name.startswith(kind) and number > getattr(tolerances, name)
        }

    def __str__(self) -> str:
        """All numbers that are judged, in one line."""
        return (
            f"on {self.rows:,} rows probabilities differ by {self.mean_difference:.2g} on "
            f"average and {self.max_difference:.2g} at most, {self.decided_otherwise:.2%} are "
            f"decided otherwise, average precision {_arrow(self.average_precision)}, ECE "
            f"{_arrow(self.ece)}"
        )

    def to_json(self) -> dict[str, Any]:
        """For `engine.json`: what the same bundle always gives, so no speed."""
        values = dataclasses.asdict(self)
        del values["speed"]
        return {name: _rounded(value) for name, value in values.items()}


def optimise(
    content: BundleContent, engine: EngineName, *, tolerances: Tolerances
) -> tuple[BundleContent, Comparison | None]:
    """Give a bundle an engine that was checked on its reference rows.

    Args:
        content: The bundle.
        engine: `torch` is the model's own way, which needs no check.
        tolerances: Of the check.

    Returns:
        The bundle, and how the engine compares with torch (None for torch).

    Raises:
        BundleError: The bundle has no reference rows to check an engine on.
        ConfigError: The engine does not go with the model, or a package is missing.
        ServingError: The network cannot be exported, or the engine is too far from torch.
    """
    if engine == "torch":
        return dataclasses.replace(content, engine=None, onnx={}), None
    _check_tools(engine)
    predictor = Predictor.from_content(content, engine="torch")
    if not isinstance(predictor.engine, TorchEngine):
        raise ConfigError(
            f"engine={engine} does not go with a {content.model['network']} model, which has a "
            "quick way of its own: choose engine=torch, which means that"
        )
    if engine == "onnx-int8" and predictor.tokenizer is None:
        raise ConfigError(
            f"engine=onnx-int8 is not for a {content.model['network']} model, which reads no "
            "text: choose engine=onnx or torch"
        )
    rows = Rows.of(content)
    log.info("exporting the network as ONNX: this takes a minute")
    # Imported here: engine=torch needs no ONNX.
    from fakenews.serving.quantise import quantise
    from fakenews.serving.to_onnx import to_onnx

    parts = to_onnx(_network(content))
    if engine == "onnx-int8":
        few = min(_EXAMPLES, math.ceil(_EXAMPLE_SHARE * len(rows)))
        log.info("quantising it with %s of the bundle's reference rows", f"{few:,}")
        examples = rows.take(np.arange(few)).batches(predictor)
        seen = [batch._asdict() for _, batch in examples]
        parts["encoder"] = quantise(parts["encoder"], seen)
        rows = rows.take(np.arange(few, len(rows)))
    found = compare(predictor, OnnxEngine(parts), rows)
    if excess := found.excess(engine, tolerances):
        beyond = (
            f"{name} is {number:.2g}, allowed {getattr(tolerances, name):g}"
            for name, number in excess.items()
        )
        raise ServingError(
            f"engine={engine} is refused ({'; '.join(beyond)}): {found}; choose "
            f"{'engine=onnx or ' * (engine != 'onnx')}engine=torch, or raise "
            f"{' and '.join(f'tolerances.{name}' for name in excess)}"
        )
    described = {
        "name": engine,
        "check": found.to_json(),
        "versions": versions("torch", *_TOOLS),
    }
    return dataclasses.replace(content, engine=described, onnx=parts), found


@dataclass(frozen=True, eq=False, kw_only=True)
class Rows:
    """N rows as a network reads them.

    Attributes:
        tokens: Of their texts; none for a model that reads none.
        tabular: [N, F]; F is 0 for a model that reads none.
        labels: Codes of their classes, [N].
    """

    tokens: Tokens
    tabular: NDArray[np.float32]
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, content: BundleContent) -> "Rows":
        """The reference rows of a bundle.

        Raises:
            BundleError: It has none, or too few of what the model reads.
        """
        reference = content.reference
        needed = {"labels"}
        needed |= {"input_ids", "offsets"} if content.tokenizer is not None else set()
        needed |= {"tabular"} if content.features["tabular"] is not None else set()
        if missing := sorted(needed - reference.keys()):
            raise BundleError(
                "the bundle was made by an earlier version, without the rows that an engine is "
                f"checked on ({', '.join(missing)}): train again, or choose engine=torch"
            )
        count = len(reference["labels"])
        return cls(
            tokens=Tokens(
                input_ids=reference.get("input_ids", np.empty(0, dtype=np.int32)),
                offsets=reference.get("offsets", np.zeros(count + 1, dtype=np.int64)),
                truncated=np.zeros(count, dtype=np.bool_),
            ),
            tabular=reference.get("tabular", np.empty((count, 0), dtype=np.float32)),
            labels=reference["labels"],
        )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> "Rows":
        """Some of them."""
        return Rows(
            tokens=self.tokens.take(rows),
            tabular=self.tabular[rows],
            labels=self.labels[rows],
        )

    def batches(self, predictor: Predictor) -> Iterator[tuple[NDArray[np.int64], Batch]]:
        """Numbers and texts of batches, as a predictor makes them."""
        for rows in predictor.batches(self.tokens):
            yield rows, Batch([], *pad(self.tokens, rows, predictor.pad_id))


def compare(predictor: Predictor, engine: Engine, rows: Rows) -> Comparison:
    """Run an engine beside a predictor's own, in turn on every batch.

    Args:
        predictor: With the engine that is right.
        engine: The other.
        rows: What both are asked.
    """
    engines = (predictor.engine, engine)
    logits = [np.empty((len(rows), len(predictor.classes))) for _ in engines]
    seconds = [0.0, 0.0]
    batches = list(rows.batches(predictor))
    for one in engines:  # what is made at first need is not measured
        one.classify(one.encode(batches[0][1]), rows.tabular[batches[0][0]])
    with tqdm(total=len(rows), desc="compare with torch", unit="row", leave=False) as bar:
        for of_batch, batch in batches:
            for number, one in enumerate(engines):
                started = time.perf_counter()
                outputs = one.classify(one.encode(batch), rows.tabular[of_batch])
                logits[number][of_batch] = outputs.logits
                seconds[number] += time.perf_counter() - started
            bar.update(len(of_batch))
    calibration, classes = predictor.calibration, predictor.classes
    before, after = (calibration.apply(found) for found in logits)
    furthest_N = np.abs(after - before).max(axis=1)
    decided, otherwise = (calibration.decide(found, classes) for found in (before, after))
    metrics = [
        classification_metrics(
            found,
            rows.labels,
            classes=classes,
            positive=calibration.positive,
            threshold=calibration.threshold,
        )
        for found in (before, after)
    ]
    return Comparison(
        rows=len(rows),
        max_difference=float(furthest_N.max()),
        mean_difference=float(furthest_N.mean()),
        decided_otherwise=float((decided != otherwise).mean()),
        average_precision=(metrics[0]["average_precision"], metrics[1]["average_precision"]),
        ece=(metrics[0]["ece"], metrics[1]["ece"]),
        speed=(len(rows) / seconds[0], len(rows) / seconds[1]),
    )


def _network(content: BundleContent) -> "Network":
    """One of its own, for what is exported is changed."""
    engine = Predictor.from_content(content, engine="torch").engine
    assert isinstance(engine, TorchEngine)  # noqa: S101 it was looked at
    return engine.network


def _check_tools(engine: EngineName) -> None:
    missing = [name for name in _TOOLS if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"engine={engine} needs {', '.join(missing)}: install the extra `serve`, or choose "
            "engine=torch"
        )


def _arrow(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.4f} -> {pair[1]:.4f}"


def _rounded(value: Any) -> Any:
    """Numbers that JSON has, with few digits."""
    if isinstance(value, tuple):
        return [_rounded(part) for part in value]
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    return value
