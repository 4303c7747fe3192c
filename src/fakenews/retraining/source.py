"""Where new training data come from: labels, and what becomes of them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fakenews.bounds import Count, Fraction, NonNegative, Positive
from fakenews.retraining.dataset import Audit, Conflicts, make_dataset
from fakenews.retraining.manifest import DatasetManifest
from fakenews.retraining.new_labels import count_new_labels

_OF_LABELS = ("log", "labels", "model_version", "storage_options", "memory")


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """What `make_dataset` is told, but for what a cycle knows; the arguments are its own."""

    log: str | None = None
    labels: str | None = None
    model_version: str | None = None
    storage_options: Mapping[str, Any] | None = None
    conflicts: Conflicts = "majority"
    feedback_weight: NonNegative = 1.0
    half_life_days: Positive | None = None
    max_share: Fraction | None = 0.5
    window_rows: Count = 200
    audit: Audit = "flag"
    memory: str = "1GB"

    def new_labels(self, *, base: Path) -> int:
        """How many labels a base does not have; as `count_new_labels`."""
        values = asdict(self)
        return count_new_labels(base=base, **{name: values[name] for name in _OF_LABELS})

    def make(self, *, base: Path, out: Path) -> DatasetManifest:
        """Make a version; as `make_dataset`."""
        return make_dataset(base=base, out=out, **asdict(self))
