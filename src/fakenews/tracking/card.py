"""The model card of a run, from its own numbers.

Sections after Mitchell et al., "Model Cards for Model Reporting", FAT* 2019.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fakenews.errors import FakeNewsError
from fakenews.evaluation.report import METRIC_NAMES
from fakenews.tracking.facts import SPLITS, Facts, metric_title, shown
from fakenews.tracking.markdown import Markdown, escaped, render, table
from fakenews.tracking.sheet import DATA_SHEET, data_sheet

MODEL_CARD = "model_card.md"

_WORST = 5
# Fewer rows of a class tell little of how well it is found.
_FEW = 100
# Differences that are worth a word: of AUROC between slices, of calibration.
_WEAKER, _OFF = 0.05, 0.05

_TEMPLATE = """\
# Model card: {{ facts.name }}

{{ facts.summary }}

Written by the training that made the model, from its own numbers; what nobody has said is
"not stated". Sections after Mitchell et al., *Model Cards for Model Reporting* (2019).

## Model details

- **Made:** {{ made }}, by run {{ facts.run }}
{%- if run_id %}, MLflow run {{ run_id }}{% endif %}
{%- if commit %}, commit {{ commit }}{% endif %}.
- **Kind:** {{ kind }}; {{ parameters }} parameters.
- **Training:** {{ training }}.
- **Inputs:** {{ inputs }}.
- **Output:** a probability for each of {{ classes }}. Class of interest: {{ facts.positive }}.
- **Software:** {{ software }}.
- **Licence:** {{ card.licence }}.
- **Contact:** {{ card.contact }}.

## Intended use

- **For:** {{ card.intended_use }}
- **Not for:** {{ card.out_of_scope }}

## Factors

Looked at below: length, digits, named entities (if the model counts them), and each way in
which format may give a label away. What the rows do not say was not looked at: language,
topic, source, author, time.

## Metrics

Average precision and AUROC rank the rows by probability. Macro-F1, accuracy, precision and
recall are of decisions: {{ decision }}. Intervals are of 95%, by bootstrap over the rows.

## Evaluation data

{{ evaluated }}

## Training data

{{ trained }} More on them in `data_sheet.md`; data hash {{ facts.data.data_hash }}.

## Quantitative analyses

On {{ rows }} {{ split }} rows:

{{ metrics }}

By class:

{{ by_class }}

{% if worst %}
The weakest of {{ judged }} groups of rows, by AUROC (average precision rises with the share of
{{ facts.positive }}, so it is no measure between groups). Small groups differ by chance, too:

{{ worst }}

{% elif judged %}
None of {{ judged }} groups of rows has a lower AUROC than all.

{% endif %}
{% if unjudged %}
Too small to judge, or of one class only: {{ unjudged }}.

{% endif %}
Groups by several of these at once were not looked at.

## Calibration and threshold

Logits are divided by {{ temperature }}, which was chosen on validation (Guo et al., 2017):

{{ calibration }}

{{ threshold }}

## Artefact probe

{{ probe }}

## Ethical considerations

{{ ethics_numbers }}

The model gives the label that rows like these were given. It checks no fact.

**Stated by its makers:** {{ card.ethics }}

## Caveats and recommendations

{% for caveat in caveats %}
- {{ caveat }}
{% endfor %}

**Known limitations:** {{ card.limitations }}
"""


def write_cards(facts: Facts, folder: Path) -> list[Path]:
    """Write `model_card.md` and `data_sheet.md`, each whole or not at all.

    Args:
        facts: Of the run.
        folder: Of the run.

    Returns:
        The paths written.

    Raises:
        FakeNewsError: The folder cannot be written.
    """
    written = []
    for name, text in ((MODEL_CARD, model_card(facts)), (DATA_SHEET, data_sheet(facts))):
        path, draft = folder / name, folder / f".{name}"
        try:
            draft.write_text(text, encoding="utf-8")
            draft.replace(path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise FakeNewsError(
                f"{path} cannot be written: {error.strerror}; choose a folder that is "
                "writable and has space"
            ) from error
        written.append(path)
    return written


def model_card(facts: Facts) -> str:
    """The card, as Markdown."""
    provenance = facts.content.provenance
    judged = facts.judged
    return render(
        _TEMPLATE,
        facts=facts,
        card=facts.card,
        made=f"{facts.made:%Y-%m-%d %H:%M} UTC",
        run_id=provenance["run_id"],
        commit=provenance["commit"],
        kind=_kind(facts),
        parameters=f"{facts.parameters:,}",
        training=_training(facts),
        inputs=_inputs(facts),
        classes=", ".join(facts.classes),
        software=", ".join(f"{name} {v}" for name, v in provenance["versions"].items()),
        decision=_decision(facts),
        evaluated=_evaluated(facts),
        trained=_counted(facts, "train"),
        rows=f"{facts.evaluation['rows']:,}",
        split=SPLITS[facts.split],
        metrics=_metrics(facts),
        by_class=_by_class(facts),
        judged=len(judged),
        worst=_slices(facts, _weak(facts)[:_WORST]),
        unjudged=", ".join(
            f"{found['slice']} ({found['rows']:,})"
            for found in facts.slices
            if found["auroc"] is None and found["rows"]
        ),
        temperature=shown(facts.evaluation["temperature"]),
        calibration=_calibration(facts),
        threshold=_threshold(facts),
        probe=_probe(facts),
        ethics_numbers=_errors(facts),
        caveats=list(caveats(facts)),
    )


def caveats(facts: Facts) -> Iterator[Markdown | str]:
    """What a reader should know before believing the figures: what the data show."""
    yield from facts.audit.get("warnings", ())
    if facts.split == "val":
        yield (
            "No test rows were evaluated. Checkpoint, temperature and threshold were chosen on "
            "the validation rows that the figures are of: they are too good."
        )
    few = {name: facts.evaluation["metrics"][f"support/{name}"] for name in facts.classes}
    for name, rows in few.items():
        if rows < _FEW:
            yield f"Only {int(rows):,} rows of {name} were evaluated: see the intervals."
        if rows and facts.figure(f"precision/{name}") is None:
            yield f"The model decides for {name} in none of these rows."
    overall, weak = facts.figure("auroc") or 0, _weak(facts)
    if weak and overall - weak[0]["auroc"] > _WEAKER:
        yield (
            f"It is weaker on {weak[0]['slice']} ({weak[0]['rows']:,} rows): AUROC "
            f"{shown(weak[0]['auroc'])} against {shown(overall)} on all."
        )
    ece = facts.figure("ece")
    if ece is not None and ece > _OFF:
        yield f"Probabilities are off by {ece:.3f} on average: take them for scores."
    settings = facts.config["data"]
    if settings.get("val_path") is None and settings.get("test_path") is None:
        yield (
            "Validation and test rows were drawn from the same table as those of training, "
            "near-duplicates apart: how the model does on later texts, other sources or other "
            "languages was not measured."
        )
    if (entities := (facts.content.features["tabular"] or {}).get("entities")) is not None:
        yield (
            f"Named entities are counted by {entities['model']}, and in texts of another "
            "language than its own they are wrong."
        )


def _kind(facts: Facts) -> str:
    model = facts.content.model
    encoder = model.get("encoder")
    kind = f"the network {model['network']}"
    if model["network"] == "tfidf":
        return "logistic regression on TF-IDF"
    if encoder is None:
        return f"{kind}, which reads no words"
    layers = encoder["config"].get("num_hidden_layers")
    source = facts.config["encoder"]
    name = source.get("name") or source.get("package")
    if source["_target_"].endswith(".tiny"):
        name = "of random weights"
    return f"{kind} on the encoder {name} ({layers} layers)"


def _training(facts: Facts) -> str:
    config = facts.config
    if facts.content.model["network"] == "tfidf":
        return f"seed {config['seed']}"
    optimizer = config["optimizer"]
    epochs = config["trainer"]["max_epochs"]
    return (
        f"at most {epochs} epoch{'' if epochs == 1 else 's'} of "
        f"{optimizer['_target_'].rpartition('.')[2]} with learning rate {optimizer['lr']:g}, "
        f"the best by {config['metric']} kept; seed {config['seed']}"
    )


def _inputs(facts: Facts) -> str:
    content = facts.content
    parts = [f"text, cut to {content.features['cleaning']['max_chars']:,} characters"]
    if content.tokenizer is not None:
        parts[0] += f" and {facts.config['encoder']['max_length']} tokens"
    if content.features["cleaning"]["normalise"]:
        parts[0] += ", without cues of format"
    tabular = content.features["tabular"] or {}
    if tabular.get("headline"):
        parts.append("figures of its style")
    if entities := tabular.get("entities"):
        parts.append(f"entities counted by {entities['model']} {entities['version']}")
    if facts.columns:
        parts.append(f"the columns {', '.join(facts.columns)}")
    return "; ".join(parts)


def _decision(facts: Facts) -> str:
    threshold = facts.evaluation["threshold"]
    if threshold is None:
        return "the most probable class"
    return f"{facts.positive} where its probability is at least {threshold:.3f}"


def _counted(facts: Facts, split: str) -> str:
    counts = facts.counts.get(split, {})
    parts = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    return f"{facts.rows(split):,} rows ({parts})."


def _evaluated(facts: Facts) -> str:
    sample = facts.evaluation["rows"] < facts.rows(facts.split)
    looked = f" {facts.evaluation['rows']:,} of them, a uniform sample." if sample else ""
    data = facts.config["data"]
    official = data.get(f"{facts.split}_path") is not None
    drawn = "an official split" if official else "drawn from all rows by duplicate group"
    counted = _counted(facts, facts.split)
    return f"The {SPLITS[facts.split]} split, {drawn}: {counted}{looked}"


def _metrics(facts: Facts) -> Markdown:
    lines = []
    for name in METRIC_NAMES:
        found = facts.interval(name)
        interval = "" if found is None else f"{found[0]:.3f} to {found[1]:.3f}"
        cells = [metric_title(name, facts), shown(facts.figure(name)), Markdown(interval)]
        lines.append(cells)
    return table(["Metric", "Value", "95% interval"], lines)


def _by_class(facts: Facts) -> Markdown:
    kinds = ("precision", "recall", "f1")
    lines: list[list[Any]] = []
    for name in facts.classes:
        support = int(facts.evaluation["metrics"][f"support/{name}"])
        figures = [facts.with_interval(f"{kind}/{name}") for kind in kinds]
        lines.append([name, *figures, f"{support:,}"])
    return table(["Class", "Precision", "Recall", "F1", "Rows"], lines)


def _weak(facts: Facts) -> list[Mapping[str, Any]]:
    """Groups of rows with a lower AUROC than all; the worst first."""
    overall = facts.figure("auroc")
    return [one for one in facts.judged if overall is not None and one["auroc"] < overall]


def _slices(facts: Facts, found: list[Mapping[str, Any]]) -> Markdown | None:
    if not found:
        return None
    names = ("auroc", "average_precision", "macro_f1", "accuracy")
    lines = [
        [one["slice"], *(shown(one[name]) for name in names), f"{one['rows']:,}"]
        for one in [*found, {**facts.evaluation["slices"][0], "slice": "all rows"}]
    ]
    return table(["Rows", *(METRIC_NAMES[name] for name in names), "How many"], lines)


def _calibration(facts: Facts) -> Markdown:
    before = facts.evaluation["uncalibrated"]
    lines = [
        [METRIC_NAMES[name], shown(before[f"{name}_before"]), shown(facts.figure(name))]
        for name in ("ece", "brier", "log_loss")
    ]
    return table(["Lower is better", "Before", "After"], lines)


def _threshold(facts: Facts) -> str:
    if facts.evaluation["threshold"] is None:
        return "The most probable class is decided; there is no threshold."
    return (
        f"Decided: {_decision(facts)}, the threshold with the best macro-F1 on validation. "
        "Where errors cost otherwise, choose another."
    )


def _probe(facts: Facts) -> Markdown | str:
    named = {"texts as found": "probe_raw", "texts as trained on": "probe_text"}
    found = {title: facts.audit.get(name) for title, name in named.items()}
    if all(probe is None for probe in found.values()):
        return "Too few rows to ask how well format alone predicts the label."
    lines = [
        [
            title,
            shown(probe["average_precision"]),
            shown(probe["base_rate"]),
            f"{probe['rows']:,}",
        ]
        for title, probe in found.items()
        if probe is not None
    ]
    asked = table(["Format alone", "Average precision", "Guessing", "Rows"], lines)
    return Markdown(
        "A logistic regression that sees casing, punctuation, URLs and the like, and no word, "
        "predicts the label so well (out of fold, on all rows). Where it is better than "
        "guessing, a model may have learnt the same, and fails where format differs.\n\n"
        f"{asked}\n\nThe model itself has an average precision of "
        f"{shown(facts.figure('average_precision'))} on {SPLITS[facts.split]} rows."
    )


def _errors(facts: Facts) -> Markdown:
    """How many rows were judged wrongly, class by class."""
    parts = []
    for name in facts.classes:
        support = int(facts.evaluation["metrics"][f"support/{name}"])
        recall = facts.figure(f"recall/{name}")
        if recall is not None:
            wrong = round(support * (1 - recall))
            parts.append(f"{wrong:,} of {support:,} rows of {escaped(name)}")
    return Markdown(
        f"Decided wrongly: {', '.join(parts)}. Whoever acts on a decision acts so often on a "
        "wrong one."
    )
