"""Cards of runs of every kind, from their own numbers."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from fakenews.bundle import BundleContent
from fakenews.errors import FakeNewsError
from fakenews.evaluation.calibration import Calibration
from fakenews.evaluation.report import Evaluation, evaluate
from fakenews.tracking.card import caveats, model_card, write_cards
from fakenews.tracking.facts import Card, Facts

HOSTILE = "<script>x</script>|[a](b)"
WARNING = "format alone predicts the label: <b>"
PROBE = {"average_precision": 0.45, "base_rate": 0.3, "lift": 0.2, "folds": 5, "rows": 6000}


def evaluation(classes: list[str], rows: int, *, threshold: float | None) -> Evaluation:
    generator = np.random.default_rng(0)
    codes = np.arange(rows) % len(classes)
    logits = generator.normal(size=(rows, len(classes)))
    words = generator.integers(1, 12, rows)
    # Nothing is known of long ones.
    logits[np.arange(rows), codes] += np.where(words > 7, 0, 1.5)
    frame = pd.DataFrame(
        {
            "text": [" ".join(["word"] * count) for count in words],
            "label": np.array(classes)[codes],
        }
    )
    found = pd.DataFrame({"url": codes == 0, "final_stop": generator.random(rows) < 0.5})
    return evaluate(
        logits,
        frame,
        calibration=Calibration(temperature=1.25, threshold=threshold, positive=classes[0]),
        classes=classes,
        positive=classes[0],
        artefacts=found,
        resamples=20,
    )


@pytest.fixture
def facts() -> Callable[..., Facts]:
    """Makes facts; `data` and `config` change what is in the manifest and configuration."""

    def make(
        classes: list[str] | None = None,
        *,
        rows: int = 400,
        splits: tuple[str, ...] = ("val", "test"),
        card: Card | None = None,
        data: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
        model: dict[str, Any] | None = None,
    ) -> Facts:
        classes = classes or ["fake", "real"]
        threshold = 0.4 if len(classes) == 2 else None
        counts = dict.fromkeys(classes, 100)
        manifest = {
            "data_hash": "d" * 64,
            "files": [
                {
                    "path": f"/home/me/{HOSTILE}.csv",
                    "sha256": "f" * 64,
                    "bytes": 9,
                    "rows": 600,
                    "encoding": "utf-8",
                }
            ],
            "split": dict.fromkeys(("train", "val", "test"), counts),
            "dropped": {"no text": 3},
            "repaired": 5,
            "clipped": 0,
            "settings": {
                "text": "headline",
                "label": "verdict",
                "normalise": False,
                "max_chars": 5000,
                "near_duplicates": 0.8,
                "seed": 0,
            },
            "versions": {"python": "3.11"},
        } | (data or {})
        configuration: dict[str, Any] = {
            "seed": 7,
            "metric": "val/average_precision",
            "trainer": {"max_epochs": 3},
            "optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-4},
            "encoder": {
                "_target_": "fakenews.models.encoder.hub",
                "name": "some_encoder",
                "max_length": 64,
            },
            "data": {"path": "x.csv", "label_names": {"0": HOSTILE, "1": "real"}},
        } | (config or {})
        found = {
            split: evaluation(classes, rows, threshold=threshold).to_json() for split in splits
        }
        content = BundleContent(
            model=model or {"network": "text", "encoder": {"config": {"num_hidden_layers": 6}}},
            weights={"a": np.zeros((3, 4)), "b": np.zeros(5)},
            tokenizer="{}",
            features={
                "cleaning": {"normalise": False, "max_chars": 5000},
                "tabular": {
                    "headline": True,
                    "entities": {"model": "en_core_web_sm", "version": "3.8.0"},
                    "numeric": ["age"],
                    "categorical": [{"name": HOSTILE, "categories": ["a", "b"]}],
                },
            },
            labels={"classes": classes, "positive": classes[0]},
            calibration={},
            reference={},
            metrics=found,
            provenance={
                "data": manifest,
                "config": configuration,
                "run_id": None,
                "commit": "abc+changes",
                "versions": {"torch": "2.13"},
            },
        )
        lengths = {"0.05": 3.0, "0.5": 9.0, "0.95": 1200.0}
        return Facts(
            name="news",
            run="2026-01-01_00-00-00",
            made=datetime(2026, 1, 1, tzinfo=UTC),
            content=content,
            audit={
                "rows": 300 * len(classes),
                "warnings": [WARNING],
                "probe_raw": PROBE,
                "probe_text": PROBE,
                "lengths": {name: {"words": lengths, "chars": lengths} for name in classes},
                "exact_duplicates": 12,
                "near_duplicates": 34,
                "largest_group": 5,
                "conflicting_groups": 6,
                "artefact_rates": {"url": dict.fromkeys(classes, 0.25)},
            },
            card=card or Card(),
        )

    return make


def html_of(markdown: str) -> str:
    return MarkdownIt("commonmark").enable("table").render(markdown)


MODEL_SECTIONS = [
    *("Model details", "Intended use", "Factors", "Metrics", "Evaluation data"),
    *("Training data", "Quantitative analyses", "Calibration and threshold", "Artefact probe"),
    *("Ethical considerations", "Caveats and recommendations"),
]
SHEET_SECTIONS = [
    *("Motivation", "Composition", "Collection process"),
    *("Preprocessing, cleaning, labelling", "Uses", "Distribution", "Maintenance"),
]


def test_a_card_has_its_sections_and_numbers(facts: Callable[..., Facts]) -> None:
    made = facts()
    text = model_card(made)
    assert re.findall("^## (.*)$", text, re.MULTILINE) == MODEL_SECTIONS
    metrics = made.content.metrics["test"]
    low, high = metrics["intervals"]["average_precision"]
    value = metrics["metrics"]["average_precision"]
    assert f"| Average precision (fake) | {value:.3f} | {low:.3f} to {high:.3f} |" in text
    assert f"Average precision {value:.3f} ({low:.3f} to {high:.3f}), macro-F1" in made.summary
    for said in (
        "**Kind:** the network text on the encoder some\\_encoder (6 layers); 17 parameters.",
        "at most 3 epochs of AdamW with learning rate 0.0001",
        "fake where its probability is at least 0.400",
        "Logits are divided by 1.250",
        "| texts as found | 0.450 | 0.300 | 6,000 |",
        "commit abc+changes",
        "The test split, drawn from all rows by duplicate group: 200 rows (100 fake, 100 ",
        "**Licence:** not stated.",
        "**Stated by its makers:** not stated",
    ):
        assert said in text
    assert "MLflow run" not in text
    # Slices are sorted by how badly the model does, and end with all rows for comparison.
    scores = [
        float(found)
        for found in re.findall(r"\| (?:short|medium|long|no|artefact).*?\| ([\d.]+)", text)
    ]
    assert scores == sorted(scores)
    assert "| all rows | " in text
    assert "artefact: url (200)" in text  # of one class


def test_what_people_say_is_said(facts: Callable[..., Facts], tmp_path: Path) -> None:
    fields = {name: f"About {name} <i>" for name in Card.__dataclass_fields__}
    made = facts(card=Card(**fields))
    paths = write_cards(made, tmp_path)
    assert [path.name for path in paths] == ["model_card.md", "data_sheet.md"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "data_sheet.md",
        "model_card.md",
    ]
    text = "".join(path.read_text() for path in paths)
    for said in fields.values():
        assert said.replace("_", "\\_").replace("<", "&lt;").replace(">", "&gt;") in text


def test_a_sheet_has_its_sections_and_counts(
    facts: Callable[..., Facts], tmp_path: Path
) -> None:
    _, path = write_cards(facts(), tmp_path)
    text = path.read_text()
    assert re.findall("^## (.*)$", text, re.MULTILINE) == SHEET_SECTIONS
    for said in (
        "600 rows, each a text with one label of fake, real.",
        "| training | 200 | 100 (50.0%) | 100 (50.0%) |",
        "| fake | 3 | 9 | 1,200 | 3 | 9 | 1,200 |",
        "12 rows repeat a text, 34",
        f"| 600 | utf-8 | {64 * 'f'} |",
        "in 5 texts a wrong decoding was undone",
        "**Left out:** 3 rows: no text.",
        "alike to 0.8 (Jaccard) are on one side; seed 0.",
        "| url | 25.0% | 25.0% |",
        "Found by the audit:",
        "**Beside the text:** the columns age, &lt;script&gt;",
    ):
        assert said in text
    # Where the files lay is nobody's business.
    assert "/home/me" not in text


@pytest.mark.parametrize("name", ["model_card.md", "data_sheet.md"])
def test_nothing_of_the_data_is_markdown(
    facts: Callable[..., Facts], tmp_path: Path, name: str
) -> None:
    card = Card(limitations=HOSTILE, motivation=HOSTILE)
    write_cards(facts(["a", HOSTILE], card=card), tmp_path)
    page = html_of((tmp_path / name).read_text())
    tags = set(re.findall(r"<(\w+)", page))
    assert tags <= {
        *("h1", "h2", "p", "em", "ul", "li", "strong", "code", "table", "thead", "tbody"),
        *("tr", "th", "td"),
    }
    assert "&lt;script&gt;x&lt;/script&gt;|[a](b)" in page
    for found in re.findall("<table>.*?</table>", page, re.DOTALL):
        lines = found.split("</tr>")[:-1]
        assert len({len(re.findall("<t[hd][ >]", line)) for line in lines}) == 1


def test_several_classes_have_no_threshold(facts: Callable[..., Facts], tmp_path: Path) -> None:
    write_cards(facts(["no", "unsure", "yes"]), tmp_path)
    text = (tmp_path / "model_card.md").read_text()
    assert "| Average precision (mean of classes) |" in text
    assert "are of decisions: the most probable class." in text
    assert "there is no threshold" in text


def test_caveats_follow_from_the_numbers(facts: Callable[..., Facts]) -> None:
    few = list(caveats(facts(rows=60, splits=("val",))))
    assert few[0] == WARNING
    assert few[1].startswith("No test rows were evaluated.")
    assert "Only 30 rows of fake were evaluated: see the intervals." in few
    assert any("Named entities are counted by en_core_web_sm" in found for found in few)
    many = list(caveats(facts(rows=400)))
    assert any(re.match(r"It is weaker on long \(over \d words\)", found) for found in many)
    assert not any("Only" in found or "No test" in found for found in many)
    assert any("drawn from the same table" in found for found in many)
    official = {"data": {"path": "x", "test_path": "y", "label_names": None}}
    assert not any("same table" in found for found in caveats(facts(config=official)))


def test_other_kinds_of_model_and_data(facts: Callable[..., Facts], tmp_path: Path) -> None:
    made = facts(
        model={"network": "tfidf"},
        config={
            "data": {
                "path": None,
                "fetch": {
                    "_target_": "fakenews.data.sample.fetch",
                    "_partial_": True,
                    "rows": 9,
                },
            }
        },
    )
    made = replace(
        made,
        content=replace(made.content, tokenizer=None),
        audit={**made.audit, "probe_text": None, "probe_raw": None, "warnings": []},
    )
    write_cards(made, tmp_path)
    text = (tmp_path / "model_card.md").read_text()
    assert "**Kind:** logistic regression on TF-IDF" in text
    assert "Too few rows to ask how well format alone" in text
    assert "Format alone" not in made.summary
    sheet = (tmp_path / "data_sheet.md").read_text()
    assert "The files come from fakenews.data.sample.fetch with rows=9." in sheet
    assert "- nothing that a reader should act on." in sheet


def test_a_prepared_dataset(facts: Callable[..., Facts], tmp_path: Path) -> None:
    plain = facts()
    data = dict(plain.data)
    inputs = 60 * data["files"]
    made = facts(
        data={
            "inputs": inputs,
            "counts": data.pop("split") | {"train": {"fake": 5000, "real": 1}},
            "quarantined": 2,
        },
        model={"network": "tabular", "encoder": None},
    )
    provenance = dict(made.content.provenance)
    provenance["data"] = {
        k: v for k, v in provenance["data"].items() if k not in ("files", "split")
    }
    made = replace(made, content=replace(made.content, provenance=provenance))
    write_cards(made, tmp_path)
    sheet = (tmp_path / "data_sheet.md").read_text()
    assert "and 10 more files, which are in `data.json`." in sheet
    assert "| training | 5,001 | 5,000 (100.0%) | 1 (0.0%) |" in sheet
    assert "2 rows: set aside by validation" in sheet
    assert "Found by the audit, of a sample of 600 rows:" in sheet
    assert "which reads no words" in (tmp_path / "model_card.md").read_text()


def test_a_folder_that_cannot_be_written(facts: Callable[..., Facts], tmp_path: Path) -> None:
    with pytest.raises(FakeNewsError, match=r"model_card\.md cannot be written: No such file"):
        write_cards(facts(), tmp_path / "absent")
