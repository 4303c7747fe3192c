"""From a configuration to what is read and how: the input files, and the recipe."""

import hashlib
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig
from tokenizers import Tokenizer

from fakenews.config import plain
from fakenews.data.checks import column_clashes, expand_paths
from fakenews.data.dataset import roles_of
from fakenews.data.shards import Manifest
from fakenews.data.validation import RowSchema
from fakenews.errors import ConfigError, DataError
from fakenews.features.entities import spacy_version
from fakenews.features.pipeline import FeaturePipeline
from fakenews.features.tabular import HEADLINE_FEATURES
from fakenews.models.encoder import Pretrained
from fakenews.preparation.ingest import check_columns
from fakenews.preparation.recipe import InputFile, Recipe, Role

_RESERVED = frozenset({"id", "ord", "input_ids", "truncated", *HEADLINE_FEATURES})


def find_inputs(cfg: DictConfig, *, known: Manifest | None) -> list[InputFile]:
    """The files to read, with their hashes.

    Args:
        cfg: The composed configuration.
        known: An earlier manifest: files with the same size and time are not hashed again.

    Raises:
        DataError: A file or a column is missing; all faults are named.
    """
    data = cfg.data
    paths = {"train": data.path, "val": data.val_path, "test": data.test_path}
    if data.path is None:
        if data.fetch is None:
            raise ConfigError("data.path is not set: give a file, e.g. data.path=news.csv")
        fetched = instantiate(data.fetch)
        paths |= roles_of(fetched(cache_dir=Path(cfg.paths.cache)))
    columns = [data.text, data.label, *data.numeric, *data.categorical]
    weight = [data.weight] if data.weight is not None else []
    faults = column_clashes(data.text, data.label, data.numeric, data.categorical, data.weight)
    faults += [
        f"extra column {name!r} has the name of another column of a shard; rename it"
        for name in (*data.numeric, *data.categorical)
        if name in _RESERVED or name.startswith("entity_")
    ]
    found: list[tuple[Role, Path]] = []
    roles: tuple[Role, ...] = ("train", "val", "test")
    for role in roles:
        if paths[role] is not None:
            files, missing = expand_paths(plain(paths[role]))
            faults += missing + list(
                chain.from_iterable(
                    check_columns(file, columns + weight * (role == "train")) for file in files
                )
            )
            found += [(role, file) for file in files]
    if faults:
        raise DataError(faults)
    hashes = {
        (entry["path"], entry["bytes"], entry["mtime_ns"]): entry["sha256"]
        for entry in (known.inputs if known else [])
    }
    return [_input(role, path, hashes) for role, path in found]


def _input(role: Role, path: Path, hashes: Mapping[tuple[str, int, int], str]) -> InputFile:
    stat = path.stat()
    sha256 = hashes.get((str(path), stat.st_size, stat.st_mtime_ns))
    if sha256 is None:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return InputFile(
        role=role,
        path=str(path),
        bytes=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        sha256=sha256,
    )


def find_recipe(cfg: DictConfig) -> tuple[Recipe, Tokenizer]:
    """The settings that shape the dataset, and the tokenizer of the encoder."""
    data = cfg.data
    pretrained: Pretrained = instantiate(cfg.encoder)
    features: FeaturePipeline = instantiate(cfg.features)
    counter = features.counter
    expectations = plain(cfg.validation.columns) or {}
    # A rule that makes no sense shows here, not in a worker.
    RowSchema(
        numeric=data.numeric,
        categorical=data.categorical,
        expectations=expectations,
        called={data.text: "text", data.label: "label"},
    )
    recipe = Recipe(
        text=data.text,
        label=data.label,
        label_names=None
        if data.label_names is None
        else {str(k): str(v) for k, v in data.label_names.items()},
        positive=data.positive,
        numeric=list(data.numeric),
        categorical=list(data.categorical),
        normalise=data.normalise,
        max_chars=data.max_chars,
        val_size=data.val_size,
        test_size=data.test_size,
        folds=data.folds,
        fold=data.fold,
        near_duplicates=data.near_duplicates,
        seed=cfg.seed,
        entities=None if counter is None else counter.model,
        entities_version=None if counter is None else f"{counter.version} {spacy_version()}",
        tokenizer=hashlib.sha256(pretrained.tokenizer.to_str().encode()).hexdigest(),
        max_length=pretrained.max_length,
        expectations=expectations,
        sharding=instantiate(cfg.shards),
        weight=data.weight,
    )
    return recipe, pretrained.tokenizer
