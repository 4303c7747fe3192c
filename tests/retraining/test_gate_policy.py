"""What a challenger must keep to."""

import pytest

from fakenews.errors import ConfigError
from fakenews.retraining.gate_policy import TRIPWIRES, GatePolicy

DIRECTION = {"phrase": "doctors warn", "place": "end", "label": "real", "never": "lower"}


def test_the_rate_of_wrong_refusals_is_shared_out() -> None:
    policy = GatePolicy(wrong_refusal=0.2)
    whole = policy.together + len(TRIPWIRES) * policy.tripwire
    assert whole == pytest.approx(policy.wrong_refusal)


def test_a_policy_has_every_metric() -> None:
    with pytest.raises(ConfigError, match=r"policy\.margins has brier: it needs each of"):
        GatePolicy(margins={"brier": 0.1})


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"place": "middle"}, "policy.directions[1].place=middle: it is one of start, end"),
        ({"never": "up"}, "policy.directions[1].never=up: it is one of lower, higher"),
        ({"class": "real"}, "policy.directions[1] has phrase, place, label, never, class: it"),
    ],
)
def test_directions_are_whole(changed: dict[str, str], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        GatePolicy(directions=[DIRECTION, DIRECTION | changed])
    assert str(caught.value).startswith(fault)
    assert GatePolicy(directions=[DIRECTION]).directions == [DIRECTION]
