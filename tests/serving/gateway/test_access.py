"""Who may ask."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakenews.errors import ConfigError
from fakenews.serving.gateway.access import Access, client, read_keys

if TYPE_CHECKING:
    from tests.serving.gateway.conftest import Running

Start = Callable[..., "Running"]

KEY = "0123456789abcdef-one"
OTHER = "0123456789abcdef-two"


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"# ours\nalice:{KEY}\n\nbob:{OTHER}\n")
    return path


def test_keys_are_asked_for_where_they_are_needed(start: Start, keys_file: Path) -> None:
    gateway = start({"access.keys_file": str(keys_file), "access.open_metrics": False})
    for path in ("/predict", "/explain", "/feedback", "/predict/csv"):
        answer = gateway.post(path, {"text": "a"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "no_key")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert gateway.client.get("/metrics").status_code == 401
    assert gateway.client.get("/health/live").status_code == 200
    assert gateway.client.get("/health/ready").status_code == 200
    assert gateway.client.get("/docs").status_code == 200
    for headers in (
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {OTHER}"},
        {"x-api-key": OTHER},
    ):
        assert gateway.post("/predict", {"text": "a"}, headers=headers).status_code == 200
        assert gateway.client.get("/metrics", headers=headers).status_code == 200
    for headers in (
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Basic {KEY}"},
        {"authorization": "Bearer"},
        {"x-api-key": ""},
        {"x-api-key": "ü" * 20},
    ):
        encoded = {name: value.encode() for name, value in headers.items()}
        assert gateway.post("/predict", {"text": "a"}, headers=encoded).status_code == 401


def test_the_page_may_need_a_key(start: Start, keys_file: Path) -> None:
    gateway = start({"access.keys_file": str(keys_file), "access.open_page": False})
    assert gateway.client.get("/docs").status_code == 401
    assert gateway.client.get("/nothing").status_code == 401
    assert gateway.client.get("/metrics").status_code == 200


def test_keys_are_read_from_a_file_and_the_environment(
    keys_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_keys(None) == {}
    assert list(read_keys(str(keys_file))) == ["alice", "bob"]
    monkeypatch.setenv("FAKENEWS_API_KEYS", f"carol:{KEY}x, {OTHER}y")
    found = read_keys(str(keys_file))
    assert list(found) == ["carol", "key2", "alice", "bob"]
    assert all(len(digest) == 32 for digest in found.values())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no API keys"),
        ("alice:short", "API key 1 is shorter than 16 characters"),
        (None, "cannot be read"),
    ],
)
def test_keys_that_cannot_be_used(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_keys(str(path))


def test_rates_are_of_a_key_or_of_an_address(start: Start, keys_file: Path) -> None:
    gateway = start({"access.keys_file": str(keys_file), "access.rate": "3/hour"})
    alice, bob = ({"x-api-key": key} for key in (KEY, OTHER))
    statuses = [
        gateway.post("/predict", {"text": "a"}, headers=alice).status_code for _ in range(5)
    ]
    assert statuses == [200, 200, 200, 429, 429]
    answer = gateway.post("/explain", {"text": "a"}, headers=alice)
    assert answer.json()["error"]["code"] == "too_many_requests"
    assert 1 <= int(answer.headers["retry-after"]) <= 3600
    assert gateway.post("/predict", {"text": "a"}, headers=bob).status_code == 200
    # Who asks for health is not counted.
    assert gateway.client.get("/health/ready").status_code == 200


def test_rates_without_keys(start: Start) -> None:
    gateway = start({"access.rate": "2/minute", "access.proxies": ["127.0.0.1"]})
    statuses = [
        gateway.post(
            "/predict", {"text": "a"}, headers={"x-forwarded-for": address}
        ).status_code
        for address in ("2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1")
    ]
    assert statuses == [200, 200, 429, 200]


def test_a_rate_that_is_none() -> None:
    with pytest.raises(ConfigError, match="rate=often: write it as in 600/minute"):
        Access(keys={}, rate="often", trusted_hosts=["*"])


def test_addresses() -> None:
    assert client("192.0.2.7") == "192.0.2.7"
    assert client("2001:db8:1:2:3::4") == "2001:db8:1:2::/64"
    assert client("unknown") == "unknown"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8000", 200),
        ("evil.example", 400),
        ("localhost.evil.example", 400),
        ("", 400),
    ],
)
def test_names_of_the_server(gateway: "Running", host: str, status: int) -> None:
    answer = gateway.post("/predict", {"text": "a"}, headers={"host": host})
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["error"]["code"] == "unknown_host"
    # Kubernetes asks by an address.
    assert gateway.client.get("/health/live", headers={"host": "10.1.2.3"}).status_code == 200


def test_any_name(start: Start) -> None:
    gateway = start({"access.trusted_hosts": ["*"]})
    answer = gateway.post("/predict", {"text": "a"}, headers={"host": "any.example"})
    assert answer.status_code == 200
