"""What a prepared dataset is made from and how: what decides its every byte."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fakenews.bounds import PositiveCount

Role = Literal["train", "val", "test"]


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How rows are cut into files.

    Args:
        rows: About how many rows a shard of all splits together has.
        row_group_rows: Rows of a Parquet row group, the least that is read at once.
    """

    rows: PositiveCount = 65_536
    row_group_rows: PositiveCount = 4_096


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """A file to read.

    Attributes:
        role: The split it was given for; rows of `train` may be drawn for others.
        path: Where it is.
        bytes: Its size.
        mtime_ns: When it was last changed.
        sha256: Of its content.
    """

    role: Role
    path: str
    bytes: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every setting that shapes a prepared dataset; plain values only.

    Attributes:
        text: Column of the text.
        label: Column of the label.
        label_names: Class of each raw label; None keeps them.
        positive: The class of interest; None takes the rarest.
        numeric: Extra columns of numbers.
        categorical: Extra columns of categories.
        normalise: Whether cues of format are removed.
        max_chars: Characters after which a text is cut.
        val_size: Share of the rows for validation.
        test_size: Share of the rows for test.
        folds: Number of cross-validation folds, or None.
        fold: The fold that is the test split.
        near_duplicates: Jaccard similarity of near duplicates.
        seed: Of the split and the shuffle.
        entities: The spaCy model whose entities are counted, or None.
        entities_version: Its version and spaCy's.
        tokenizer: SHA-256 of the tokenizer.
        max_length: Most tokens of a text.
        expectations: Rules for columns, as in `data.validation`.
        sharding: Sizes of the files.
        weight: Column of the weights of training rows, or None.
    """

    text: str
    label: str
    label_names: Mapping[str, str] | None
    positive: str | None
    numeric: Sequence[str]
    categorical: Sequence[str]
    normalise: bool
    max_chars: int
    val_size: float
    test_size: float
    folds: int | None
    fold: int
    near_duplicates: float
    seed: int
    entities: str | None
    entities_version: str | None
    tokenizer: str
    max_length: int
    expectations: Mapping[str, Mapping[str, Any]]
    sharding: Sharding
    weight: str | None = None

    def columns(self, role: Role) -> list[str]:
        """The columns to read of a file of this role."""
        weight = [self.weight] if self.weight is not None and role == "train" else []
        return [self.text, self.label, *self.numeric, *self.categorical, *weight]

    def to_json(self) -> dict[str, Any]:
        """JSON types only."""
        content = asdict(self)
        # A dataset without weights is the same as before there were any.
        if self.weight is None:
            del content["weight"]
        for name in ("numeric", "categorical"):
            content[name] = list(content[name])
        return content

    def fingerprint(self, inputs: Sequence[InputFile]) -> str:
        """SHA-256 over the settings and the content of the inputs, wherever they lie."""
        made_from = {
            "recipe": self.to_json(),
            "inputs": [[file.role, file.sha256] for file in inputs],
        }
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
