"""What tests of promotions share: a store with a registered model, and a deployment."""

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from fakenews.retraining.halves import Halves
from fakenews.retraining.journal import Journal
from fakenews.retraining.promotion import Promotion
from fakenews.retraining.registry import Registry
from fakenews.retraining.served import Serving
from fakenews.retraining.standing import Gate
from fakenews.serving.archive import Made
from fakenews.serving.deployment import Deployment
from fakenews.serving.management import Management
from fakenews.serving.versions import Timing

MODEL = "news"
TIMING = Timing(settle=0, deadline=0, poll=0.001)


def _of_serving() -> ModuleType:
    path = Path(__file__).parents[1] / "serving" / "conftest.py"
    spec = importlib.util.spec_from_file_location("conftest_of_serving", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The stand-in for TorchServe is that of tests of deployments.
_serving = _of_serving()
make_mar, stand_in, client = _serving.make_mar, _serving.stand_in, _serving.client


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with four versions of `news`, all accepted but for the last, to be copied."""
    path = tmp_path_factory.mktemp("registered") / "mlflow.db"
    before = mlflow.get_tracking_uri()
    client = MlflowClient(f"sqlite:///{path}")
    experiment = client.create_experiment("e", artifact_location=str(path.parent / "e"))
    client.create_registered_model(MODEL)
    client.create_registered_model("other")
    registry = Registry(uri=f"sqlite:///{path}", model=MODEL)
    for number in (1, 2, 3, 4):
        run = client.create_run(experiment).info
        client.create_model_version(
            MODEL,
            source=f"{run.artifact_uri}/bundle",
            run_id=run.run_id,
            tags={"data_hash": f"d{number}", "test_macro_f1": f"0.8{number}"},
            description=f"The summary of {number}",
            await_creation_for=None,
        )
        if number < 4:
            registry.note_gate(number, Gate(accepted=True, summary="9 of 9 checks passed"))
    mlflow.set_tracking_uri(before)
    return path


@pytest.fixture
def uri(registered: Path, tmp_path: Path) -> str:
    """Of a store of one's own."""
    return f"sqlite:///{shutil.copy(registered, tmp_path / 'mlflow.db')}"


@pytest.fixture
def registry(uri: str) -> Registry:
    return Registry(uri=uri, model=MODEL, timeout=1)


@pytest.fixture
def exports() -> list[int]:
    """The versions whose archives were made, in order."""
    return []


@pytest.fixture
def serving(
    tmp_path: Path, client: Management, make_mar: Callable[..., Path], exports: list[int]
) -> Serving:
    """The deployment to the stand-in; version N has the archive vN."""
    archives = tmp_path / "archives"
    archives.mkdir()

    def export(version: int) -> Made:
        path = archives / f"fakenews-v{version}.mar"
        exports.append(version)
        shutil.copy(make_mar(f"v{version}"), path)
        return Made(path=path, version=f"v{version}", new=True)

    def deployment(*, confirm: Callable[[], None] | None = None) -> Deployment:
        return Deployment(
            folder=tmp_path, name="fakenews", client=client, timing=TIMING, confirm=confirm
        )

    return Serving(folder=tmp_path, deployment=deployment, export=export, archives=archives)


@pytest.fixture
def promotion(tmp_path: Path, registry: Registry, serving: Serving) -> Promotion:
    """Promotions of registry and serving."""
    return Promotion(Halves(registry=registry, serving=serving, journal=Journal(tmp_path)))


@pytest.fixture
def alone(tmp_path: Path, registry: Registry) -> Promotion:
    """Promotions of the registry alone."""
    return Promotion(Halves(registry=registry, serving=None, journal=Journal(tmp_path)))


@pytest.fixture
def look(registry: Registry, serving: Serving) -> Callable[[], dict[str, Any]]:
    """All that is to change in both halves, or in neither."""

    def found() -> dict[str, Any]:
        standing, state = registry.status(), serving.state
        return {
            "aliases": standing.aliases,
            "tags": {number: dict(of.tags) for number, of in standing.versions.items()},
            "state": state.but(events=(), aborted=None),
        }

    return found
