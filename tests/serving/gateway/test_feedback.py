"""Feedback: kept by the id of a prediction that was made here."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakenews.serving.gateway.feedback import Feedback, RecentIds, read_feedback
from fakenews.serving.gateway.ids import new_id
from fakenews.serving.gateway.problems import Problem

if TYPE_CHECKING:
    from tests.serving.gateway.conftest import Running

Start = Callable[..., "Running"]


def stored(gateway: "Running") -> dict[str, Any]:
    return read_feedback(gateway.folder / "feedback")


def test_the_last_word_counts(gateway: "Running") -> None:
    first, second = gateway.predict("a", "b")
    for identifier, verdict, label in (
        (first["id"], "correct", None),
        (second["id"], "unsure", None),
        (first["id"], "wrong", "real"),
    ):
        content = {"id": identifier, "verdict": verdict, "label": label}
        answer = gateway.post("/feedback", content)
        assert (answer.status_code, answer.json()) == (200, {"id": identifier, "stored": True})
    found = stored(gateway)
    assert set(found) == {first["id"], second["id"]}
    last = found[first["id"]]
    assert (last["verdict"], last["label"]) == ("wrong", "real")
    assert (last["predicted"], last["model_version"]) == (first["label"], "v1")
    assert gateway.metric('fakenews_feedback_total{verdict="wrong"}') == 1


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        ({"verdict": "correct"}, 422, "wrong_type"),
        ({"id": 3, "verdict": "correct"}, 422, "wrong_type"),
        ({"id": "x" * 1000, "verdict": "correct"}, 422, "wrong_type"),
        ({"id": "x", "verdict": "correct"}, 404, "unknown_id"),
        ({"id": "../../etc/passwd", "verdict": "correct"}, 404, "unknown_id"),
        ({"id": new_id(), "verdict": "correct"}, 404, "unknown_id"),
        ({"id": "ID", "verdict": "true"}, 422, "wrong_type"),
        ({"id": "ID", "verdict": ["correct"]}, 422, "wrong_type"),
        ({"id": "ID", "verdict": "wrong", "label": "purple"}, 422, "unknown_label"),
        ({"id": "ID", "verdict": "wrong", "label": 1}, 422, "wrong_type"),
        ({"id": "ID", "verdict": "wrong", "text": "a"}, 422, "unknown_field"),
        ([], 400, "unknown_shape"),
    ],
)
def test_feedback_that_cannot_be_kept(
    gateway: "Running", content: Any, status: int, code: str
) -> None:
    (prediction,) = gateway.predict("a")
    if isinstance(content, dict) and content.get("id") == "ID":
        content = {**content, "id": prediction["id"]}
    answer = gateway.post("/feedback", content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert stored(gateway) == {}


def test_predictions_of_earlier_processes_are_known(start: Start) -> None:
    first = start()
    (prediction,) = first.predict("a")
    first.stop()
    again = start()
    answer = again.post("/feedback", {"id": prediction["id"], "verdict": "wrong"})
    assert answer.status_code == 200
    assert stored(again)[prediction["id"]]["predicted"] == prediction["label"]


def test_explained_predictions_can_be_judged(gateway: "Running") -> None:
    identifier = gateway.post("/explain", {"text": "a b"}).json()["prediction"]["id"]
    answer = gateway.post("/feedback", {"id": identifier, "verdict": "correct"})
    assert answer.status_code == 200


def make(folder: Path) -> tuple[Feedback, str]:
    recent = RecentIds(10)
    identifier = new_id()
    recent.add(identifier, "v1", "fake", ["fake", "real"])
    feedback = Feedback(
        folder=folder / "feedback", predictions=folder / "predictions", recent=recent
    )
    return feedback, identifier


def test_what_people_said_is_not_for_everybody(tmp_path: Path) -> None:
    feedback, identifier = make(tmp_path)
    feedback.store(identifier, "correct", None)
    (path,) = (tmp_path / "feedback").iterdir()
    assert path.stat().st_mode & 0o007 == 0


def test_a_line_that_was_cut_short_costs_no_other(tmp_path: Path) -> None:
    feedback, identifier = make(tmp_path)
    feedback.store(identifier, "correct", None)
    (path,) = (tmp_path / "feedback").iterdir()
    with path.open("a") as file:
        file.write('{"id": "cut')
    feedback.store(identifier, "wrong", None)
    assert [line[:6] for line in path.read_text().splitlines()] == [
        '{"id":',
        '{"id":',
        '{"id":',
    ]
    assert read_feedback(tmp_path / "feedback")[identifier]["verdict"] == "wrong"


@pytest.mark.parametrize("small_disk", ["64k"], indirect=True)
def test_a_full_disk_is_told(small_disk: Path) -> None:
    feedback, identifier = make(small_disk)
    feedback.store(identifier, "correct", None)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 512)

    def store_many() -> None:
        for _ in range(100):
            feedback.store(identifier, "unsure", None)

    with pytest.raises(Problem, match="cannot be stored: No space left"):
        store_many()
    ballast.unlink()
    feedback.store(identifier, "wrong", None)
    assert read_feedback(small_disk / "feedback")[identifier]["verdict"] == "wrong"
    (path,) = (small_disk / "feedback").iterdir()
    for line in path.read_text().splitlines():
        json.loads(line)


def test_few_ids_are_remembered() -> None:
    recent = RecentIds(3)
    ids = [new_id() for _ in range(5)]
    for identifier in ids:
        recent.add(identifier, "v1", "fake", ["fake", "real"])
    assert [recent.get(identifier) is not None for identifier in ids] == [False] * 2 + [
        True
    ] * 3
    assert recent.classes("v1") == ("fake", "real")
    assert recent.classes("v2") == ()
