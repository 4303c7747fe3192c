"""The training job: one function for each of its paragraphs.

data -> features -> model -> fit -> calibrate -> evaluate -> bundle -> register
"""

import contextlib
import dataclasses
import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger
from numpy.typing import NDArray
from omegaconf import DictConfig
from rich.console import Console

from fakenews.bundle import BundleContent, write_bundle
from fakenews.config import check, plain
from fakenews.data.dataset import LabelledData, Split
from fakenews.engines import Outputs
from fakenews.errors import BundleError, ConfigError, Interrupted, TrainingError
from fakenews.evaluation.calibration import Calibration
from fakenews.evaluation.plots import evaluation_figures
from fakenews.evaluation.report import Evaluation, table, write
from fakenews.inference.evaluate import evaluate_frame
from fakenews.launch import is_main_process
from fakenews.models.tfidf import TfidfClassifier
from fakenews.predictor import Predictor
from fakenews.provenance import SHAPE_MODELS, versions
from fakenews.rules import training_rules
from fakenews.tracking.folder import LAST, RunFolder
from fakenews.tracking.mlflow import MLflowTracker
from fakenews.tracking.resume import changed_options, refuse_changes
from fakenews.tracking.run import Run
from fakenews.training.checkpoints import epochs_done
from fakenews.training.fit import Fitted, fit, load_encoder
from fakenews.training.process import tune_process

log = logging.getLogger(__name__)

_REFERENCE_ROWS = 5000

# Of Lightning.
_NO_NEWS = (
    ".*LeafSpec",  # its own use of torch, which nobody here can mend
    # The data module resumes where it was; the loaders need not.
    ".*your dataloader is not resumable",
    # Curves of few steps are short; epochs are always logged.
    ".*is smaller than the logging interval",
    # Batches of rows in memory are made faster than workers could hand them over.
    ".*does not have many workers",
    # A resumed run works where it did.
    "Checkpoint directory .* exists and is not empty",
)


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
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    for message in _NO_NEWS:
        warnings.filterwarnings("ignore", message=message)
    check(cfg, rules=training_rules)
    output = Path(HydraConfig.get().runtime.output_dir)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    tune_process()
    if not is_main_process():
        return assist(cfg, output)

    check_resume(cfg, output)
    folder = open_folder(cfg, output)
    # Before any work: a store that does not answer should not cost anyone a training.
    logger = start_logger(cfg, folder)
    pretrained = load_encoder(cfg)
    dataset = load_data(cfg, folder.path)
    with Run(
        folder=folder,
        logger=logger,
        config=plain(cfg),
        manifest=dataset.manifest,
        audit=dataset.audit.to_json(),
        root=Path(cfg.paths.root),
    ) as run:
        fitted = fit(cfg, dataset, folder.path, logger, pretrained=pretrained, begin=run.begin)
        run.begin()  # where there was no step: a baseline, or a fit that was done before
        with resumable(folder.path):
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


def assist(cfg: DictConfig, folder: Path) -> float:
    """Take this rank's share of the fit; rank 0 does all else, and writes.

    Returns:
        The validation metric of the last epoch.
    """
    pretrained = load_encoder(cfg)
    fitted = fit(cfg, instantiate(cfg.data), folder, None, pretrained=pretrained)
    if fitted.history is None:
        return math.nan
    return float(fitted.history.frame()[cfg.metric].iloc[-1])


def check_resume(cfg: DictConfig, folder: Path) -> None:
    """Whether a run in `folder`, if there is one, can go on with this configuration.

    Raises:
        ConfigError: A sweep cannot resume.
        TrainingError: The run cannot go on with these options.
    """
    if cfg.resume is not None and HydraConfig.get().mode is RunMode.MULTIRUN:
        raise ConfigError(f"resume={cfg.resume} continues one run: leave -m out")
    last = folder / LAST
    if not last.is_file():
        return
    refuse_changes(cfg, folder)
    if (done := epochs_done(last)) > cfg.trainer.max_epochs:
        raise TrainingError(
            f"trainer.max_epochs={cfg.trainer.max_epochs} is less than the {done} epochs that "
            f"the run has done: give {done} or more, or start without resume"
        )
    if changed := changed_options(cfg, folder):
        log.warning("resuming with another %s than before", ", ".join(changed))


def open_folder(cfg: DictConfig, path: Path) -> RunFolder:
    """The run folder, locked; says when there is nothing to resume.

    Raises:
        TrainingError: Another process works on it.
    """
    folder = RunFolder(path)
    if cfg.resume == "auto" and folder.last_checkpoint is None:
        log.info("resume=auto: no run of this name is unfinished, so a new one starts")
    elif cfg.resume is not None:
        log.info("resuming %s from its last checkpoint", path)
    return folder


@contextlib.contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Tell how to go on when the work after the fit is interrupted.

    Raises:
        Interrupted: The work was interrupted.
    """
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as error:
        raise Interrupted(
            f"stopped after the fit, which is saved in {folder}: run the same command with "
            "resume=auto to evaluate it",
            status=error.status if isinstance(error, Interrupted) else 130,
        ) from error


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


def load_data(cfg: DictConfig, folder: Path) -> LabelledData:
    """Read, audit and split; show the audit.

    Raises:
        TrainingError: A run is resumed, on other data than it was started on.
    """
    dataset: LabelledData = instantiate(cfg.data)
    if (folder / LAST).is_file() and (folder / "data.json").is_file():
        before = json.loads((folder / "data.json").read_text()).get("data_hash")
        if before != dataset.manifest["data_hash"]:
            raise TrainingError(
                f"the data of the run in {folder} were others: a run cannot be resumed with "
                "data that have changed; restore them, or start without resume"
            )
    console = Console()
    for part in dataset.audit.table():
        console.print(part)
    for warning in dataset.audit.warnings:
        log.warning(warning)
    return dataset


def conclude(
    cfg: DictConfig, dataset: LabelledData, fitted: Fitted, run: Run
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
        split: evaluate_frame(
            predictor,
            dataset.part(split),
            found.logits,
            resamples=cfg.bootstrap,
            seed=cfg.seed,
        )
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
    for name in evaluations[shown].never_decided:
        log.warning(
            "the model never decides for %s: try model.class_weights=balanced, another "
            "optimizer.lr or more epochs",
            name,
        )
    return bundle, evaluations


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
        reference["tabular"] = predictor.features.transform(frame.iloc[some])
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
