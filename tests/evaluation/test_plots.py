import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fakenews.evaluation import plots
from fakenews.evaluation.calibration import Calibration

BINARY = ["fake", "real"]
ODD = ["$x$ and $y", "_hidden", "a\nb", "x" * 200, "中文"]


def case(classes, rows=300, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=rows)
    logits = rng.normal(size=(rows, classes))
    logits[np.arange(rows), labels] += 2
    return logits, labels


@pytest.fixture
def history():
    return pd.DataFrame(
        {
            "step": [0, 5, 9, 10, 19],
            "train/loss": [0.7, 0.5, np.nan, 0.4, np.nan],
            "val/loss": [np.nan, np.nan, 0.6, np.nan, 0.5],
            "val/macro_f1": [np.nan, np.nan, 0.7, np.nan, 0.8],
            "lr-AdamW": [0.1, 0.1, 0.1, 0.1, 0.1],
        }
    )


def texts(figure):
    found = []
    for axes in figure.axes:
        legend = axes.get_legend()
        found += [text.get_text() for text in legend.get_texts()] if legend else []
        found += [text.get_text() for text in axes.texts]
    return found


def test_every_plot_is_a_png_with_content(tmp_path, history):
    logits, labels = case(2)
    calibration = Calibration.fit(logits, labels, classes=BINARY, positive="real")
    figures = plots.evaluation_figures(
        logits, labels, calibration=calibration, classes=BINARY, history=history
    )
    assert all(isinstance(figure, Figure) for figure in figures.values())
    paths = plots.save(figures, tmp_path / "new" / "plots")
    assert [path.name for path in paths] == [
        "precision_recall.png",
        "reliability.png",
        "confusion_matrix.png",
        "score_histogram.png",
        "learning_curves.png",
    ]
    for path in paths:
        with Image.open(path) as image:
            assert image.format == "PNG"
            pixels = np.asarray(image.convert("RGB"), dtype=int)
        assert min(pixels.shape[:2]) > 400
        coloured = (pixels.max(axis=2) - pixels.min(axis=2) > 60).mean()
        assert coloured > 0.001
        assert (pixels == 255).all(axis=2).mean() > 0.1


def test_odd_class_names_are_drawn(tmp_path):
    logits, labels = case(5, rows=200)
    calibration = Calibration(positive="_hidden")
    figures = plots.evaluation_figures(logits, labels, calibration=calibration, classes=ODD)
    assert list(figures) == [
        "precision_recall",
        "reliability",
        "confusion_matrix",
        "score_histogram",
    ]
    assert len(plots.save(figures, tmp_path)) == 4
    legend = texts(figures["precision_recall"])
    assert len(legend) == 5
    assert legend[2].startswith("a b: AP ")


def test_many_classes_are_drawn(tmp_path):
    logits, labels = case(40)
    classes = [f"class {i:02}" for i in range(40)]
    figures = plots.evaluation_figures(
        logits, labels, calibration=Calibration(positive="class 00"), classes=classes
    )
    assert len(plots.save(figures, tmp_path)) == 4
    assert len(texts(figures["precision_recall"])) == 40


def test_the_same_data_gives_the_same_bytes(tmp_path):
    logits, labels = case(2)
    figures = {
        name: plots.confusion_matrix(logits.argmax(axis=1), labels, classes=BINARY)
        for name in ("a", "b")
    }
    first, second = plots.save(figures, tmp_path)
    assert first.read_bytes() == second.read_bytes()


def test_pyplot_is_not_imported(tmp_path):
    import subprocess

    code = "import sys, fakenews.evaluation.plots; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "False"


def test_precision_recall_shows_average_precision_base_rate_and_decision():
    scores = np.array([0.9, 0.8, 0.6, 0.1])
    p = np.stack([1 - scores, scores], axis=1)
    figure = plots.precision_recall(
        p, np.array([1, 0, 1, 0]), classes=BINARY, positive="real", threshold=0.7
    )
    assert texts(figure) == ["real: AP 0.833", "base rate 0.500", "decision at 0.700"]
    decision = figure.axes[0].lines[-1]
    assert (decision.get_xdata()[0], decision.get_ydata()[0]) == (0.5, 0.5)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_or_one_row(tmp_path, label):
    logits = np.array([[0.2, 0.4]])
    labels = np.array([label])
    calibration = Calibration(positive="real", threshold=0.99)
    figures = plots.evaluation_figures(logits, labels, calibration=calibration, classes=BINARY)
    assert texts(figures["precision_recall"]) == ["real: undefined here"]
    assert len(plots.save(figures, tmp_path)) == 4


def test_confusion_matrix_counts_by_true_class():
    figure = plots.confusion_matrix(
        np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]), classes=BINARY
    )
    assert texts(figure) == ["2\n66.7%", "1\n33.3%", "0\n0.0%", "1\n100.0%"]


def test_reliability_names_both_errors():
    p = np.tile([0.3, 0.7], (10, 1))
    labels = np.repeat([1, 0], [7, 3])
    after = np.tile([0.1, 0.9], (10, 1))
    figure = plots.reliability_diagram(p, after, labels)
    assert texts(figure)[:2] == ["before scaling: ECE 0.000", "after scaling: ECE 0.200"]


def test_score_histogram_is_in_shares_of_each_class():
    scores = np.array([0.05, 0.05, 0.05, 0.95])
    p = np.stack([1 - scores, scores], axis=1)
    figure = plots.score_histogram(
        p, np.array([0, 0, 0, 1]), classes=BINARY, positive="real", threshold=0.5
    )
    assert texts(figure) == ["fake (3 rows)", "real (1 rows)", "threshold 0.500"]
    for outline in figure.axes[0].patches:
        assert sum(outline.get_data()[0]) == pytest.approx(1)


def test_learning_curves_have_a_panel_a_metric(history):
    figure = plots.learning_curves(history)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "macro f1"]
    training, validation = figure.axes[0].lines
    assert training.get_xdata().tolist() == [0, 5, 10]
    assert validation.get_ydata().tolist() == [0.6, 0.5]


def test_training_loss_and_validation_log_loss_share_a_panel():
    history = pd.DataFrame(
        {"step": [5, 10], "train/loss": [0.7, 0.4], "val/log_loss": [0.6, 0.5]}
    )
    figure = plots.learning_curves(history)
    (panel,) = figure.axes
    assert panel.get_title(loc="left") == "loss"
    assert [line.get_label() for line in panel.lines] == ["training", "validation"]


def test_learning_curves_by_epoch_and_of_nothing(tmp_path):
    by_epoch = plots.learning_curves(pd.DataFrame({"epoch": [0], "val/loss": [0.5]}))
    assert by_epoch.axes[0].get_xlabel() == "Epoch"
    nothing = plots.learning_curves(pd.DataFrame({"step": [], "train/loss": []}))
    assert texts(nothing) == ["Nothing was logged"]
    assert len(plots.save({"by_epoch": by_epoch, "nothing": nothing}, tmp_path)) == 2


def test_learning_curves_need_a_time():
    with pytest.raises(ValueError, match="no column 'step' or 'epoch' among"):
        plots.learning_curves(pd.DataFrame({"train/loss": [0.5]}))
