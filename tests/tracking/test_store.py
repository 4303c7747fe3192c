import http.server
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fakenews.errors import TrackingError
from fakenews.tracking.store import check_store, explain, public

pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader")


class Refusing(http.server.BaseHTTPRequestHandler):
    """A server that knows nobody; its health needs no password."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.send_response(200 if self.path == "/health" else 401)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def refusal(uri: str, timeout: float = 1.0) -> str:
    with pytest.raises(TrackingError) as caught:
        check_store(uri, timeout=timeout)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_new_file_needs_its_folder_only(tmp_path: Path) -> None:
    check_store(f"sqlite:///{tmp_path}/mlflow.db", timeout=1)
    message = refusal(f"sqlite:///{tmp_path}/slip/mlflow.db")
    assert f"the folder {tmp_path}/slip does not exist: make it" in message
    assert list(tmp_path.iterdir()) == []


def test_file_in_use_by_a_reader_is_fine(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "m.db")) as other:
        other.execute("create table t (x)")
        other.commit()
        other.execute("select * from t")
        check_store(f"sqlite:///{tmp_path}/m.db", timeout=1)
        assert other.execute("select count(*) from t").fetchone() == (0,)


def test_locked_file_is_one_line(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "m.db")) as other:
        other.execute("begin exclusive")
        message = refusal(f"sqlite:///{tmp_path}/m.db", timeout=0.2)
    assert f"{tmp_path}/m.db cannot be written (database is locked)" in message
    assert "logger.tracking_uri" in message


def test_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "m.db").write_text("Dear diary, " * 100)
    assert "file is not a database" in refusal(f"sqlite:///{tmp_path}/m.db")


def test_closed_port_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    message = refusal(f"http://127.0.0.1:{port}")
    assert f"http://127.0.0.1:{port}" in message
    assert "Connection refused" in message
    assert message.endswith("or choose logger=csv")


def test_server_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        message = refusal(f"http://127.0.0.1:{server.getsockname()[1]}", timeout=0.5)
    assert "does not take our data" in message
    assert message.endswith("or choose logger=csv")


def test_wrong_password_is_one_line(refusing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong-secret")
    message = refusal(refusing)
    assert "refuses us" in message
    assert "MLFLOW_TRACKING_PASSWORD" in message
    assert "wrong-secret" not in message


@pytest.mark.parametrize(
    ("uri", "variable"),
    [
        ("http://me:secret@127.0.0.1:1", "MLFLOW_TRACKING_PASSWORD"),
        ("postgresql://me:secret@db/mlflow", "PGPASSWORD"),
    ],
)
def test_password_in_the_address_is_refused_and_not_repeated(uri: str, variable: str) -> None:
    message = refusal(uri)
    assert variable in message
    assert "secret" not in message


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "file:mlruns"])
def test_plain_folder_is_refused(uri: str) -> None:
    assert f"logger.tracking_uri={uri}: MLflow no longer writes plain folders" in refusal(uri)


def test_address_that_is_none() -> None:
    assert "is no address" in refusal("http://127.0.0.1:port")


def test_public_address_has_no_user() -> None:
    assert public("http://me:secret@host:5000/x") == "http://host:5000/x"
    assert public("sqlite:////a@b/m.db") == "sqlite:////a@b/m.db"


def test_explain_keeps_the_first_line() -> None:
    message = explain("http://me:secret@host", RuntimeError("no such table\n[SQL: select]"))
    assert message == "the MLflow store http://host does not take our data (no such table)"
    assert "RuntimeError()" in explain("sqlite:///m.db", RuntimeError())
