"""Tables of the page: scored by the real scorer, and kept for a while."""

import asyncio
import gzip
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fakenews.serving.gateway.page_tables import Scored, Shelf, count_rows, score, text_column
from fakenews.serving.gateway.problems import Problem
from fakenews.serving.gateway.tables import TableScorer


async def predict(items: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {"error": {"code": "empty_text", "message": "the text is empty"}}
        if not item["text"]
        else {
            "id": "x",
            "label": "fake",
            "probabilities": {"fake": 0.75, "real": 0.25},
            "truncated": False,
        }
        for item in items
    ]


def scorer(predict: Any = predict) -> TableScorer:
    return TableScorer(
        predict=predict,
        text=["text"],
        columns=[],
        chunk_rows=4,
        concurrent=1,
        most_bytes=1_000_000,
    )


def run(upload: Path, shelf: Shelf) -> list[tuple[int, int | None, str | None]]:
    async def work() -> list[tuple[int, int | None, str | None]]:
        states = score(scorer().score, shelf, upload, text=None)
        return [(state.done, state.total, state.name) async for state in states]

    return asyncio.run(work())


@pytest.fixture
def shelf() -> Any:
    found = Shelf(seconds=60)
    yield found
    found.close()
    assert not found.folder.exists()


KILLED = """
import os, signal, sys
from fakenews.serving.gateway.page_tables import Shelf
shelf = Shelf(seconds=60)
shelf.new().write_text("what people sent")
print(shelf.folder, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_deleted_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    done = subprocess.run(
        [sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True, check=False
    )
    left = Path(done.stdout.strip())
    assert len(list(left.iterdir())) == 1
    with closing(Shelf(seconds=60)) as other:
        # It may have begun just now.
        assert left.is_dir()
        for each in (left.parent, other.folder.parent):
            os.utime(each, (0, 0))
        with closing(Shelf(seconds=60)):
            assert not left.parent.exists()
            assert other.folder.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_table_is_predicted_piece_by_piece(tmp_path: Path, shelf: Shelf) -> None:
    upload = tmp_path / "a.csv"
    texts = [f"Text {n}, with a comma\nand a line" for n in range(10)]
    pd.DataFrame({"id": range(10), "text": texts}).to_csv(upload, index=False)
    found = run(upload, shelf)
    assert [state[:2] for state in found] == [(4, 10), (8, 10), (10, 10), (10, 10)]
    name = found[-1][2]
    assert name is not None
    path = shelf.find(name)
    assert path is not None
    written = pd.read_csv(path)
    assert list(written["text"]) == texts
    assert set(written["prediction"]) == {"fake"}


def test_rows_without_an_answer_are_counted(tmp_path: Path, shelf: Shelf) -> None:
    upload = tmp_path / "a.csv"
    upload.write_text('id,text\n1,one\n2,""\n3,three\n')
    states: list[Scored] = []

    async def work() -> None:
        states.extend(
            [state async for state in score(scorer().score, shelf, upload, text=None)]
        )

    asyncio.run(work())
    assert (states[-1].done, states[-1].failed) == (3, 1)
    assert [row[1] for row in states[-1].first] == ["one", "", "three"]


def test_what_fails_leaves_nothing(tmp_path: Path, shelf: Shelf) -> None:
    upload = tmp_path / "a.csv"
    upload.write_text("a,b\n1,2\n")
    with pytest.raises(Problem, match="which column is the text"):
        run(upload, shelf)
    assert list(shelf.folder.iterdir()) == []


def test_what_is_given_up_leaves_nothing_and_frees_its_place(
    tmp_path: Path, shelf: Shelf
) -> None:
    upload = tmp_path / "a.csv"
    upload.write_text("text\n" + "x\n" * 10)
    found = scorer()

    async def work() -> None:
        states = score(found.score, shelf, upload, text=None)
        await anext(states)
        await states.aclose()
        assert list(shelf.folder.iterdir()) == []
        assert [state.done async for state in score(found.score, shelf, upload, text=None)][
            -1
        ] == 10

    asyncio.run(work())


def test_files_are_kept_for_their_time(shelf: Shelf) -> None:
    shelf.seconds = 0.05
    path = shelf.new()

    async def work() -> None:
        path.write_text("x")
        shelf.keep(path)
        assert shelf.find(path.stem) == path
        while path.exists():  # noqa: ASYNC110 only the file tells
            await asyncio.sleep(0.01)

    asyncio.run(work())
    assert shelf.find(path.stem) is None


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "..", "", ".", "a/b", "sub/secret", "\0", "x" * 5000]
)
def test_other_names_find_nothing(shelf: Shelf, name: str) -> None:
    (shelf.folder.parent / "secret.csv").write_text("x")
    (shelf.folder / "sub").mkdir()
    (shelf.folder / "sub" / "secret.csv").write_text("x")
    try:
        assert shelf.find(name) is None
    finally:
        (shelf.folder.parent / "secret.csv").unlink()


def test_only_we_can_read_the_shelf(shelf: Shelf) -> None:
    assert shelf.folder.stat().st_mode & 0o077 == 0


def test_rows_are_counted(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["a\nb", "c", "d,e"]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "a.exe").write_bytes(b"no")
    counts = {
        name: count_rows(tmp_path / name)
        for name in ("a.csv", "a.parquet", "a.jsonl", "a.csv.gz", "b.parquet", "a.exe")
    }
    assert counts == {
        "a.csv": 3,
        "a.parquet": 3,
        "a.jsonl": 3,
        "a.csv.gz": None,
        "b.parquet": None,
        "a.exe": None,
    }


def test_the_column_of_the_text() -> None:
    usual = ["text", "headline"]
    assert text_column(["id", "headline"], None, usual) == "headline"
    assert text_column(["id", "headline"], "id", usual) == "id"
    assert text_column(["words"], None, usual) == "words"
