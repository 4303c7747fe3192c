"""Evaluating a bundle on a file, as training evaluates it on a split."""

import json
from pathlib import Path

import pandas as pd
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fakenews.config import TARGETS
from fakenews.errors import ConfigError, DataError
from fakenews.inference.evaluate import evaluate

ROWS = "headline,verdict,age,lang\nRain,yes,1,a\nSnow,no,2,b\nWind,unsure,,c\nSun,yes,3,a\n"


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    path = tmp_path / "labelled.csv"
    path.write_text(ROWS)
    return path


def options(bundle: Path, path: Path, tmp_path: Path) -> dict:
    return {
        "bundle": str(bundle),
        "path": str(path),
        "out": str(tmp_path / "report"),
        "bootstrap": 10,
    }


def test_the_test_split_gives_trainings_figures(tiny_run: Path, tmp_path: Path) -> None:
    config = OmegaConf.load(tiny_run / "config.yaml")
    dataset = instantiate(config.data, _convert_="all", _execution_whitelist_=TARGETS)
    path = tmp_path / "test.csv"
    dataset.part("test")[["raw", "label"]].to_csv(path, index=False)
    found = evaluate(**options(tiny_run, path, tmp_path), text="raw")
    training = json.loads((tiny_run / "metrics.json").read_text())
    evaluated = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert found.rows == training["rows"]
    assert evaluated["metrics"] == pytest.approx(training["metrics"], abs=1e-5)
    assert evaluated["intervals"].keys() == training["intervals"].keys()
    assert [line["slice"] for line in evaluated["slices"]] == [
        line["slice"] for line in training["slices"]
    ]


def test_what_it_writes_and_shows(
    columns_bundle: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(**options(columns_bundle, labelled, tmp_path))
    report = tmp_path / "report"
    assert sorted(path.name for path in report.iterdir()) == [
        "metrics.json",
        "plots",
        "report.html",
        "slices.csv",
        "source.json",
    ]
    source = json.loads((report / "source.json").read_text())
    assert source["bundle"] == str(columns_bundle)
    assert [file["rows"] for file in source["files"]] == [4]
    assert "Macro-F1" in capsys.readouterr().out


def test_labels_by_class_or_by_name(
    columns_bundle: Path, labelled: Path, tmp_path: Path
) -> None:
    labelled.write_text(ROWS.replace(",no,", ",0,").replace("unsure", "maybe"))
    found = evaluate(
        **options(columns_bundle, labelled, tmp_path), label_names={0: "no", "maybe": "unsure"}
    )
    assert [found.metrics[f"support/{name}"] for name in found.classes] == [1, 1, 2]


def test_labels_that_are_no_classes(
    columns_bundle: Path, labelled: Path, tmp_path: Path
) -> None:
    labelled.write_text(ROWS.replace("unsure", "maybe"))
    with pytest.raises(DataError) as caught:
        evaluate(**options(columns_bundle, labelled, tmp_path))
    (fault,) = caught.value.faults
    assert "1 of 4 rows have a label (column 'verdict')" in fault
    assert "none of the bundle's classes 'no', 'unsure', 'yes'" in fault
    assert "labelled.csv, row 3: 'maybe'" in fault
    assert """label_names='{maybe: no}'""" in fault
    with pytest.raises(
        ConfigError, match="label_names has 'perhaps'; the bundle's classes are"
    ):
        evaluate(
            **options(columns_bundle, labelled, tmp_path), label_names={"maybe": "perhaps"}
        )
    assert not (tmp_path / "report").exists()


def test_columns_that_are_missing(columns_bundle: Path, labelled: Path, tmp_path: Path) -> None:
    labelled.write_text("headline,verdict,Age\nRain,yes,1\n")
    with pytest.raises(DataError) as caught:
        evaluate(**options(columns_bundle, labelled, tmp_path))
    assert len(caught.value.faults) == 2
    assert "no column 'age', did you mean 'Age'?" in caught.value.faults[0]
    assert "no column 'lang'" in caught.value.faults[1]


def test_a_threshold_needs_two_classes(
    columns_bundle: Path, labelled: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"threshold=0.4 needs two classes, the bundle has 3"):
        evaluate(**options(columns_bundle, labelled, tmp_path), threshold=0.4)


@pytest.mark.parametrize(("threshold", "decided"), [(0.0, "fake"), (1.0, "real")])
def test_a_threshold_of_ones_own(
    tiny_run: Path, tmp_path: Path, threshold: float, decided: str
) -> None:
    path = tmp_path / "two.csv"
    path.write_text("text,label\nRain in Oslo,fake\nSnow in Rome,real\n")
    found = evaluate(**options(tiny_run, path, tmp_path), threshold=threshold)
    assert found.metrics[f"recall/{decided}"] == 1
    assert found.metrics["accuracy"] == 0.5


def test_one_row_of_one_class(
    columns_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "one.jsonl"
    pd.DataFrame([{"headline": "Rain", "verdict": "yes", "age": None, "lang": "a"}]).to_json(
        path, orient="records", lines=True
    )
    found = evaluate(**options(columns_bundle, path, tmp_path))
    assert found.rows == 1
    assert found.metrics["support/yes"] == 1
    assert "no row is of the class no, unsure: what compares it" in caplog.text
