"""A TorchServe of our own: its configuration, its start, its end.

FOLDER/model_store/           archives
FOLDER/torchserve/            working directory, which nobody else may read:
    config.properties         written at each start
    log4j2.xml                a copy, as are its settings of metrics
    key_file.json             its keys
    logs/                     console.log, ts_log.log, model_log.log
    tmp/                      sockets of workers; emptied at each start
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from annotated_types import Ge, Le
from filelock import FileLock, Timeout
from pydantic import StringConstraints

from fakenews.bounds import Positive, PositiveCount
from fakenews.errors import ServingError
from fakenews.serving.java import java_home
from fakenews.serving.keys import Keys
from fakenews.serving.management import Management

HOST = "127.0.0.1"
"""Where its APIs are: whoever may use this machine has a key besides."""

Port = Annotated[int, Ge(1), Le(65535)]

AnyPort = Annotated[int, Ge(0), Le(65535)]
"""0 takes a free one."""

Memory = Annotated[str, StringConstraints(pattern=r"^[1-9]\d*[mg]$")]
"""As Java writes it: 512m, 2g."""

_MODULE = "fakenews.serving.guard"
_LAST_LINES = 5
# Longest path of a socket is 107 bytes; its name takes up to 20.
_LONGEST = 85
# No URL is the empty one.
_NO_URL = "^$"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of a TorchServe; `conf/serve/` has the values and says why.

    Attributes:
        inference_port: Of predictions.
        management_port: Of the management API.
        metrics_port: Of metrics in Prometheus's format.
        metrics_host: Address of the metrics, which need no key.
        grpc_inference_port: TorchServe always opens it.
        grpc_management_port: As above.
        max_request_bytes: A larger request is refused.
        max_response_bytes: A larger answer is an error.
        queue: Requests that wait for a version at most; others are refused.
        netty_threads: That read requests.
        client_threads: That talk to workers.
        response_timeout: Seconds of a worker with a batch, if the archive does not say.
        startup_timeout: Seconds to load a model, if the archive does not say.
        unregister_timeout: Seconds for a worker to end.
        token_minutes: Life of a key.
        heap: Java's.
        direct_memory: Java's, outside the heap.
        java_home: Folder of bin/java; None takes JAVA_HOME, else finds it on the PATH.
        log_config: Log4j's.
        metrics_config: TorchServe's list of metrics.
        hidden_variables: Regular expression of environment variables that models do not see.
        start_timeout: Seconds for TorchServe to answer.
        stop_timeout: Seconds for it to end, before it is killed.
    """

    inference_port: Port
    management_port: Port
    metrics_port: Port
    metrics_host: str
    grpc_inference_port: AnyPort
    grpc_management_port: AnyPort
    max_request_bytes: PositiveCount
    max_response_bytes: PositiveCount
    queue: PositiveCount
    netty_threads: PositiveCount
    client_threads: PositiveCount
    response_timeout: PositiveCount
    startup_timeout: PositiveCount
    unregister_timeout: PositiveCount
    token_minutes: Positive
    heap: Memory
    direct_memory: Memory
    java_home: str | None
    log_config: str
    metrics_config: str
    hidden_variables: str
    start_timeout: Positive
    stop_timeout: Positive

    @property
    def inference_address(self) -> str:
        """URL of the inference API."""
        return f"http://{HOST}:{self.inference_port}"

    @property
    def management_address(self) -> str:
        """URL of the management API."""
        return f"http://{HOST}:{self.management_port}"

    def keys(self, folder: Path) -> Keys:
        """The keys of the TorchServe that works in a deployment's folder."""
        return Keys(home(folder) / "key_file.json", address=self.management_address)

    def client(self, folder: Path) -> Management:
        """A client of the TorchServe that works in a deployment's folder."""
        return Management(
            management=self.management_address,
            inference=self.inference_address,
            keys=self.keys(folder),
        )


def home(folder: Path) -> Path:
    """The working directory of TorchServe in a deployment's folder."""
    return folder / "torchserve"


def store(folder: Path) -> Path:
    """The model store in a deployment's folder."""
    return folder / "model_store"


def properties(settings: Settings, folder: Path) -> dict[str, str]:
    """What stands in config.properties.

    Args:
        settings: Of TorchServe.
        folder: Of the deployment.
    """
    java_options = (
        f"-Xmx{settings.heap} -XX:MaxDirectMemorySize={settings.direct_memory} "
        # To be started anew, rather than to go on in an unknown state.
        "-XX:+ExitOnOutOfMemoryError "
        # It passes some hundreds of requests a second on, and shares its cores with the model:
        # compiling for millions of calls, and collecting on all cores, cost more than they win.
        "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC "
        # In the working directory: these options are cut at spaces.
        "-Dlog4j.configurationFile=log4j2.xml -Dlog4j2.formatMsgNoLookups=true"
    )
    values: dict[str, str | int | float] = {
        "inference_address": settings.inference_address,
        "management_address": settings.management_address,
        "metrics_address": f"http://{settings.metrics_host}:{settings.metrics_port}",
        "grpc_inference_address": HOST,
        "grpc_management_address": HOST,
        "grpc_inference_port": settings.grpc_inference_port,
        "grpc_management_port": settings.grpc_management_port,
        "model_store": str(store(folder).resolve()),
        # Archives come from the model store, and are put there by us.
        "enable_model_api": "true",
        "allowed_urls": _NO_URL,
        "install_py_dep_per_model": "false",
        "disable_token_authorization": "false",
        "token_expiration_min": settings.token_minutes,
        "enable_envvars_config": "false",
        "blacklist_env_vars": settings.hidden_variables,
        "max_request_size": settings.max_request_bytes,
        "max_response_size": settings.max_response_bytes,
        "job_queue_size": settings.queue,
        "number_of_netty_threads": settings.netty_threads,
        "netty_client_threads": settings.client_threads,
        "default_workers_per_model": 1,
        "default_response_timeout": settings.response_timeout,
        "default_startup_timeout": settings.startup_timeout,
        "unregister_model_timeout": settings.unregister_timeout,
        # The handler decodes, and says itself what is wrong.
        "decode_input_request": "false",
        "enable_metrics_api": "true",
        # Of the machine: it would start a Python each minute.
        "disable_system_metrics": "true",
        "metrics_mode": "prometheus",
        "metrics_config": "metrics.yaml",
        "model_metrics_auto_detect": "false",
        "vmargs": java_options,
    }
    return {name: str(value) for name, value in values.items()}


def escaped(values: Mapping[str, str]) -> str:
    """Text of a Java properties file."""
    lines = []
    for name, value in values.items():
        text = value.replace("\\", "\\\\")
        units = text.encode("utf-16-be")
        codes = [int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2)]
        written = "".join(chr(code) if 32 <= code < 127 else f"\\u{code:04x}" for code in codes)
        lines.append(f"{name}={written}\n")
    return "".join(lines)


class TorchServe:
    """A TorchServe process, with its workers.

    Args:
        folder: Of the deployment.
        settings: Of TorchServe.
    """

    def __init__(self, *, folder: Path, settings: Settings) -> None:
        self._folder = folder.absolute()
        self._settings = settings
        self._home = home(self._folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether the process is there; it may not answer yet."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; `wait` says when it answers.

        Raises:
            ServingError: There is no Java for it, a port is taken, a file of its
                configuration is missing, or another process has started one in this folder.
        """
        if self._process is not None:
            raise ServingError(f"TorchServe in {self._home} was started already: stop it first")
        java = java_home(self._settings.java_home)
        with contextlib.ExitStack() as stack:
            self._prepare(stack)
            self._check_ports()
            with (self._home / "logs" / "console.log").open("wb") as out:
                self._process = subprocess.Popen(  # noqa: S603 our own module
                    [
                        *(sys.executable, "-m", _MODULE, "--start", "--foreground", "--ncs"),
                        *("--ts-config", "config.properties"),
                        *("--model-store", str(store(self._folder))),
                    ],
                    cwd=self._home,
                    env=_environment(java, self._temporary(stack)),
                    # Never written to: TorchServe ends when this process does.
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self._stack = stack.pop_all()

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            ServingError: It has ended, or does not answer within `start_timeout`.
        """
        deadline = time.monotonic() + self._settings.start_timeout
        with self._settings.client(self._folder) as client:
            while not client.answers():
                if not self.running:
                    raise ServingError(
                        f"TorchServe ended while it started: {self._last_lines()}"
                    )
                if time.monotonic() > deadline:
                    raise ServingError(
                        f"TorchServe does not answer at {self._settings.inference_address} "
                        f"after {self._settings.start_timeout:g} s: {self._last_lines()}"
                    )
                time.sleep(0.1)

    def stop(self) -> None:
        """End it and its workers; safe to call again."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self._settings.stop_timeout)
            # Its workers are in its group, whoever has ended.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdin is not None  # noqa: S101 it is a pipe
            process.stdin.close()
        self._stack.close()

    def _prepare(self, stack: contextlib.ExitStack) -> None:
        """Make the folder, with nothing of the last time but logs."""
        store(self._folder).mkdir(parents=True, exist_ok=True)
        self._home.mkdir(mode=0o700, exist_ok=True)
        # Keys are in it.
        self._home.chmod(0o700)
        try:
            stack.enter_context(FileLock(self._home / ".lock", timeout=0))
        except Timeout as error:
            raise ServingError(
                f"another TorchServe works in {self._home}: stop it, or give another serve.dir"
            ) from error
        # Keys of the last time would be taken for those of this time.
        (self._home / "key_file.json").unlink(missing_ok=True)
        shutil.rmtree(self._home / "tmp", ignore_errors=True)
        for folder in ("tmp", "logs"):
            (self._home / folder).mkdir(exist_ok=True)
        for name, path in (
            ("log4j2.xml", self._settings.log_config),
            ("metrics.yaml", self._settings.metrics_config),
        ):
            try:
                shutil.copyfile(path, self._home / name)
            except OSError as error:
                raise ServingError(f"{path} cannot be read: {error.strerror}") from error
        text = escaped(properties(self._settings, self._folder))
        (self._home / "config.properties").write_text(text, encoding="ascii")

    def _check_ports(self) -> None:
        settings = self._settings
        with contextlib.ExitStack() as probes:
            for name in (
                "inference",
                "management",
                "metrics",
                "grpc_inference",
                "grpc_management",
            ):
                port = getattr(settings, f"{name}_port")
                host = settings.metrics_host if name == "metrics" else HOST
                probe = probes.enter_context(socket.socket())
                # Connections of the last time may linger.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, port))
                    probe.listen()
                except OSError as error:
                    raise ServingError(
                        f"TorchServe cannot listen at {host}:{port} ({error.strerror}): stop "
                        f"what does, or give another serve.torchserve.{name}_port"
                    ) from error

    def _temporary(self, stack: contextlib.ExitStack) -> Path:
        folder = self._home / "tmp"
        if len(os.fsencode(folder)) <= _LONGEST:
            return folder
        short = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="torchserve-")))
        (short / "tmp").symlink_to(folder)
        return short / "tmp"

    def _last_lines(self) -> str:
        path = self._home / "logs" / "console.log"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        # The frames of Java's traces say less than the line before them.
        told = [line.strip() for line in lines if line.strip() and not line.startswith("\tat ")]
        return " | ".join(told[-_LAST_LINES:]) or f"{path} is empty"


def _environment(java: Path, temporary: Path) -> dict[str, str]:
    # Variables would go before config.properties.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TS_")}
    ours = {
        "JAVA_HOME": str(java),
        # Of Java, and of the file in which TorchServe's launcher keeps its process.
        "TEMP": str(temporary),
        "TMPDIR": str(temporary),
        "LOG_LOCATION": "logs",
        "METRICS_LOCATION": "logs",
    }
    if paths := kept.get("PYTHONPATH"):
        # It works in another folder.
        ours["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, paths.split(os.pathsep)))
    return kept | ours
