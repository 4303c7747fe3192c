"""Aliases and tags in a real store, and what can be wrong with it."""

import http.server
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from fakenews.errors import RetrainingError, TrackingError
from fakenews.retraining.registry import Registry
from fakenews.retraining.standing import Aliases, Gate

pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader")


def test_who_is_what_and_what_is_known(registry: Registry) -> None:
    found = registry.status()
    assert found.model == "news"
    assert found.aliases == Aliases() == registry.aliases()
    assert sorted(found.versions) == [1, 2, 3, 4]
    two = found.find(2)
    assert two.run is not None
    assert (two.version, two.description) == (2, "The summary of 2")
    assert two.gate == Gate(accepted=True, summary="9 of 9 checks passed")
    assert two.metrics == {"test_macro_f1": 0.82}
    assert (two.archive, two.tags["data_hash"]) == (None, "d2")
    assert found.find(4).gate is None
    assert found.held("champion") is None
    with pytest.raises(RetrainingError, match=r"version=9: news has no such version; there"):
        found.find(9)


def test_a_life(registry: Registry) -> None:
    assert registry.promote(1) == Aliases(champion=1)
    assert registry.propose(2) == Aliases(champion=1, challenger=2)
    assert registry.promote(2) == Aliases(champion=2, previous=1)
    # Again, it is as it was.
    assert registry.promote(2) == Aliases(champion=2, previous=1)
    assert registry.propose(3) == Aliases(champion=2, challenger=3, previous=1)
    assert registry.propose(4) == Aliases(champion=2, challenger=4, previous=1)
    assert registry.promote(3) == Aliases(champion=3, challenger=4, previous=2)
    assert registry.roll_back() == Aliases(champion=2, challenger=4, previous=3)
    assert registry.aliases() == Aliases(champion=2, challenger=4, previous=3)
    standing = registry.status()
    champion = standing.held("champion")
    assert champion is not None
    assert champion.version == 2
    assert standing.aliases.of(4) == ["challenger"]


def test_tags_are_set_and_taken_away(registry: Registry) -> None:
    registry.note_gate(4, Gate(accepted=False, summary="ap\n" + 600 * "x"))
    registry.note_data(4, digest="abc", dataset="v7")
    registry.tag(4, {"archive": "ab12", "data_hash": None, "absent": None})
    found = registry.status().find(4)
    assert found.gate is not None
    assert str(found.gate).startswith("refused (ap xxx")
    assert len(found.gate.summary) == 500
    assert (found.archive, found.tags["data_version"]) == ("ab12", "v7")
    assert "data_hash" not in found.tags
    registry.note_data(4, digest="abc", dataset=None)
    registry.note_gate(4, Gate(accepted=True, summary=""))
    found = registry.status().find(4)
    assert "data_version" not in found.tags
    assert found.gate == Gate(accepted=True, summary="")
    registry.tag(4, {"gate": "perhaps"})
    assert registry.status().find(4).gate is None


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda found: found.promote(9), "version=9: news has no such version; there are 1, 2"),
        (lambda found: found.propose(9), "version=9: news has no such version; there are 1, 2"),
        (lambda found: found.tag(9, {"a": "b"}), "version=9: news has no such version"),
        (lambda found: found.roll_back(), "there is no previous version to go back to"),
    ],
)
def test_what_is_not_there(registry: Registry, ask: Any, message: str) -> None:
    with pytest.raises(RetrainingError) as caught:
        ask(registry)
    assert str(caught.value).startswith(message)
    assert registry.aliases() == Aliases()


def test_a_champion_does_not_challenge_itself(registry: Registry) -> None:
    registry.promote(1)
    with pytest.raises(RetrainingError, match="version 1 is the champion: it cannot challenge"):
        registry.propose(1)


def test_models_that_are_not_there(uri: str) -> None:
    with pytest.raises(RetrainingError) as caught:
        Registry(uri=uri, model="nwes").status()
    assert str(caught.value) == (f"name=nwes is not registered in {uri}: there are news, other")


def test_what_somebody_else_has_moved_is_not_overwritten(registry: Registry, uri: str) -> None:
    seen = registry.promote(1)
    other = Registry(uri=uri, model="news")
    other.promote(2)
    with pytest.raises(RetrainingError) as caught:
        registry.promote(3, expected=seen)
    assert str(caught.value) == (
        "the aliases of news were moved by somebody else meanwhile: they are champion 2, "
        "challenger none, previous 1, not champion 1, challenger none, previous none; look at "
        "action=status, and ask again"
    )
    assert other.aliases() == Aliases(champion=2, previous=1)


def test_what_somebody_else_moves_at_the_same_time_is_noticed(
    registry: Registry, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.promote(1)
    client, original = MlflowClient(uri), registry._set

    def interrupted(given: Any, alias: Any, holder: int | None) -> None:
        original(given, alias, holder)
        if alias == "champion":
            client.set_registered_model_alias("news", "champion", "3")

    monkeypatch.setattr(registry, "_set", interrupted)
    with pytest.raises(
        RetrainingError, match="moved by somebody else meanwhile: they are cham"
    ):
        registry.promote(2)
    # Theirs stays, ours is taken back.
    assert registry.aliases() == Aliases(champion=3)


def test_a_move_that_was_cut_off_can_be_done_again_or_taken_back(
    registry: Registry, uri: str
) -> None:
    before, after = Aliases(champion=1), Aliases(champion=2, previous=1)
    registry.promote(1)
    MlflowClient(uri).set_registered_model_alias("news", "previous", "1")
    assert registry.move(before, after) == after == registry.aliases()
    assert registry.move(after, before) == before == registry.aliases()


def test_a_move_that_fails_half_way_is_taken_back(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.promote(1)
    original = registry._set

    def failing(client: Any, alias: Any, holder: int | None) -> None:
        if (alias, holder) == ("champion", 2):
            raise OSError("the line is dead")
        original(client, alias, holder)

    monkeypatch.setattr(registry, "_set", failing)
    with pytest.raises(TrackingError, match=r"does not take our data \(the line is dead\)"):
        registry.promote(2)
    assert registry.aliases() == Aliases(champion=1)


def test_stores_that_cannot_be_used(uri: str, tmp_path: Any) -> None:
    absent = f"sqlite:///{tmp_path}/no.db"
    with pytest.raises(TrackingError, match=f"tracking_uri={absent}: there is no such file"):
        Registry(uri=absent, model="news").status()
    assert not (tmp_path / "no.db").exists()
    with pytest.raises(TrackingError, match=r"http://127.0.0.1:1 cannot be reached \("):
        Registry(uri="http://127.0.0.1:1", model="news").status()
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("begin exclusive")
        with pytest.raises(TrackingError, match=r"cannot be written \(database is locked\)"):
            Registry(uri=uri, model="news", timeout=0.1).status()


def test_a_store_that_fails_later(registry: Registry, tmp_path: Any) -> None:
    registry.promote(1)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("alter table registered_model_aliases rename to hidden")
        other.commit()
        with pytest.raises(TrackingError, match="does not take our data") as caught:
            registry.promote(2)
        assert "\n" not in str(caught.value)
        other.execute("alter table hidden rename to registered_model_aliases")
        other.commit()
    assert registry.aliases() == Aliases(champion=1)


class Refusing(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_wrong_password(refusing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong-secret")
    with pytest.raises(
        TrackingError, match="refuses us: set MLFLOW_TRACKING_USERNAME"
    ) as found:
        Registry(uri=refusing, model="news").status()
    assert "wrong-secret" not in str(found.value)
