"""What all servers that `serving.py` compares have in common."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from serving_load import post
from serving_process import HOST, Process, ServerError, free_port

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
_START_SECONDS = 180
_LAST_LINES = 8

Rows = list[list[float]]
"""Probabilities of each text, by class in the order of the bundle."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """A server with an engine and a bundle.

    Attributes:
        name: As it is written, without what is the default.
        server: Its name.
        engine: That runs the model.
        features: `full` or `plain`.
    """

    name: str
    server: str
    engine: str
    features: str


@dataclass(kw_only=True)
class Setup:
    """What all ways share.

    Attributes:
        folder: For what they write.
        sources: Folders of the bundles as they were trained, by feature set.
        classes: Of the model, in the order of the bundle.
        threads: Of each worker.
        workers: Processes that compute, if the server can have several.
        bentoml_python: Of the environment that has BentoML.
        overrides: Of `conf/export.yaml`, and of `conf/serve/`, which begin with `serve.`.
        shared: What several ways use, by engine and features.
    """

    folder: Path
    sources: Mapping[str, Path]
    classes: Sequence[str]
    threads: int
    workers: int
    bentoml_python: str | None = None
    overrides: Sequence[str] = ()
    shared: dict[tuple[str, str], Any] = field(default_factory=dict)

    def archive(self, features: str, engine: str) -> Path:
        """The archive that `scripts/export.py` makes; one of an earlier run is kept.

        Raises:
            ServerError: It cannot be made.
        """
        folder = self.folder / "archives" / f"{features}-{engine}-{self.workers}x{self.threads}"
        if not list(folder.glob("*.mar")):
            run(
                [
                    *(sys.executable, str(ROOT / "scripts" / "export.py")),
                    *(f"bundle={self.sources[features]}", f"engine={engine}", f"out={folder}"),
                    *(f"config.workers={self.workers}", f"settings.threads={self.threads}"),
                    *(one for one in self.overrides if not one.startswith("serve.")),
                ],
                environment={},
            )
        (found,) = folder.glob("*.mar")
        return found

    def bundle(self, features: str, engine: str) -> Path:
        """The bundle with an engine: as it was trained, or what the archive has.

        Raises:
            ServerError: There is no such archive.
        """
        if engine == "torch":
            return self.sources[features]
        archive = self.archive(features, engine)
        folder = archive.with_suffix("")
        if not folder.is_dir():
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(folder.with_suffix(".part"))
            folder.with_suffix(".part").rename(folder)
        return folder / "bundle"


class Server:
    """A server that answers on a port of this machine.

    Attributes:
        port: Where it answers.
        lists: Whether a request may have many texts.
        title: What it is, for the table.
        tabular: Whether it computes the tabular features of the bundle.
        engines: That it can have; the first is its default.
    """

    title: ClassVar[str]
    lists: ClassVar[bool] = False
    tabular: ClassVar[bool] = True
    engines: ClassVar[Sequence[str]] = ("onnx-int8", "onnx", "torch")

    def __init__(self, way: Way, setup: Setup) -> None:
        self._process: Process | None = None
        self.way = way
        self.setup = setup
        self.port = free_port()
        self.folder = setup.folder / "ways" / way.name.replace("/", "-")
        # What a run left that was killed would be taken for a server that runs.
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.log = self.folder / "log.txt"

    @property
    def bundle(self) -> Path:
        """The bundle that it serves."""
        return self.setup.bundle(self.way.features, self.way.engine)

    def start(self) -> None:
        """Start it, and wait until it is ready.

        Raises:
            ServerError: It cannot.
        """
        raise NotImplementedError

    def single(self, text: str) -> str:
        """The HTTP request of a text."""
        return post("/predict", json.dumps({"text": text}))

    def many(self, texts: Sequence[str]) -> str:
        """The HTTP request of several texts, if there are `lists`."""
        raise NotImplementedError

    def read(self, body: str) -> Rows:
        """What was answered."""
        return self.rows([json.loads(body)])

    def rows(self, found: Sequence[dict[str, float]]) -> Rows:
        """Of each text, from its probabilities by class."""
        return [[one[name] for name in self.setup.classes] for one in found]

    def launch(
        self,
        command: Sequence[str],
        *,
        ready: str,
        environment: dict[str, str] | None = None,
    ) -> None:
        """Start a command that answers `ready` when it is."""
        self._process = Process(
            name=self.way.name,
            command=command,
            log=self.log,
            environment=self.environment | (environment or {}),
            cwd=self.folder,
        )
        self.process.wait(f"http://{HOST}:{self.port}{ready}", timeout=_START_SECONDS)

    @property
    def process(self) -> Process:
        """With all that it started."""
        assert self._process is not None  # noqa: S101 it was started
        return self._process

    def stop(self) -> None:
        """End it; safe to call at any time."""
        if self._process is not None:
            self._process.stop()

    @property
    def environment(self) -> dict[str, str]:
        """Of the process: as many threads as all others, and what the peers' code reads."""
        return threads_environment(self.setup.threads) | {
            "THREADS": str(self.setup.threads),
            "WORKERS": str(self.setup.workers),
            "BUNDLE": str(self.bundle),
            "ENGINE": self.way.engine,
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(python_path()),
            # Servers start programs of their own by name.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }


def threads_environment(threads: int) -> dict[str, str]:
    """What tells all libraries how many threads they have."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    return dict.fromkeys(names, str(threads)) | {
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false"
    }


def python_path() -> list[str]:
    """Ours, as servers work in other folders."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [str(Path(path).resolve()) for path in paths if path]


def run(command: Sequence[str], *, environment: dict[str, str]) -> str:
    """What a command prints.

    Raises:
        ServerError: It fails.
    """
    done = subprocess.run(  # noqa: S603
        command,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(os.environ) | environment,
    )
    if done.returncode:
        told = "\n".join(done.stdout.splitlines()[-_LAST_LINES:])
        raise ServerError(f"{' '.join(command[1:4])} failed:\n{told}")
    return done.stdout


def check_rows(name: str, found: Rows, expected: Rows, *, tolerance: float) -> float:
    """The largest difference of a probability.

    Raises:
        ServerError: It is more than `tolerance`, or there are not as many rows.
    """
    if len(found) != len(expected):
        raise ServerError(f"{name} answers {len(found)} texts of {len(expected)}")
    pairs: Any = zip(found, expected, strict=True)
    worst = max(abs(a - b) for row, other in pairs for a, b in zip(row, other, strict=True))
    if not worst <= tolerance:
        raise ServerError(f"{name} is wrong: a probability is off by {worst:.3g}")
    return worst
