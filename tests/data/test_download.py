"""Downloads, from a server on this machine."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fakenews.data.download import download
from fakenews.errors import DataError

CONTENT = b"text,label\n" + b"a,b\n" * 50_000
PATH = "/records/42/files/My%20Data.csv"


class Handler(BaseHTTPRequestHandler):
    """Serves one file well, and others badly. Notes what is asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/slow.csv":
            self.server.released.wait(5)
            return
        if not self.path.startswith((PATH, "/cut.csv", "/page.csv")):
            self.send_error(404)
            return
        self.send_response(200)
        page = self.path == "/page.csv"
        self.send_header("Content-Type", "text/html" if page else "text/csv")
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1000] if self.path == "/cut.csv" else CONTENT)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    Handler.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.released = threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_zenodo_file_is_fetched_once_then_cached(
    server: ThreadingHTTPServer, tmp_path: Path
) -> None:
    options = {
        "zenodo": "42",
        "files": ["My Data.csv"],
        "base_url": server.url,
        "cache_dir": tmp_path / "cache",
        "sha256": {"My Data.csv": hashlib.sha256(CONTENT).hexdigest()},
    }
    [path] = download(**options)
    assert path == tmp_path / "cache" / "My Data.csv"
    assert path.read_bytes() == CONTENT
    assert download(**options) == [path]
    assert Handler.asked == [f"{PATH}?download=1"]
    path.write_bytes(b"damaged")
    download(**options)
    assert path.read_bytes() == CONTENT
    assert len(Handler.asked) == 2
    assert [p.name for p in path.parent.iterdir()] == ["My Data.csv"]


def test_the_next_source_is_tried(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    [path] = download(
        zenodo="41",
        urls=[server.url + PATH],
        files=["a.csv"],
        base_url=server.url,
        cache_dir=tmp_path,
    )
    assert path.read_bytes() == CONTENT
    assert len(Handler.asked) == 2


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("/gone.csv", {}, "HTTP 404"),
        ("/cut.csv", {}, "broke off after 1,000 of 200,011 bytes"),
        ("/page.csv", {}, "a web page, not"),
        ("/slow.csv", {"timeout": 0.1}, "timed out"),
        (PATH, {"max_bytes": 100}, "more than the limit of 100"),
        (PATH, {"sha256": {"a.csv": "0" * 64}}, "its sha256 is"),
    ],
)
def test_a_failed_download_leaves_nothing_and_says_what_to_do(
    server: ThreadingHTTPServer,
    tmp_path: Path,
    url: str,
    options: dict[str, object],
    message: str,
) -> None:
    with pytest.raises(DataError, match=r"cannot download 'a\.csv'") as caught:
        download(urls=[server.url + url], files=["a.csv"], cache_dir=tmp_path, **options)
    assert message in str(caught.value)
    assert "data.path=FILE" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_no_network(tmp_path: Path) -> None:
    urls = ["http://127.0.0.1:1/a.csv", "ftp://127.0.0.1/b.csv"]
    with pytest.raises(DataError) as caught:
        download(urls=urls, files=["a.csv", "b.csv"], cache_dir=tmp_path)
    assert "refused" in caught.value.faults[0]
    assert "not an http(s) address" in caught.value.faults[1]


def test_a_cache_that_cannot_be_written(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        download(urls=[server.url + PATH], files=["a.csv"], cache_dir=tmp_path / "file")


def test_calls_that_name_no_source_or_too_many(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to download"):
        download(files=["a.csv"], cache_dir=tmp_path)
    with pytest.raises(DataError, match="2 urls for 1 files"):
        download(files=["a.csv"], urls=["http://a/a", "http://a/b"], cache_dir=tmp_path)
