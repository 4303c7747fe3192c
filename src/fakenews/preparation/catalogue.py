"""The prepared datasets below a folder, as a table."""

import logging

from rich.table import Table

from fakenews.data.shards import MANIFEST, SPLITS, read_manifest
from fakenews.data.storage import Storage
from fakenews.errors import DataError
from fakenews.terminal import Terminal

log = logging.getLogger(__name__)


def show(storage: Storage) -> None:
    """List every prepared dataset in a folder and below it.

    Raises:
        DataError: There is none, or the storage cannot be read.
    """
    found = [path for path in storage.list() if path.rpartition("/")[2] == MANIFEST]
    if not found:
        raise DataError(
            f"{storage.url}: no prepared dataset here or below; make one with "
            "scripts/prepare.py data=... out=FOLDER"
        )
    table = Table(title=f"Prepared datasets in {storage.url}", title_justify="left")
    table.add_column("dataset", overflow="fold")
    for column in (*SPLITS, "size"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("classes", "data hash"):
        table.add_column(column, no_wrap=True)
    table.add_column("made from", overflow="fold")
    for path in found:
        folder = path.removesuffix(MANIFEST).rstrip("/")
        try:
            manifest = read_manifest(storage.below(folder))
        except DataError as error:
            log.warning("%s", error)
            continue
        shards = [shard for split in manifest.shards.values() for shard in split]
        sources = [entry["path"].rpartition("/")[2] for entry in manifest.inputs]
        table.add_row(
            folder or ".",
            *(f"{manifest.rows(split):,}" for split in SPLITS),
            _size(sum(shard.bytes for shard in shards)),
            ", ".join(manifest.classes[:4]) + " ..." * (len(manifest.classes) > 4),
            manifest.data_hash[:8],
            ", ".join(sources[:3]) + f" and {len(sources) - 3} more" * (len(sources) > 3),
        )
    Terminal().print(table)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
