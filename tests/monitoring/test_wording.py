"""What is said of checks and verdicts."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from fakenews.monitoring.verdict import Check, Kind, Span, State, Verdict
from fakenews.monitoring.wording import SUBJECTS, answer, sentence, subject, title

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
WINDOW = Span(start=NOW, end=NOW, rows=9, labelled=0)
CLASSES = ("fake", "real")

DRIFT = Check(
    key="drift.tabular.words",
    kind=Kind.DRIFT,
    state=State.ALARM,
    message="distribution of tabular.words: ...",
    value=0.3,
    threshold=0.1,
    p_value=1 / 3001,
    effect=0.183,
    unit="PSI",
    details={"windows_differing": 2, "windows": 3, "floor": 0.05},
)


def verdict(window: Span | None = WINDOW, **states: State) -> Verdict:
    return Verdict(
        model="m",
        model_version="1",
        checked_at=NOW,
        window=window,
        checks=tuple(
            Check(
                key=key.replace("_", "."),
                kind=Kind.DRIFT,
                state=state,
                message=f"of {key} nothing is known",
            )
            for key, state in states.items()
        ),
    )


@pytest.mark.parametrize(
    ("key", "about", "said"),
    [
        ("decay.measured.macro_f1", "measured performance", "Macro-F1, measured"),
        (
            "decay.trend.estimated.average_precision",
            "estimated performance",
            "Average precision, estimated, over time",
        ),
        ("quality.errors", "data quality", "Errors (data quality)"),
        ("drift.embedding.mmd", "texts", "Texts (discrepancy)"),
        ("drift.text.unknown", "texts", "Unknown tokens"),
        ("drift.tabular.has_num", "features", "has_num"),
        ("drift.prediction.label", "predictions", "Decided classes"),
        ("drift.prediction.score1", "predictions", "Score of real"),
        ("drift.prediction.score7", "predictions", "drift.prediction.score7"),
        ("drift", "texts", "drift"),
        ("anything", "data quality", "anything"),
    ],
)
def test_checks_by_their_keys(key: str, about: str, said: str):
    assert subject(key) == about
    assert about in SUBJECTS
    assert title(key, CLASSES) == said


def test_answer_says_how_much_and_since_when():
    assert answer(DRIFT, CLASSES) == (
        "words",
        (
            "changed in 2 of the last 3 windows, now by 0.18 PSI, where 0.05 matters; of 1,000 "
            "clean windows none does."
        ),
    )
    rarely = replace(DRIFT, p_value=0.004, details=DRIFT.details | {"floor": 0})
    assert answer(rarely, CLASSES)[1].endswith(
        "now by 0.18 PSI; of clean windows one in 250 does."
    )


@pytest.mark.parametrize("now", [{"value": 0.05}, {"effect": 0.01}])
def test_what_has_gone_back_is_said(now: dict[str, float]):
    said = answer(replace(DRIFT, **now), CLASSES)[1]
    assert said == "changed in 2 of the last 3 windows, and no more in the newest."


@pytest.mark.parametrize(
    "other",
    [{"kind": Kind.DECAY}, {"value": None}, {"threshold": None}, {"details": {}}],
)
def test_other_answers_are_the_message(other: dict[str, object]):
    said = ("", "Distribution of tabular.words: ...")
    assert answer(replace(DRIFT, **other), CLASSES) == said


def test_sentences():
    ok, warning, unknown, alarm = State
    assert "all 1 checks are" in sentence(verdict(drift_text_tokens=ok))
    assert sentence(verdict(drift_text_tokens=warning, drift_tabular_a=ok)) == (
        "Texts have changed, in too few windows for an alarm yet."
    )
    found = verdict(
        drift_tabular_a=alarm,
        drift_embedding_mmd=alarm,
        drift_prediction_label=warning,
        decay_measured_accuracy=alarm,
        decay_estimated_accuracy=alarm,
        quality_errors=alarm,
    )
    assert sentence(found) == (
        "Measured performance and estimated performance have dropped, the data is not as it "
        "should be and texts and features have changed."
    )
    assert sentence(verdict(decay_estimated_accuracy=alarm)) == (
        "Estimated performance has dropped."
    )
    assert sentence(verdict(drift_a=unknown)) == "Of drift_a nothing is known."
    two = sentence(verdict(drift_a=unknown, drift_b=unknown, drift_c=ok))
    assert two == "2 of 3 checks could not be made."


def test_nothing_is_never_passed_over():
    nothing = "Nothing could be judged: there is no window with predictions."
    assert sentence(verdict(None)) == nothing
    assert sentence(verdict(None, drift_a=State.UNKNOWN)) == nothing
    assert sentence(verdict()) == "Nothing could be judged: no check was made."
    silent = verdict(None, quality_volume=State.ALARM)
    assert sentence(silent) == "The data is not as it should be."
