"""Behaviour tests: what must not move a decision, and what must not move it the wrong way.

After CheckList (Ribeiro, Wu, Guestrin and Singh, ACL 2020): invariance tests change a text so
that its label stays; directional tests add a phrase and expect a probability not to fall, or
not to rise. A model fails a text when its decision changes or a probability moves by more than
the tolerance. Models are never without such failures, so the challenger is held against the
champion on the same texts.

Shapes: M texts, C classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fakenews.errors import ConfigError
from fakenews.predictor import Prediction
from fakenews.retraining.contestants import Contestant, Rows
from fakenews.retraining.gate_policy import Direction, GatePolicy
from fakenews.retraining.gate_verdict import Check, Outcome
from fakenews.retraining.noninferiority import one_sided
from fakenews.retraining.perturbations import perturbations

_FEWEST = 20  # texts that a perturbation must change
_EXAMPLES = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """A test of one kind.

    Attributes:
        name: Of the perturbation, or the phrase.
        champion: Whether it fails each text [M].
        challenger: Likewise.
        examples: Texts that the challenger fails and the champion does not, as changed.
    """

    name: str
    champion: NDArray[np.bool_]
    challenger: NDArray[np.bool_]
    examples: Sequence[str]


def invariance(
    rows: Rows, champion: Contestant, challenger: Contestant, policy: GatePolicy
) -> list[Trial]:
    """Trials of every perturbation that changes enough texts.

    Args:
        rows: The test set.
        champion: Predicts.
        challenger: Predicts.
        policy: Rows and tolerance.
    """
    frame = _sampled(rows, policy)
    texts = [str(text) for text in frame["raw"]]
    rng = np.random.default_rng(policy.seed)
    before = [side.score(frame) for side in (champion, challenger)]
    trials = []
    for name, perturb in perturbations(rows.frame["raw"].tolist()).items():
        changed = [perturb(text, rng) for text in texts]
        rows_M = np.flatnonzero([new != old for new, old in zip(changed, texts, strict=True)])
        if len(rows_M) < _FEWEST:
            continue
        table = frame.iloc[rows_M].assign(raw=[changed[row] for row in rows_M])
        failed = [
            _moved(
                side,
                [scored[row] for row in rows_M],
                side.score(table, progress=f"{name}: {role}"),
                policy.tolerance,
            )
            for side, scored, role in zip(
                (champion, challenger), before, ("champion", "challenger"), strict=True
            )
        ]
        trials.append(_trial(name, failed, table))
    return trials


def directions(
    rows: Rows, champion: Contestant, challenger: Contestant, policy: GatePolicy
) -> list[Trial]:
    """Trials of the policy's phrases.

    Args:
        rows: The test set.
        champion: Predicts.
        challenger: Predicts.
        policy: Phrases, rows and tolerance.

    Raises:
        ConfigError: A phrase is about a class that there is not.
    """
    direction_faults(policy, champion.predictor.classes)
    if not policy.directions:
        return []
    frame = _sampled(rows, policy)
    before = [side.score(frame) for side in (champion, challenger)]
    trials = []
    for one in policy.directions:
        table = frame.assign(raw=[_with(str(text), one) for text in frame["raw"]])
        failed = [
            _wrong_way(side, scored, side.score(table), one, policy.tolerance)
            for side, scored in zip((champion, challenger), before, strict=True)
        ]
        name = f"{one['phrase']!r}: p({one['label']}) not {one['never']}"
        trials.append(_trial(name, failed, table))
    return trials


def direction_faults(policy: GatePolicy, classes: Sequence[str]) -> None:
    """Refuse phrases about a class that there is not.

    Raises:
        ConfigError: Naming them all.
    """
    faults = [
        f"policy.directions[{at}].label={one['label']}: the classes are {', '.join(classes)}"
        for at, one in enumerate(policy.directions)
        if one["label"] not in classes
    ]
    if faults:
        raise ConfigError(faults)


def behaviour_check(
    kind: str, trials: Sequence[Trial], policy: GatePolicy, *, otherwise: str
) -> Check:
    """Whether the challenger fails more texts than is borne, and surely more than the champion.

    Args:
        kind: `invariance` or `directions`, of the key.
        trials: What was found; corrected for how many there are (Bonferroni).
        policy: Margin and rates.
        otherwise: What is said of no trials.
    """
    level = policy.tripwire / max(len(trials), 1)
    lines = [_line(trial, level, policy) for trial in trials]
    worse = [line for line in lines if line["worse"]]
    if worse:
        first = max(worse, key=lambda line: line["more"])
        message = (
            f"{kind}: {first['name']} fails {first['challenger']:.1%} of texts, "
            f"{first['champion']:.1%} with the champion"
        )
    elif lines:
        message = f"{kind}: " + ", ".join(
            f"{line['name']} fails {line['challenger']:.1%} ({line['champion']:.1%})"
            for line in lines
        )
    else:
        message = f"{kind}: {otherwise}"
    outcome = Outcome.FAILED if worse else Outcome.PASSED if lines else Outcome.SKIPPED
    return Check(
        key=f"behaviour.{kind}",
        outcome=outcome,
        message=message,
        numbers={
            "tests": lines,
            "level": level,
            "tolerance": policy.tolerance,
            "borne": policy.failing,
            "margin": policy.failing_margin,
        },
    )


def _line(trial: Trial, level: float, policy: GatePolicy) -> dict[str, Any]:
    count = len(trial.champion)
    more = trial.challenger.astype(float) - trial.champion.astype(float)
    error = float(more.std(ddof=1)) / math.sqrt(count)
    lower = float(more.mean()) - one_sided(level, count) * error
    share = float(trial.challenger.mean())
    return {
        "name": trial.name,
        "texts": count,
        "champion": float(trial.champion.mean()),
        "challenger": share,
        "more": float(more.mean()),
        "lower": lower,
        "worse": bool(share > policy.failing and lower > policy.failing_margin),
        "examples": list(trial.examples),
    }


def _sampled(rows: Rows, policy: GatePolicy) -> pd.DataFrame:
    """Texts of the test set, as many of each class as there are, up to equal shares."""
    each = math.ceil(policy.behaviour_rows / len(rows.pair.champion.classes))
    rng = np.random.default_rng(policy.seed)
    codes = rows.pair.labels
    taken = [rng.permutation(np.flatnonzero(codes == code))[:each] for code in np.unique(codes)]
    return rows.frame.iloc[np.sort(np.concatenate(taken))].reset_index(drop=True)


def _moved(
    side: Contestant,
    before: Sequence[Prediction],
    after: Sequence[Prediction],
    tolerance: float,
) -> NDArray[np.bool_]:
    old, new = side.probabilities(before), side.probabilities(after)
    other = np.array([a.label != b.label for a, b in zip(before, after, strict=True)])
    # What became unreadable is NaN, and no move that is borne.
    found: NDArray[np.bool_] = other | ~(np.abs(new - old).max(axis=1) <= tolerance)
    return found


def _wrong_way(
    side: Contestant,
    before: Sequence[Prediction],
    after: Sequence[Prediction],
    one: Direction,
    tolerance: float,
) -> NDArray[np.bool_]:
    code = side.predictor.classes.index(one["label"])
    gained = (side.probabilities(after) - side.probabilities(before))[:, code]
    found: NDArray[np.bool_] = ~((gained if one["never"] == "lower" else -gained) >= -tolerance)
    return found


def _with(text: str, one: Direction) -> str:
    parts = (one["phrase"], text) if one["place"] == "start" else (text, one["phrase"])
    return " ".join(parts)


def _trial(name: str, failed: Sequence[NDArray[np.bool_]], table: pd.DataFrame) -> Trial:
    champion, challenger = failed
    only = np.flatnonzero(challenger & ~champion)[:_EXAMPLES]
    return Trial(
        name=name,
        champion=champion,
        challenger=challenger,
        examples=[str(table["raw"].iloc[row]) for row in only],
    )
