"""The folder that a preparation works in: what is done is a file, so it can go on.

Every file appears whole or not at all, and a step's last file says that it is done.
All machines of a preparation must see the folder under one path.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from fakenews.data.manifest import write_json
from fakenews.errors import DataError
from fakenews.features.text import load_tokenizer
from fakenews.preparation.recipe import Recipe, Sharding


@dataclass(frozen=True)
class Work:
    """Places in the work folder; cheap to send to another process.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def rows(self) -> Path:
        """Cleaned rows of each chunk (Arrow), in shuffled order."""
        return self.path / "rows"

    @property
    def sketches(self) -> Path:
        """What grouping needs of each chunk (Parquet)."""
        return self.path / "sketches"

    @property
    def breaches(self) -> Path:
        """Rows of each chunk that break the schema (Parquet)."""
        return self.path / "breaches"

    @property
    def chunks(self) -> Path:
        """A summary of each chunk that is done, and of each file."""
        return self.path / "chunks"

    @property
    def assignment(self) -> Path:
        """Split and group of each row, in shuffled order (Parquet)."""
        return self.path / "assignment.parquet"

    @property
    def facts(self) -> Path:
        """Counts of the whole table."""
        return self.path / "facts.json"

    @property
    def shards(self) -> Path:
        """Shards on their way to the store."""
        return self.path / "shards"

    @property
    def buckets(self) -> Path:
        """What each bucket gave that is done."""
        return self.path / "buckets"

    @property
    def database(self) -> Path:
        """What DuckDB spills."""
        return self.path / "spill"

    def is_of(self, fingerprint: str) -> bool:
        """Whether there is earlier work of this preparation to go on with."""
        mark = self.path / "fingerprint"
        return mark.is_file() and mark.read_text(encoding="utf-8") == fingerprint

    def begin(self, fingerprint: str, recipe: Recipe, tokenizer: Tokenizer) -> None:
        """Make the folder ready for a preparation.

        Args:
            fingerprint: Of the recipe with its inputs; the work for another one is removed.
            recipe: Kept for the workers.
            tokenizer: Kept for the workers.

        Raises:
            DataError: The folder cannot be written.
        """
        with told(self.path):
            if not self.is_of(fingerprint):
                self.clear()
            for folder in ("rows", "sketches", "breaches", "chunks", "shards", "buckets"):
                (self.path / folder).mkdir(parents=True, exist_ok=True)
            write_json(self.path / "recipe.json", recipe.to_json())
            with drafted(self.path / "tokenizer.json") as draft:
                draft.write_text(tokenizer.to_str(), encoding="utf-8")
            (self.path / "fingerprint").write_text(fingerprint, encoding="utf-8")

    def clear(self) -> None:
        """Remove everything but the lock."""
        for child in self.path.glob("*"):
            if child.is_dir():
                shutil.rmtree(child)
            elif child.name != ".lock":
                child.unlink()

    def recipe(self) -> Recipe:
        """As given to `begin`; read once a process."""
        return _recipe(self.path, (self.path / "fingerprint").read_text(encoding="utf-8"))

    def tokenizer(self) -> Tokenizer:
        """As given to `begin`; read once a process."""
        return _tokenizer(self.path, (self.path / "fingerprint").read_text(encoding="utf-8"))


# The fingerprint is there for the cache: the folder may be used again by another recipe.
@lru_cache(maxsize=1)
def _recipe(path: Path, fingerprint: str) -> Recipe:
    del fingerprint
    content = read_json(path / "recipe.json")
    return Recipe(**(content | {"sharding": Sharding(**content["sharding"])}))


@lru_cache(maxsize=1)
def _tokenizer(path: Path, fingerprint: str) -> Tokenizer:
    del fingerprint
    return load_tokenizer(path / "tokenizer.json")


def read_json(path: Path) -> Any:
    """The content of a JSON file that this package wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """A path to write to; what is there appears as `path` when the block ends well."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Tell a fault of the disk in one line.

    Raises:
        DataError: The block met one.
    """
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}): free or choose another "
            "disk with prepare.work_dir=FOLDER, and run again to go on"
        ) from error
