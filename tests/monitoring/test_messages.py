"""What people are told, as text and as JSON."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from fakenews.monitoring.messages import News, What, compose
from fakenews.monitoring.verdict import Check, Kind, State, Verdict

MakeVerdict = Callable[..., Verdict]


def news(verdict: Verdict, what: What = What.NEW) -> list[News]:
    since = verdict.checked_at - timedelta(hours=2)
    return [
        News(what=what, key=check.key, check=check, since=since) for check in verdict.checks
    ]


def test_a_message_says_what_where_and_how_much(make_verdict: MakeVerdict) -> None:
    verdict = replace(make_verdict(0, a=State.ALARM), notices=("2 lines could not be read.",))
    gone = News(what=What.GONE, key="z", check=None, since=verdict.checked_at)
    found = compose(
        verdict, [*news(verdict), gone], others=["b", "c"], notices=["It begins anew."]
    )
    assert found.subject == "fakenews: alarm: a; not checked any more: z"
    assert found.text == (
        "fakenews, version 1a2b: alarm\n"
        "Checked at 2026-11-26 12:00 UTC.\n"
        "Predictions from 2026-11-25 12:00 UTC to 2026-11-26 12:00 UTC: 1200, 30 of them with "
        "a known class.\n"
        "\n"
        "ALARM\n"
        "- a: a was looked at.\n"
        "  value 0.25, threshold 0.1, p 0.001, effect 1.5 sd, since 2026-11-26 10:00 UTC\n"
        "\n"
        "NOT CHECKED ANY MORE\n"
        "- z: was not ok, since 2026-11-26 12:00 UTC\n"
        "\n"
        "Told before and not ok: b, c\n"
        "\n"
        "Notices\n"
        "- It begins anew.\n"
        "- 2 lines could not be read.\n"
        "\n"
        "Report: https://example.org/report.html\n"
    )


def test_what_matters_most_comes_first(make_verdict: MakeVerdict) -> None:
    verdict = make_verdict(0, a=State.OK, b=State.UNKNOWN, c=State.ALARM, d=State.ALARM)
    ok, unknown, *alarms = news(verdict)
    all_news = [replace(ok, what=What.RECOVERED), unknown, *alarms]
    subject = compose(verdict, all_news, others=[], notices=[]).subject
    assert subject == "fakenews: alarm: c and 1 more; cannot be judged: b; recovered: a"


def test_programs_get_the_same_as_strict_json(make_verdict: MakeVerdict) -> None:
    verdict = make_verdict(0, a=State.ALARM)
    verdict = replace(
        verdict, checks=(replace(verdict.checks[0], value=float("nan")),), window=None
    )
    found = compose(verdict, news(verdict), others=[], notices=[])
    content = json.loads(json.dumps(dict(found.content), allow_nan=False))
    assert content["text"] == f"{found.subject}\n\n{found.text}"
    assert (content["format"], content["state"], content["window"]) == (1, "alarm", None)
    (one,) = content["news"]
    assert one == {
        "what": "new",
        "key": "a",
        "since": "2026-11-26T10:00:00+00:00",
        "kind": "drift",
        "state": "alarm",
        "message": "a was looked at.",
        "value": None,
        "threshold": 0.1,
        "p_value": 0.001,
        "effect": 1.5,
        "unit": "sd",
    }
    assert "There was no window to look at." in found.text


def test_nothing_of_the_details_is_told(make_verdict: MakeVerdict) -> None:
    verdict = make_verdict(0, a=State.ALARM)
    assert verdict.checks[0].details
    found = compose(verdict, news(verdict), others=[], notices=[])
    assert "a text of a user" not in json.dumps(dict(found.content))


@pytest.mark.parametrize("what", [What.STILL, What.RECOVERED, What.WORSE])
def test_lines_stay_lines_and_many_are_cut(what: What, make_verdict: MakeVerdict) -> None:
    verdict = make_verdict(0)
    evil = Check(
        key="a\r\nBcc: x",
        kind=Kind.DRIFT,
        state=State.ALARM,
        message="first\n\nALARM\x1b[31m" + 10_000 * "x",
    )
    checks = (evil, *(replace(evil, key=f"c{number}") for number in range(999)))
    verdict = replace(verdict, model="m\n", checks=checks, notices=50 * ("\n" + 999 * "y",))
    found = compose(verdict, news(verdict, what), others=999 * ["o" * 9], notices=[])
    assert "\n" not in found.subject
    assert "\r" not in found.subject
    assert len(found.subject) <= 200
    assert len(found.text) < 40_000
    assert "\x1b" not in found.text
    assert "- and 960 more\n" in found.text
    assert "- and 40 more\n" in found.text
    assert found.text.count("\n\n") == 4
