"""Which labelled rows count: the rules, on tables of a few rows."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakenews.data.cleaning import Cleaning
from fakenews.retraining import selection
from fakenews.retraining.rows import BATCH, Columns, parquet_writer

START = datetime(2026, 3, 1, tzinfo=UTC)
SCHEMA = Columns().feedback_schema


def said(
    text: str, label: str, hour: float | None = None, *, user: str | None = None, **more: Any
) -> dict[str, Any]:
    """A labelled row."""
    time = None if hour is None else START + timedelta(hours=hour)
    given = {"text": text, "label": label, "time": time, "_user": user, "_rank": 0}
    return dict.fromkeys(SCHEMA.names) | given | more


@pytest.fixture
def settle(tmp_path: Path) -> Callable[..., tuple[dict[str, str], dict[str, str]]]:
    """Applies the rules; what becomes of labelled rows by their ids, or by their texts, and
    why rows of the base are left out, by their texts."""

    def settle(
        rows: Sequence[dict[str, Any]],
        *,
        base: Sequence[tuple[str, str]] = (),
        test: Sequence[tuple[str, str]] = (),
        majority: bool = True,
        max_share: float | None = None,
        window_rows: int = 0,
        threshold: float = 0.8,
        doubted: Sequence[int] = (),
    ) -> tuple[dict[str, str], dict[str, str]]:
        given, feedback = tmp_path / "given.parquet", tmp_path / "feedback.parquet"
        with parquet_writer(given, SCHEMA) as writer:
            writer.write_table(pa.Table.from_pylist(list(rows), SCHEMA))
        (tmp_path / "sketches").mkdir()
        with duckdb.connect() as database:
            database.execute("SET TimeZone = 'UTC'")
            selection.sort_feedback(database, [given], feedback, SCHEMA)
            sorted_rows = pq.read_table(feedback)
            tables = {
                "feedback": sorted_rows,
                "base": pa.table({"text": [t for t, _ in base], "label": [c for _, c in base]}),
                "test": pa.table({"text": [t for t, _ in test], "label": [c for _, c in test]}),
            }
            for part, table in tables.items():
                selection.write_sketches(
                    tmp_path / "sketches" / f"{part}.parquet",
                    part,
                    [table] if table.num_rows else [],
                    cleaning=Cleaning(),
                    threshold=threshold,
                )
            selection.make_tables(
                database, tmp_path / "sketches", feedback, threshold=threshold
            )
            selection.choose(
                database,
                classes=["fake", "real"],
                majority=majority,
                max_share=max_share,
                window_rows=window_rows,
            )
            selection.doubt(database, doubted)
            selection.settle_with_base(database, majority=majority)
            names = [row["id"] or row["text"] for row in sorted_rows.to_pylist()]
            outcomes = dict(zip(names, selection.outcomes(database), strict=True))
            removed = selection.removed(database)
        return outcomes, {base[place][0]: reason for place, reason in removed.items()}

    return settle


Settle = Callable[..., tuple[dict[str, str], dict[str, str]]]


def test_of_equal_texts_that_agree_the_newest_is_kept(settle: Settle):
    rows = [
        said("Rain falls today", "real", 1),
        said("RAIN falls, today!", "real", 3),
        said("rain falls today", "real", 2),
        said("Sun shines", "fake", 1),
    ]
    found, _ = settle(rows)
    assert found == {
        "Rain falls today": selection.REPEATED,
        "RAIN falls, today!": "train",
        "rain falls today": selection.REPEATED,
        "Sun shines": "train",
    }


@pytest.mark.parametrize(
    ("labels", "winner"),
    [
        ("ffr", "fake"),
        ("frr", "real"),
        ("fr", None),
        ("ffrr", None),
        ("f", "fake"),
    ],
)
@pytest.mark.parametrize("majority", [True, False])
def test_of_several_classes_that_of_most_counts_or_none(
    settle: Settle, labels: str, winner: str | None, majority: bool
):
    names = {"f": "fake", "r": "real"}
    rows = [
        said("Rain falls", names[one], hour, id=f"p{hour}") for hour, one in enumerate(labels)
    ]
    found, _ = settle(rows, majority=majority)
    several = len(set(labels)) > 1
    if winner is None or (several and not majority):
        assert set(found.values()) == {selection.CONFLICT}
        return
    of = [f"p{hour}" for hour, one in enumerate(labels) if names[one] == winner]
    assert found == {
        **dict.fromkeys(found, selection.OUTVOTED),
        **dict.fromkeys(of, selection.REPEATED),
        of[-1]: "train",
    }


def test_a_user_has_one_vote_a_text_and_files_of_labels_outrank_feedback(settle: Settle):
    text = "Rain falls"
    rows = [said(text, "fake", hour, user="troll", id=f"t{hour}") for hour in range(5)]
    rows += [said(text, "real", 9, user=name, id=name) for name in ("anna", "bert")]
    found, _ = settle(rows)
    assert found["bert"] == "train"
    assert found["t4"] == selection.OUTVOTED


def test_files_of_labels_outrank_feedback(settle: Settle):
    rows = [said("Rain falls", "fake", hour, id=f"p{hour}") for hour in range(3)]
    rows += [said("Rain falls", "real", 0, id="expert", _rank=1)]
    rows += [said("Rain falls", "real", 9, id="p9")]
    found, _ = settle(rows)
    assert found == {
        **dict.fromkeys(("p0", "p1", "p2"), selection.OUTVOTED),
        "expert": "train",
        "p9": selection.REPEATED,
    }


def test_rows_that_cannot_be_used(settle: Settle):
    rows = [
        said(" \u200b ", "fake", 1),
        said("Rain falls", "satire", 2),
        said("Sun", "real", 3),
    ]
    found, _ = settle(rows)
    assert list(found.values()) == [selection.EMPTY, selection.UNKNOWN, "train"]


def test_one_id_is_one_row(settle: Settle):
    rows = [
        said("Rain falls", "fake", 1, id="p1"),
        said("Rain falls", "real", 1, id="p1", _rank=1),
        said("Sun shines", "real", 1),
        said("Sun shines", "real", 1),
    ]
    found, _ = settle(rows)
    assert found == {"p1": "train", "Sun shines": "train"}


LONG = "the council of the old town opens {} new schools in the north this year"


def test_nothing_near_the_test_set_or_the_window_is_learnt(settle: Settle):
    base = [(LONG.format("five"), "real"), ("Rain falls on the harbour", "fake")]
    test = [("Wolves are seen near the station of the town at night", "real")]
    rows = [
        said(
            "Wolves are seen near the station of the town by night", "fake", 1, id="near test"
        ),
        said(LONG.format("six"), "real", 2, id="near window"),
        said("A quiet day", "real", 3, id="other"),
        said("Sun shines on the mill", "real", 4, id="another"),
        said(LONG.format("seven"), "real", 5, id="newest"),
    ]
    found, removed = settle(rows, base=base, test=test, window_rows=1)
    assert found == {
        "near test": selection.NEAR_TEST,
        "near window": selection.NEAR_WINDOW,
        "other": "train",
        "another": "train",
        "newest": "window",
    }
    assert removed == {LONG.format("five"): selection.NEAR_WINDOW}


def test_a_base_that_is_near_the_test_set(settle: Settle):
    # As validation rows may be, of official splits.
    base = [(LONG.format("five"), "real"), ("Rain falls on the harbour", "fake")]
    _, removed = settle(
        [said("Sun", "real", 1)], base=base, test=[(LONG.format("two"), "fake")]
    )
    assert removed == {LONG.format("five"): selection.NEAR_TEST}


def test_equal_texts_alone_are_near_at_a_threshold_of_1(settle: Settle):
    base = [("Rain falls!", "fake"), (LONG.format("five"), "real")]
    rows = [said("Storm", "real", 1), said("rain falls", "real", 2)]
    test = [("RAIN FALLS", "real"), (LONG.format("six"), "real")]
    found, removed = settle(rows, base=base, test=test, threshold=1)
    assert found == {"Storm": "train", "rain falls": selection.NEAR_TEST}
    assert removed == {"Rain falls!": selection.NEAR_TEST}


@pytest.mark.parametrize("majority", [True, False])
def test_texts_of_the_base(settle: Settle, majority: bool):
    base = [
        ("Rain falls", "fake"),
        ("Sun shines", "fake"),
        ("Snow melts", "real"),
        ("snow melts", "fake"),
        ("Wind turns", "real"),
    ]
    rows = [
        said("RAIN FALLS", "real", 1),
        said("Sun shines", "fake", 2),
        said("Snow melts", "real", 3),
    ]
    found, removed = settle(rows, base=base, majority=majority)
    if majority:
        # What people say now counts, and whoever agrees with it says nothing new.
        assert found == {
            "RAIN FALLS": "train",
            "Sun shines": selection.IN_BASE,
            "Snow melts": selection.IN_BASE,
        }
        assert removed == dict.fromkeys(("Rain falls", "snow melts"), selection.OVERRULED)
    else:
        assert found == {
            "RAIN FALLS": selection.CONFLICT,
            "Sun shines": selection.IN_BASE,
            "Snow melts": selection.CONFLICT,
        }
        assert set(removed) == {"Rain falls", "Snow melts", "snow melts"}
        assert set(removed.values()) == {selection.CONFLICT}


def test_a_doubted_label_does_not_overrule_the_base(settle: Settle):
    found, removed = settle(
        [said("RAIN FALLS", "real", 1), said("Sun shines", "real", 2)],
        base=[("Rain falls", "fake")],
        doubted=[0],
    )
    assert found == {"RAIN FALLS": selection.DOUBTED, "Sun shines": "train"}
    assert removed == {}


@pytest.mark.parametrize(("wanted", "held_out"), [(0, 0), (3, 3), (100, 5)])
def test_the_window_is_the_newest_and_never_more_than_half(
    settle: Settle, wanted: int, held_out: int
):
    words = ["rain", "sun", "snow", "wind", "hail", "fog", "ice", "dew", "mist", "storm"]
    rows = [said(word, "real", hour) for hour, word in enumerate(words)]
    # Without a time nothing is new.
    rows[9] = said("storm", "real")
    found, _ = settle(rows, window_rows=wanted)
    assert {text for text, outcome in found.items() if outcome == "window"} == set(
        words[9 - held_out : 9]
    )


def test_the_newest_rows_of_who_floods_stay(settle: Settle):
    rows = [said(f"t{n} alarm", "fake", n, user="troll", id=f"t{n}") for n in range(60)]
    rows += [said(f"o{n} news", "real", n, id=f"o{n}") for n in range(75)]
    found, _ = settle(rows, max_share=0.25)
    kept = {name for name, outcome in found.items() if outcome == "train"}
    assert kept == {f"t{n}" for n in range(35, 60)} | {f"o{n}" for n in range(75)}
    assert found["t34"] == selection.FLOOD


@given(
    counts=st.lists(st.integers(1, 5000), max_size=12),
    others=st.integers(0, 5000),
    max_share=st.floats(0.01, 1),
)
def test_no_user_has_more_than_a_share(counts: list[int], others: int, max_share: float):
    most = selection.most_of_one(counts, others=others, max_share=max_share)
    kept = [min(count, most) for count in counts]
    if not counts or (len(counts) == 1 and not others):
        assert kept == counts
        return
    total = sum(kept) + others
    assert max(kept) <= max(max_share * total, 20)
    # Nobody is left out without need.
    if most < max(counts):
        more = [min(count, most + 1) for count in counts]
        assert max(more) > max_share * (sum(more) + others)
    assert kept == counts or most >= 20


def test_order_and_batches_do_not_matter(tmp_path: Path):
    rows = [said(f"row {n}", "real", n % 7, id=f"p{n}" if n % 2 else None) for n in range(50)]
    found = []
    for number, order in enumerate((rows, rows[::-1], [*rows[25:], *rows[:25], *rows[:9]])):
        paths = [tmp_path / f"{number}-a.parquet", tmp_path / f"{number}-b.parquet"]
        for path, part in zip(paths, (order[:20], order[20:]), strict=True):
            with parquet_writer(path, SCHEMA) as writer:
                writer.write_table(pa.Table.from_pylist(part, SCHEMA))
        out = tmp_path / f"{number}.parquet"
        with duckdb.connect() as database:
            selection.sort_feedback(database, paths, out, SCHEMA)
        found.append(pq.read_table(out))
    assert found[0].num_rows == 50 < BATCH
    assert found[0].equals(found[1])
    assert found[0].equals(found[2])
