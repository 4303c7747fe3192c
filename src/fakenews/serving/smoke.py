"""Does a version that is served repeat the predictions that it was exported with?"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, MinLen
from pydantic import BaseModel, ConfigDict, ValidationError

from fakenews.errors import ServingError
from fakenews.serving.keys import Refused
from fakenews.serving.management import Management
from fakenews.serving.store import Archive


class Golden(BaseModel):
    """Predictions that an archive must repeat.

    Attributes:
        format: Of the file.
        atol: By how much a probability may differ.
        items: What is asked, as the items of a request.
        probabilities: Of each item, by class.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal[1]
    atol: Annotated[float, Ge(0)]
    items: Annotated[tuple[dict[str, Any], ...], MinLen(1)]
    probabilities: tuple[dict[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class Smoke:
    """A test that was passed.

    Attributes:
        items: How many predictions were compared.
        difference: The largest of a probability.
        atol: The largest allowed.
    """

    items: int
    difference: float
    atol: float


def read_golden(archive: Archive) -> Golden:
    """The predictions that an archive must repeat.

    Raises:
        ServingError: They are damaged.
    """
    try:
        golden = Golden.model_validate_json(archive.golden)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ServingError(
            f"{archive.path}: its golden predictions are damaged ({where}: {first['msg']})"
        ) from error
    if len(golden.items) != len(golden.probabilities):
        raise ServingError(
            f"{archive.path}: it has {len(golden.items)} golden texts and predictions of "
            f"{len(golden.probabilities)}"
        )
    return golden


def smoke_test(client: Management, archive: Archive) -> Smoke:
    """Ask a version that is served for its golden predictions, together and one alone.

    Raises:
        ServingError: It answers something else, or not.
    """
    golden = read_golden(archive)
    who = f"version {archive.version}"
    try:
        together = client.predict(archive.name, archive.version, {"inputs": list(golden.items)})
        alone = client.predict(archive.name, archive.version, golden.items[0])
    except Refused as error:
        raise ServingError(f"{who} failed the smoke test: {error}") from error
    answers = together.get("predictions") if isinstance(together, dict) else None
    if not isinstance(answers, list) or len(answers) != len(golden.items):
        raise ServingError(
            f"{who} failed the smoke test: to {len(golden.items)} texts it answers "
            f"{_shown(together)}"
        )
    difference = _compare([*answers, alone], golden, archive)
    return Smoke(items=len(golden.items), difference=difference, atol=golden.atol)


def _compare(answers: Sequence[Any], golden: Golden, archive: Archive) -> float:
    """The largest difference of a probability; the last answer is to the first item."""
    largest = 0.0
    expected = [*golden.probabilities, golden.probabilities[0]]
    for number, (answer, wanted) in enumerate(zip(answers, expected, strict=True), start=1):
        what = f"version {archive.version} failed the smoke test: golden text {number}"
        if number == len(expected):
            what = f"version {archive.version} failed the smoke test: golden text 1 alone"
        found = answer.get("probabilities") if isinstance(answer, dict) else None
        if not isinstance(found, dict) or found.keys() != wanted.keys():
            raise ServingError(f"{what}: it answers {_shown(answer)}")
        if answer.get("model_version") != archive.version:
            raise ServingError(f"{what}: version {answer.get('model_version')} answers")
        for label, probability in wanted.items():
            given = found[label]
            off = abs(given - probability) if isinstance(given, int | float) else math.inf
            if math.isnan(off) or off > golden.atol:
                raise ServingError(
                    f"{what}: {label} has probability {given}, not {probability} "
                    f"(tolerance {golden.atol:g})"
                )
            largest = max(largest, off)
    return largest


def _shown(answer: Any) -> str:
    return json.dumps(answer)[:200]
