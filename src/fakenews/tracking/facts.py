"""What is known of a finished run, as its model card and data sheet need it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from fakenews.bundle import BundleContent
from fakenews.evaluation.report import METRIC_NAMES
from fakenews.tracking.markdown import Markdown, escaped

SPLITS = {"train": "training", "val": "validation", "test": "test"}

Figures = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Card:
    """What no number shows: it is said by who trains, or said to be not stated.

    Attributes:
        intended_use: What the model is for, and for whom.
        out_of_scope: What it is not for.
        limitations: What else is known to go wrong.
        ethics: Who may be harmed, and what was done about it.
        contact: Who answers for it.
        licence: Of the model.
        motivation: What the data were made for, by whom, with which means.
        collection: Who collected the data, how, and when.
        labelling: Who labelled them, and by which rules.
        data_licence: Of the data.
    """

    intended_use: str | None = None
    out_of_scope: str | None = None
    limitations: str | None = None
    ethics: str | None = None
    contact: str | None = None
    licence: str | None = None
    motivation: str | None = None
    collection: str | None = None
    labelling: str | None = None
    data_licence: str | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A finished run.

    Attributes:
        name: Of the runs, and usually of the registered model.
        run: Name of the run's folder.
        made: When.
        content: Of its bundle.
        audit: Of its data, as in `audit.json`.
        card: What people say.
    """

    name: str
    run: str
    made: datetime
    content: BundleContent
    audit: Mapping[str, Any]
    card: Card

    @property
    def data(self) -> Mapping[str, Any]:
        """The manifest of the data."""
        found: Mapping[str, Any] = self.content.provenance["data"]
        return found

    @property
    def config(self) -> Mapping[str, Any]:
        """The resolved configuration."""
        found: Mapping[str, Any] = self.content.provenance["config"]
        return found

    @property
    def split(self) -> str:
        """What the figures are of: the test split, or validation where that was not asked."""
        return "test" if "test" in self.content.metrics else "val"

    @property
    def evaluation(self) -> Mapping[str, Any]:
        """Of that split, as in `metrics.json`."""
        found: Mapping[str, Any] = self.content.metrics[self.split]
        return found

    @property
    def classes(self) -> list[str]:
        """Sorted class names."""
        return list(self.content.labels["classes"])

    @property
    def positive(self) -> str:
        """The class of interest."""
        return str(self.content.labels["positive"])

    @property
    def files(self) -> list[Mapping[str, Any]]:
        """Each file that was read: name, rows, bytes, sha256, encoding."""
        found = self.data["files"] if "files" in self.data else self.data["inputs"]
        return [{**file, "name": PurePosixPath(str(file["path"])).name} for file in found]

    @property
    def counts(self) -> dict[str, Mapping[str, int]]:
        """Rows of each class in each split."""
        found = self.data["split"] if "split" in self.data else self.data["counts"]
        return {split: found[split] for split in SPLITS if split in found}

    def rows(self, split: str) -> int:
        """Rows of a split, all of them."""
        return sum(self.counts.get(split, {}).values())

    @property
    def parameters(self) -> int:
        """Numbers that were learnt, or taken over from a pretrained model."""
        return sum(array.size for array in self.content.weights.values())

    @property
    def columns(self) -> list[str]:
        """Columns beside the text that the model reads."""
        tabular = self.content.features["tabular"] or {}
        categorical = [str(found["name"]) for found in tabular.get("categorical", ())]
        return [*tabular.get("numeric", ()), *categorical]

    def figure(self, name: str) -> float | None:
        """A metric of the evaluation; None where it is undefined."""
        value = self.evaluation["metrics"].get(name)
        return None if value is None or math.isnan(value) else float(value)

    def with_interval(self, name: str) -> Markdown:
        """A metric and its 95% interval."""
        return Markdown(f"{shown(self.figure(name))}{self._interval(name)}")

    def interval(self, name: str) -> tuple[float, float] | None:
        """The 95% interval of a metric; None where there is none."""
        low, high = self.evaluation["intervals"].get(name) or (None, None)
        return None if low is None or high is None else (low, high)

    def _interval(self, name: str) -> str:
        found = self.interval(name)
        return "" if found is None else f" ({found[0]:.3f} to {found[1]:.3f})"

    @property
    def slices(self) -> list[Mapping[str, Any]]:
        """Groups of rows that were looked at, without that of all."""
        return [found for found in self.evaluation["slices"] if found["slice"] != "all"]

    @property
    def judged(self) -> list[Mapping[str, Any]]:
        """Those that are large enough, and of all classes; the worst first, by AUROC."""
        found = [one for one in self.slices if one["auroc"] is not None]
        return sorted(found, key=lambda one: (float(one["auroc"]), str(one["slice"])))

    @property
    def summary(self) -> Markdown:
        """The card in two lines of Markdown, as the description of a registered version."""
        classes = " or ".join(escaped(name) for name in self.classes)
        probe = self.audit.get("probe_text")
        alone = (
            ""
            if probe is None
            else f" Format alone scores {probe['average_precision']:.3f} of average precision, "
            f"guessing {probe['base_rate']:.3f}."
        )
        of = SPLITS[self.split]
        return Markdown(
            f"Classifies texts as {classes}. Average precision "
            f"{self.with_interval('average_precision')}, macro-F1 "
            f"{self.with_interval('macro_f1')} on {self.evaluation['rows']:,} {of} rows; "
            f"trained on {self.rows('train'):,}.{alone}\n\n"
            f"Run {escaped(self.run)}, data {self.data['data_hash'][:12]}: see "
            "model_card.md and data_sheet.md."
        )


def shown(value: float | None) -> str:
    """A figure."""
    return "n/a" if value is None else f"{value:.3f}"


def metric_title(name: str, facts: Facts) -> str:
    """What a metric is called, and of which class it is."""
    if name not in ("average_precision", "auroc"):
        return METRIC_NAMES[name]
    of = "mean of classes" if len(facts.classes) > 2 else facts.positive
    return f"{METRIC_NAMES[name]} ({of})"
