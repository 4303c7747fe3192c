"""The work folder."""

from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from fakenews.errors import DataError
from fakenews.preparation.recipe import InputFile, Recipe
from fakenews.preparation.work import Work, drafted, told


def test_the_work_of_another_recipe_is_removed(
    tmp_path: Path, tokenizer: Tokenizer, recipe: Recipe
) -> None:
    work = Work(tmp_path)
    work.begin("one", recipe, tokenizer)
    (work.rows / "x.arrow").touch()
    assert work.is_of("one")
    assert work.recipe().fingerprint([]) == recipe.fingerprint([])
    assert work.tokenizer().to_str() == tokenizer.to_str()
    work.begin("one", recipe, tokenizer)
    assert (work.rows / "x.arrow").exists()
    work.begin("two", replace(recipe, seed=5), tokenizer)
    assert not (work.rows / "x.arrow").exists()
    assert work.recipe().seed == 5


def test_a_file_appears_when_it_is_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail() -> None:
        with drafted(tmp_path / "a") as draft:
            draft.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
    with drafted(tmp_path / "a") as draft:
        draft.write_text("whole")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]


def test_a_fault_of_the_disk_is_told_with_what_to_do(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=r"cannot be written.*prepare\.work_dir"),
        told(tmp_path),
    ):
        (tmp_path / "none" / "file").write_text("")


def test_the_fingerprint_follows_content_and_settings_not_places(recipe: Recipe) -> None:
    def source(path: str, sha256: str) -> InputFile:
        return InputFile(role="train", path=path, bytes=1, mtime_ns=1, sha256=sha256)

    one = recipe.fingerprint([source("a", "1")])
    assert one == recipe.fingerprint([source("b", "1")])
    assert one != recipe.fingerprint([source("a", "2")])
    assert one != replace(recipe, max_chars=10).fingerprint([source("a", "1")])
