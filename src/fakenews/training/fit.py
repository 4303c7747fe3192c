"""Fitting: a configuration and a dataset in, a model that predicts out."""

import contextlib
import copy
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from hydra.utils import get_class, instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from torch._dynamo.exc import TorchDynamoException

from fakenews.data.checks import WEIGHT
from fakenews.data.dataset import LabelledData
from fakenews.data.prepared import PreparedDataset
from fakenews.engines import Engine, TfidfEngine, TorchEngine
from fakenews.errors import ConfigError, Interrupted
from fakenews.evaluation.calibration import Calibration
from fakenews.features.pipeline import FeaturePipeline
from fakenews.launch import is_main_process
from fakenews.models.classifier import Classifier
from fakenews.models.encoder import Pretrained
from fakenews.models.networks import Network, build
from fakenews.models.tfidf import TfidfClassifier
from fakenews.predictor import Predictor
from fakenews.rules import is_sharded
from fakenews.tracking.folder import LAST
from fakenews.training.batch_size import find_batch_size
from fakenews.training.checkpoints import AtomicCheckpointIO, read_checkpoint
from fakenews.training.compilation import compile_network, not_compiled
from fakenews.training.history import History
from fakenews.training.reader import fit_features
from fakenews.training.sharding import ResumeSplit

# What the libraries that connect ranks say when one is gone.
_OF_RANKS = re.compile(r"\b(gloo|nccl)\b|Connection closed by peer", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A fitted model, ready to predict; with its learning curves, if it has any."""

    predictor: Predictor
    model: Network | TfidfClassifier
    history: History | None = None


def load_encoder(cfg: DictConfig) -> Pretrained | None:
    """The encoder of a network that reads text, and its tokenizer.

    Raises:
        EncoderError: It cannot be had.
        ConfigError: It does not fit its settings.
    """
    if "network" not in cfg.model:
        return None
    network: type[Network] = get_class(cfg.model.network._target_)
    return instantiate(cfg.encoder) if network.reads_text else None


def fit(
    cfg: DictConfig,
    dataset: LabelledData,
    folder: Path,
    logger: Logger | None,
    *,
    pretrained: Pretrained | None,
    callbacks: Mapping[str, L.Callback],
) -> Fitted:
    """Fit the model that the configuration names, from `folder`'s checkpoint if it has one.

    Args:
        cfg: The composed configuration.
        dataset: Audited and split.
        folder: Of the run.
        logger: Of the metrics, or None.
        pretrained: What `load_encoder` gave.
        callbacks: Beside those of the configuration, and before them.
    """
    if "network" not in cfg.model:
        return fit_tfidf(cfg, dataset)
    return fit_network(cfg, dataset, folder, logger, pretrained=pretrained, callbacks=callbacks)


def fit_tfidf(cfg: DictConfig, dataset: LabelledData) -> Fitted:
    """Fit the baseline, which has neither epochs nor features."""
    model: TfidfClassifier = instantiate(cfg.model)
    train = dataset.part("train")
    weights = train[WEIGHT].to_numpy(np.float64) if WEIGHT in train else None
    model.fit(train["text"].tolist(), dataset.codes("train"), weights=weights)
    return Fitted(predictor=_predictor(TfidfEngine(model), dataset), model=model)


def fit_network(
    cfg: DictConfig,
    dataset: LabelledData,
    folder: Path,
    logger: Logger | None,
    *,
    pretrained: Pretrained | None,
    callbacks: Mapping[str, L.Callback],
) -> Fitted:
    """Fit a network with Lightning, and take its best weights.

    Raises:
        ConfigError: The network cannot be compiled.
        Interrupted: Stopped from outside; what was done is in `folder`.
        TrainingError: The loss or the logits are not finite, or a checkpoint is damaged or
            not the trainer's.
    """
    last = folder / LAST
    first = dict(callbacks)
    if last.is_file() and is_sharded(cfg):
        first["resume"] = ResumeSplit(last)
    network: type[Network] = get_class(cfg.model.network._target_)
    features: FeaturePipeline | None = None
    if network.reads_tabular:
        features = fitted_features(cfg, dataset)
    history = History()
    own = dict(instantiate(cfg.callbacks)) | {"history": history}
    if logger is None:
        # Lightning refuses a monitor that has nowhere to log to.
        own.pop("learning_rate", None)
    if cfg.get("sweep") is not None:
        own.pop("progress", None)
    trainer: L.Trainer = instantiate(
        cfg.trainer,
        callbacks=[*first.values(), *own.values()],
        logger=logger or False,
        plugins=[AtomicCheckpointIO()],
        # Lightning's own limit ends a training as if it were done; StopAndSave's does not.
        max_time=None,
    )
    counts = dataset.class_counts("train")
    encoder = None if pretrained is None else pretrained.encoder
    make_model = functools.partial(
        instantiate,
        cfg.model,
        tabular_dim=0 if features is None else features.dim,
        classes=dataset.classes,
        positive=dataset.positive,
        class_counts=counts,
    )
    # After the trainer, which tells CUDA once and for all whether to be deterministic.
    if cfg.find_batch_size and not last.is_file():
        with _explained(trainer):
            cfg.loader.batch_size = find_batch_size(
                cfg,
                lambda: make_model(encoder=copy.deepcopy(encoder)),
                tokens=0 if pretrained is None else pretrained.max_length,
                tabular_dim=0 if features is None else features.dim,
                rows=sum(counts.values()),
            )
    loader = instantiate(cfg.loader, dataset=dataset, features=features, pretrained=pretrained)
    model: Classifier = make_model(encoder=encoder)
    # Before a strategy puts its own modules into the network.
    architecture = model.network.architecture()
    if cfg.compile:
        compile_network(model.network)
    with _explained(trainer):
        trainer.fit(model, loader, ckpt_path=last if last.is_file() else None)
    best: ModelCheckpoint = own["best"]
    fitted = best_network(architecture, Path(best.best_model_path))
    return Fitted(
        predictor=_predictor(
            TorchEngine(fitted, device=str(trainer.strategy.root_device)),
            dataset,
            features=features,
            pretrained=pretrained,
        ),
        model=fitted,
        history=history,
    )


@contextlib.contextmanager
def _explained(trainer: L.Trainer) -> Iterator[None]:
    """Say what ended the work, in a word that a user understands."""
    try:
        yield
    except SystemExit as error:
        # What Lightning makes of a Ctrl-C outside of its steps.
        raise Interrupted(
            "interrupted: run the same command with resume=auto to continue", status=130
        ) from error
    except TorchDynamoException as error:
        raise not_compiled(error) from error
    except RuntimeError as error:
        if trainer.world_size > 1 and _OF_RANKS.search(str(error)):
            raise Interrupted(
                "lost another rank, which died or cannot be reached any more: training goes on "
                "from the last checkpoint when all are started again",
                status=1,
            ) from error
        raise


def best_network(architecture: dict[str, Any], checkpoint: Path) -> Network:
    """A network of its own with the best weights, as a bundle will have it.

    The one that was trained may be compiled, or split over GPUs.

    Args:
        architecture: Of the network.
        checkpoint: Of the classifier.

    Raises:
        TrainingError: The checkpoint is missing or damaged.
    """
    start = "network."
    network = build(architecture)
    weights = read_checkpoint(checkpoint)["state_dict"]
    network.load_state_dict(
        {name.removeprefix(start): w for name, w in weights.items() if name.startswith(start)}
    )
    return network


def fitted_features(cfg: DictConfig, dataset: LabelledData) -> FeaturePipeline:
    """The features that the configuration names, fitted on the training rows.

    Raises:
        ConfigError: There are none, or a prepared dataset has fewer.
    """
    # null: the extra columns that a dataset was prepared with.
    columns = {
        name: getattr(dataset, name)
        for name in ("numeric", "categorical")
        if cfg.features[name] is None
    }
    features: FeaturePipeline = instantiate(cfg.features, **columns)
    if isinstance(dataset, PreparedDataset):
        fit_features(features, dataset)
    else:
        features.fit(dataset.part("train"), progress=is_main_process())
    if not features.dim:
        raise ConfigError(
            "there are no tabular features: choose features=headline or model=text, or name "
            "data.numeric columns"
        )
    return features


def _predictor(
    engine: Engine,
    dataset: LabelledData,
    *,
    features: FeaturePipeline | None = None,
    pretrained: Pretrained | None = None,
) -> Predictor:
    """What predicts with a fitted model; not calibrated yet."""
    return Predictor(
        engine=engine,
        tokenizer=None if pretrained is None else pretrained.tokenizer,
        pad_id=0 if pretrained is None else pretrained.encoder.pad_id,
        features=features,
        cleaning=dataset.cleaning,
        classes=dataset.classes,
        calibration=Calibration(positive=dataset.positive),
    )
