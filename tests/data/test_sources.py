"""Reading files: every format and encoding, every fault, all at once."""

import gzip
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fakenews.data.sources import classes, read_chunks, read_table
from fakenews.errors import DataError

FIXTURE = Path(__file__).parent / "fixtures" / "headlines.csv"
ROWS = [
    ("It's over", "real", 1.5, "de"),
    ("null", "fake", np.nan, ""),
    ("“Ünï” 👍", "fake", -2e3, "en"),
]


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def faults(*args: object, **options: object) -> list[str]:
    options = {"text": "text", "label": "label"} | options
    with pytest.raises(DataError) as caught:
        read_table(*args, **options)
    assert "\n" not in str(caught.value)
    return caught.value.faults


def as_delimited(delimiter: str) -> str:
    lines = [["text", "label", "score", "lang"]]
    lines += [[t, y, "" if np.isnan(x) else repr(x), c] for t, y, x, c in ROWS]
    return "".join(delimiter.join(cells) + "\r\n" for cells in lines)


def as_json() -> str:
    keys = ("text", "label", "score", "lang")
    rows = [dict(zip(keys, row, strict=True)) for row in ROWS]
    rows[1] = {"label": "fake", "text": "null", "score": None}
    return "\n".join(map(json.dumps, rows)) + "\n\n"


@pytest.mark.parametrize(
    "name",
    ["a.csv", "a.CSV", "a.tsv", "a.csv.gz", "a.jsonl", "a.ndjson.gz", "a.json", "a.parquet",
     "semicolon.csv", "bom.csv", "utf16.csv"],
)  # fmt: skip
def test_every_format_gives_the_same_frame(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if ".json" in name or "ndjson" in name:
        write(path, as_json())
    elif name.endswith(".parquet"):
        columns = ["text", "label", "score", "lang"]
        pd.DataFrame(ROWS, columns=columns).to_parquet(path, index=False)
    else:
        text = as_delimited({"a.tsv": "\t", "semicolon.csv": ";"}.get(name, ","))
        codec = {"bom.csv": "utf-8-sig", "utf16.csv": "utf-16"}.get(name, "utf-8")
        write(path, text.encode(codec))
    table = read_table(
        path, text="text", label="label", numeric=["score"], categorical=["lang"]
    )
    frame = table.frame
    assert frame["raw"].tolist() == [row[0] for row in ROWS]
    assert frame["text"].tolist() == [row[0] for row in ROWS]
    assert frame["label"].tolist() == [row[1] for row in ROWS]
    np.testing.assert_array_equal(frame["score"], [row[2] for row in ROWS])
    assert frame["lang"].tolist() == [row[3] for row in ROWS]
    assert frame["row"].tolist() == [1, 2, 3]
    assert set(frame["file"]) == {str(path)}
    [file] = table.files
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (file.bytes, file.rows) == (path.stat().st_size, 3)


def test_the_fixture() -> None:
    table = read_table(
        FIXTURE, text="headlines", label="outcome", label_names={0: "fake", "1": "real"}
    )
    assert table.frame["label"].value_counts().to_dict() == {"fake": 9, "real": 6}
    assert table.frame["text"][0].startswith("A post claims that the vaccine doesn\u2019t work")
    assert table.frame["raw"][0].startswith("A post claims that the vaccine doesnâ€™t")
    assert "NA" in set(table.frame["text"])
    assert table.frame["text"][9] == "Ministry publishes weekly figures on vaccination"
    assert table.frame["row"][9] == 11
    assert table.repaired == 2
    assert table.dropped.to_dict("records") == [
        {"file": str(FIXTURE), "row": 9, "reason": "empty text"}
    ]


def test_windows_1252_is_the_second_choice(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\nIt\u2019s Müller,a\nb,b\n".encode("cp1252"))
    table = read_table(path, text="text", label="label")
    assert table.frame["raw"][0] == "It\u2019s Müller"
    assert table.files[0].encoding == "windows-1252"


def test_bytes_of_no_encoding_are_located(tmp_path: Path) -> None:
    content = b'text,label\n"two\nlines",a\nok,b\nbad \x81 byte,a\n'
    [fault] = faults(write(tmp_path / "a.csv", content))
    assert f"row 3, byte {content.index(0x81)}: 0x81 is not UTF-8 or WINDOWS-1252" in fault
    lines = b'{"text": "a"}\n{"text": "\x81"}\n'
    [fault] = faults(write(tmp_path / "a.jsonl", lines))
    assert f"row 2, byte {lines.index(0x81)}" in fault
    far = b"text,label\n" + b"a,b\n" * 300_000 + b"\x8f\xc3(,b\n"
    [fault] = faults(write(tmp_path / "far.csv", far))
    assert f"row 300001, byte {far.index(0x8F)}" in fault
    [fault] = faults(write(tmp_path / "half.csv", b"\xff\xfet\x00e\x00x"))
    assert "UTF-16" in fault


def test_binary_files_are_refused(tmp_path: Path) -> None:
    [fault] = faults(write(tmp_path / "a.csv", b"text,label\na\x00b,c\n"))
    assert "row 1, byte 12: a NUL byte" in fault


def test_all_faults_of_all_files_are_reported_together(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "txt,label\na,b\n")
    write(tmp_path / "2.csv", "text,label,n\na,b,1\nb,c,many\nc,b,inf\n")
    write(tmp_path / "3.csv", "")
    write(tmp_path / "4.csv", "text,label,n\n")
    write(tmp_path / "5.jsonl", '{"text": "a", "label": "b", "n": 1}\n{"text": \n[1]\n')
    write(tmp_path / "6.csv", 'text,label,n\nshort\n"ok",b,1\n"open,b,1\nmore,b,1\n')
    write(tmp_path / "7.csv", 'text,label,n\n"a" b,c,1\n')
    write(tmp_path / "8.parquet", b"PAR1 not really PAR1")
    write(
        tmp_path / "9.csv.gz", "text,label,n\n" + "".join(f"{i},b,{i}\n" for i in range(9999))
    )
    cut = (tmp_path / "9.csv.gz").read_bytes()[:-100]
    (tmp_path / "9.csv.gz").write_bytes(cut)
    paths = [tmp_path, tmp_path / "gone.csv", tmp_path / "no*.csv", tmp_path / "x.xlsx"]
    write(tmp_path / "x.xlsx", b"PK")
    found = faults(paths, numeric=["n"])
    for name, message in [
        ("1.csv", "no column 'text', did you mean 'txt'? columns: 'txt', 'label'"),
        ("1.csv", "no column 'n'"),
        ("2.csv", "row 2, column 'n': 'many' is not a finite number"),
        ("2.csv", "row 3, column 'n': 'inf' is not a finite number"),
        ("3.csv", "the file is empty"),
        ("4.csv", "header but no rows"),
        ("5.jsonl", "row 2, not valid JSON (Expecting value, character"),
        ("5.jsonl", "row 3, a line must be one JSON object"),
        ("6.csv", "row 1, line 2: 1 cell where the header has 3"),
        ("6.csv", "row 3, line 4: a quote that is opened here is never closed"),
        ("7.csv", "row 1, line 2: text follows a closing quote"),
        ("8.parquet", "the Parquet file is truncated or damaged"),
        ("9.csv.gz", "the gzip file is truncated or damaged"),
        ("gone.csv", "no such file"),
        ("no*.csv", "no file matches"),
        ("x.xlsx", "cannot tell the format"),
    ]:
        assert any(f.startswith(str(tmp_path / name)) and message in f for f in found), message
    assert len(found) == 16


def test_many_faults_of_one_kind_are_counted(tmp_path: Path) -> None:
    found = faults(write(tmp_path / "a.csv", "text,label\n" + "a\n" * 100))
    assert len(found) == 6
    assert found[-1].endswith("95 more rows like these")


def test_label_names_must_cover_every_value(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\na,0\nb,2\nc,\n")
    [fault] = faults(path, label_names={"0": "fake", "1": "real"})
    assert "row 2, column 'label': value '2' has no name; label_names has '0', '1'" in fault


def test_columns_that_clash(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label,row,n\na,b,1,2\n")
    found = faults(path, numeric=["row", "n", "label"], categorical=["n"])
    assert sum("named twice" in f for f in found) == 1
    assert sum("both an extra column and the label" in f for f in found) == 1
    assert sum("a name the program uses" in f for f in found) == 1
    assert faults(path, label="text") == ["column 'text' is both the text and the label"]
    repeated = write(tmp_path / "b.csv", "text,label,text,,\na,b,c,,\n")
    assert "'text' more than once" in faults(repeated)[0]
    write(repeated, "text,label,,,\na,b,,,\n")
    assert len(read_table(repeated, text="text", label="label").frame) == 1


def test_folders_globs_and_repeated_files(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "weird[1].csv"):
        write(tmp_path / name, f"text,label\nfrom {name},x\n")
    write(tmp_path / "notes.txt", "not data")
    names = ["a.csv", "b.csv", "weird[1].csv"]
    everything = read_table(tmp_path, text="text", label="label")
    assert everything.frame["raw"].tolist() == [f"from {name}" for name in names]
    some = read_table(
        [str(tmp_path / "[ab].csv"), tmp_path / "a.csv", tmp_path / "weird[1].csv"],
        text="text",
        label="label",
    )
    assert [Path(file.path).name for file in some.files] == names
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "has no CSV" in faults(empty)[0]
    assert faults([]) == ["no data file was given"]


def test_rows_without_text_or_label_are_dropped_and_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\n \u200b,a\nb,\n\n,\nfine,a\n")
    table = read_table(path, text="text", label="label")
    assert table.frame[["text", "row"]].to_numpy().tolist() == [["fine", 4]]
    assert table.dropped["row"].tolist() == [1, 2, 3]
    assert table.dropped["reason"].tolist() == ["empty text", "missing label", "empty text"]
    write(path, "text,label\n,a\n")
    assert "no row has a text and a label" in faults(path)[0]


def test_unlabelled_data_and_options_for_the_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text\n" + "A LONG text. " * 50 + "\nShort!\n")
    table = read_table(path, text="text", label=None, max_chars=20, normalise=True)
    assert "label" not in table.frame
    assert table.frame["text"].tolist() == ["a long text. a long", "short"]
    assert table.clipped == 1


def test_huge_cells_and_lone_surrogates(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\n" + "x" * 1_000_000 + ",a\n")
    assert len(read_table(path, text="text", label="label").frame["raw"][0]) == 1_000_000
    write(path, "text,label\n" + "x" * (17 << 20) + ",a\nfine,a\n")
    assert "longer than 16 MiB" in faults(path)[0]
    lines = write(tmp_path / "a.jsonl", '{"text": "half \\ud83d pair", "label": true}\n')
    frame = read_table(lines, text="text", label="label").frame
    assert frame[["text", "label"]].to_numpy().tolist() == [["half \ufffd pair", "true"]]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\na,b\n")
    path.chmod(0)
    assert "cannot be read (Permission denied)" in faults(path)[0]


def test_a_folder_named_like_a_file_is_read_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    assert "has no CSV" in faults(tmp_path / "a.csv")[0]


# --- classes -------------------------------------------------------------------------


def frame_of(labels: str) -> pd.DataFrame:
    return pd.DataFrame({"label": list(labels)}, dtype="str")


def test_classes_and_the_rarest_as_positive() -> None:
    assert classes(frame_of("bbbaacc")) == (["a", "b", "c"], "a")
    assert classes(frame_of("bbbaacc"), "b") == (["a", "b", "c"], "b")


def test_classes_that_cannot_be_learned() -> None:
    for labels, positive, messages in [
        ("aaa", None, ["only one class, 'a'"]),
        ("aab", None, ["1 class with a single row, two are needed: 'b'"]),
        ("aabb", "B", ["no class 'B', did you mean 'b'? classes: 'a', 'b'"]),
        ("a", "x", ["only one class", "single row", "no class 'x'; classes: 'a'"]),
        ("", None, ["no rows"]),
    ]:
        with pytest.raises(DataError) as caught:
            classes(frame_of(labels), positive)
        assert len(caught.value.faults) == len(messages)
        for fault, message in zip(caught.value.faults, messages, strict=True):
            assert message in fault


# --- chunks --------------------------------------------------------------------------


def test_chunks_keep_every_row_in_order_with_its_fault(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        b'id,text,n\n1,One. ,1\n2,,2\n3,Three\n4,Four,x\n5,F\x81ve,5\n6,Six,\n7,"Seven,7\n',
    )
    chunks = list(read_chunks(path, text="text", numeric=["n"], chunk_rows=3))
    assert [len(chunk.frame) for chunk in chunks] == [3, 3, 1]
    frame = pd.concat([chunk.frame for chunk in chunks], ignore_index=True)
    original = pd.concat([chunk.original for chunk in chunks], ignore_index=True)
    assert frame["row"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert original["id"].tolist() == ["1", "2", "3", "4", "5", "6", ""]
    assert original["text"][0] == "One. "
    assert frame["text"][0] == "One."
    assert [e is None for e in frame["error"]] == [
        True,
        False,
        False,
        False,
        False,
        True,
        False,
    ]
    assert frame["error"][1] == "the text is empty"
    assert "2 cells where the header has 3" in frame["error"][2]
    assert frame["error"][3] == "column 'n': 'x' is not a finite number"
    assert "byte 0x81" in frame["error"][4]
    assert "never closed" in frame["error"][6]
    np.testing.assert_array_equal(frame["n"], [1, 2, np.nan, np.nan, 5, np.nan, np.nan])


def test_chunks_of_json_lines_and_parquet(tmp_path: Path) -> None:
    lines = write(
        tmp_path / "a.jsonl", '{"text": "a", "x": [1]}\n{broken\n{"y": 2, "text": "c"}\n'
    )
    [chunk] = read_chunks(lines, text="text")
    assert chunk.original.columns.tolist() == ["text", "x", "y"]
    assert chunk.original["x"].tolist() == ["[1]", "", ""]
    assert "not valid JSON" in chunk.frame["error"][1]
    table = tmp_path / "a.parquet"
    pd.DataFrame({"text": [f"t{i}" for i in range(20_000)], "k": range(20_000)}).to_parquet(
        table
    )
    chunks = list(read_chunks(table, text="text", categorical=["k"], chunk_rows=9_000))
    assert [len(chunk.frame) for chunk in chunks] == [9_000, 9_000, 2_000]
    assert chunks[2].frame["k"].iloc[-1] == "19999"


def test_chunks_of_a_file_that_is_no_use(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "txt\na\n")
    with pytest.raises(DataError, match="did you mean 'txt'"):
        next(read_chunks(path, text="text"))
    write(path, "text\n")
    with pytest.raises(DataError, match="no rows"):
        next(read_chunks(path, text="text"))
