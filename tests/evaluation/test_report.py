import html
import json
import math
import re
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from fakenews.errors import BundleError, DataError, FakeNewsError
from fakenews.evaluation import plots
from fakenews.evaluation.calibration import Calibration, softmax
from fakenews.evaluation.metrics import bootstrap_intervals, classification_metrics
from fakenews.evaluation.report import evaluate, table, write

BINARY = ["fake", "real"]
HOSTILE = "<script>alert('$x$')</script>[bold]"


def rows_of(classes, rows=200, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(len(classes), size=rows)
    logits = rng.normal(size=(rows, len(classes)))
    logits[np.arange(rows), labels] += 2
    frame = pd.DataFrame(
        {
            "text": [" ".join(["word"] * n) for n in rng.integers(1, 12, rows)],
            "label": np.array(classes)[labels],
            "file": "news.csv",
            "row": np.arange(1, rows + 1),
        }
    )
    return logits, labels, frame


@pytest.fixture
def evaluation():
    logits, _, frame = rows_of(BINARY)
    calibration = Calibration(temperature=2.0, threshold=0.4, positive="real")
    artefacts = pd.DataFrame({"url": [True] * 5 + [False] * 195})
    return evaluate(
        logits,
        frame,
        calibration=calibration,
        classes=BINARY,
        positive="real",
        artefacts=artefacts,
        entity_counts=np.eye(200, 18),
        resamples=50,
    )


def printed(evaluation):
    console = Console(file=StringIO(), width=120)
    console.print(table(evaluation))
    return console.file.getvalue()


def test_evaluate_joins_the_parts(evaluation):
    logits, labels, _ = rows_of(BINARY)
    options = {"classes": BINARY, "positive": "real", "threshold": 0.4}
    scaled = softmax(logits / 2)
    assert evaluation.metrics == classification_metrics(scaled, labels, **options)
    assert evaluation.intervals == bootstrap_intervals(scaled, labels, **options, resamples=50)
    before = classification_metrics(softmax(logits), labels, classes=BINARY, positive="real")
    assert evaluation.uncalibrated == {
        "ece_before": before["ece"],
        "brier_before": before["brier"],
        "log_loss_before": before["log_loss"],
    }
    assert (evaluation.rows, evaluation.threshold, evaluation.temperature) == (200, 0.4, 2.0)
    lines = evaluation.slices.set_index("slice")
    assert lines.loc["all", "average_precision"] == evaluation.metrics["average_precision"]
    assert lines.loc["has entity", "rows"] == 18
    assert lines.loc["artefact: url", "rows"] == 5


def test_labels_alone_give_the_same_without_slices(evaluation):
    logits, labels, _ = rows_of(BINARY)
    calibration = Calibration(temperature=2.0, threshold=0.4, positive="real")
    found = evaluate(
        logits, labels, calibration=calibration, classes=BINARY, positive="real", resamples=50
    )
    assert found.metrics == evaluation.metrics
    assert found.slices["slice"].tolist() == ["all"]


def test_unknown_label_names_file_and_row():
    logits, _, frame = rows_of(BINARY, rows=4)
    frame.loc[2, "label"] = "satire"
    frame.loc[3, "label"] = np.nan
    with pytest.raises(DataError) as caught:
        evaluate(
            logits,
            frame,
            calibration=Calibration(positive="real"),
            classes=BINARY,
            positive="real",
        )
    assert "2 of 4 rows have a label that the model does not know" in str(caught.value)
    assert "news.csv, row 3: 'satire'; news.csv, row 4: nan" in str(caught.value)
    assert "its classes are 'fake', 'real'" in str(caught.value)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_diverged_model_is_a_clear_error(wrong):
    with pytest.raises(DataError, match="1 of 2 rows have a probability that is not finite"):
        evaluate(
            np.array([[wrong, 0.0], [0.0, 0.0]]),
            [0, 1],
            calibration=Calibration(positive="real"),
            classes=BINARY,
            positive="real",
        )


def test_calibration_of_another_model():
    arguments = {"classes": ["a", "b", "c"], "positive": "a"}
    with pytest.raises(BundleError, match="threshold must be null with 3 classes"):
        evaluate(
            np.zeros((3, 3)),
            [0, 1, 2],
            calibration=Calibration(threshold=0.5, positive="a"),
            **arguments,
        )
    with pytest.raises(ValueError, match="positive is 'a', calibrated for 'b'"):
        evaluate(
            np.zeros((3, 3)), [0, 1, 2], calibration=Calibration(positive="b"), **arguments
        )


def test_json_is_strict_and_undefined_is_null():
    found = evaluate(
        np.array([[0.0, 1.0]]),
        [1],
        calibration=Calibration(positive="real"),
        classes=BINARY,
        positive="real",
        resamples=5,
    )
    assert math.isnan(found.metrics["auroc"])
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content["metrics"]["auroc"] is None
    assert content["intervals"]["auroc"] == [None, None]
    assert content["metrics"]["accuracy"] == 1
    assert content["slices"][0]["macro_f1"] is None
    assert content["threshold"] is None
    assert re.search(r"AUROC \(\w+\) +n/a +n/a *\n", printed(found))


def test_table_shows_metrics_intervals_and_classes(evaluation):
    shown = printed(evaluation)
    low, high = evaluation.intervals["average_precision"]
    value = evaluation.metrics["average_precision"]
    assert re.search(
        rf"Average precision \(real\) +{value:.3f} +{low:.3f} to {high:.3f}", shown
    )
    assert re.search(rf"real +{evaluation.metrics['precision/real']:.3f} ", shown)
    assert "200 rows" in shown
    before = evaluation.uncalibrated["ece_before"]
    assert re.search(rf"\(ECE\) +{evaluation.metrics['ece']:.3f} +{before:.3f}", shown)


def test_written_files(evaluation, tmp_path):
    logits, labels, _ = rows_of(BINARY)
    calibration = Calibration(temperature=2.0, threshold=0.4, positive="real")
    figures = plots.evaluation_figures(logits, labels, calibration=calibration, classes=BINARY)
    folder = tmp_path / "run" / "evaluation"
    written = write(evaluation, figures, folder)
    assert written[-1] == folder / "report.html"
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(written)
    names = {path.relative_to(folder).as_posix() for path in written}
    assert names == {
        "metrics.json",
        "slices.csv",
        "report.html",
        *(f"plots/{name}.png" for name in figures),
    }
    assert json.loads((folder / "metrics.json").read_text("utf-8")) == evaluation.to_json()
    pd.testing.assert_frame_equal(pd.read_csv(folder / "slices.csv"), evaluation.slices)
    for name in figures:
        with Image.open(folder / "plots" / f"{name}.png") as image:
            image.verify()

    page = (folder / "report.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == len(figures)
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert f"{evaluation.metrics['average_precision']:.3f}" in page
    for name in evaluation.slices["slice"]:
        assert html.escape(name) in page


def test_page_is_well_formed_and_escapes_names(tmp_path):
    classes = sorted([HOSTILE, "other", "third"])
    logits, _, frame = rows_of(classes)
    calibration = Calibration(positive=HOSTILE)
    found = evaluate(
        logits,
        frame,
        calibration=calibration,
        classes=classes,
        positive=HOSTILE,
        artefacts=pd.DataFrame({"<b>": [True] * 200}),
        resamples=5,
    )
    write(found, {"<i>": Figure()}, tmp_path)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<script" not in page
    assert "artefact: <b>" not in page
    assert html.escape(HOSTILE, quote=False).split("'")[0] in page
    assert HOSTILE in printed(found)

    opened = re.findall(r"<([a-z0-9]+)[ >]", page.split("</style>")[1])
    closed = re.findall(r"</([a-z0-9]+)>", page.split("</style>")[1])
    for tag in set(opened) - {"img"}:
        assert opened.count(tag) == closed.count(tag)


def test_a_second_report_replaces_the_first(evaluation, tmp_path):
    (tmp_path / "metrics.json").write_text("old")
    (tmp_path / "other.txt").write_text("kept")
    write(evaluation, {}, tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text("utf-8"))["rows"] == 200
    assert (tmp_path / "other.txt").read_text() == "kept"


def test_a_failure_leaves_nothing_half_written(evaluation, tmp_path):
    (tmp_path / "plots").write_text("a file where the folder should be")
    with pytest.raises(FakeNewsError, match="cannot write the evaluation report: File exists"):
        write(evaluation, {}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["plots"]


def test_folder_that_cannot_be_made(evaluation, tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(FakeNewsError, match=r"cannot write the evaluation report: .*; choose"):
        write(evaluation, {}, blocker / "report")
