"""The generated headlines behind `data=sample`: any size, any machine, the same bytes.

Each headline is a row of choices (topic, claim, opener, figures or number words, letter
case, final punctuation ...). Every choice leans towards one class, the leans add up to a
score, and the score with some noise decides the class. Then headlines are picked so that
the wanted share is fake, some are repeated, some labels are flipped, and some texts are
damaged the way real files are.

Drift has three clean meanings: `topics` changes the texts, `positive_rate` changes how
often each class comes while its texts stay alike, and `rule` changes the labels of
exactly the same texts.

Rows are made in blocks of `BLOCK`, each from its own Philox key (seed, block). Only the
raw bits of Philox and plain arithmetic are used, which numpy promises to keep unchanged,
so a larger sample begins with the smaller one.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from fakenews.data.sample_headlines import BLOCK, block
from fakenews.errors import ConfigError, DataError

PACKAGED = Path(__file__).with_name("sample.csv")
PACKAGED_ARGUMENTS: dict[str, Any] = {
    "rows": 4000,
    "seed": 0,
    "positive_rate": 0.3,
    "label_noise": 0.03,
    "drift": None,
}


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What changes against a sample without drift; nothing, unless told.

    Args:
        topics: Share of headlines about topics never seen without drift, 0 to 1.
        positive_rate: Share of `fake` instead of the usual one; None keeps the usual.
        rule: Share of the signals that decide the label which are turned around, 0 to 1.
            The texts and the class rate stay the same: only labels move.
    """

    topics: float = 0.0
    positive_rate: float | None = None
    rule: float = 0.0


def generate(
    rows: int,
    *,
    seed: int = 0,
    positive_rate: float = 0.3,
    label_noise: float = 0.03,
    drift: Drift | None = None,
    chunk_rows: int = 50_000,
) -> Iterator[pd.DataFrame]:
    """Headlines with their labels, in chunks and in bounded memory.

    Args:
        rows: How many, at least 1.
        seed: 0 to 2**64 - 1.
        positive_rate: Expected share of `fake`, between 0 and 1.
        label_noise: Expected share of flipped labels, as many each way so that the class
            rate holds; at most 2 * rate * (1 - rate), where labels would be pure chance.
        drift: What changes against the usual sample.
        chunk_rows: Rows in a chunk; has no influence on the rows themselves.

    Returns:
        Frames of `chunk_rows` rows (the last may be shorter) with the columns `text` and
        `label` ("fake" or "real"). The first rows of a larger sample are the smaller one.

    Raises:
        ConfigError: Arguments are out of range; all of them are named.
    """
    drift = drift or Drift()
    _check(rows, seed, positive_rate, label_noise, drift, chunk_rows=chunk_rows)
    rate = positive_rate if drift.positive_rate is None else drift.positive_rate
    made = (
        block(
            seed,
            number,
            rate=rate,
            label_noise=label_noise,
            topics=drift.topics,
            rule=drift.rule,
        ).slice(0, rows - start)
        for number, start in enumerate(range(0, rows, BLOCK))
    )
    return _chunks(made, chunk_rows)


def write(
    path: Path,
    *,
    rows: int,
    seed: int = 0,
    positive_rate: float = 0.3,
    label_noise: float = 0.03,
    drift: Drift | None = None,
) -> Path:
    """Write a sample to `path`, as CSV or Parquet by its ending, and return `path`.

    The file appears only when it is complete: an interrupted write leaves nothing behind.
    The other arguments are those of `generate`.

    Raises:
        ConfigError: Arguments are out of range, or the ending is another.
        DataError: The folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    if path.suffix not in {".csv", ".parquet"}:
        raise ConfigError(f"{path}: a sample is written as .csv or .parquet")
    chunks = generate(
        rows, seed=seed, positive_rate=positive_rate, label_noise=label_noise, drift=drift
    )
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tqdm(total=rows, desc=path.name, unit="row", delay=1, leave=False) as bar:
            _save(temporary, path.suffix, chunks, bar)
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"{path}: the sample cannot be written: {error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()  # gone already after a complete write
    return path


def fetch(
    *,
    rows: int,
    seed: int,
    positive_rate: float,
    label_noise: float,
    drift_topics: float = 0.0,
    drift_positive_rate: float | None = None,
    drift_rule: float = 0.0,
    cache_dir: Path,
) -> list[Path]:
    """The file of a sample: the packaged one when it is that, else one made in `cache_dir`.

    A file made before with the same arguments, by the same generator, is used again.

    Args:
        rows: As in `generate`, like the next three.
        seed: Of all that is random.
        positive_rate: Share of `fake`.
        label_noise: Share of flipped labels.
        drift_topics: As in `Drift`, like the next two.
        drift_positive_rate: Share of `fake` under drift.
        drift_rule: Share of the label rule turned around.
        cache_dir: Folder for generated files, made when missing.

    Returns:
        One path, in a list as every data source returns it.

    Raises:
        ConfigError: Arguments are out of range.
        DataError: `cache_dir` cannot be written to.
    """
    drift = Drift(topics=drift_topics, positive_rate=drift_positive_rate, rule=drift_rule)
    arguments: dict[str, Any] = {
        "rows": rows,
        "seed": seed,
        "positive_rate": positive_rate,
        "label_noise": label_noise,
        "drift": None if drift == Drift() else drift,
    }
    if arguments == PACKAGED_ARGUMENTS:
        return [PACKAGED]
    _check(rows, seed, positive_rate, label_noise, drift)
    # The packaged file changes whenever the generator does, so it stands for its version.
    version = hashlib.sha256(PACKAGED.read_bytes())
    version.update(json.dumps(arguments | {"drift": asdict(drift)}, sort_keys=True).encode())
    path = Path(cache_dir) / f"sample-{version.hexdigest()[:16]}.parquet"
    if not _whole(path, rows):
        write(path, **arguments)
    return [path]


def _check(
    rows: int,
    seed: int,
    positive_rate: float,
    label_noise: float,
    drift: Drift,
    *,
    chunk_rows: int = 1,
) -> None:
    faults = [
        f"{name} is {value}: it must be a whole number of at least 1"
        for name, value in {"rows": rows, "chunk_rows": chunk_rows}.items()
        if not _whole_number(value) or value < 1
    ]
    if not _whole_number(seed) or not 0 <= seed < 2**64:
        faults.append(f"seed is {seed}: it must be a whole number from 0 to 2**64 - 1")
    rates = {"positive_rate": positive_rate}
    if drift.positive_rate is not None:
        rates["drift positive_rate"] = drift.positive_rate
    bad = [name for name, rate in rates.items() if not (_number(rate) and 0 < rate < 1)]
    faults += [f"{name} is {rates[name]}: it must lie between 0 and 1" for name in bad]
    if not bad:
        rate = rates.get("drift positive_rate", positive_rate)
        limit = 2 * rate * (1 - rate)
        if not (_number(label_noise) and 0 <= label_noise <= limit):
            faults.append(
                f"label_noise is {label_noise}: with a share of {rate} fake it must be "
                f"0 to {limit:.4g}, where labels are pure chance"
            )
    faults += [
        f"drift {name} is {value}: it must be 0 to 1"
        for name, value in {"topics": drift.topics, "rule": drift.rule}.items()
        if not (_number(value) and 0 <= value <= 1)
    ]
    if faults:
        raise ConfigError(faults)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(path: Path, rows: int) -> bool:
    try:
        return bool(pq.read_metadata(path).num_rows == rows)
    except (OSError, pa.ArrowInvalid):
        return False


def _save(path: Path, suffix: str, chunks: Iterator[pd.DataFrame], bar: "tqdm[Any]") -> None:
    schema = pa.schema([("text", pa.string()), ("label", pa.string())])
    if suffix == ".parquet":
        with pq.ParquetWriter(path, schema) as writer:
            for chunk in chunks:
                writer.write_table(pa.Table.from_pandas(chunk, schema, preserve_index=False))
                bar.update(len(chunk))
        return
    with path.open("w", encoding="utf-8", newline="") as stream:
        for number, chunk in enumerate(chunks):
            chunk.to_csv(stream, index=False, header=number == 0, lineterminator="\n")
            bar.update(len(chunk))


def _chunks(blocks: Iterator[pa.Table], chunk_rows: int) -> Iterator[pd.DataFrame]:
    held = next(blocks)
    for table in blocks:
        while len(held) >= chunk_rows:
            yield held.slice(0, chunk_rows).to_pandas()
            held = held.slice(chunk_rows)
        held = pa.concat_tables([held, table])
    for start in range(0, len(held), chunk_rows):
        yield held.slice(start, chunk_rows).to_pandas()
