"""Whether to retrain, from what monitoring wrote and other facts."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakenews import retraining
from fakenews.errors import RetrainingError
from fakenews.monitoring.verdict import Check, Kind, State, Verdict
from fakenews.retraining.decision import Decision, Facts, Policy, decide

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
YOUNG = Facts(now=NOW, trained_at=NOW - timedelta(days=5), new_labels=40)

ALARMS = {
    "drift": "drift.embedding.mmd",
    "decay.estimated": "decay.estimated.average_precision",
    "decay.measured": "decay.measured.macro_f1",
}


def check(key: str, state: State = State.ALARM) -> Check:
    kind = Kind(key.partition(".")[0])
    return Check(key=key, kind=kind, state=state, message=f"{key}: so", effect=0.25)


def report(*checks: Check, age: timedelta = timedelta(hours=1)) -> dict[str, Any]:
    return Verdict(
        model="news",
        model_version="7",
        checked_at=NOW - age,
        window=None,
        checks=checks,
        notices=("something was odd",),
    ).to_json()


CALM = report(*(check(key, State.OK) for key in ALARMS.values()))


def effects(decision: Decision) -> dict[str, str]:
    return {reason.key: reason.effect for reason in decision.reasons}


def test_it_is_what_the_package_gives():
    assert retraining.decide is decide


def test_without_a_reason_nothing_is_done():
    decision = decide(CALM, Policy(), YOUNG)
    assert not decision.retrain
    assert decision.reasons == ()
    assert decision.message == "do not retrain: there is no reason to"


@pytest.mark.parametrize("key", ALARMS)
def test_an_alarm_is_a_reason_and_a_warning_is_none(key: str):
    option = "drift" if key == "drift" else key.replace("decay.", "") + "_decay"
    for state in State:
        decision = decide(report(check(ALARMS[key], state)), Policy(), YOUNG)
        assert decision.retrain == (state is State.ALARM)
    alarm = report(check(ALARMS[key]))
    decision = decide(alarm, Policy(), YOUNG)
    assert effects(decision) == {key: "for"}
    assert decision.reasons[0].details["alarms"][0]["key"] == ALARMS[key]
    assert ALARMS[key] in decision.message
    off = decide(alarm, replace(Policy(), **{option: False}), YOUNG)
    assert not off.retrain
    assert effects(off) == {key: "note"}
    ignored = decide(alarm, Policy(ignore=[f"{key}.*"]), YOUNG)
    assert not ignored.retrain
    assert ignored.reasons == ()


def test_decay_over_time_is_of_its_kind_and_quality_is_no_reason():
    trend = decide(report(check("decay.trend.estimated.average_precision")), Policy(), YOUNG)
    assert effects(trend) == {"decay.estimated": "for"}
    assert not decide(report(check("quality.errors")), Policy(), YOUNG).retrain


def test_a_sentence_names_a_few_alarms_and_the_data_all():
    keys = [f"drift.tabular.f{n}" for n in range(7)]
    (reason,) = decide(report(*map(check, keys)), Policy(), YOUNG).reasons
    named = ", ".join(keys[:3])
    assert reason.message == f"alarm of drift ({named} and 4 more)"
    assert [alarm["key"] for alarm in reason.details["alarms"]] == keys


@pytest.mark.parametrize(
    ("age", "trained", "fault"),
    [
        (
            49.0,
            None,
            "it was made 2 days ago, more than 48 hours (policy.max_report_age_hours)",
        ),
        (-0.2, None, "it was made 12 minutes in the future: a clock is wrong"),
        (
            3.0,
            1.0,
            "it was made before the champion was trained, and is about an earlier model",
        ),
    ],
)
def test_a_report_that_does_not_count(age: float, trained: float | None, fault: str):
    ago = None if trained is None else NOW - timedelta(hours=trained)
    alarm = report(check(ALARMS["drift"]), age=timedelta(hours=age))
    decision = decide(alarm, Policy(max_age_days=None), replace(YOUNG, trained_at=ago))
    assert not decision.retrain
    (reason,) = decision.reasons
    assert (reason.key, reason.effect) == ("report", "note")
    assert reason.message == f"the report of monitoring does not count: {fault}"
    assert reason.details["state"] == "alarm"


def test_clocks_may_differ_by_minutes():
    alarm = report(check(ALARMS["drift"]), age=timedelta(minutes=-4))
    assert decide(alarm, Policy(), YOUNG).retrain


def test_what_could_not_be_judged_is_no_reason():
    unknown = report(check("drift", State.UNKNOWN))
    decision = decide(unknown, Policy(), YOUNG)
    assert not decision.retrain
    (reason,) = decision.reasons
    assert (reason.key, reason.effect) == ("unknown", "note")
    assert reason.message.startswith("monitoring could not judge drift, which is no reason")
    assert reason.details["notices"] == ["something was odd"]
    # As of a monitoring that failed.
    assert effects(decide(report(), Policy(), YOUNG)) == {"unknown": "note"}
    # An alarm beside it is one.
    both = report(check("drift.label", State.UNKNOWN), check(ALARMS["drift"]))
    assert decide(both, Policy(), YOUNG).retrain


def test_without_a_report_the_other_reasons_count():
    decision = decide(None, Policy(), YOUNG)
    assert not decision.retrain
    assert effects(decision) == {"report": "note"}
    assert decide(None, Policy(new_labels=40), YOUNG).retrain


@pytest.mark.parametrize(("labels", "retrain"), [(499, False), (500, True)])
def test_enough_new_labels(labels: int, retrain: bool):
    facts = replace(YOUNG, new_labels=labels)
    assert decide(CALM, Policy(), facts).retrain == retrain
    assert not decide(CALM, Policy(new_labels=None), facts).retrain


@pytest.mark.parametrize(("days", "retrain"), [(89.9, False), (90, True)])
def test_the_age_of_the_champion(days: float, retrain: bool):
    facts = replace(YOUNG, trained_at=NOW - timedelta(days=days))
    assert decide(CALM, Policy(), facts).retrain == retrain
    assert not decide(CALM, Policy(max_age_days=None), facts).retrain


def test_an_age_that_is_not_known_is_told():
    decision = decide(CALM, Policy(), replace(YOUNG, trained_at=None))
    assert not decision.retrain
    assert effects(decision) == {"age": "note"}


@pytest.mark.parametrize(("days", "retrain"), [(2.9, False), (3, True), (-1, False)])
def test_a_cool_down_stops_all_but_who_asks(days: float, retrain: bool):
    facts = replace(YOUNG, last_retrained_at=NOW - timedelta(days=days))
    alarm = report(check(ALARMS["drift"]))
    decision = decide(alarm, Policy(), facts)
    assert decision.retrain == retrain
    if not retrain:
        assert effects(decision) == {"drift": "for", "cool_down": "veto"}
        assert "policy.cool_down_days" in decision.message
        assert "; though alarm of drift" in decision.message
    asked = decide(alarm, Policy(), replace(facts, asked=True))
    assert asked.retrain
    assert "veto" not in effects(asked).values()
    assert asked.message.startswith("retrain: somebody asked for it; alarm of drift")


def test_nothing_new_to_learn_from():
    facts = replace(YOUNG, new_labels=0)
    decision = decide(report(check(ALARMS["drift"])), Policy(), facts)
    assert not decision.retrain
    assert effects(decision) == {"drift": "for", "least_labels": "veto"}
    assert decide(report(check(ALARMS["drift"])), Policy(least_labels=0), facts).retrain


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"format": 2}, "its format is 2, not 1"),
        ({"format": None}, "its format is None"),
        ({"checked_at": "yesterday"}, "damaged"),
        ({"checked_at": "2026-03-10T11:00:00"}, "checked_at has no zone"),
        ({"checks": [{"key": "drift"}]}, "damaged (no 'kind')"),
        ({"checks": None}, "damaged"),
        ({"checks": [{"key": "a", "kind": "drift", "state": "fine", "message": ""}]}, "fine"),
    ],
)
def test_what_is_no_report(change: dict[str, Any], fault: str):
    with pytest.raises(RetrainingError) as caught:
        decide(CALM | change, Policy(), YOUNG)
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_times_need_a_zone():
    naive = NOW.replace(tzinfo=None)
    with pytest.raises(RetrainingError, match=r"facts\.trained_at=2026-03-10T12:00:00 has no"):
        decide(None, Policy(), replace(YOUNG, trained_at=naive))


TIMES = st.none() | st.integers(-400, 400).map(lambda hours: NOW - timedelta(hours=hours))


@given(
    states=st.lists(st.sampled_from(list(State)), min_size=3, max_size=3),
    age=st.integers(-10, 100),
    new_labels=st.integers(0, 1000),
    trained=TIMES,
    last=TIMES,
    asked=st.booleans(),
    policy=st.builds(
        Policy,
        drift=st.booleans(),
        estimated_decay=st.booleans(),
        measured_decay=st.booleans(),
        new_labels=st.none() | st.integers(1, 900),
        max_age_days=st.none() | st.floats(0.1, 20),
        cool_down_days=st.floats(0, 20),
        least_labels=st.integers(0, 100),
    ),
)
def test_what_always_holds(
    *,
    states: Sequence[State],
    age: int,
    new_labels: int,
    trained: datetime | None,
    last: datetime | None,
    asked: bool,
    policy: Policy,
):
    found = report(
        *(check(key, state) for key, state in zip(ALARMS.values(), states, strict=True)),
        age=timedelta(hours=age),
    )
    facts = Facts(
        now=NOW,
        trained_at=trained,
        last_retrained_at=last,
        new_labels=new_labels,
        asked=asked,
    )
    decision = decide(found, policy, facts)
    said = effects(decision)
    # A reason is never told twice, and what was decided follows from what is told.
    assert len(said) == len(decision.reasons)
    vetoed, wanted = "veto" in said.values(), "for" in said.values()
    assert decision.retrain == (asked or (wanted and not vetoed))
    assert not (asked and vetoed)
    # Strict JSON that says the same.
    again = json.loads(json.dumps(decision.to_json(), allow_nan=False))
    assert again["retrain"] == decision.retrain
    assert {reason["key"]: reason["effect"] for reason in again["reasons"]} == said
    assert "\n" not in decision.message
    # Who asks is always heard, and more labels are never a reason against it.
    assert decide(found, policy, replace(facts, asked=True)).retrain
    more = decide(found, policy, replace(facts, new_labels=new_labels + 1))
    assert more.retrain or not decision.retrain
    # Where the report does not count, what is in it does not matter.
    if "report" in said:
        assert decide(None, policy, facts).retrain == decision.retrain
