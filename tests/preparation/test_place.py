"""In what a dataset differs from the one that is wanted."""

from dataclasses import replace
from pathlib import Path

import pytest

from fakenews.data.shards import Manifest
from fakenews.preparation.place import differences
from fakenews.preparation.recipe import InputFile, Recipe, Role, Sharding


def _file(path: str, sha256: str, role: Role = "train") -> InputFile:
    return InputFile(role=role, path=path, bytes=1, mtime_ns=1, sha256=sha256)


def _manifest(recipe: Recipe, *files: InputFile) -> Manifest:
    return Manifest(
        fingerprint=recipe.fingerprint(files),
        inputs=[vars(file) for file in files],
        settings=recipe.to_json(),
        classes=["a", "b"],
        positive="a",
        numeric=[],
        categorical=[],
        counts={},
        dropped={},
        quarantined=0,
        repaired=0,
        clipped=0,
        tokenizer=None,
        entities=None,
        statistics={},
        shards={},
        versions={},
        commit=None,
    )


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ([_file("a", "2")], "a has another content than it had"),
        ([_file("moved", "1"), _file("b", "3")], "b is new (train)"),
        ([_file("b", "3")], "b is new (train), a is not there any more (train)"),
        ([_file("a", "1", "val")], "a is new (val), a is not there any more (train)"),
        ([_file("a", "1")], "it was made by another version"),
    ],
)
def test_files(recipe: Recipe, files: list[InputFile], told: str) -> None:
    assert differences(_manifest(recipe, _file("a", "1")), recipe, files) == told


def test_the_order_of_files(recipe: Recipe) -> None:
    files = [_file("a", "1"), _file("b", "2")]
    assert differences(_manifest(recipe, *files), recipe, files[::-1]) == (
        "the files have another order"
    )


def test_settings_with_both_values_and_how_many_more(recipe: Recipe) -> None:
    wanted = replace(
        recipe,
        positive="b",
        max_chars=9,
        seed=4,
        max_length=32,
        entities="en",
        sharding=Sharding(rows=7, row_group_rows=16),
    )
    assert differences(_manifest(recipe), wanted, [_file(str(Path("x")), "1")]) == (
        "data.positive=b (there null), data.max_chars=9 (there 5000), seed=4 (there 0), "
        "features (spaCy model)=en (there null) and 3 more"
    )
