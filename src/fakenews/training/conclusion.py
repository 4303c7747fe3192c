"""What a fitted model leaves: its metrics, or a report and a bundle too."""

import dataclasses
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig

from fakenews.bundle import BundleContent, write_bundle
from fakenews.config import plain
from fakenews.data.dataset import LabelledData, Split
from fakenews.engines import Outputs
from fakenews.errors import BundleError
from fakenews.evaluation.calibration import Calibration
from fakenews.evaluation.metrics import classification_metrics
from fakenews.evaluation.plots import evaluation_figures
from fakenews.evaluation.report import Evaluation, table, write
from fakenews.inference.evaluate import evaluate_frame
from fakenews.models.tfidf import TfidfClassifier
from fakenews.predictor import Predictor
from fakenews.provenance import SHAPE_MODELS, versions
from fakenews.terminal import show
from fakenews.tracking.card import write_cards
from fakenews.tracking.facts import Facts
from fakenews.tracking.run import Run
from fakenews.training.fit import Fitted

log = logging.getLogger(__name__)

Metrics = dict[Split, Mapping[str, float]]
"""Of each split that is evaluated, under the names of `classification_metrics`."""

_REFERENCE_ROWS = 5000


def outputs_of(
    cfg: DictConfig, dataset: LabelledData, predictor: Predictor
) -> dict[Split, Outputs]:
    """The model's outputs for each split that is evaluated; it is calibrated on validation."""
    outputs: dict[Split, Outputs] = {
        "val": predictor.outputs(dataset.part("val"), progress=cfg.bundle)
    }
    predictor.calibration = Calibration.fit(
        outputs["val"].logits,
        dataset.codes("val"),
        classes=dataset.classes,
        positive=dataset.positive,
    )
    if cfg.test:
        outputs["test"] = predictor.outputs(dataset.part("test"), progress=cfg.bundle)
    return outputs


def measure(
    cfg: DictConfig, dataset: LabelledData, fitted: Fitted, run: Run
) -> tuple[None, Metrics]:
    """As `conclude`, but nothing is written: the metrics are all that is wanted."""
    del run
    predictor = fitted.predictor
    return None, {
        split: classification_metrics(
            predictor.calibration.apply(found.logits),
            dataset.codes(split),
            classes=dataset.classes,
            positive=dataset.positive,
            threshold=predictor.calibration.threshold,
        )
        for split, found in outputs_of(cfg, dataset, predictor).items()
    }


def conclude(
    cfg: DictConfig, dataset: LabelledData, fitted: Fitted, run: Run
) -> tuple[Path, Metrics]:
    """Calibrate on validation, evaluate, write the report, the bundle and the cards.

    Returns:
        The bundle's folder, and the metrics of each split.
    """
    predictor = fitted.predictor
    outputs = outputs_of(cfg, dataset, predictor)
    evaluations = {
        split: evaluate_frame(
            predictor,
            dataset.part(split),
            found.logits,
            resamples=cfg.bootstrap,
            seed=cfg.seed,
        )
        for split, found in outputs.items()
    }
    # The last one evaluated is the one that counts.
    shown: Split = "test" if cfg.test else "val"
    figures = evaluation_figures(
        outputs[shown].logits,
        dataset.codes(shown),
        calibration=predictor.calibration,
        classes=dataset.classes,
        history=None if fitted.history is None else fitted.history.frame(),
    )
    write(evaluations[shown], figures, run.folder.path)
    content = bundle_content(
        cfg=cfg,
        dataset=dataset,
        fitted=fitted,
        validation=outputs["val"],
        evaluations=evaluations,
        run=run,
    )
    bundle = write_bundle(content, run.folder.path / "bundle")
    _check_bundle(bundle, dataset, outputs["val"])
    facts = Facts(
        name=cfg.name,
        run=run.folder.path.name,
        made=datetime.now(UTC),
        content=content,
        audit=dataset.audit.to_json(),
        card=instantiate(cfg.card),
    )
    run.describe(facts.summary, write_cards(facts, run.folder.path))
    show(f"[bold]{shown}[/bold]", table(evaluations[shown]))
    for name in evaluations[shown].never_decided:
        log.warning(
            "the model never decides for %s: try model.class_weights=balanced, another "
            "optimizer.lr or more epochs",
            name,
        )
    return bundle, {split: found.metrics for split, found in evaluations.items()}


def bundle_content(
    *,
    cfg: DictConfig,
    dataset: LabelledData,
    fitted: Fitted,
    validation: Outputs,
    evaluations: dict[Split, Evaluation],
    run: Run,
) -> BundleContent:
    """Everything needed to predict, and where it came from."""
    predictor, model = fitted.predictor, fitted.model
    if isinstance(model, TfidfClassifier):
        architecture, weights = model.architecture(), model.weights()
    else:
        architecture = model.architecture()
        weights = {
            name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()
        }
    frame = dataset.part("val")
    some = np.random.default_rng(cfg.seed).permutation(len(frame))[:_REFERENCE_ROWS]
    reference: dict[str, NDArray[Any]] = {
        "rows": some,
        "labels": dataset.codes("val")[some],
        "logits": validation.logits[some],
        "embeddings": validation.embeddings[some].astype(np.float16),
    }
    if predictor.features is not None:
        reference["tabular"] = predictor.features.transform(frame.iloc[some])
    if predictor.tokenizer is not None:
        tokens = predictor.tokens(frame.iloc[some])
        reference |= {"input_ids": tokens.input_ids, "offsets": tokens.offsets}
    return BundleContent(
        model=architecture,
        weights=weights,
        tokenizer=None if predictor.tokenizer is None else predictor.tokenizer.to_str(),
        features={
            "cleaning": dataclasses.asdict(predictor.cleaning),
            "pad_id": predictor.pad_id,
            "tabular": None if predictor.features is None else predictor.features.to_json(),
        },
        labels={"classes": dataset.classes, "positive": dataset.positive},
        calibration=predictor.calibration.to_json(),
        reference=reference,
        metrics={split: found.to_json() for split, found in evaluations.items()},
        provenance={
            "data": dataset.manifest,
            "config": plain(cfg),
            # As typed: what another training like this one is told.
            "overrides": list(HydraConfig.get().overrides.task)
            if HydraConfig.initialized()
            else [],
            "run_id": run.mlflow_id,
            "commit": run.commit,
            "versions": versions(*SHAPE_MODELS),
        },
    )


def _check_bundle(bundle: Path, dataset: LabelledData, validation: Outputs) -> None:
    """What was written must predict what was evaluated."""
    frame = dataset.part("val")
    rows = np.argsort(frame["text"].str.len().to_numpy(), kind="stable")[
        :: max(len(frame) // 32, 1)
    ]
    again = Predictor.load(bundle).outputs(frame.iloc[rows].reset_index(drop=True))
    if not np.allclose(again.logits, validation.logits[rows], rtol=1e-3, atol=1e-3):
        raise BundleError(
            f"{bundle} does not give the logits of the model it was made from: please "
            "report this, with the configuration"
        )
