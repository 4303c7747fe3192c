"""Versions are replaced under load: how many requests fail, how long one waits, what is logged.

    python benchmarks/deployments.py --bundle runs/NAME/TIME --requests 20000

Starts TorchServe and the gateway with one version of the bundle (`engine=torch`), and lets
clients ask one headline after another, none twice, while `scripts/deploy.py` deploys the other
(`engine=onnx`; as a shadow, then a canary), rolls back, starts a canary, promotes it and rolls
back, again until so many requests were made. Exit status 1 if one failed, or is not in the
prediction log.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
PORTS = (
    "serve.torchserve.inference_port",
    "serve.torchserve.management_port",
    "serve.torchserve.metrics_port",
    "serve.gateway.port",
)
STEPS = (
    ("action=deploy", "archive=NEW", "shadow_seconds=5", "canary_seconds=10", "share=0.2"),
    ("action=rollback",),
    ("action=canary", "archive=NEW", "share=0.3"),
    ("action=promote",),
    ("action=rollback",),
)


class Load:
    """Clients that ask until they are told to stop."""

    def __init__(self, url: str, clients: int) -> None:
        self.statuses: Counter[str] = Counter()
        self.versions: Counter[str] = Counter()
        self.slowest = 0.0
        self._url = url
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask, args=(number,)) for number in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, client: int) -> None:
        number = 0
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as http:
            while not self._stop.is_set():
                began, number = time.monotonic(), number + 1
                text = f"Headline {number} of client {client}"
                try:
                    answer = http.post("/predict", json={"text": text})
                    status = str(answer.status_code)
                    version = answer.json().get("model_version") if answer.is_success else None
                except httpx.HTTPError as error:
                    status, version = type(error).__name__, None
                with self._lock:
                    self.statuses[status] += 1
                    self.versions[str(version)] += 1
                    self.slowest = max(self.slowest, time.monotonic() - began)

    def stop(self) -> None:
        """End, when every answer is there."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def main(arguments: Sequence[str] | None = None) -> None:
    """Replace versions under load, and say what became of the requests."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True, help="of train.py")
    parser.add_argument("--requests", type=int, default=20_000, help="at least so many")
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="deployments-") as work:
        folder = Path(work)
        archives = [
            _export(options.bundle.resolve(), folder / engine, engine)
            for engine in ("torch", "onnx")
        ]
        load = _replaced(folder, archives, options.requests, options.clients)
        logged = _logged(folder / "deployment" / "predictions")
    total = sum(load.statuses.values())
    print(f"{total:,} requests: {dict(load.statuses)}, by version {dict(load.versions)}")
    print(f"slowest answer {load.slowest:.2f} s; {logged:,} in the prediction log")
    sys.exit(0 if load.statuses == {"200": total} and logged == total else 1)


def _replaced(folder: Path, archives: Sequence[Path], requests: int, clients: int) -> Load:
    ports = _free_ports(len(PORTS))
    common = [
        f"serve.dir={folder / 'deployment'}",
        "serve.torchserve.grpc_inference_port=0",
        "serve.torchserve.grpc_management_port=0",
        *(f"{name}={port}" for name, port in zip(PORTS, ports, strict=True)),
    ]
    # Of repeated texts the cache would answer; here none is.
    starting = [*common, "serve.gateway.cache_size=0", f"archive={archives[0]}"]
    url = f"http://127.0.0.1:{ports[-1]}"
    with (folder / "serve.log").open("wb") as log:
        server = subprocess.Popen(  # noqa: S603
            _command("serve.py", *starting), cwd=folder, stdout=log, stderr=log
        )
    try:
        _wait(url, server, folder / "serve.log")
        load = Load(url, clients)
        try:
            # deploy.py has no gateway.
            deploying = [text for text in common if not text.startswith(PORTS[-1])]
            while True:
                for step in STEPS:
                    given = [text.replace("NEW", str(archives[1])) for text in step]
                    began = time.monotonic()
                    _run("deploy.py", folder, *deploying, *given)
                    print(
                        f"{step[0]}: {time.monotonic() - began:.1f} s, "
                        f"{sum(load.statuses.values()):,} requests so far",
                        flush=True,
                    )
                    time.sleep(3)
                if sum(load.statuses.values()) >= requests:
                    break
        finally:
            load.stop()
    finally:
        server.terminate()
        server.wait(60)
    return load


def _export(bundle: Path, out: Path, engine: str) -> Path:
    _run("export.py", out.parent, f"bundle={bundle}", f"out={out}", f"engine={engine}")
    (archive,) = out.iterdir()
    return archive


def _command(script: str, *overrides: str) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / script), *overrides]


def _run(script: str, folder: Path, *overrides: str) -> None:
    done = subprocess.run(  # noqa: S603
        _command(script, *overrides),
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{script} {' '.join(overrides)} failed:\n{done.stdout}{done.stderr}")


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    while server.poll() is None:
        try:
            if httpx.get(f"{url}/health/ready", timeout=5).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    sys.exit(log.read_text())


def _logged(folder: Path) -> int:
    """Answers in the log: neither copies for a shadow nor what was refused."""
    count = 0
    for path in folder.glob("date=*/*.parquet"):
        table = pq.read_table(path, columns=["shadow_of", "error"], partitioning=None)
        for row in table.to_pylist():
            count += row["shadow_of"] is None and row["error"] is None
    return count


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


if __name__ == "__main__":
    main()
