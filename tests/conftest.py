"""What tests of several packages share; fixtures/ has what is larger."""

import copy
import functools
import gc
import os
import signal
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from alembic.util import load_python_file
from httpx import create_ssl_context
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hypothesis import settings
from omegaconf import DictConfig, OmegaConf, open_dict

from fakenews.config import CONF, register_resolvers

pytest_plugins = [
    "fixtures.bundles",
    "fixtures.commands",
    "fixtures.prepared",
    "fixtures.s3",
    "fixtures.sweeps",
]

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
        text = collection_path.read_text()
        return None if "mark.slow" in text or "@either" in text else True
    return None


# What is imported stays: looking for garbage among it takes a sixth of the time of collecting.
gc.disable()


def pytest_collection_finish() -> None:
    """Collect only the garbage of tests."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Let all be garbage at the end: DuckDB would report what is left of it."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def once() -> Iterator[None]:
    """What hundreds of tests would do again, to the same effect, is done once."""
    contexts = functools.cache(lambda file, *arguments: create_ssl_context(*arguments))
    revisions = functools.cache(load_python_file)

    # The certificates of all authorities, for each client of a server on this machine.
    def context(
        *, verify: Any = True, cert: Any = None, trust_env: bool = True
    ) -> ssl.SSLContext:
        found: ssl.SSLContext = contexts(
            os.environ.get("SSL_CERT_FILE"), verify, cert, trust_env
        )
        return found

    # All there ever was of a schema, for each store that is opened.
    def load(folder: str, name: str) -> ModuleType:
        return (load_python_file if name == "env.py" else revisions)(folder, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("httpx._transports.default.create_ssl_context", context)
        patch.setattr("alembic.util.load_python_file", load)
        yield


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
