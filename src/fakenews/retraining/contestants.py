"""The two bundles of a gate, and labelled rows that both have scored.

Both go the one path that serving goes, `Predictor.predict`, with their own cleaning, features,
engine, calibration and threshold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from fakenews.bundle import BundleContent, find_bundle, read_bundle, sha256, verify
from fakenews.data.artefacts import artefacts
from fakenews.data.audit import probe_scores
from fakenews.data.checks import expand_paths, hint, some
from fakenews.data.duplicates import duplicate_groups
from fakenews.data.formats import open_source
from fakenews.data.sources import SourceFile, read_table
from fakenews.errors import ConfigError, DataError, RetrainingError
from fakenews.evaluation.metrics import Floats, Sample
from fakenews.evaluation.slices import slice_masks
from fakenews.inference.settings import data_setting
from fakenews.predictor import Prediction, Predictor
from fakenews.retraining.paired import Pair

_CHUNK = 1024  # rows after which the bar moves
_NEAR = 0.8  # of duplicates, as data.near_duplicates has it
# What decides predictions; the rest of a bundle describes it.
_DECIDING = ("model", "weights", "tokenizer", "features", "labels", "calibration", "engine")


@dataclass(frozen=True, kw_only=True, eq=False)
class Contestant:
    """A bundle that predicts.

    Attributes:
        folder: Of the bundle.
        content: What it holds.
        predictor: Made of it.
    """

    folder: Path
    content: BundleContent
    predictor: Predictor

    @classmethod
    def load(cls, bundle: str | Path) -> Self:
        """Read and verify a bundle.

        Args:
            bundle: Its folder, or that of its run.

        Raises:
            BundleError: It is damaged, or of another version.
            FeatureError: The spaCy model it needs is not installed.
        """
        content = read_bundle(bundle)
        return cls(
            folder=find_bundle(bundle),
            content=content,
            predictor=Predictor.from_content(content),
        )

    def describe(self) -> dict[str, Any]:
        """What it is, plain JSON."""
        provenance = self.content.provenance
        return {
            "bundle": str(self.folder),
            "sha256": sha256(self.folder / "manifest.json"),
            "run_id": provenance.get("run_id"),
            "data_hash": provenance.get("data", {}).get("data_hash"),
        }

    def score(self, frame: pd.DataFrame, *, progress: str | None = None) -> list[Prediction]:
        """Predict rows as they came, before any cleaning.

        Args:
            frame: With `raw` and the columns of the model.
            progress: Shown beside a bar; None shows none.
        """
        table = frame.assign(text=frame["raw"])
        found: list[Prediction] = []
        with tqdm(
            total=len(table), desc=progress, unit="row", leave=False, disable=progress is None
        ) as bar:
            for start in range(0, len(table), _CHUNK):
                part = table.iloc[start : start + _CHUNK]
                found += self.predictor.predict(part)
                bar.update(len(part))
        return found

    def probabilities(self, predictions: Sequence[Prediction]) -> Floats:
        """As an array [N, C]; NaN where there is no prediction."""
        classes = self.predictor.classes
        rows = [
            [one.probabilities.get(name, np.nan) for name in classes] for one in predictions
        ]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(classes))


def match(champion: Contestant, challenger: Contestant) -> None:
    """Refuse what cannot be compared.

    Raises:
        RetrainingError: Both are the same bundle, or have other classes.
    """
    old, new = champion.predictor, challenger.predictor
    if _deciding(champion) == _deciding(challenger):
        raise RetrainingError(
            f"champion={champion.folder} and challenger={challenger.folder} predict with the "
            "same files: give two bundles"
        )
    if old.classes != new.classes:
        raise RetrainingError(
            f"the champion's classes are {some(old.classes)}, the challenger's "
            f"{some(new.classes)}: train the challenger with those of the champion"
        )
    if old.calibration.positive != new.calibration.positive:
        raise RetrainingError(
            f"the champion's positive class is {old.calibration.positive!r}, the challenger's "
            f"{new.calibration.positive!r}: train with "
            f"data.positive={old.calibration.positive}"
        )


def _deciding(side: Contestant) -> dict[str, str]:
    files = verify(side.folder)["files"]
    return {name: digest for name, digest in files.items() if name.startswith(_DECIDING)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Labelled rows that both bundles have scored.

    Attributes:
        frame: `raw`, `text` (as the champion cleans it), `label`, and all columns [N].
        files: That they were read from.
        pair: Labels, groups and predictions.
        masks: Slices by name, [N] each.
        format_scores: Probability of the positive class by format alone [N]; None where there
            are too few rows for that.
        unread: Rows that one of the bundles cannot predict; they are left out.
    """

    frame: pd.DataFrame
    files: Sequence[SourceFile]
    pair: Pair
    masks: Mapping[str, NDArray[np.bool_]]
    format_scores: Floats | None
    unread: int

    def describe(self) -> dict[str, Any]:
        """What they are, plain JSON."""
        counts = self.frame["label"].value_counts()
        return {
            "files": [asdict(file) for file in self.files],
            "rows": len(self.frame),
            "groups": len(np.unique(self.pair.groups)),
            "classes": {str(name): int(count) for name, count in counts.items()},
            "minority": self.pair.champion.classes[self.pair.minority],
            "unread": self.unread,
        }


def read_rows(
    path: str | Path,
    *,
    champion: Contestant,
    challenger: Contestant,
    minority: int | None = None,
    name: str,
) -> Rows:
    """Read labelled rows, and have both bundles score them.

    The columns are `text` and `label`, or else those of the challenger's training, where its
    `data.label_names` counts, too.

    Args:
        path: File, folder or glob.
        champion: Scores.
        challenger: Scores.
        minority: Code of the class that counts as the minority; None: the rarest here.
        name: What the rows are, for messages.

    Raises:
        DataError: They cannot be read, lack a column that a bundle needs, or have a label that
            is no class.
    """
    classes = champion.predictor.classes
    text, label = _columns(path, challenger)
    sides = (champion.predictor, challenger.predictor)
    found = read_table(
        path,
        text=text,
        label=label,
        numeric=list(dict.fromkeys(c for side in sides for c in side.numeric)),
        categorical=list(dict.fromkeys(c for side in sides for c in side.categorical)),
        normalise=champion.predictor.cleaning.normalise,
        max_chars=champion.predictor.cleaning.max_chars,
    )
    frame = found.frame.assign(label=_labels(found.frame, path, challenger))
    old, new = (
        side.probabilities(side.score(frame, progress=f"{name}: {role}"))
        for side, role in ((champion, "champion"), (challenger, "challenger"))
    )
    read = np.isfinite(old).all(axis=1) & np.isfinite(new).all(axis=1)
    if not read.any():
        raise DataError(f"{path}: both bundles together can predict none of the rows")
    frame = frame.iloc[np.flatnonzero(read)].reset_index(drop=True)
    codes = pd.Categorical(frame["label"], categories=classes).codes.astype(np.int64)
    counts = np.bincount(codes, minlength=len(classes))
    groups = duplicate_groups(frame["text"].tolist(), threshold=_NEAR)
    form = artefacts(frame["raw"])
    positive = codes == classes.index(champion.predictor.calibration.positive)
    probed = probe_scores(form, positive, groups, seed=0)
    features = champion.predictor.features
    return Rows(
        frame=frame,
        files=found.files,
        masks=slice_masks(
            frame,
            artefacts=form,
            entity_counts=None
            if features is None or features.counter is None
            else features.entity_counts(frame),
        ),
        format_scores=None if probed is None else probed[0],
        pair=Pair(
            labels=codes,
            groups=groups,
            champion=_sample(champion, old[read], codes),
            challenger=_sample(challenger, new[read], codes),
            minority=int(counts.argmin()) if minority is None else minority,
        ),
        unread=int((~read).sum()),
    )


def _sample(side: Contestant, probabilities: Floats, codes: Any) -> Sample:
    calibration = side.predictor.calibration
    return Sample.of(
        probabilities,
        codes,
        classes=side.predictor.classes,
        positive=calibration.positive,
        threshold=calibration.threshold,
    )


def _columns(path: str | Path, challenger: Contestant) -> tuple[str, str]:
    files, faults = expand_paths(path)
    if faults:
        raise DataError(faults)
    present = open_source(files[0], expected=["text", "label"], lenient=True).columns
    text, label = (_column(name, present, challenger, files[0]) for name in ("text", "label"))
    return text, label


def _column(name: str, present: Sequence[str], challenger: Contestant, path: Path) -> str:
    if name in present:
        return name
    try:
        return str(data_setting(challenger.content, name, None))
    except ConfigError as error:
        raise DataError(
            f"{path}: no column {name!r}{hint(name, present, 'columns')}"
        ) from error


def _labels(frame: pd.DataFrame, path: str | Path, challenger: Contestant) -> pd.Series:
    classes = challenger.predictor.classes
    names = challenger.content.provenance.get("config", {}).get("data", {}).get("label_names")
    class_of = {str(raw): str(name) for raw, name in (names or {}).items()}
    found = frame["label"].map(lambda raw: raw if raw in classes else class_of.get(raw))
    unknown = frame["label"][~found.isin(classes)]
    if len(unknown):
        raise DataError(
            f"{path}: {len(unknown):,} of {len(frame):,} rows have a label that is no class of "
            f"the bundles ({some(sorted(set(unknown)))}): the classes are {some(classes)}"
        )
    return found
