"""How many labels no training has seen."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from fakenews.retraining.new_labels import count_new_labels

Label = Callable[..., dict[str, Path]]


def test_labels_that_a_base_does_not_have(
    first: tuple[Path, dict[str, Path]],
    run: Path,
    headlines: pd.DataFrame,
    label: Label,
    tmp_path: Path,
):
    folder, sources = first
    assert count_new_labels(base=run, **sources) == 100
    assert count_new_labels(base=folder, **sources) == 0
    # The champion's run leads to what it was trained on.
    data = {"_target_": "fakenews.data.dataset.load", "path": str(folder / "train")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": data}))
    assert count_new_labels(base=tmp_path, **sources) == 0
    # One was corrected, one is new, one has no text, one no class of the model.
    rows = headlines[200:300]
    labels = rows["label"].tolist()
    labels[0] = "real" if labels[0] == "fake" else "fake"
    more = label([*rows["text"], "New", None, "Odd"], [*labels, "fake", "fake", "satire"])
    assert count_new_labels(base=tmp_path, **more) == 2
    assert count_new_labels(base=tmp_path) == 0


def test_labels_without_texts_are_none_and_told(
    run: Path, label: Label, caplog: pytest.LogCaptureFixture
):
    assert count_new_labels(base=run, **label([None], ["fake"])) == 0
    (told,) = caplog.messages
    assert told.startswith("1 labelled predictions have no text in the log")


def test_labels_of_a_table(first: tuple[Path, dict[str, Path]], tmp_path: Path):
    table = tmp_path / "table.csv"
    table.write_text("text,label\nRain,fake\nRain,fake\nSun,real\nSnow,satire\n")
    assert count_new_labels(base=first[0], labels=table) == 2
