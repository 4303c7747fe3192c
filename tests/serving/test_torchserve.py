"""Its configuration and what keeps it from starting; that it starts: tests/slow."""

import dataclasses
import re
import socket
import stat
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fakenews.config import TARGETS
from fakenews.errors import ServingError
from fakenews.serving.torchserve import Settings, TorchServe, escaped, home, properties, store

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """As `conf/serve/local.yaml` has them, but for the ports."""
    node = OmegaConf.load(ROOT / "conf" / "serve" / "local.yaml")
    metrics = tmp_path / "metrics.yaml"
    metrics.write_text("dimensions: []\n")
    node.torchserve.update(log_config=str(ROOT / "serve" / "log4j2.xml"))
    node.torchserve.update(metrics_config=str(metrics))
    found: Settings = instantiate(node.torchserve, _execution_whitelist_=TARGETS)
    inference, management, prometheus = _free_ports()
    return dataclasses.replace(
        found,
        inference_port=inference,
        management_port=management,
        metrics_port=prometheus,
        grpc_inference_port=0,
        grpc_management_port=0,
    )


def _free_ports() -> tuple[int, ...]:
    probes = [socket.socket() for _ in range(3)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = tuple(probe.getsockname()[1] for probe in probes)
    for probe in probes:
        probe.close()
    return ports


def test_the_configuration_is_hardened(settings: Settings, tmp_path: Path) -> None:
    found = properties(settings, tmp_path)
    for name in ("inference_address", "management_address", "metrics_address"):
        assert found[name].startswith("http://127.0.0.1:")
    for name in ("grpc_inference_address", "grpc_management_address"):
        assert found[name] == "127.0.0.1"
    expected = {
        "enable_model_api": "true",
        "disable_token_authorization": "false",
        "token_expiration_min": "60",
        "allowed_urls": "^$",
        "install_py_dep_per_model": "false",
        "enable_envvars_config": "false",
        "metrics_mode": "prometheus",
        "job_queue_size": "100",
        "number_of_netty_threads": "4",
        "max_request_size": "10000000",
        "model_store": str(tmp_path / "model_store"),
    }
    assert expected.items() <= found.items()
    assert "-Xmx512m -XX:MaxDirectMemorySize=256m" in found["vmargs"]
    assert "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC" in found["vmargs"]
    # Nothing is loaded but what is registered.
    assert "load_models" not in found
    for variable in (
        "AWS_SECRET_ACCESS_KEY",
        "MLFLOW_TRACKING_PASSWORD",
        "FAKENEWS_API_KEYS",
        "HF_TOKEN",
        "PGHOST",
    ):
        assert _fully(settings.hidden_variables, variable)
    for variable in ("PYTHONPATH", "TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS", "PATH"):
        assert not _fully(settings.hidden_variables, variable)


def _fully(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern, text) is not None


def test_properties_are_written_as_java_reads_them(tmp_path: Path) -> None:
    values = {
        "plain": "http://127.0.0.1:8080",
        "path": "/data/a folder/Löwe/\\d+",
        "other": "日本 \U0001f600\ttab",
        "equals": "a=b:c#d!e",
    }
    (tmp_path / "x.properties").write_text(escaped(values), encoding="ascii")
    (tmp_path / "Show.java").write_text(
        """
        import java.nio.file.*; import java.util.*;
        class Show { public static void main(String[] a) throws Exception {
          Properties p = new Properties();
          p.load(Files.newInputStream(Path.of("x.properties")));
          for (String k : new TreeSet<>(p.stringPropertyNames())) {
            System.out.write((k + "=" + p.getProperty(k) + "\\n").getBytes("UTF-8"));
          }
          System.out.flush(); } }
        """
    )
    done = subprocess.run(
        ["java", "Show.java"], cwd=tmp_path, capture_output=True, check=True, text=True
    )
    read = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    assert read == values


def test_addresses_are_those_of_the_client(settings: Settings, tmp_path: Path) -> None:
    assert settings.inference_address == f"http://127.0.0.1:{settings.inference_port}"
    with settings.client(tmp_path) as client:
        assert not client.answers()


def test_logs_have_neither_requests_nor_metrics() -> None:
    found = ET.parse(ROOT / "serve" / "log4j2.xml").getroot()  # noqa: S314 our own
    levels = {logger.get("name"): logger.get("level") for logger in found.iter("Logger")}
    assert levels["ACCESS_LOG"] == levels["MODEL_METRICS"] == levels["TS_METRICS"] == "off"
    # All that is written rotates, and is written by another thread.
    files = {appender.get("name"): appender for appender in found.iter("RollingFile")}
    assert files
    for appender in files.values():
        assert appender.find("SizeBasedTriggeringPolicy") is not None
        assert appender.find("DefaultRolloverStrategy") is not None
    behind = {
        reference.get("ref")
        for appender in found.iter("Async")
        for reference in appender.iter("AppenderRef")
    }
    assert files.keys() <= behind
    used = {
        reference.get("ref")
        for logger in (*found.iter("Logger"), *found.iter("Root"))
        for reference in logger.iter("AppenderRef")
    }
    assert used == {appender.get("name") for appender in found.iter("Async")}


@pytest.mark.parametrize("name", ["inference", "management", "metrics", "grpc_inference"])
def test_a_port_that_is_taken(settings: Settings, tmp_path: Path, name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port: Any = {f"{name}_port": taken.getsockname()[1]}
        server = TorchServe(folder=tmp_path, settings=dataclasses.replace(settings, **port))
        with pytest.raises(ServingError, match="Address already in use") as caught:
            server.start()
    assert f"give another serve.torchserve.{name}_port" in str(caught.value)
    assert not server.running
    # Nothing is held that keeps another from it.
    with FileLock(home(tmp_path) / ".lock", timeout=0):
        pass


def test_a_port_that_is_given_twice(settings: Settings, tmp_path: Path) -> None:
    twice = dataclasses.replace(settings, metrics_port=settings.inference_port)
    with pytest.raises(ServingError, match=r"serve\.torchserve\.metrics_port"):
        TorchServe(folder=tmp_path, settings=twice).start()


def test_one_torchserve_a_folder(settings: Settings, tmp_path: Path) -> None:
    home(tmp_path).mkdir()
    with (
        FileLock(home(tmp_path) / ".lock"),
        pytest.raises(ServingError, match="another TorchServe works in"),
    ):
        TorchServe(folder=tmp_path, settings=settings).start()


def test_files_of_the_configuration_that_are_missing(
    settings: Settings, tmp_path: Path
) -> None:
    missing = dataclasses.replace(settings, metrics_config=str(tmp_path / "none.yaml"))
    with pytest.raises(ServingError, match=r"none\.yaml cannot be read: No such file"):
        TorchServe(folder=tmp_path, settings=missing).start()


def test_what_is_left_of_the_last_time_is_removed_but_for_logs_and_archives(
    settings: Settings, tmp_path: Path
) -> None:
    kept = [home(tmp_path) / "logs" / "ts_log.log", store(tmp_path) / "a.mar"]
    gone = [home(tmp_path) / "key_file.json", home(tmp_path) / "tmp" / "models" / "x"]
    for path in (*kept, *gone):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    home(tmp_path).chmod(0o755)
    # It gets as far as the ports.
    twice = dataclasses.replace(settings, metrics_port=settings.inference_port)
    with pytest.raises(ServingError):
        TorchServe(folder=tmp_path, settings=twice).start()
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in gone)
    assert stat.S_IMODE(home(tmp_path).stat().st_mode) == 0o700


def test_no_java(settings: Settings, tmp_path: Path) -> None:
    none = dataclasses.replace(settings, java_home=str(tmp_path / "none"))
    with pytest.raises(ServingError, match="java cannot be run"):
        TorchServe(folder=tmp_path, settings=none).start()
    assert not home(tmp_path).exists()
