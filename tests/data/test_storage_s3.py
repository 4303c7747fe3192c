"""A folder in an S3 bucket: of a real server, and behind a network that fails."""

import json
import multiprocessing
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fakenews.data.storage import Storage
from fakenews.errors import ConfigError, DataError

S3 = tuple[str, dict[str, Any]]


class Network:
    """Carries bytes between a client and a server, badly if told so.

    Attributes:
        url: What the client calls.
        left: Bytes from the client that still pass before the server is gone.
        rate: Bytes a second to the client, and from it.
        silent: Nothing comes back.
        calls: Connections so far.
    """

    def __init__(self, server: str) -> None:
        self.server = (urlsplit(server).hostname, urlsplit(server).port)
        self.left, self.rate, self.silent, self.calls = float("inf"), float("inf"), False, 0
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        self._threads.append(threading.Thread(target=target, args=args))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.calls += 1
            if self.left <= 0:
                client.close()
                continue
            server = socket.create_connection(self.server)
            self._open += [client, server]
            self._start(self._carry, client, server, True)
            self._start(self._carry, server, client, False)

    def _carry(self, source: socket.socket, target: socket.socket, upwards: bool) -> None:
        with suppress(OSError):
            while block := source.recv(65_536):
                if upwards:
                    self.left -= len(block)
                if self.left <= 0:
                    break
                if self.rate < float("inf"):
                    time.sleep(len(block) / self.rate)
                if upwards or not self.silent:
                    target.sendall(block)
        if not self.silent:
            for end in (source, target):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        # Closing alone does not wake the thread that waits for a call.
        self._listener.shutdown(socket.SHUT_RDWR)
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._listener.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def network(s3_server: str) -> Iterator[Network]:
    network = Network(s3_server)
    yield network
    network.close()


def test_round_trip(s3_url: S3, tmp_path: Path):
    url, options = s3_url
    storage = Storage(f"{url}/", options=options)
    assert storage.url == url
    assert not storage.is_local
    assert storage.list() == {}
    assert storage.size("none") is None
    content = os.urandom(1 << 20) * 40  # several parts
    local = tmp_path / "local"
    local.write_bytes(content)
    storage.write_bytes("manifest.json", b"old")
    storage.write_bytes("manifest.json", b"{}")
    storage.publish(local, "train/00000.parquet")
    Storage(f"{url}-2", options=options).write_bytes("other", b"")
    assert storage.list() == {"manifest.json": 2, "train/00000.parquet": len(content)}
    assert storage.list("train/") == {"train/00000.parquet": len(content)}
    assert storage.list("tra") == {}
    assert storage.size("train") is None
    assert storage.size("manifest.json") == 2
    assert storage.read_bytes("train/00000.parquet") == content
    assert storage.sha256("train/00000.parquet") == Storage(tmp_path).sha256("local")
    storage.delete("manifest.json")
    storage.delete("manifest.json")
    assert list(storage.list()) == ["train/00000.parquet"]
    bucket = Storage(url.removesuffix("/some/folder"), options=options)
    assert set(bucket.list()) == {"some/folder/train/00000.parquet", "some/folder-2/other"}


def test_parquet_reads_what_it_needs(s3_url: S3, network: Network, tmp_path: Path):
    url, options = s3_url
    noise = pa.array([os.urandom(1000) for _ in range(20_000)])
    table = pa.table({"a": range(20_000), "noise": noise})
    pq.write_table(table, tmp_path / "a", row_group_size=2000)
    storage = Storage(url, options=options | {"endpoint_url": network.url})
    storage.publish(tmp_path / "a", "a")
    network.rate = 50e6
    with storage.open("a") as file:
        parquet = pq.ParquetFile(file, pre_buffer=True)
        assert parquet.metadata.num_row_groups == 10
        group = parquet.read_row_group(7)
        assert group["a"].to_pylist() == list(range(14_000, 16_000))
        assert group["noise"].to_pylist() == noise[14_000:16_000].to_pylist()


def _read(storage: Storage, name: str, results: Any) -> None:
    results.put(storage.read_bytes(name))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_other_processes_read(s3_url: S3, method: str):
    storage = Storage(s3_url[0], options=s3_url[1])
    storage.write_bytes("a", b"content")
    context = multiprocessing.get_context(method)
    results = context.Queue()
    process = context.Process(target=_read, args=(storage, "a", results))
    process.start()
    try:
        assert results.get(timeout=60) == b"content"
    finally:
        process.kill()
        process.join()
    assert storage.read_bytes("a") == b"content"


def test_a_bucket_that_is_missing(s3_url: S3, tmp_path: Path):
    storage = Storage("s3://no-such-bucket/x", options=s3_url[1])
    (tmp_path / "a").write_bytes(b"")
    for use in (
        storage.list,
        lambda: storage.size("a"),
        lambda: storage.read_bytes("a"),
        lambda: storage.write_bytes("a", b""),
        lambda: storage.publish(tmp_path / "a", "a"),
        lambda: storage.delete("a"),
    ):
        with pytest.raises(DataError, match="there is no such bucket: make it, or mend its"):
            use()
    with pytest.raises(DataError, match="a: no such file: mend the path"):
        Storage(s3_url[0], options=s3_url[1]).read_bytes("a")


@pytest.fixture(scope="module")
def guarded(start_s3: Callable[..., str]) -> tuple[str, str, str]:
    """A server that checks credentials; the key and the secret of one who may only read."""
    # So many requests may come without any.
    server = start_s3(INITIAL_NO_AUTH_ACTION_COUNT="4")
    known = {
        "endpoint_url": server,
        "region_name": "us-east-1",
        "aws_access_key_id": "a",
        "aws_secret_access_key": "b",
    }
    s3, iam = boto3.client("s3", **known), boto3.client("iam", **known)
    s3.create_bucket(Bucket="guarded")
    iam.create_user(UserName="reader")
    may = {
        "Effect": "Allow",
        "Action": ["s3:ListBucket", "s3:GetObject"],
        "Resource": ["arn:aws:s3:::guarded", "arn:aws:s3:::guarded/*"],
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [may]})
    iam.put_user_policy(UserName="reader", PolicyName="p", PolicyDocument=policy)
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    s3.close()
    iam.close()
    return server, key["AccessKeyId"], key["SecretAccessKey"]


def test_credentials(guarded: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch):
    server, key, secret = guarded
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def storage(key: str, secret: str) -> Storage:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        return Storage("s3://guarded/x", options={"endpoint_url": server})

    assert storage(key, secret).list() == {}
    with pytest.raises(DataError, match="x: the secret key is wrong: check AWS_SECRET"):
        storage(key, "hunter2hunter2").list()
    with pytest.raises(DataError, match="the store does not know the access key") as caught:
        storage("AKIAUNKNOWN", secret).list()
    assert secret not in str(caught.value)
    reader = storage(key, secret)
    for use in (lambda: reader.write_bytes("a", b"1"), lambda: reader.delete("a")):
        with pytest.raises(DataError, match="x/a: access denied: check the credentials"):
            use()
    # An answer to HEAD has no body, so nothing says which it was.
    with pytest.raises(DataError, match="access denied: check the credentials"):
        storage(key, "hunter2hunter2").size("a")


def test_no_credentials_and_wrong_options(s3_url: S3, monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    url, options = s3_url
    address = {"endpoint_url": options["endpoint_url"]}
    with pytest.raises(
        DataError, match=r"no credentials \(Unable to locate credentials\): set"
    ):
        Storage(url, options=address).list()
    with pytest.raises(DataError, match=r"profile \(nobody\).*: mend AWS_PROFILE"):
        Storage(url, options=address | {"profile": "nobody"}).list()
    with pytest.raises(ConfigError, match=r"a storage option is wrong \(.*'keyy'\): mend it"):
        Storage(url, options=options | {"keyy": "x"}).list()
    with pytest.raises(ConfigError, match=r"option is wrong \(Invalid endpoint: nonsense\)"):
        Storage(url, options=options | {"endpoint_url": "nonsense"}).list()


def test_an_endpoint_that_is_not_there():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    options = {"endpoint_url": address, "key": "a", "secret": "hunter2"}
    storage = pickle.loads(pickle.dumps(Storage("s3://bucket/x", options=options)))  # noqa: S301
    with pytest.raises(DataError) as caught:
        storage.read_bytes("a")
    assert str(caught.value) == (
        "s3://bucket/x/a: the store cannot be reached (Could not connect to the endpoint URL: "
        f'"{address}"): check its address and the network'
    )


@pytest.mark.slow
@pytest.mark.parametrize("action", ["list", "size", "write"])
def test_a_server_that_never_answers(
    s3_url: S3,
    network: Network,
    action: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr("fakenews.data.storage._SILENCE", 0.5)
    network.silent = True
    options = s3_url[1] | {"endpoint_url": network.url, "config_kwargs": {"read_timeout": 1}}
    storage = Storage(s3_url[0], options=options)
    use = {
        "list": storage.list,
        "size": lambda: storage.size("a"),
        "write": lambda: storage.write_bytes("a", b""),
    }[action]
    started = time.monotonic()
    with pytest.raises(DataError, match="the store does not answer in time: check its address"):
        use()
    assert time.monotonic() - started < 12
    assert f"{s3_url[0]}: the store has not answered for 0.5 s" in caplog.text


def test_credentials_that_are_found_are_not_announced(
    s3_url: S3, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    url, options = s3_url
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", options["key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", options["secret"])
    with caplog.at_level("INFO"):
        Storage(url, options={"endpoint_url": options["endpoint_url"]}).list()
    assert "credentials" not in caplog.text


@pytest.mark.slow
def test_a_slow_server_works(s3_url: S3, network: Network, tmp_path: Path):
    content = os.urandom(12_000_000)
    (tmp_path / "a").write_bytes(content)
    # Both ways take longer than the time without a byte that is allowed; what the kernel
    # takes in advance (4 MB) takes less.
    options = s3_url[1] | {"endpoint_url": network.url, "config_kwargs": {"read_timeout": 3}}
    storage = Storage(s3_url[0], options=options)
    network.rate = 3_000_000
    storage.publish(tmp_path / "a", "a")
    assert storage.read_bytes("a") == content
    assert network.calls <= 4, "nothing was sent twice"


@pytest.mark.slow
def test_an_upload_that_breaks_off_shows_nothing(s3_url: S3, network: Network, tmp_path: Path):
    url, options = s3_url
    local = tmp_path / "local"
    local.write_bytes(os.urandom(1 << 20) * 40)
    truth = Storage(url, options=options)
    truth.write_bytes("old", b"old")
    storage = Storage(url, options=options | {"endpoint_url": network.url})
    for name, before in (("new", {}), ("old", {"old": 3})):
        network.left = 20 << 20
        with pytest.raises(DataError, match=f"folder/{name}: the store cannot be reached"):
            storage.publish(local, name)
        assert network.left <= 0
        assert {k: v for k, v in truth.list().items() if k == name} == before
        network.left = float("inf")
        storage = Storage(url, options=options | {"endpoint_url": network.url})
        storage.publish(local, name)
        assert truth.sha256(name) == Storage(tmp_path).sha256("local")
        storage = Storage(url, options=options | {"endpoint_url": network.url})


@pytest.mark.slow
def test_a_store_that_has_answered_is_waited_for(s3_url: S3, network: Network):
    content = os.urandom(4_000_000)
    storage = Storage(s3_url[0], options=s3_url[1] | {"endpoint_url": network.url})
    storage.write_bytes("a", content)
    with storage.open("a") as file:
        start = file.read(1_000_000)
        network.left = 0
        repaired = threading.Timer(6, setattr, (network, "left", float("inf")))
        repaired.start()
        assert start + file.read() == content
        repaired.join()


def test_a_file_that_is_replaced_while_it_is_read(s3_url: S3):
    storage = Storage(s3_url[0], options=s3_url[1])
    storage.write_bytes("a", os.urandom(3_000_000))
    with storage.open("a") as file:
        file.read(10)
        storage.write_bytes("a", os.urandom(3_000_000))
        with pytest.raises(DataError, match="it was changed while it was read"):
            file.read()
