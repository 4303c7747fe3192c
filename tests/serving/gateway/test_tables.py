"""Uploaded tables: every row, with what was predicted or why not."""

import gzip
import io
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from tests.serving.gateway.conftest import Running, StandIn

Start = Callable[..., "Running"]

CSV = b"""\
id,headline,age
7,"Rain, again",3
8,,4
9,MISSING,5
10,cut
12,"two
lines",6
"""
ADDED = ["prediction", "probability_fake", "probability_real", "truncated", "error"]


def upload(
    gateway: "Running", content: bytes, name: str = "news.csv", **fields: str
) -> httpx.Response:
    return gateway.client.post("/predict/csv", files={"file": (name, content)}, data=fields)


def table(answer: httpx.Response) -> pd.DataFrame:
    assert answer.status_code == 200, answer.text
    return pd.read_csv(io.BytesIO(answer.content), dtype=str, keep_default_na=False)


@pytest.mark.parametrize("rows", [1, 2, 128])
def test_every_row_in_order(start: Start, rows: int) -> None:
    gateway = start({"tables.chunk_rows": rows})
    answer = upload(gateway, CSV)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    found = table(answer)
    assert found.columns.tolist() == ["id", "headline", "age", *ADDED, "prediction_id"]
    assert found["id"].tolist() == ["7", "8", "9", "10", "12"]
    assert found["headline"].tolist()[-1] == "two\nlines"
    assert found["error"].tolist() == [
        "",
        "the text is empty",
        "the column age is missing",
        "line 5: 2 cells where the header has 3",
        "",
    ]
    good = found["error"] == ""
    assert set(found["prediction"][good]) <= {"fake", "real"}
    logged = [line for line in gateway.logged() if line["error"] is None]
    assert found["prediction_id"][good].tolist() == [line["id"] for line in logged]
    assert {line["route"] for line in logged} == {"champion"}


def test_the_same_as_requests_one_by_one(gateway: "Running") -> None:
    found = table(upload(gateway, CSV))
    single = gateway.predict("Rain, again")[0]
    assert found["prediction"][0] == single["label"]
    assert float(found["probability_fake"][0]) == single["probabilities"]["fake"]


def _parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


FRAME = pd.DataFrame({"text": ["a b", "c"], "n": [1, 2]})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", b"text\tn\na b\t1\nc\t2\n"),
        ("a.jsonl", b'{"text": "a b", "n": 1}\n{"text": "c", "n": 2}\n'),
        ("a.parquet", _parquet(FRAME)),
        ("A.CSV.GZ", gzip.compress(b"text,n\na b,1\nc,2\n", mtime=0)),
        ("../../etc/we ird\\näme;.csv", b"text;n\na b;1\nc;2\n"),
        ("utf16.csv", "text,n\na b,1\nc,2\n".encode("utf-16")),
    ],
)
def test_formats(gateway: "Running", name: str, content: bytes) -> None:
    found = table(upload(gateway, content, name))
    assert found["text"].tolist() == ["a b", "c"]
    assert found["n"].tolist() == ["1", "2"]
    assert (found["error"] == "").all()


def test_which_column_is_the_text(gateway: "Running") -> None:
    content = b"title,claim\na,b\n"
    assert table(upload(gateway, content))["prediction"][0]
    texts = table(upload(gateway, content, text="claim"))
    assert gateway.predict("b")[0]["label"] == texts["prediction"][0]
    assert table(upload(gateway, b"whatever\na\n"))["prediction"][0]
    answer = upload(gateway, b"one,two\na,b\n")
    assert answer.status_code == 422
    assert answer.json()["error"]["message"] == (
        "table.csv: which column is the text? Name one of one, two with the field text"
    ).replace("table", "news")
    answer = upload(gateway, content, text="clam")
    assert "did you mean 'claim'" in answer.json()["error"]["message"]


def test_columns_that_the_model_reads(start: Start) -> None:
    gateway = start({"tables.columns": ["age"]})
    table(upload(gateway, b"text,age\na,3\n"))
    assert gateway.logged()[0]["columns"] == {"age": "3"}
    answer = upload(gateway, b"text\na\n")
    assert "no column 'age'" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "a.csv: the file is empty"),
        ("a.csv", b"text\n", "a.csv: the file has a header but no rows"),
        ("a.xlsx", b"PK", "a.xlsx: cannot tell the format"),
        ("a", b"text\na\n", "a: cannot tell the format"),
        ("a.csv", b"text\n\x00\n", "a NUL byte"),
        ("a.parquet", b"PAR1nonsense", "the Parquet file is truncated or damaged"),
        ("a.csv.gz", b"text\na\n", "the gzip file is truncated or damaged"),
        (
            "a.csv.gz",
            gzip.compress(b"text\na\n", mtime=0)[:-5],
            "the gzip file is truncated or damaged",
        ),
        ("a.csv", b"text,error\na,b\n", "already has the column error: rename it"),
    ],
)
def test_tables_that_cannot_be_read(
    gateway: "Running", name: str, content: bytes, message: str
) -> None:
    answer = upload(gateway, content, name)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_table")
    assert message in answer.json()["error"]["message"]
    assert "fakenews-table" not in answer.text


def test_forms_without_a_file(gateway: "Running") -> None:
    answer = gateway.client.post("/predict/csv", files={"other": ("a.csv", b"text\na\n")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "no_file")
    answer = gateway.client.post("/predict/csv", files={"text": (None, b"a")})
    assert answer.status_code == 422
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = gateway.client.post("/predict/csv", content=b"nonsense", headers=headers)
    assert answer.status_code in (400, 422)
    headers = {"content-type": "multipart/form-data"}
    answer = gateway.client.post("/predict/csv", content=b"nonsense", headers=headers)
    assert answer.status_code == 400


def test_tables_that_are_too_large(start: Start) -> None:
    gateway = start({"bounds.table_bytes": 10_000})
    rows = b"text\n" + b"word\n" * 3000
    assert upload(gateway, rows).status_code == 413
    assert upload(gateway, gzip.compress(rows, mtime=0), "a.csv.gz").status_code == 413
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"] * 20_000}), buffer)
    assert len(buffer.getvalue()) < 10_000
    assert upload(gateway, buffer.getvalue(), "a.parquet").status_code == 413


def test_no_row_could_be_answered(gateway: "Running") -> None:
    found = table(upload(gateway, b'text\nMISSING\n""\n'))
    assert found.columns.tolist() == [
        "text",
        "prediction",
        "truncated",
        "error",
        "prediction_id",
    ]


def test_a_model_that_is_away(start: Start, stand_in: "StandIn") -> None:
    gateway = start({"deadline": 0.5})
    stand_in.behave(any={"status": 503})
    answer = upload(gateway, CSV)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_a_model_that_goes_away_in_the_middle(start: Start, stand_in: "StandIn") -> None:
    gateway = start({"deadline": 0.5, "tables.chunk_rows": 1, "cache_size": 0})
    stand_in.behave(any={"status": 503, "every": 3})
    content = b"text\n" + b"".join(b"row %d\n" % n for n in range(6))
    found = table(upload(gateway, content))
    assert len(found) == 6
    assert (found["prediction"] != "").sum() >= 3


def test_few_tables_at_once(start: Start, stand_in: "StandIn") -> None:
    gateway = start({"tables.concurrent": 1})
    stand_in.behave(any={"delay": 0.5})
    statuses: list[Any] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(upload(gateway, CSV).status_code))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 503]
    stand_in.behave()
    assert upload(gateway, CSV).status_code == 200


def test_nothing_is_left(gateway: "Running") -> None:
    before = set(Path(tempfile.gettempdir()).glob("fakenews-table-*"))
    upload(gateway, CSV)
    upload(gateway, b"", "a.csv")
    assert set(Path(tempfile.gettempdir()).glob("fakenews-table-*")) <= before
