"""A real TorchServe: what it lets through, what it writes down, and how it ends."""

import contextlib
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from fakenews.errors import ServingError
from fakenews.serving.keys import Refused
from fakenews.serving.store import put, read_archive, unpack
from fakenews.serving.torchserve import Settings, TorchServe, home, store

pytestmark = pytest.mark.slow

NAME, VERSION = "fakenews", "aaaaaaaaaaaa"

MakeSettings = Callable[..., Settings]


def _register(settings: Settings, folder: Path, archive: Path) -> None:
    put(read_archive(archive, name=NAME), store(folder))
    with settings.client(folder) as client:
        client.register(NAME, unpack(store(folder), archive.name))
        deadline = time.monotonic() + 60
        while not (found := client.versions(NAME)[VERSION]).ready:
            assert time.monotonic() < deadline, found
            time.sleep(0.1)


def test_a_hardened_torchserve_in_a_folder_with_any_name(
    tmp_path: Path,
    make_settings: MakeSettings,
    make_archive: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEST_SECRET", "x")
    monkeypatch.setenv("TEST_OPEN", "x")
    # These would go before config.properties.
    monkeypatch.setenv("TS_CONFIG_FILE", "/nowhere")
    # Spaces, other letters, and more of them than the path of a socket may have.
    folder = tmp_path / ("ein Ördner " * 9)
    settings = make_settings()
    archive = make_archive(VERSION, code="\nprint('I am loaded')")
    private = "PRIVATE-" + "headline"
    with TorchServe(folder=folder, settings=settings), settings.client(folder) as client:
        assert stat.S_IMODE(home(folder).stat().st_mode) == 0o700
        _register(settings, folder, archive)
        assert client.models() == {NAME: f"{NAME}-{VERSION}"}

        answer = client.predict(NAME, VERSION, {"text": private})
        assert answer["sees"] == ["TEST_OPEN"]
        with pytest.raises(Refused):
            client.predict(NAME, VERSION, {"text": "fail", "private": private})
        with pytest.raises(Refused, match="answers 413 to POST /predictions/fakenews/"):
            client.predict(NAME, VERSION, {"text": private * 200_000})
        with pytest.raises(Refused, match="no-such does not exist for model: fakenews"):
            client.predict(NAME, "no-such", {"text": private})

        for url in (f"file://{archive}", "http://127.0.0.1:1/x.mar"):
            query = httpx.QueryParams(url=url)
            refused = httpx.post(
                f"{settings.management_address}/models?{query}",
                headers={"authorization": f"Bearer {settings.keys(folder).management()}"},
            )
            assert refused.status_code == 404, refused.text
        for address in (settings.management_address, settings.inference_address):
            assert httpx.get(f"{address}/ping").status_code == 400
        metrics = httpx.get(f"http://127.0.0.1:{settings.metrics_port}/metrics").text
        assert f'model_name="{NAME}",model_version="{VERSION}"' in metrics
        # Loopback alone, all of it.
        listening = {
            connection.laddr.ip
            for process in _group(os.getpgid(answer["pid"]))
            for connection in process.net_connections()
            if connection.status == psutil.CONN_LISTEN and connection.laddr
        }
        assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}
        assert listening
    logs = home(folder) / "logs"
    written = "".join(path.read_text(errors="replace") for path in logs.iterdir())
    assert "I am loaded" in written
    assert "RuntimeError: asked to" in written
    assert private not in written
    assert settings.keys(folder).inference() not in written


def test_settings_with_which_it_cannot_start(
    tmp_path: Path, make_settings: MakeSettings
) -> None:
    server = TorchServe(folder=tmp_path, settings=make_settings(heap="1m"))
    server.start()
    with pytest.raises(ServingError, match=r"TorchServe ended while it started: .*heap"):
        server.wait()
    server.stop()
    server.stop()
    assert not server.running


def test_one_that_is_late_is_not_waited_for_without_end(
    tmp_path: Path, make_settings: MakeSettings
) -> None:
    settings = make_settings(start_timeout=0.01)
    with (
        pytest.raises(ServingError, match=r"does not answer at http://127\.0\.0\.1:\d+ after"),
        TorchServe(folder=tmp_path, settings=settings),
    ):
        pass
    assert not _answers(settings, tmp_path)


_STARTER = """
import sys, time
from pathlib import Path
from fakenews.serving.torchserve import Settings, TorchServe
server = TorchServe(folder=Path(sys.argv[1]), settings=eval(sys.argv[2]))
server.start()
server.wait()
print("started", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_it_ends_with_its_starter_however_that_ends(
    tmp_path: Path,
    make_settings: MakeSettings,
    make_archive: Callable[..., Path],
    number: signal.Signals,
) -> None:
    settings = make_settings()
    starter = subprocess.Popen(
        [sys.executable, "-c", _STARTER, str(tmp_path), repr(settings)],
        stdout=subprocess.PIPE,
    )
    assert starter.stdout is not None
    with starter:
        assert starter.stdout.readline() == b"started\n"
        _register(settings, tmp_path, make_archive(VERSION))
        with settings.client(tmp_path) as client:
            pid = client.predict(NAME, VERSION, {"text": "Hello"})["pid"]
        group = _group(os.getpgid(pid))
        assert {process.name() for process in group} >= {"java"}
        starter.send_signal(number)
    _, left = psutil.wait_procs(group, timeout=30)
    assert left == []
    # The same folder, and the same ports, may be used again.
    with TorchServe(folder=tmp_path, settings=settings):
        assert _answers(settings, tmp_path)


def _answers(settings: Settings, folder: Path) -> bool:
    with settings.client(folder) as client:
        return client.answers()


def _group(group: int) -> list[psutil.Process]:
    found: list[Any] = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group:
                found.append(process)
    return found
