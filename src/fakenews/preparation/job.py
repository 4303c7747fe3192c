"""The preparation: inputs -> chunks -> groups and splits -> shards -> manifest.

Each paragraph leaves its result in the work folder; a preparation that was interrupted
goes on where it stopped, and ends with the same bytes.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.utils import instantiate
from omegaconf import DictConfig
from tqdm import tqdm

from fakenews.config import check, plain
from fakenews.data.shards import (
    AUDIT,
    SPLITS,
    Manifest,
    Shard,
    read_manifest,
    verify,
    write_manifest,
)
from fakenews.data.storage import Storage
from fakenews.data.validation import Report
from fakenews.errors import DataError
from fakenews.features.entities import EntityCounter, spacy_version
from fakenews.features.state import EntityState
from fakenews.features.tabular import HEADLINE_FEATURES
from fakenews.preparation.audit import audit_sample
from fakenews.preparation.catalogue import show
from fakenews.preparation.engines import Engine, Settings, alone
from fakenews.preparation.grouping import REPEATED, assign
from fakenews.preparation.ingest import digest, is_read, read_chunks, reported
from fakenews.preparation.inputs import find_inputs, find_recipe
from fakenews.preparation.place import (
    differences,
    is_whole,
    make_room,
    read_earlier,
    try_to_write,
)
from fakenews.preparation.recipe import InputFile, Recipe
from fakenews.preparation.shards import Bucket, statistics_of, write_bucket
from fakenews.preparation.work import Work, read_json
from fakenews.provenance import SHAPE_DATA, git, versions
from fakenews.rules import preparation_rules

log = logging.getLogger(__name__)


def prepare(cfg: DictConfig) -> None:
    """Do what `cfg.action` says: prepare a dataset, list or verify prepared ones.

    Args:
        cfg: The composed `conf/prepare.yaml`.

    Raises:
        FakeNewsError: The user can mend it.
    """
    check(cfg, rules=preparation_rules)
    storage = Storage(cfg.out, options=plain(cfg.storage_options))
    if cfg.action == "list":
        show(storage)
    elif cfg.action == "verify":
        manifest = read_manifest(storage)
        verify(storage, manifest, level="hash", progress=True)
        log.info("%s: every shard is as its manifest says", storage.url)
    else:
        make(cfg, storage)


def make(cfg: DictConfig, storage: Storage) -> None:
    """Prepare the dataset, unless it is there already."""
    work = Work(_work_folder(cfg, storage))
    work.path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(work.path / ".lock", timeout=0):
            _make(cfg, storage, work)
    except Timeout:
        raise DataError(
            f"another process is preparing {storage.url} (in {work.path}): wait for it, or "
            "stop it"
        ) from None


def _make(cfg: DictConfig, storage: Storage, work: Work) -> None:
    settings: Settings = instantiate(cfg.prepare)
    recipe, tokenizer = find_recipe(cfg)
    earlier = read_earlier(storage, overwrite=cfg.overwrite)
    inputs = find_inputs(cfg, known=earlier)
    fingerprint = recipe.fingerprint(inputs)
    if earlier is not None and earlier.fingerprint == fingerprint:
        if is_whole(storage, earlier, overwrite=cfg.overwrite):
            return
    elif earlier is not None and not cfg.overwrite:
        raise DataError(
            f"{storage.url} has a dataset of other inputs or settings "
            f"({differences(earlier, recipe, inputs)}): give another out, or replace it with "
            "overwrite=true"
        )
    try_to_write(storage)
    Report(cfg.validation.quarantine).try_to_write()
    going_on = earlier is None and work.is_of(fingerprint)
    if going_on:
        log.info("going on with the preparation in %s", work.path)
    make_room(storage, overwrite=cfg.overwrite, going_on=going_on)
    work.begin(fingerprint, recipe, tokenizer)
    engine = settings.start()
    ingest(engine, work, inputs)
    quarantined = report_breaches(work, cfg.validation.quarantine)
    facts = (
        read_json(work.facts) if work.facts.exists() else assign(work, memory=settings.memory)
    )
    buckets = write_shards(engine, work, storage, facts, recipe)
    manifest = describe(
        work,
        inputs,
        facts=facts,
        buckets=buckets,
        quarantined=quarantined,
        commit=git(Path(cfg.paths.root))["commit"],
    )
    storage.discard_drafts()
    verify(storage, manifest, level="size")
    sample = audit_sample(storage, manifest, facts["duplicates"])
    content = json.dumps(sample.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    storage.write_bytes(AUDIT, content.encode() + b"\n")
    # Last: it says that the dataset is whole.
    write_manifest(storage, manifest)
    left_out = list(tell_left_out(work, inputs, manifest.dropped))
    work.clear()
    log.info(
        "prepared %s: %s",
        storage.url,
        ", ".join(f"{manifest.rows(split):,} {split}" for split in SPLITS),
    )
    for told in left_out:
        log.warning("%s", told)


def ingest(engine: Engine, work: Work, inputs: Sequence[InputFile]) -> None:
    """Read, clean, check and sketch every row."""
    todo = [
        (work, number, source)
        for number, source in enumerate(inputs)
        if not is_read(work, number)
    ]
    total = sum(source.bytes for _, _, source in todo)
    done = engine.run(todo, read_chunks, digest)
    _follow(done, "read", total=total, unit="B")


def report_breaches(work: Work, quarantine: str | None) -> int:
    """Set rows that break the schema aside, or stop.

    Returns:
        How many were set aside.

    Raises:
        DataError: There are some, and nowhere to set them aside.
    """
    target = Path(quarantine) if quarantine is not None else work.path / "breaches.csv"
    with Report(target, extra=[*reported(work.recipe()).values()]) as report:
        for path in sorted(work.breaches.glob("*.parquet")):
            report.add_table(path)
    if not report.rows:
        return 0
    if quarantine is None:
        raise report.refusal()
    log.warning("%s", report.summary())
    return report.rows


def tell_left_out(
    work: Work, inputs: Sequence[InputFile], dropped: Mapping[str, int]
) -> Iterator[str]:
    """How many rows are left out for each reason, and the first of them."""
    first: dict[str, str] = {}
    for path in sorted(work.chunks.glob("[0-9]*.json")):
        source = inputs[int(path.name.partition("-")[0])]
        for reason, row in read_json(path).get("examples", {}).items():
            first.setdefault(reason, f", as {source.path}: row {row}")
    for reason, rows in dropped.items():
        what = "row is" if rows == 1 else "rows are"
        yield f"{rows:,} {what} left out: {reason}{first.get(reason, '')}"


def write_shards(
    engine: Engine, work: Work, storage: Storage, facts: Mapping[str, Any], recipe: Recipe
) -> list[dict[str, Any]]:
    """Featurise and write every bucket; what each gave, in order."""
    count = max(1, -(-facts["rows"] // recipe.sharding.rows))
    buckets = [Bucket(work=work, storage=storage, number=n, of=count) for n in range(count)]
    stored = storage.list()
    todo = [bucket for bucket in buckets if not bucket.is_done(stored)]
    rows = facts["rows"] * len(todo) // count
    _follow(engine.run(todo, alone, write_bucket), "write", total=rows, unit=" rows")
    return [read_json(bucket.done) for bucket in buckets]


def describe(
    work: Work,
    inputs: Sequence[InputFile],
    *,
    facts: Mapping[str, Any],
    buckets: Sequence[Mapping[str, Any]],
    quarantined: int,
    commit: str | None,
) -> Manifest:
    """What was made, from what."""
    recipe = work.recipe()
    chunks = [read_json(path) for path in sorted(work.chunks.glob("[0-9]*.json"))]
    dropped: dict[str, int] = {}
    for chunk in chunks:
        for reason, rows in chunk["dropped"].items():
            dropped[reason] = dropped.get(reason, 0) + rows
    if facts["repeated"]:
        dropped[REPEATED] = facts["repeated"]
    return Manifest(
        fingerprint=recipe.fingerprint(inputs),
        inputs=[
            {**vars(source), "rows": found["rows"], "encoding": found["encoding"]}
            for number, source in enumerate(inputs)
            for found in [read_json(work.chunks / f"file-{number:05d}.json")]
        ],
        settings=recipe.to_json(),
        classes=facts["classes"],
        positive=facts["positive"],
        numeric=list(recipe.numeric),
        categorical=list(recipe.categorical),
        counts=facts["counts"],
        dropped=dict(sorted(dropped.items())),
        quarantined=quarantined,
        repaired=sum(chunk["repaired"] for chunk in chunks),
        clipped=sum(chunk["clipped"] for chunk in chunks),
        tokenizer={"sha256": recipe.tokenizer, "max_length": recipe.max_length},
        entities=_entities(recipe, buckets),
        statistics=_statistics(recipe, facts, buckets),
        shards={
            split: [
                Shard(**(found | {"row_groups": tuple(found["row_groups"])}))
                for bucket in buckets
                if (found := bucket["shards"].get(split))
            ]
            for split in SPLITS
            if split in facts["counts"]
        },
        versions=versions(*SHAPE_DATA, "duckdb", "pandera", "spacy", "tokenizers"),
        commit=commit,
    )


def _entities(recipe: Recipe, buckets: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if recipe.entities is None:
        return None
    state = EntityState(
        model=recipe.entities,
        version=EntityCounter(model=recipe.entities).version,
        spacy_version=spacy_version(),
        labels=tuple(buckets[0]["entity_labels"]),
    )
    return {**vars(state), "labels": list(state.labels)}


def _statistics(
    recipe: Recipe, facts: Mapping[str, Any], buckets: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    found = statistics_of(buckets)
    labels = buckets[0]["entity_labels"]
    columns = [*HEADLINE_FEATURES, *(f"entity_{label}" for label in labels), *recipe.numeric]
    missing = set(chain.from_iterable(bucket["missing"] for bucket in buckets))
    return {
        "mean": dict(zip(columns, found.mean.tolist(), strict=True)),
        "scale": dict(zip(columns, found.scale.tolist(), strict=True)),
        "missing": [name for name in recipe.numeric if name in missing],
        "categories": facts["categories"],
    }


def _work_folder(cfg: DictConfig, storage: Storage) -> Path:
    if cfg.prepare.work_dir is not None:
        return Path(cfg.prepare.work_dir)
    name = re.sub(r"\W+", "-", storage.url)[-40:].strip("-")
    digest = hashlib.sha256(storage.url.encode()).hexdigest()[:8]
    return Path(cfg.paths.cache) / "prepare" / f"{name}-{digest}"


def _follow(done: Iterable[int], what: str, *, total: int, unit: str) -> None:
    with tqdm(
        total=total, desc=what, unit=unit, unit_scale=True, mininterval=0.5, disable=not total
    ) as bar:
        for amount in done:
            # Sizes are estimates: a bar never passes its end.
            bar.update(min(amount, total - bar.n))
        bar.update(total - bar.n)
