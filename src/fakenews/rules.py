"""Rules between the nodes of a configuration, which no single signature shows.

Importing this module is cheap, so that `--help` is fast.
"""

import re
from collections.abc import Iterator
from typing import Any, Literal, TypedDict

from omegaconf import DictConfig, OmegaConf

from fakenews.bounds import Count, PositiveCount, Share
from fakenews.config import closest, name_faults, option_faults

METRICS = ("average_precision", "macro_f1", "auroc", "accuracy", "log_loss")
"""What a network reports of the validation split after each epoch, as `val/NAME`."""

PREPARED = "fakenews.data.prepared.load"
STREAMING = "fakenews.training.streaming.StreamingDataModule"
"""What reads a prepared dataset, and what trains on it; they go together."""


class TrainingOptions(TypedDict):
    """The options of `conf/train.yaml` that belong to no group."""

    name: str
    seed: Count
    metric: str
    mode: Literal["min", "max"]
    resume: str | None
    test: bool
    bundle: bool
    threads: PositiveCount | None
    matmul_precision: Literal["highest", "high", "medium"]
    compile: bool
    find_batch_size: bool | PositiveCount
    bootstrap: PositiveCount
    register: str | None


def training_rules(cfg: DictConfig) -> Iterator[str]:
    """Faults of `conf/train.yaml` that no single signature shows.

    Args:
        cfg: Composed, and without faults of its nodes.

    Yields:
        A message for each fault.
    """
    faults = option_faults(cfg, TrainingOptions)
    yield from faults
    if not faults:
        streamed = cfg.data._target_ == PREPARED
        rules = [_run_rules, sweep_rules, _prepared_rules if streamed else _data_rules]
        if cfg.find_batch_size:
            rules.append(_batch_size_rules)
        if "network" in cfg.model:  # a baseline has neither epochs nor features
            rules += [_network_rules, _trainer_rules, _callback_rules]
        for rule in rules:
            yield from rule(cfg)


class SweepOptions(TypedDict):
    """The options of `conf/sweep/`, but for the search space and what is made of targets."""

    study: str
    storage: str
    n_trials: PositiveCount | None
    workers: PositiveCount
    ranks: PositiveCount
    max_failure_rate: Share
    heartbeat: PositiveCount
    objectives: list[str]
    trial: Count | None


def sweep_rules(cfg: DictConfig) -> Iterator[str]:
    """Faults of `conf/sweep/`, if a sweep is chosen.

    Args:
        cfg: Composed, and without faults of its nodes.

    Yields:
        A message for each fault.
    """
    if (sweep := cfg.get("sweep")) is None:
        return
    faults = option_faults(sweep, SweepOptions, "sweep.{}".format)
    yield from faults
    if faults:
        return
    if not re.fullmatch(r"\w[\w.-]*", sweep.study):
        yield f"sweep.study={sweep.study}: use letters, digits, '_', '-' and '.'"
    if sweep.n_trials is None and not sweep.sampler._target_.endswith("GridSampler"):
        yield "sweep.n_trials=null is for sweep=grid: give the number of trials"
    if cfg.resume is not None:
        yield f"resume={cfg.resume} continues one run: the same command continues a sweep"
    yield from _objective_rules(cfg)
    yield from _process_rules(cfg)


def _objective_rules(cfg: DictConfig) -> Iterator[str]:
    sweep, objectives = cfg.sweep, list(cfg.sweep.objectives)
    known = sorted({cfg.metric, *(f"val/{name}" for name in METRICS), "latency"})
    if unknown := sorted(set(objectives) - set(known)):
        yield f"sweep.objectives: {', '.join(unknown)} is unknown: choose {', '.join(known)}"
        return
    if not objectives or len(set(objectives)) < len(objectives):
        yield "sweep.objectives: name one or more, each once"
    if len(objectives) > 1 and sweep.sampler._target_.endswith("CmaEsSampler"):
        yield "sweep=cmaes needs a single objective: use sweep=nsga2 or optuna"
    if sweep.pruner._target_.endswith("NopPruner") or objectives == [cfg.metric]:
        return
    if len(objectives) > 1:
        yield "a trial of several objectives cannot be pruned: add sweep.pruner=none"
    elif objectives == ["latency"]:
        yield "latency is known only at a trial's end: add sweep.pruner=none"
    elif objectives:
        yield f"a pruner looks at metric={cfg.metric}: set metric, not sweep.objectives"


def _process_rules(cfg: DictConfig) -> Iterator[str]:
    sweep, size = cfg.sweep, world_size(cfg)
    # On GPUs, Lightning chooses it.
    parallel = cfg.trainer.get("strategy") == "ddp" or cfg.trainer.accelerator == "gpu"
    if sweep.ranks > 1 and not (parallel or is_sharded(cfg)):
        yield f"sweep.ranks={sweep.ranks} needs trainer=ddp"
    elif sweep.ranks == 1 and sweep.trial is None and size > 1:
        yield (
            f"the trainer has {size} processes, and a sweep trains in one: sweep.ranks={size} "
            "trainer=ddp starts each trial with torchrun"
        )
    if sweep.ranks > 1 and sweep.workers > 1:
        yield (
            f"sweep.ranks={sweep.ranks} and sweep.workers={sweep.workers}: choose several "
            "processes for a trial, or several trials at a time"
        )


def world_size(cfg: DictConfig) -> int:
    """Processes that the trainer counts on; 1 if it is to find that out itself."""
    devices = cfg.trainer.devices
    count = len(devices) if OmegaConf.is_list(devices) else devices
    return count * (cfg.trainer.get("num_nodes") or 1) if isinstance(count, int) else 1


def is_sharded(cfg: DictConfig) -> bool:
    """Whether the trainer splits the model over processes."""
    strategy = cfg.trainer.get("strategy")
    name = strategy.get("_target_", "") if OmegaConf.is_dict(strategy) else strategy
    return "fsdp" in str(name).lower()


class PreparationOptions(TypedDict):
    """The options of `conf/prepare.yaml` that belong to no group."""

    action: Literal["prepare", "list", "verify"]
    out: str
    overwrite: bool
    seed: Count


def preparation_rules(cfg: DictConfig) -> Iterator[str]:
    """Faults of `conf/prepare.yaml` that no single signature shows.

    Args:
        cfg: Composed, and without faults of its nodes.

    Yields:
        A message for each fault.
    """
    yield from option_faults(cfg, PreparationOptions)
    yield from _source_rules(cfg.data)
    if cfg.prepare.address is not None and cfg.prepare.engine != "ray":
        yield f"prepare.address={cfg.prepare.address} is for prepare.engine=ray"
    if not re.fullmatch(r"\d+(\.\d+)?\s*[KMGT]i?B", cfg.prepare.memory):
        yield f"prepare.memory={cfg.prepare.memory}: write a number with a unit, as in 1GB"
    yield from _credential_rules(cfg.storage_options, "storage_options")


def _run_rules(cfg: DictConfig) -> Iterator[str]:
    yield from name_faults(cfg.name)
    tracked = str(cfg.logger.get("_target_", "")).startswith("fakenews.tracking.mlflow.")
    # The default stands for "where there is a registry".
    if cfg.register not in (None, cfg.name) and not tracked:
        yield f"register={cfg.register} needs logger=mlflow"
    if cfg.register not in (None, cfg.name) and not cfg.bundle:
        yield f"register={cfg.register} needs bundle=true"
    if cfg.metric.removeprefix("val/") not in METRICS or "/" not in cfg.metric:
        near = closest(cfg.metric.removeprefix("val/"), METRICS)
        yield f"metric={cfg.metric} is unknown: choose val/{near or ', val/'.join(METRICS)}"
    elif (cfg.mode == "min") != (cfg.metric == "val/log_loss"):
        yield f"mode={cfg.mode} does not fit metric={cfg.metric}"


def _data_rules(cfg: DictConfig) -> Iterator[str]:
    data = cfg.data
    yield from _source_rules(data)
    if cfg.loader._target_ == STREAMING:
        yield "loader=stream reads a prepared dataset: use data=shards, or loader=memory"
    if cfg.test and not (data.test_size or data.folds or data.test_path or data.fetch):
        yield "data.test_size=0 leaves no test split: add test=false, or give data.test_path"


def _source_rules(data: DictConfig) -> Iterator[str]:
    share = data.test_size if data.folds is None else 1 / max(data.folds, 1)
    taken = data.val_size + (0 if data.test_path else share)
    if data.folds is None and data.fold:
        yield f"data.fold={data.fold} needs data.folds, the number of folds"
    if data.folds is not None and data.folds < 2:
        yield f"data.folds={data.folds}: at least 2 are needed"
    elif data.folds is not None and data.fold >= data.folds:
        yield f"data.fold={data.fold}: it must be 0 to {data.folds - 1}, data.folds less 1"
    elif taken >= 1:
        yield (
            f"data.val_size={data.val_size} and "
            + (f"data.folds={data.folds}" if data.folds else f"data.test_size={share}")
            + " leave nothing to train on"
        )
    if data.folds is not None and data.test_path is not None:
        yield "data.folds and data.test_path exclude each other: choose one test split"
    if not data.val_size and data.val_path is None:
        yield (
            "data.val_size=0: the best checkpoint and the decision threshold are chosen on "
            "validation rows; give data.val_path, or a share above 0"
        )
    columns = [data.text, data.label, *data.numeric, *data.categorical]
    columns += [] if data.weight is None else [data.weight]
    for column in sorted({column for column in columns if columns.count(column) > 1}):
        yield (
            f"the column {column!r} is used twice in data.text, label, numeric, categorical, "
            "weight"
        )
    names = sorted(set((data.label_names or {}).values()))
    if names and data.positive is not None and data.positive not in names:
        yield f"data.positive={data.positive} is not in data.label_names: {', '.join(names)}"


def _prepared_rules(cfg: DictConfig) -> Iterator[str]:
    if "network" not in cfg.model:
        yield "this model needs all training rows in memory: use data=csv, not data=shards"
    elif cfg.loader._target_ != STREAMING:
        yield "data=shards is streamed: use loader=stream"
    yield from _credential_rules(cfg.data.storage_options, "data.storage_options")


def _credential_rules(options: DictConfig | None, path: str) -> Iterator[str]:
    for name in map(str, options or {}):
        if re.search(r"key|secret|token|password", name):
            yield (
                f"{path}.{name} would be recorded: give credentials by the environment or a "
                "profile, as in AWS_SECRET_ACCESS_KEY"
            )


def _network_rules(cfg: DictConfig) -> Iterator[str]:
    from hydra.utils import get_class

    network: Any = get_class(cfg.model.network._target_)
    features = cfg.features
    columns = (features.numeric, features.categorical)
    # null: those that the dataset was prepared with, if any; it will say.
    made = features.headline or features.entities or None in columns or any(columns)
    if network.reads_tabular and not made:
        yield (
            f"model={network.name} reads tabular features and there are none: choose "
            "features=headline or model=text, or name data.numeric columns"
        )
    tokens, longest = cfg.loader.get("batch_tokens"), cfg.encoder.max_length
    if network.reads_text and tokens is not None and tokens < longest:
        yield (
            f"loader.batch_tokens={tokens} is less than one text of "
            f"encoder.max_length={longest}"
        )
    if cfg.optimizer.lr <= 0:
        yield f"optimizer.lr={cfg.optimizer.lr}: it must be above 0"


def _trainer_rules(cfg: DictConfig) -> Iterator[str]:
    trainer = cfg.trainer
    if trainer.max_epochs is None or trainer.max_epochs < 1:
        yield f"trainer.max_epochs={trainer.max_epochs}: it must be at least 1"
    elif (trainer.check_val_every_n_epoch or 1) > trainer.max_epochs:
        yield (
            f"trainer.check_val_every_n_epoch={trainer.check_val_every_n_epoch} is more than "
            f"trainer.max_epochs={trainer.max_epochs}: nothing would be validated"
        )
    if trainer.limit_train_batches == 0:
        yield "trainer.limit_train_batches=0 leaves nothing to train on"
    if trainer.limit_val_batches == 0:
        yield "trainer.limit_val_batches=0: the best checkpoint is chosen on validation rows"
    if trainer.get("fast_dev_run"):
        yield "trainer.fast_dev_run saves no checkpoint to go on with: use debug=one_batch"
    if trainer.overfit_batches and cfg.resume is not None:
        yield "trainer.overfit_batches is for a new run: drop resume"
    if (
        str(trainer.precision) in ("16", "16-mixed")
        and cfg.optimizer.get("fused")
        and trainer.gradient_clip_val
    ):
        yield (
            f"trainer.precision={trainer.precision} cannot clip gradients with a fused "
            "optimizer: use trainer.precision=bf16-mixed or optimizer.fused=false"
        )
    if is_sharded(cfg) and cfg.compile:
        yield "compile=true does not go with trainer=fsdp: leave one of them out"
    if trainer.max_time is not None and not re.fullmatch(r"\d+:\d+:\d+:\d+", trainer.max_time):
        yield f"trainer.max_time={trainer.max_time}: write DD:HH:MM:SS, as in 00:01:30:00"


def _batch_size_rules(cfg: DictConfig) -> Iterator[str]:
    given = f"find_batch_size={str(cfg.find_batch_size).lower()}"
    if "network" not in cfg.model:
        yield f"{given}: a baseline has no batches; leave it out"
    elif cfg.get("sweep") is not None:
        yield (
            f"{given} would give the trials of a sweep different batches: find the size in one "
            "run, then set loader.batch_size"
        )
    if is_sharded(cfg):
        yield f"{given} does not go with trainer=fsdp, whose ranks cannot try a size alone"
    if isinstance(cfg.trainer.devices, str):
        yield f"{given} needs trainer.devices={cfg.trainer.devices} as a number: leave it out"
    if cfg.loader.get("batch_tokens") is not None:
        yield (
            f"{given} and loader.batch_tokens={cfg.loader.batch_tokens} both say how large a "
            "batch may be: leave one of them out"
        )


def _callback_rules(cfg: DictConfig) -> Iterator[str]:
    known = ("train/loss", *(f"val/{name}" for name in METRICS))
    for name in ("step_seed", "best", "last", "stop"):
        if cfg.callbacks.get(name) is None:
            yield f"callbacks.{name} is missing: a run cannot do without it"
    for name, callback in cfg.callbacks.items():
        if not OmegaConf.is_dict(callback) or "_target_" not in callback:
            if callback is not None or name not in ("step_seed", "best", "last", "stop"):
                yield f"callbacks.{name}={callback}: remove a callback with ~callbacks.{name}"
            continue
        if is_sharded(cfg) and str(callback._target_).endswith("WeightAveraging"):
            yield f"callbacks.{name} averages whole weights: leave trainer=fsdp or it out"
        monitor, mode = callback.get("monitor"), callback.get("mode", "min")
        # ${metric} and ${mode} are checked where they stand.
        if monitor is None or OmegaConf.is_interpolation(callback, "monitor"):
            continue
        if monitor not in known:
            yield f"callbacks.{name}.monitor={monitor} is unknown: choose {', '.join(known)}"
        elif (mode == "min") != monitor.endswith("loss"):
            yield f"callbacks.{name}.mode={mode} does not fit its monitor={monitor}"
