"""The training job: one function for each of its paragraphs.

data -> features -> model -> fit -> calibrate -> evaluate -> bundle -> register
"""

import dataclasses
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class, instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from numpy.typing import NDArray
from omegaconf import DictConfig
from rich.console import Console

from fakenews.bundle import BundleContent, write_bundle
from fakenews.config import check, plain, training_rules
from fakenews.data.artefacts import artefacts
from fakenews.data.dataset import Dataset, Split
from fakenews.data.manifest import write_json
from fakenews.engines import Outputs, TfidfEngine, TorchEngine
from fakenews.errors import BundleError
from fakenews.evaluation.calibration import Calibration
from fakenews.evaluation.plots import evaluation_figures
from fakenews.evaluation.report import Evaluation, evaluate, table, write
from fakenews.features.pipeline import FeaturePipeline
from fakenews.models.classifier import Classifier
from fakenews.models.encoder import Pretrained
from fakenews.models.networks import Network
from fakenews.models.tfidf import TfidfClassifier
from fakenews.predictor import Predictor
from fakenews.tracking.folder import RunFolder
from fakenews.tracking.mlflow import MLflowTracker
from fakenews.tracking.provenance import versions
from fakenews.tracking.run import Run
from fakenews.training.history import History

log = logging.getLogger(__name__)

_REFERENCE_ROWS = 5000


def train(cfg: DictConfig) -> float:
    """Run the whole job.

    Args:
        cfg: The composed `conf/train.yaml`.

    Returns:
        The validation metric `cfg.metric` of the final model.

    Raises:
        FakeNewsError: The user can mend it.
    """
    # Lightning announces what it does at every start; what matters is said here.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    check(cfg, rules=training_rules)
    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    # Numbers below 1e-38 cost hundreds of times as much to multiply, and say nothing.
    torch.set_flush_denormal(True)

    # First of all: a store that does not answer should not cost anyone a training.
    logger = start_logger(cfg, folder)
    dataset = load_data(cfg, folder.path)
    with Run(
        folder=folder,
        logger=logger,
        config=plain(cfg),
        manifest=dataset.manifest,
        root=Path(cfg.paths.root),
    ) as run:
        fitted = fit(cfg, dataset, run)
        bundle, evaluations = conclude(cfg, dataset, fitted, run)
        metrics: dict[str, dict[str, float]] = {
            split: finite(found.metrics) for split, found in evaluations.items()
        }
        run.finish(
            bundle=bundle,
            metrics=metrics,
            register=cfg.register,
            tags={"data_hash": dataset.manifest["data_hash"], "seed": str(cfg.seed)}
            | {
                f"{split}_{name}": f"{values[name]:.4f}"
                for split, values in metrics.items()
                for name in ("average_precision", "macro_f1")
                if name in values
            },
        )
    log.info("run folder: %s (start with report.html)", folder.path)
    return float(evaluations["val"].metrics[cfg.metric.removeprefix("val/")])


def start_logger(cfg: DictConfig, folder: RunFolder) -> Logger | None:
    """The logger; MLflow's continues the folder's run, if it has one already."""
    if cfg.logger._target_.endswith(MLflowTracker.__name__):
        tracker: Logger = instantiate(
            cfg.logger, run_id=folder.record.get("mlflow_run_id"), run_name=folder.path.name
        )
        return tracker
    logger: Logger | None = instantiate(cfg.logger)
    return logger


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that are defined."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def load_data(cfg: DictConfig, folder: Path) -> Dataset:
    """Read, audit and split; show the audit and write it to the run folder."""
    dataset: Dataset = instantiate(cfg.data)
    write_json(folder / "audit.json", dataset.audit.to_json())
    write_json(folder / "data.json", dataset.manifest)
    console = Console()
    for part in dataset.audit.table():
        console.print(part)
    for warning in dataset.audit.warnings:
        log.warning(warning)
    return dataset


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A fitted model, ready to predict; with its learning curves, if it has any."""

    predictor: Predictor
    model: Classifier | TfidfClassifier
    history: History | None = None


def fit(cfg: DictConfig, dataset: Dataset, run: Run) -> Fitted:
    """Fit the model that the configuration names."""
    if "network" not in cfg.model:
        return fit_tfidf(cfg, dataset)
    return fit_network(cfg, dataset, run)


def fit_tfidf(cfg: DictConfig, dataset: Dataset) -> Fitted:
    """Fit the baseline, which has neither epochs nor features."""
    model: TfidfClassifier = instantiate(cfg.model)
    model.fit(dataset.part("train")["text"].tolist(), dataset.codes("train"))
    predictor = Predictor(
        engine=TfidfEngine(model),
        tokenizer=None,
        pad_id=0,
        features=None,
        cleaning=dataset.cleaning,
        classes=dataset.classes,
        calibration=Calibration(positive=dataset.positive),
    )
    return Fitted(predictor=predictor, model=model)


def fit_network(cfg: DictConfig, dataset: Dataset, run: Run) -> Fitted:
    """Fit a network with Lightning, and take its best weights."""
    network: type[Network] = get_class(cfg.model.network._target_)
    features: FeaturePipeline | None = None
    pretrained: Pretrained | None = None
    if network.reads_tabular:
        features = instantiate(cfg.features)
        features.fit(dataset.part("train"), progress=True)
    if network.reads_text:
        pretrained = instantiate(cfg.encoder)
    loader = instantiate(cfg.loader, dataset=dataset, features=features, pretrained=pretrained)
    model: Classifier = instantiate(
        cfg.model,
        encoder=None if pretrained is None else pretrained.encoder,
        tabular_dim=0 if features is None else features.dim,
        classes=dataset.classes,
        positive=dataset.positive,
        class_counts=dataset.class_counts("train"),
    )
    history = History()
    callbacks = dict(instantiate(cfg.callbacks)) | {"history": history}
    if run.logger is None:
        # Lightning refuses a monitor that has nowhere to log to.
        callbacks.pop("learning_rate", None)
    trainer: L.Trainer = instantiate(
        cfg.trainer, callbacks=list(callbacks.values()), logger=run.logger or False
    )
    trainer.fit(model, loader, ckpt_path=run.folder.last_checkpoint)
    best: ModelCheckpoint = callbacks["best"]
    state = torch.load(best.best_model_path, weights_only=True, map_location="cpu")[
        "state_dict"
    ]
    model.load_state_dict(state)
    return Fitted(
        predictor=Predictor(
            engine=TorchEngine(model.network, device=str(trainer.strategy.root_device)),
            tokenizer=None if pretrained is None else pretrained.tokenizer,
            pad_id=0 if pretrained is None else pretrained.encoder.pad_id,
            features=features,
            cleaning=dataset.cleaning,
            classes=dataset.classes,
            calibration=Calibration(positive=dataset.positive),
        ),
        model=model,
        history=history,
    )


def conclude(
    cfg: DictConfig, dataset: Dataset, fitted: Fitted, run: Run
) -> tuple[Path, dict[Split, Evaluation]]:
    """Calibrate on validation, evaluate, write the report and the bundle.

    Returns:
        The bundle's folder, and the evaluation of each split.
    """
    predictor = fitted.predictor
    outputs: dict[Split, Outputs] = {
        "val": predictor.outputs(dataset.part("val"), progress=True)
    }
    calibration = Calibration.fit(
        outputs["val"].logits,
        dataset.codes("val"),
        classes=dataset.classes,
        positive=dataset.positive,
    )
    predictor.calibration = calibration
    if cfg.test:
        outputs["test"] = predictor.outputs(dataset.part("test"), progress=True)
    evaluations = {
        split: evaluate_split(cfg, dataset, split, predictor, found.logits)
        for split, found in outputs.items()
    }
    # The last one evaluated is the one that counts: test, or validation in a sweep.
    shown: Split = "test" if cfg.test else "val"
    figures = evaluation_figures(
        outputs[shown].logits,
        dataset.codes(shown),
        calibration=calibration,
        classes=dataset.classes,
        history=None if fitted.history is None else fitted.history.frame(),
    )
    write(evaluations[shown], figures, run.folder.path)
    bundle = write_bundle(
        bundle_content(
            cfg=cfg,
            dataset=dataset,
            fitted=fitted,
            validation=outputs["val"],
            evaluations=evaluations,
            run=run,
        ),
        run.folder.path / "bundle",
    )
    _check_bundle(bundle, dataset, outputs["val"])
    console = Console()
    console.print(f"[bold]{shown}[/bold]", table(evaluations[shown]))
    return bundle, evaluations


def evaluate_split(
    cfg: DictConfig,
    dataset: Dataset,
    split: Split,
    predictor: Predictor,
    logits: NDArray[np.float64],
) -> Evaluation:
    """Metrics, intervals and slices of one split."""
    frame = dataset.part(split)
    features = predictor.features
    return evaluate(
        logits,
        frame,
        calibration=predictor.calibration,
        classes=dataset.classes,
        positive=dataset.positive,
        artefacts=artefacts(frame["raw"]),
        entity_counts=None
        if features is None or features.counter is None
        else features.entity_counts(frame),
        resamples=cfg.bootstrap,
        seed=cfg.seed,
    )


def bundle_content(
    *,
    cfg: DictConfig,
    dataset: Dataset,
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
        architecture = model.network.architecture()
        weights = {
            name: tensor.detach().cpu().numpy()
            for name, tensor in model.network.state_dict().items()
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
        reference["tabular"] = predictor.features.transform(frame)[some]
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
            "run_id": run.mlflow_id,
            "commit": run.commit,
            "versions": versions(),
        },
    )


def _check_bundle(bundle: Path, dataset: Dataset, validation: Outputs) -> None:
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
