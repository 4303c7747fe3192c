import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakenews.errors import ServingError
from fakenews.serving.keys import Refused
from fakenews.serving.smoke import read_golden, smoke_test
from fakenews.serving.store import Archive

GOLDEN = {
    "format": 1,
    "atol": 0.01,
    "items": [{"text": "One"}, {"text": "Two", "age": 3}],
    "probabilities": [{"fake": 0.25, "real": 0.75}, {"fake": 0.5, "real": 0.5}],
}


class Answers:
    """Answers with what it was given, in place of a client."""

    def __init__(self, together: Any, alone: Any) -> None:
        self.answers = [together, alone]
        self.asked: list[Any] = []

    def predict(self, name: str, version: str, body: Any) -> Any:
        self.asked.append((name, version, body))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def _archive(**values: Any) -> Archive:
    golden = json.dumps(GOLDEN | values).encode()
    return Archive(path=Path("a.mar"), name="fakenews", version="a", golden=golden)


def _one(fake: Any, version: str = "a") -> dict[str, Any]:
    real = 1 - fake if isinstance(fake, float) else 0.5
    return {"probabilities": {"fake": fake, "real": real}, "model_version": version}


def _test(client: Answers, **values: Any) -> Any:
    return smoke_test(client, _archive(**values))  # type: ignore[arg-type]


def test_what_is_near_enough_passes_and_says_how_near() -> None:
    client = Answers({"predictions": [_one(0.255), _one(0.5)]}, _one(0.25))
    passed = _test(client)
    assert (passed.items, passed.atol) == (2, 0.01)
    assert passed.difference == pytest.approx(0.005)
    assert client.asked == [
        ("fakenews", "a", {"inputs": GOLDEN["items"]}),
        ("fakenews", "a", {"text": "One"}),
    ]


@pytest.mark.parametrize(
    ("together", "alone", "reason"),
    [
        (
            {"predictions": [_one(0.25), _one(0.4)]},
            _one(0.25),
            "golden text 2: fake has probability 0.4, not 0.5 (tolerance 0.01)",
        ),
        (
            {"predictions": [_one(0.25), _one(0.5)]},
            _one(0.3),
            "golden text 1 alone: fake has probability 0.3, not 0.25 (tolerance 0.01)",
        ),
        (
            {"predictions": [_one(float("nan")), _one(0.5)]},
            _one(0.25),
            "golden text 1: fake has probability nan, not 0.25",
        ),
        (
            {"predictions": [_one("0.25"), _one(0.5)]},
            _one(0.25),
            "golden text 1: fake has probability 0.25, not 0.25",
        ),
        (
            {"predictions": [{"error": {"code": "internal"}}, _one(0.5)]},
            _one(0.25),
            'golden text 1: it answers {"error": {"code": "internal"}}',
        ),
        (
            {"predictions": [_one(0.25), _one(0.5, "b")]},
            _one(0.25),
            "golden text 2: version b answers",
        ),
        ({"predictions": [_one(0.25)]}, _one(0.25), "to 2 texts it answers {"),
        (["text"], _one(0.25), 'to 2 texts it answers ["text"]'),
        ({"predictions": [_one(0.25), _one(0.5)]}, "text", 'text 1 alone: it answers "text"'),
        (
            Refused("http://x answers 500", status=500),
            _one(0.25),
            "smoke test: http://x answers 500",
        ),
    ],
)
def test_what_is_otherwise_fails_and_says_how(together: Any, alone: Any, reason: str) -> None:
    with pytest.raises(ServingError, match="version a failed the smoke test") as caught:
        _test(Answers(together, alone))
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"format": 2}, "format: "),
        ({"items": []}, "items: "),
        ({"atol": -1}, "atol: "),
        ({"probabilities": []}, "it has 2 golden texts and predictions of 0"),
    ],
)
def test_golden_predictions_that_are_none(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ServingError, match=r"^a\.mar: ") as caught:
        read_golden(_archive(**values))
    assert reason in str(caught.value)


def test_golden_predictions_of_an_archive(make_mar: Callable[..., Path]) -> None:
    from fakenews.serving.store import read_archive

    golden = read_golden(read_archive(make_mar("a"), name="fakenews"))
    assert [item["text"] for item in golden.items] == ["One", "Two"]
