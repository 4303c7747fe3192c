"""What a retraining starts from: the rows that the champion was trained on, or a version.

    a run folder          its `config.yaml` says how its data were read: in memory, prepared
    a prepared dataset    of `scripts/prepare.py`
    a retraining dataset  an earlier version; also where a run folder leads, that trained on it

Training and validation rows become rows of the base, test rows the frozen test set.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fakenews.config import TARGETS, plain
from fakenews.data import prepared, shards
from fakenews.data.checks import WEIGHT
from fakenews.data.dataset import Dataset
from fakenews.data.shards import read_manifest
from fakenews.data.storage import Storage
from fakenews.errors import DataError, RetrainingError
from fakenews.retraining.manifest import DatasetManifest, is_dataset, read_dataset
from fakenews.retraining.rows import BATCH, Columns, base_table, read_batches
from fakenews.rules import PREPARED

_LOADED = "fakenews.data.dataset.load"
_SPLITS = {"base": ("train", "val"), "test": ("test",)}


@dataclass(frozen=True, kw_only=True)
class Base:
    """Rows to start from.

    Attributes:
        told: What a manifest says of it: `kind`, `path`, `data_hash`.
        classes: Sorted class names.
        positive: The class of interest.
        columns: The extra columns.
        reading: How texts are read and grouped: `normalise`, `max_chars`, `near_duplicates`.
        batches: Gives the rows of `base` or `test`, as of `Columns.schema`, in order.
        folder: Of an earlier version; None of another base.
        parent: Its manifest.
        bundle: Of the run that the base is; None of another base, and where it has none.
    """

    told: dict[str, Any]
    classes: list[str]
    positive: str
    columns: Columns
    reading: dict[str, Any]
    batches: Callable[[str], Iterator[pa.Table]] = field(repr=False)
    folder: Path | None = None
    parent: DatasetManifest | None = None
    bundle: Path | None = None


def open_base(path: str | Path, *, verify: bool = True) -> Base:
    """Open what a retraining starts from.

    Args:
        path: Of a run folder, a prepared dataset or a retraining dataset; of a prepared one
            also a URL.
        verify: Check that the rows are those of the run, or of the manifest.

    Raises:
        RetrainingError: It is none of these, or not what it was.
        DataError: Its data cannot be read.
    """
    folder = Path(path)
    if (earlier := dataset_of(path)) is not None:
        base = _of_dataset(earlier, verify=verify)
    elif _is_run(folder):
        base = _of_run(folder, verify=verify)
    else:
        storage = Storage(path)
        if storage.size(shards.MANIFEST) is None:
            raise RetrainingError(
                f"base={path} is no run folder, no prepared dataset and no retraining dataset: "
                "give the folder of one"
            )
        base = _of_prepared(storage, {"kind": "prepared", "path": storage.url}, verify=verify)
    bundle = folder / "bundle"
    return replace(base, bundle=bundle if _is_run(folder) and bundle.is_dir() else None)


def dataset_of(path: str | Path) -> Path | None:
    """The retraining dataset that a base is, or that its run was trained on, if it was on one.

    Raises:
        RetrainingError: The run's configuration is damaged.
        DataError: The prepared dataset that it was trained on cannot be read.
    """
    folder = Path(path)
    if is_dataset(folder):
        return folder
    if not _is_run(folder):
        return None
    data = _data_of(folder)
    read = data.path
    if data._target_ == PREPARED:
        inputs = read_manifest(_storage(data)).inputs
        read = next((str(Path(e["path"]).parent) for e in inputs if e["role"] == "train"), None)
    if not isinstance(read, str) or Path(read).name != "train":
        return None
    return Path(read).parent if is_dataset(Path(read).parent) else None


def classes_of(path: str | Path) -> list[str]:
    """The classes of a base; its rows are not read where that can be helped.

    Raises:
        RetrainingError: It is no base.
    """
    if (earlier := dataset_of(path)) is not None:
        return read_dataset(earlier, verify=False).classes
    found = _json(Path(path) / "data.json").get("classes")
    if _is_run(Path(path)) and isinstance(found, list):
        return [str(name) for name in found]
    return open_base(path, verify=False).classes


# --- a retraining dataset ---------------------------------------------------------------------


def _of_dataset(folder: Path, *, verify: bool) -> Base:
    manifest = read_dataset(folder, verify=verify)
    columns = Columns(numeric=manifest.numeric, categorical=manifest.categorical)

    def batches(part: str) -> Iterator[pa.Table]:
        if part == "test":
            yield from read_batches(_files(folder, manifest, "test"), columns.schema.names)
            return
        kept = (
            batch.filter(pc.equal(batch["source"], "base"))
            for batch in read_batches(_files(folder, manifest, "train"), columns.schema.names)
        )
        yield from _with_left_out(kept, folder / "left_out.parquet", columns)

    return Base(
        told=manifest.base,
        classes=manifest.classes,
        positive=manifest.positive,
        columns=columns,
        reading=manifest.reading,
        batches=batches,
        folder=folder,
        parent=manifest,
    )


def _files(folder: Path, manifest: DatasetManifest, part: str) -> list[Path]:
    return [folder / path for path in sorted(manifest.files) if path.startswith(f"{part}/")]


def _with_left_out(
    kept: Iterator[pa.Table], path: Path, columns: Columns
) -> Iterator[pa.Table]:
    """All rows of the base in their first order: those that are left out in their places."""
    left: list[tuple[int, pa.Table]] = []
    if path.is_file():
        for batch in read_batches([path], ["_place", *columns.schema.names]):
            rows = batch.select(columns.schema.names)
            left += [
                (place, rows.slice(row, 1))
                for row, place in enumerate(batch["_place"].to_pylist())
            ]
    left.reverse()
    at = 0
    for batch in kept:
        rest = batch
        # What stands before the last of these rows; the others come with the next ones.
        while left and left[-1][0] <= at + rest.num_rows:
            place, row = left.pop()
            before = rest.slice(0, place - at)
            yield from (table for table in (before, row) if table.num_rows)
            rest = rest.slice(before.num_rows)
            at = place + 1
        if rest.num_rows:
            yield rest
        at += rest.num_rows
    for _, row in reversed(left):
        yield row


# --- a run ----------------------------------------------------------------------------------


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file()


def _data_of(folder: Path) -> DictConfig:
    """How a run has read its data."""
    try:
        text = (folder / "config.yaml").read_text(encoding="utf-8")
        data: DictConfig = OmegaConf.create(yaml.safe_load(text)).data
        target = str(data._target_)
    except (
        OSError,
        ValueError,
        AttributeError,
        yaml.YAMLError,
        OmegaConfBaseException,
    ) as error:
        raise RetrainingError(
            f"{folder}/config.yaml is damaged, or of no run: give another base"
        ) from error
    if target not in (_LOADED, PREPARED):
        raise RetrainingError(
            f"{folder}/config.yaml reads its data by {target}, which retraining cannot: give a "
            "run of data=csv, data=shards or another of this project"
        )
    return data


def _storage(data: DictConfig) -> Storage:
    options: Any = plain(data.get("storage_options"))
    return Storage(data.path, options=options)


def _of_run(folder: Path, *, verify: bool) -> Base:
    data, told = _data_of(folder), {"kind": "run", "path": str(folder)}
    recorded = _json(folder / "data.json").get("data_hash")
    if recorded is None:
        raise RetrainingError(f"{folder} has no data.json: the run has not begun; give another")
    if data._target_ == PREPARED:
        base = _of_prepared(_storage(data), told, verify=verify)
    else:
        base = _of_memory(data, told)
    if verify and base.told["data_hash"] != recorded:
        raise RetrainingError(
            f"the data of the run in {folder} have changed since (their hash was "
            f"{recorded[:12]}, and is {base.told['data_hash'][:12]}): restore them, or give "
            "another base"
        )
    return base


def _of_memory(data: DictConfig, told: dict[str, Any]) -> Base:
    dataset: Dataset = instantiate(data, _execution_whitelist_=TARGETS, _convert_="all")
    columns = Columns(numeric=dataset.numeric, categorical=dataset.categorical)
    frame = dataset.frame
    weights = frame[WEIGHT] if WEIGHT in frame else pd.Series(1.0, index=frame.index)
    table = pa.table(
        {
            # As it was before cleaning, which a training does.
            "text": pa.array(frame["raw"], pa.string()),
            "label": pa.array(frame["label"], pa.string()),
            **{name: pa.array(frame[name], from_pandas=True) for name in columns.names},
            "weight": pa.array(weights, pa.float64()),
            "split": pa.array(frame["split"], pa.string()),
        }
    )

    def batches(part: str) -> Iterator[pa.Table]:
        rows = table.filter(pc.is_in(table["split"], pa.array(_SPLITS[part])))
        for start in range(0, rows.num_rows, BATCH):
            yield base_table(columns, rows.slice(start, BATCH).drop_columns(["split"]))

    return Base(
        told={**told, "data_hash": dataset.manifest["data_hash"]},
        classes=dataset.classes,
        positive=dataset.positive,
        columns=columns,
        reading={
            name: dataset.manifest["settings"][name]
            for name in ("normalise", "max_chars", "near_duplicates")
        },
        batches=batches,
    )


# --- a prepared dataset -----------------------------------------------------------------------


def _of_prepared(storage: Storage, told: dict[str, Any], *, verify: bool) -> Base:
    manifest = read_manifest(storage)
    if verify:
        _verify(storage)
    dataset = prepared.PreparedDataset(
        storage=storage, prepared=manifest, audit=prepared.read_audit(storage)
    )
    columns = Columns(numeric=dataset.numeric, categorical=dataset.categorical)
    weighted = manifest.settings.get("weight") is not None
    wanted = ["text", "raw", "label", *columns.names, *([WEIGHT] if weighted else [])]

    def batches(part: str) -> Iterator[pa.Table]:
        for split in _SPLITS[part]:
            for group in range(len(dataset.group_rows(split))):  # type: ignore[arg-type]
                table = dataset.read_group(split, group, wanted)  # type: ignore[arg-type]
                given = {name: table[name] for name in ("label", *columns.names)}
                given["text"] = pc.coalesce(table["raw"].cast(pa.string()), table["text"])
                if weighted:
                    given["weight"] = table[WEIGHT]
                yield base_table(columns, pa.table(given))

    return Base(
        told={**told, "data_hash": manifest.data_hash},
        classes=manifest.classes,
        positive=manifest.positive,
        columns=columns,
        reading={
            "normalise": dataset.cleaning.normalise,
            "max_chars": dataset.cleaning.max_chars,
            "near_duplicates": manifest.settings.get("near_duplicates", 0.8),
        },
        batches=batches,
    )


def _verify(storage: Storage) -> None:
    try:
        shards.verify(storage, read_manifest(storage), level="hash", progress=True)
    except DataError as error:
        raise RetrainingError(f"the base has changed: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
