"""What a challenger must keep to, and how often the gate may be wrong."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypedDict, get_args, get_type_hints

from annotated_types import Ge, Gt, Lt

from fakenews.bounds import Count, Fraction, NonNegative, Positive, PositiveCount, Share
from fakenews.errors import ConfigError

Rate = Annotated[float, Gt(0), Lt(0.5)]

Metric = Literal["average_precision", "macro_f1", "minority_recall", "brier"]

METRICS: tuple[Metric, ...] = get_args(Metric)
"""What must not get worse by a margin. Of the Brier score, lower is better."""

# Checks that only refuse on evidence; they share half of `wrong_refusal`.
TRIPWIRES = (
    "recall_floor",
    "slices.test",
    "slices.window",
    "invariance",
    "directions",
    "artefacts",
    "latency",
)


class Direction(TypedDict):
    """A phrase that must not move a probability the wrong way.

    Attributes:
        phrase: That is added to texts.
        place: Before or after them.
        label: The class whose probability is looked at.
        never: What it must not become.
    """

    phrase: str
    place: Literal["start", "end"]
    label: str
    never: Literal["lower", "higher"]


def _margins() -> dict[Metric, float]:
    return {
        "average_precision": 0.1,
        "macro_f1": 0.1,
        "minority_recall": 0.25,
        "brier": 0.03,
    }


def _seed_sd() -> dict[Metric, float]:
    return {
        "average_precision": 0.01,
        "macro_f1": 0.01,
        "minority_recall": 0.04,
        "brier": 0.003,
    }


def _faults(at: int, one: Mapping[str, object]) -> Iterator[str]:
    """What is wrong with a direction; a list is no place for the checks of signatures."""
    hints = get_type_hints(Direction)
    if set(one) != set(hints):
        yield (
            f"policy.directions[{at}] has {', '.join(map(str, one)) or 'nothing'}: it needs "
            f"{', '.join(hints)}"
        )
        return
    for key, hint in hints.items():
        allowed = get_args(hint)
        if allowed and one[key] not in allowed:
            yield f"policy.directions[{at}].{key}={one[key]}: it is one of {', '.join(allowed)}"


@dataclass(frozen=True, kw_only=True)
class GatePolicy:
    """The margins of a promotion gate, and its two error rates.

    Args:
        wrong_acceptance: How often a challenger that is worse by a margin, or more, may be
            accepted.
        wrong_refusal: How often one that is equal, but for the seed of its training, may be
            refused.
        margins: The loss of each metric that one would bear at most.
        narrowest: Share of `margins` down to which they narrow where rows can tell so much;
            1 leaves them as they are.
        seed_sd: Standard deviation of each metric between trainings with other seeds.
        min_rows: That a test set or window must have.
        min_minority: Rows of its rarest class that it must have.
        resamples: Of the bootstrap.
        recall_floor: Of the minority class's recall on the test set, below which a challenger
            is refused unless the champion is below it, too.
        slice_rows: That a slice must have to be judged.
        slice_margin: Loss of macro-F1 in a slice that does not count.
        behaviour_rows: Texts that are changed for behaviour tests.
        tolerance: By how much a probability may move when what is changed does not matter.
        failing: Share of changed texts that may fail in any case.
        failing_margin: By how much that share may exceed the champion's.
        directions: Expectations of added phrases.
        artefact_margin: By how much the correlation with format alone may exceed the
            champion's.
        latency_ratio: Time of a batch that is borne, as a multiple of the champion's.
        latency_batches: That are timed with each.
        max_seen: Share of test rows that may be known to be in the challenger's training.
        seed: Of all draws.
    """

    wrong_acceptance: Rate = 0.05
    wrong_refusal: Rate = 0.1
    margins: Mapping[Metric, Fraction] = field(default_factory=_margins)
    narrowest: Fraction = 0.2
    seed_sd: Mapping[Metric, NonNegative] = field(default_factory=_seed_sd)
    min_rows: Annotated[int, Ge(20)] = 100
    min_minority: Annotated[int, Ge(10)] = 20
    resamples: Annotated[int, Ge(500)] = 4000
    recall_floor: Share = 0.3
    slice_rows: Annotated[int, Ge(20)] = 100
    slice_margin: Share = 0.05
    behaviour_rows: PositiveCount = 200
    tolerance: Share = 0.2
    failing: Share = 0.1
    failing_margin: Share = 0.05
    directions: Sequence[Direction] = ()
    artefact_margin: Share = 0.1
    latency_ratio: Positive = 1.5
    latency_batches: Annotated[int, Ge(10)] = 40
    max_seen: Share = 0.01
    seed: Count = 0

    def __post_init__(self) -> None:
        for name, values in (("margins", self.margins), ("seed_sd", self.seed_sd)):
            if set(values) != set(METRICS):
                raise ConfigError(
                    f"policy.{name} has {', '.join(sorted(values))}: it needs each of "
                    f"{', '.join(METRICS)}"
                )
        faults = [fault for at, one in enumerate(self.directions) for fault in _faults(at, one)]
        if faults:
            raise ConfigError(faults)

    @property
    def together(self) -> float:
        """Of `wrong_refusal`, what all checks with margins have together."""
        return self.wrong_refusal / 2

    @property
    def tripwire(self) -> float:
        """Of `wrong_refusal`, what each of the other checks has."""
        return self.wrong_refusal / 2 / len(TRIPWIRES)
