"""The training job: one function for each of its paragraphs.

data -> features -> model -> fit -> calibrate -> evaluate -> bundle -> register

A trial of a sweep is the same job, which ends with the evaluation and reports to its study.
"""

import json
import logging
import math
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path

import lightning as L
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from optuna import TrialPruned

from fakenews.config import check, plain
from fakenews.data.dataset import LabelledData
from fakenews.errors import ConfigError, TrainingError, resumable
from fakenews.inference.latency import latency
from fakenews.launch import check_world, is_main_process, restarts
from fakenews.rules import is_sharded, training_rules, world_size
from fakenews.terminal import show
from fakenews.tracking.folder import LAST, RESULT, RunFolder, read_record
from fakenews.tracking.mlflow import is_mlflow
from fakenews.tracking.resume import changed_options, recorded, refuse_changes
from fakenews.tracking.run import Run
from fakenews.training.callbacks import FirstStep
from fakenews.training.checkpoints import epochs_done
from fakenews.training.conclusion import conclude, measure
from fakenews.training.fit import Fitted, fit, load_encoder
from fakenews.training.process import check_accelerator, tune_process
from fakenews.tuning.pruning import ReportToStudy
from fakenews.tuning.trial import StudyTrial

log = logging.getLogger(__name__)

# Of Lightning.
_NO_NEWS = (
    ".*LeafSpec",  # its own use of torch, which nobody here can mend
    # The data module resumes where it was; the loaders need not.
    ".*your dataloader is not resumable",
    # Curves of few steps are short; epochs are always logged.
    ".*is smaller than the logging interval",
    # Batches of rows in memory are made faster than workers could hand them over.
    ".*does not have many workers",
    # torchrun starts ranks where SLURM is installed, too.
    "The `srun` command is available",
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
    check_mode(cfg)
    if "network" in cfg.model:
        check_accelerator(cfg.trainer.accelerator, sharded=is_sharded(cfg))
    if "network" in cfg.model and isinstance(cfg.trainer.devices, int):
        check_world(cfg.trainer.devices, cfg.trainer.get("num_nodes") or 1)
    output = Path(HydraConfig.get().runtime.output_dir)
    if (value := finished_before(cfg, output)) is not None:
        return value
    if cfg.find_batch_size and (output / LAST).is_file():
        # What another search finds may not fit the checkpoint.
        size = cfg.loader.batch_size
        cfg.loader.batch_size = recorded(output, "loader.batch_size", size)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    tune_process(threads=cfg.threads, matmul_precision=cfg.matmul_precision)
    if not is_main_process():
        return assist(cfg, output)
    if cfg.get("sweep") is None:
        return main_process(cfg, output, None)
    value = math.nan  # of a trial that is pruned, as its study knows
    try:
        with open_trial(cfg, output).run() as trial:
            value = main_process(cfg, output, trial)
    finally:
        # Of many trials they would fill the disk, and no trial is resumed.
        shutil.rmtree(output / "checkpoints", ignore_errors=True)
    return value


def main_process(cfg: DictConfig, output: Path, trial: StudyTrial | None) -> float:
    """The job of the process that writes: all of it, but for other ranks' share of the fit.

    Args:
        cfg: The composed configuration.
        output: Run folder.
        trial: Of a sweep, or None.

    Returns:
        The validation metric.
    """
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
        tags={} if trial is None else trial.tags,
    ) as run:

        def begin() -> None:
            run.config = plain(cfg)  # the fit may have found the batch size
            run.begin()

        callbacks: dict[str, L.Callback] = {"begin": FirstStep(begin)}
        if trial is not None:
            reports = list(cfg.sweep.objectives) == [cfg.metric]
            callbacks["pruning"] = ReportToStudy(
                monitor=cfg.metric,
                report=trial.report if reports else None,
                note=trial.note,
            )
        fitted = fit(
            cfg, dataset, folder.path, logger, pretrained=pretrained, callbacks=callbacks
        )
        begin()  # where there was no step: a baseline, or a fit that was done before
        with resumable(
            f"stopped after the fit, which is saved in {folder.path}: run the same command "
            "with resume=auto to evaluate it"
        ):
            bundle, found = (conclude if cfg.bundle else measure)(cfg, dataset, fitted, run)
        metrics: dict[str, dict[str, float]] = {
            split: finite(values) for split, values in found.items()
        }
        run.finish(
            bundle=bundle,
            metrics=metrics,
            register=cfg.register if cfg.bundle else None,
            tags={"data_hash": dataset.manifest["data_hash"], "seed": str(cfg.seed)}
            | {
                f"{split}_{name}": f"{values[name]:.4f}"
                for split, values in metrics.items()
                for name in ("average_precision", "macro_f1")
                if name in values
            },
        )
        if trial is not None:
            values = objective_values(cfg, dataset, fitted, found["val"])
            trial.complete(values, cfg.sweep.objectives)
    if cfg.bundle:
        log.info("run folder: %s (start with report.html)", folder.path)
    return float(found["val"][cfg.metric.removeprefix("val/")])


def assist(cfg: DictConfig, folder: Path) -> float:
    """Take this rank's share of the fit; rank 0 does all else, and writes.

    Returns:
        The validation metric of the last epoch.
    """
    pretrained = load_encoder(cfg)
    callbacks: dict[str, L.Callback] = {}
    if cfg.get("sweep") is not None:
        callbacks["pruning"] = ReportToStudy(monitor=cfg.metric)
    try:
        fitted = fit(
            cfg,
            instantiate(cfg.data),
            folder,
            None,
            pretrained=pretrained,
            callbacks=callbacks,
        )
    except TrialPruned:
        return math.nan
    if fitted.history is None:
        return math.nan
    return float(fitted.history.frame()[cfg.metric].iloc[-1])


def finished_before(cfg: DictConfig, folder: Path) -> float | None:
    """The validation metric of a run that is finished, and was started again.

    Schedulers start a job at least once: again, too, when its node is lost after the end.

    Raises:
        TrainingError: With other options, which would be another run.
    """
    if cfg.get("sweep") is not None or read_record(folder).get("state") != "finished":
        return None
    if changed := changed_options(cfg, folder):
        raise TrainingError(
            f"the run in {folder} is finished, with another {', '.join(changed)}: repeat its "
            "settings, or give another cluster.id or folder"
        )
    result = json.loads((folder / RESULT).read_text())
    if is_main_process():
        log.info("the run in %s is finished: nothing to do", folder)
    return float(result["metrics"]["val"][cfg.metric.removeprefix("val/")])


def check_mode(cfg: DictConfig) -> None:
    """Whether this process was started as the configuration needs it.

    Raises:
        ConfigError: It was not, and how to start it.
    """
    sweep, multirun = cfg.get("sweep"), HydraConfig.get().mode is RunMode.MULTIRUN
    if sweep is not None and sweep.trial is None:
        choice = HydraConfig.get().runtime.choices["sweep"]
        raise ConfigError(f"sweep={choice} is a sweep: start it with -m")
    if not multirun:
        return
    if cfg.resume is not None:
        raise ConfigError(f"resume={cfg.resume} continues one run: leave -m out")
    size = max(world_size(cfg), int(os.environ.get("WORLD_SIZE", "1")))
    if size > 1:
        raise ConfigError(
            f"-m trains in this process, which cannot be {size}: python train.py -m sweep=grid "
            f"sweep.ranks={size} trainer=ddp ... starts every run with torchrun"
        )


def open_trial(cfg: DictConfig, folder: Path) -> StudyTrial:
    """The trial that this run is."""
    folder.mkdir(parents=True, exist_ok=True)
    return StudyTrial(
        study=cfg.sweep.study,
        storage=cfg.sweep.storage,
        number=cfg.sweep.trial,
        pruner=instantiate(cfg.sweep.pruner),
        heartbeat=cfg.sweep.heartbeat,
        folder=folder,
    )


def objective_values(
    cfg: DictConfig,
    dataset: LabelledData,
    fitted: Fitted,
    metrics: Mapping[str, float],
) -> list[float]:
    """What a sweep optimises.

    Args:
        cfg: The composed configuration.
        dataset: With validation rows, which latency is measured on.
        fitted: The model.
        metrics: Of validation.
    """
    return [
        latency(fitted.predictor, dataset.part("val"))
        if name == "latency"
        else metrics[name.removeprefix("val/")]
        for name in cfg.sweep.objectives
    ]


def check_resume(cfg: DictConfig, folder: Path) -> None:
    """Whether a run in `folder`, if there is one, can go on with this configuration.

    Raises:
        TrainingError: The run cannot go on with these options.
    """
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
    if count := restarts():
        log.warning("a rank died, and all were started again: restart %d", count)
    if cfg.resume == "auto" and folder.last_checkpoint is None:
        log.info("resume=auto: no run of this name is unfinished, so a new one starts")
    elif cfg.resume is not None:
        log.info("resuming %s from its last checkpoint", path)
    return folder


def start_logger(cfg: DictConfig, folder: RunFolder) -> Logger | None:
    """The logger; MLflow's continues the folder's run, if it has one already."""
    if is_mlflow(cfg.logger):
        tracker: Logger = instantiate(
            cfg.logger, run_id=folder.record.get("mlflow_run_id"), run_name=folder.path.name
        )
        return tracker
    logger: Logger | None = instantiate(cfg.logger)
    return logger


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that are defined."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


# Of the last trial of a sweep in this process, by its configuration.
_read: dict[str, LabelledData] = {}


def read_data(cfg: DictConfig) -> LabelledData:
    """Read, audit and split; in a sweep, what the trial before has read."""
    if cfg.get("sweep") is None:
        dataset: LabelledData = instantiate(cfg.data)
        return dataset
    key = json.dumps(plain(cfg.data), sort_keys=True, default=str)
    if key not in _read:
        _read.clear()
        _read[key] = instantiate(cfg.data)
    return _read[key]


def load_data(cfg: DictConfig, folder: Path) -> LabelledData:
    """Read, audit and split; show the audit.

    Raises:
        TrainingError: A run is resumed, on other data than it was started on.
    """
    dataset = read_data(cfg)
    if (folder / LAST).is_file() and (folder / "data.json").is_file():
        before = json.loads((folder / "data.json").read_text()).get("data_hash")
        if before != dataset.manifest["data_hash"]:
            raise TrainingError(
                f"the data of the run in {folder} were others: a run cannot be resumed with "
                "data that have changed; restore them, or start without resume"
            )
    if cfg.get("sweep") is None:
        show(*dataset.audit.table())
        for warning in dataset.audit.warnings:
            log.warning(warning)
    return dataset
