"""The strip of checks by windows."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from fakenews.monitoring.account import Account
from fakenews.monitoring.judge import Judgement
from fakenews.monitoring.strip import Line, Strip, strip

Make = Callable[..., Account]


def line(found: Strip, key: str) -> Line:
    return next(each for each in found.lines if each.key == key)


def test_it_shows_when_something_began(some_account: Make):
    found = strip(some_account(0, 0, 0.9, 0.9))
    assert found.heading == "When it began"
    assert found.windows == ["22 Nov", "23 Nov", "24 Nov", "25 Nov"]
    classifier = line(found, "drift.embedding.classifier")
    assert classifier.title == "Texts (classifier)"
    assert [square.sign for square in classifier.squares] == ["", "", "!", "!!"]
    assert [square.look.split()[1] for square in classifier.squares] == [
        *("ok", "ok", "warning", "alarm")
    ]
    assert "25 Nov: Alarm, 0." in classifier.squares[-1].said
    assert "AUROC above one half, p 0.0" in classifier.squares[-1].said
    assert classifier.effect.endswith("AUROC above one half")
    whole = found.lines[0]
    assert whole.title == "All checks"
    assert [square.sign for square in whole.squares] == ["", "", "!", "!!"]


def test_what_was_always_ok_is_left_out_of_many(some_account: Make):
    found = strip(some_account(0, 0, 0.9))
    shown = {each.key for each in found.lines}
    assert "drift.tabular.has_num" not in shown
    assert "drift.embedding.mmd" in shown
    hidden = int(found.notes[0].split()[0])
    assert hidden + len(shown) - 1 == len(some_account(0, 0, 0.9).history())
    quiet = strip(some_account(0, 0))
    assert [each.title for each in quiet.lines] == ["All checks"]
    assert quiet.heading == "Checks over time"


def test_few_checks_are_all_shown(some_account: Make):
    account = some_account(0)
    some = [check for check in account.verdict.checks if check.key.startswith("drift.t")]
    verdict = replace(account.verdict, checks=tuple(some))
    (judgement,) = account.judgements
    findings = {check.key: judgement.findings[check.key] for check in some}
    found = strip(
        replace(account, verdict=verdict, judgements=[replace(judgement, findings=findings)])
    )
    assert {each.key for each in found.lines} == {"", *findings}
    assert found.notes == []


def test_a_window_that_was_not_judged_is_one_question_mark(some_account: Make):
    account = some_account(0, 0, 0)
    few = Judgement(rows=3, labelled=0)
    found = strip(replace(account, judgements=[*account.judgements[:2], few]))
    assert [square.sign for square in found.lines[0].squares] == ["", "", "?"]
    assert [each.key for each in found.lines if each.key] == []


def test_windows_of_hours_have_times_and_old_ones_are_left_out(some_account: Make):
    account = some_account(0)
    many: dict[str, Any] = {
        name: list(getattr(account, name)) * 40 for name in ("judgements", "totals")
    }
    (span,) = account.spans
    later = [timedelta(hours=6 * at) for at in range(40)]
    spans = [replace(span, start=span.start + by, end=span.end + by) for by in later]
    found = strip(replace(account, spans=spans, **many))
    assert len(found.windows) == 31
    assert found.windows[-1] == "5 Dec 06:00"
    assert "The newest 31 of 40 windows." in found.notes


def test_no_window_has_no_lines(no_account: Account):
    assert strip(no_account).lines == []
