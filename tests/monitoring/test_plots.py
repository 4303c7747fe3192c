"""Plots of the newest window beside the reference."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from fakenews.evaluation.calibration import Calibration
from fakenews.monitoring.account import Account
from fakenews.monitoring.plots import class_rates, far, feature, figures, moved, scores
from fakenews.monitoring.rows import Reference, Rows

Make = Callable[..., Account]


def shown(figure: Figure) -> list[str]:
    """Texts of a figure's legend and axes."""
    (axes,) = figure.axes
    found = [axes.get_title(loc="left"), axes.get_xlabel()]
    found += [text.get_text() for text in (*axes.texts, *axes.get_yticklabels())]
    return found + [text.get_text() for each in figure.legends for text in each.get_texts()]


@pytest.fixture(scope="module")
def drifting(some_account: Make) -> Account:
    return some_account(0, 0.9)


def newest(account: Account) -> Rows:
    assert account.rows is not None
    return account.rows


def test_every_plot_that_the_account_allows(drifting: Account, no_account: Account):
    assert list(figures(drifting)) == [
        *("feature_1", "scores", "class_rates"),
        *("average_precision", "macro_f1", "accuracy", "class_rates_over_time"),
        *("volume", "errors", "latency"),
    ]
    assert figures(no_account) == {}
    alone = replace(drifting, spans=(), judgements=(), totals=(), movers=())
    assert list(figures(alone)) == ["scores", "class_rates"]
    none = replace(alone, rows=newest(drifting).take(slice(0, 0)))
    assert figures(none) == {}


def test_features_that_differ_or_moved_are_drawn(drifting: Account):
    rows = newest(drifting)
    assert moved(drifting, rows) == ["tabular.words"]
    assert far(drifting)[0].key == "tabular.words"
    quiet = replace(drifting, movers=(), judgements=[drifting.judgements[0]] * 2)
    assert moved(quiet, rows) == []
    lacking = replace(rows, columns={"text.tokens": rows.columns["text.tokens"]})
    assert moved(drifting, lacking) == []


def test_a_number_is_a_histogram_and_a_category_bars(drifting: Account):
    rows = newest(drifting)
    words = feature(drifting, rows, "tabular.words")
    assert shown(words)[0] == "words"
    assert {"reference", "newest window"} <= set(shown(words))
    drawn = [patch.get_data().values for patch in words.axes[0].patches]
    assert [values.sum() for values in drawn] == pytest.approx([1, 1, 1, 1])

    flags = feature(drifting, rows, "tabular.has_num")
    heights = [bar.get_height() for bar in flags.axes[0].patches]
    rate = rows.columns["tabular.has_num"].mean()
    before = drifting.reference.rows.columns["tabular.has_num"].mean()
    assert heights == pytest.approx([1 - before, before, 1 - rate, rate])


def test_a_constant_that_takes_many_values_is_drawn(drifting: Account):
    rows = newest(drifting)
    spread = {**rows.columns, "tabular.constant": np.linspace(0, 0, len(rows))}
    spread["tabular.constant"][:40] = np.arange(40)
    found = feature(drifting, replace(rows, columns=spread), "tabular.constant")
    low, high = found.axes[0].get_xlim()
    assert low == 0 < high


def test_scores_of_the_positive_class_with_the_threshold(drifting: Account):
    figure = scores(drifting, newest(drifting))
    assert "Scores of fake" in shown(figure)
    assert "threshold 0.50" in shown(figure)


def test_scores_of_many_classes_are_confidence(drifting: Account):
    account, rows = five(drifting)
    figure = scores(account, rows)
    assert {"Confidence", "Probability of the most probable class"} <= set(shown(figure))


def five(account: Account) -> tuple[Account, Rows]:
    """The same with five classes, whose names are odd."""
    rng = np.random.default_rng(0)

    def rows(count: int) -> Rows:
        probabilities = rng.dirichlet(np.ones(5), count)
        return Rows(
            columns={},
            embeddings=None,
            probabilities=probabilities,
            decided=probabilities.argmax(axis=1),
            labels=np.full(count, -1),
        )

    names = ("$x_1$", "<b>bold</b>", "_hidden", "x" * 100, "أخبار")
    reference = Reference(
        rows=rows(100),
        classes=names,
        calibration=Calibration(positive="$x_1$"),
        input_ids=None,
        offsets=None,
        features=(),
    )
    return replace(account, reference=reference), rows(50)


def test_class_rates_name_each_class_and_its_share(drifting: Account):
    account, _ = five(drifting)
    figure = class_rates(account, {"$x_1$": 0.25, "none of them": 0.75})
    found = shown(figure)
    assert {r"\$x_1\$", "<b>bold</b>", "\u200a_hidden", "x" * 19 + "…", "أخبار"} <= set(found)
    assert {"none of them", "25.0%", "75.0%"} <= set(found)


def test_of_many_classes_those_are_drawn_that_changed(drifting: Account):
    now = {f"class {at}": (0.5 if at == 40 else 0.5 / 40) for at in range(41)}
    figure = class_rates(drifting, now)
    assert "Decided classes (10 of 43)" in shown(figure)
    assert {"class 40", "fake", "real"} <= set(shown(figure))


def test_class_rates_are_of_all_rows_if_counted(drifting: Account):
    assert drifting.rows is not None
    counted = replace(drifting.totals[-1], decided={"fake": 1, "real": 3})
    some = figures(replace(drifting, totals=[drifting.totals[0], counted]))
    assert "25.0%" in shown(some["class_rates"])
    uncounted = replace(drifting.totals[-1], decided={})
    sampled = figures(replace(drifting, totals=[drifting.totals[0], uncounted]))
    share = (drifting.rows.decided == 0).mean()
    assert f"{share:.1%}" in shown(sampled["class_rates"])
