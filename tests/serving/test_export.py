"""The command `export`: from a bundle, a run or a registered model to an archive."""

import dataclasses
import json
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import yaml
from mlflow.tracking import MlflowClient
from rich.console import Console

from fakenews.bundle import MANIFEST, BundleContent, read_bundle, write_bundle
from fakenews.errors import BundleError, ConfigError, ServingError, TrackingError
from fakenews.predictor import Predictor
from fakenews.serving.archive import Made, ModelConfig
from fakenews.serving.export import comparison_table, export_bundle
from fakenews.serving.golden import TEXTS
from fakenews.serving.model import ServedModel
from fakenews.serving.optimise import Comparison, Tolerances

# Exports of networks take a second each, and there are many.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ..noload.. loader"),
]

Export = Callable[..., Made]


@pytest.fixture
def export(tmp_path: Path) -> Export:
    handler = tmp_path / "handler.py"
    handler.write_text("# handles\n")

    def make(**options: Any) -> Made:
        settings: dict[str, Any] = {
            "tracking_uri": "sqlite:////absent/mlflow.db",
            "tolerances": Tolerances(),
            "name": "news",
            "out": str(tmp_path / "archives"),
            "handler": str(handler),
            "config": ModelConfig(),
            "settings": partial(ServedModel.load, unsure=0.2),
        }
        return export_bundle(**settings | options)

    return make


@pytest.fixture
def bundle(checked_content: BundleContent, tmp_path: Path) -> Path:
    return write_bundle(checked_content, tmp_path / "run" / "bundle")


def unpacked(made: Made, folder: Path) -> Path:
    with zipfile.ZipFile(made.path) as archive:
        archive.extractall(folder)
    return folder


def golden_probabilities(bundle: Path) -> np.ndarray:
    found = json.loads((bundle / "golden.json").read_text())["probabilities"]
    return np.array([list(probabilities.values()) for probabilities in found])


def test_torch(
    export: Export, bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    made = export(bundle=str(bundle))
    assert f"{made.path} made (" in caplog.text
    assert f"scripts/deploy.py action=deploy archive={made.path}" in caplog.text
    folder = unpacked(made, tmp_path / "unpacked")
    config = yaml.safe_load((folder / "model-config.yaml").read_text())
    assert config["handler"] == {"unsure": 0.2}
    content = read_bundle(folder / "bundle")
    assert content.engine is None
    original = json.loads((bundle / MANIFEST).read_text())["sha256"]
    assert content.provenance["exported_from"] == original
    assert content.golden is not None
    assert content.golden["atol"] == 1e-4
    # The same probabilities through the archive's bundle and the original, to the bit.
    texts = [*TEXTS, "Rain"]
    one, other = (Predictor.load(where).predict(texts) for where in (bundle, folder / "bundle"))
    assert one == other
    found = np.array([list(prediction.probabilities.values()) for prediction in one[:-1]])
    np.testing.assert_allclose(found, golden_probabilities(folder / "bundle"), atol=1e-5)
    # Of the run folder it is the same, and so it is there already.
    again = export(bundle=str(bundle.parent))
    assert (again.path, again.new) == (made.path, False)
    assert f"{made.path} was there already, the same" in caplog.text


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch, network_onnx: dict[str, bytes]) -> None:
    """The network of the bundle is not exported again for each test."""
    monkeypatch.setattr("fakenews.serving.to_onnx.to_onnx", lambda network: {**network_onnx})


@pytest.mark.usefixtures("exported")
@pytest.mark.parametrize("engine", ["onnx", "onnx-int8"])
def test_onnx(
    export: Export,
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    engine: str,
) -> None:
    made = export(bundle=str(bundle), engine=engine)
    assert "Rows a second" in capsys.readouterr().out
    assert not export(bundle=str(bundle), engine=engine).new
    folder = unpacked(made, tmp_path / "unpacked") / "bundle"
    predictor = Predictor.load(folder)
    found = predictor.predict(list(TEXTS))
    alone = [predictor.predict([text])[0] for text in TEXTS]
    golden = golden_probabilities(folder)
    for predictions in (found, alone):
        matrix = np.array([list(p.probabilities.values()) for p in predictions])
        np.testing.assert_allclose(matrix, golden, atol=1e-5)
    content = read_bundle(folder)
    assert content.engine is not None
    assert content.engine["name"] == engine
    assert content.golden is not None
    assert content.golden["atol"] == (1e-4 if engine == "onnx" else 5e-3)
    with pytest.raises(ServingError, match=f"engine={engine} is refused"):
        export(
            bundle=str(bundle),
            engine=engine,
            tolerances=Tolerances(onnx_max_difference=0, int8_mean_difference=0),
        )


def test_the_table() -> None:
    found = Comparison(
        rows=1234,
        max_difference=0.05,
        mean_difference=0.0123,
        decided_otherwise=0.015,
        average_precision=(0.91, 0.9099999),
        ece=(0.03, 0.04),
        speed=(100.0, 250.0),
    )
    content = BundleContent(
        model={},
        weights={"w": np.zeros(1_000_000, dtype=np.float32)},
        tokenizer=None,
        features={},
        labels={},
        calibration={},
        reference={},
        metrics={},
        provenance={},
        engine={"name": "onnx-int8"},
        onnx={"encoder": bytes(900_000), "head": bytes(100_000)},
    )
    console = Console(width=80, record=True)
    console.print(comparison_table(found, content))
    rows = [line.replace("│", " ").split() for line in console.export_text().splitlines()]
    for row in (
        ["┃", "1,234", "rows", "┃", "torch", "┃", "onnx-int8", "┃", "difference", "┃"],
        ["Average", "precision", "0.9100", "0.9100", "+0.0000"],
        ["Calibration", "error", "(ECE)", "0.0300", "0.0400", "+0.0100"],
        ["Decided", "otherwise", "1.50%"],
        ["Rows", "a", "second", "100", "250", "x", "2.50"],
        ["Megabytes", "4", "1"],
    ):
        assert row in rows


# --- MLflow ----------------------------------------------------------------------------


def test_a_run_and_a_registered_model(export: Export, bundle: Path, tmp_path: Path) -> None:
    before = mlflow.get_tracking_uri()
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    try:
        client = MlflowClient(uri)
        experiment = client.create_experiment("e", artifact_location=str(tmp_path / "kept"))
        run = client.create_run(experiment).info.run_id
        client.log_artifacts(run, str(bundle), "bundle")
        client.create_registered_model("news")
        source = f"{client.get_run(run).info.artifact_uri}/bundle"
        client.create_model_version("news", source=source, run_id=run, await_creation_for=None)
        client.set_registered_model_alias("news", "champion", "1")
        made = export(run=run, tracking_uri=uri)
        again = export(registered="news@champion", tracking_uri=uri)
        assert made.new
        assert (again.path, again.new) == (made.path, False)
        assert export(bundle=str(bundle)).path == made.path
        with pytest.raises(TrackingError, match="run=absent: the MLflow store"):
            export(run="absent", tracking_uri=uri)
    finally:
        mlflow.set_tracking_uri(before)


# --- mistakes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", [{}, {"bundle": "a", "run": "b"}, {"run": "a", "registered": "b"}]
)
def test_one_source_is_needed(export: Export, given: dict[str, str]) -> None:
    with pytest.raises(
        ConfigError, match="give one of bundle=FOLDER, run=RUN_ID and registered="
    ):
        export(**given)


def test_what_is_not_there(export: Export, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="absent is no bundle: there is no such folder"):
        export(bundle=str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match=r"handler=no\.py: there is no such file"):
        export(bundle=str(bundle), handler="no.py")
    with pytest.raises(ConfigError, match=r"bundle=latest: .* has no finished run: train one"):
        export(bundle="latest", runs=str(tmp_path / "runs"))
    with pytest.raises(TrackingError, match=r"tracking_uri=.*: there is no such file"):
        export(run="a")
    assert not (tmp_path / "archives").exists()


def test_a_damaged_bundle(export: Export, bundle: Path, tmp_path: Path) -> None:
    weights = bundle / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(BundleError, match=r"weights\.safetensors was changed after the bundle"):
        export(bundle=str(bundle))
    assert not (tmp_path / "archives").exists()


def test_a_bundle_of_an_earlier_version_can_have_torch(
    export: Export, checked_content: BundleContent, tmp_path: Path
) -> None:
    reference = {"labels": checked_content.reference["labels"]}
    old = write_bundle(
        dataclasses.replace(checked_content, reference=reference), tmp_path / "old"
    )
    assert export(bundle=str(old)).new
    with pytest.raises(BundleError, match="made by an earlier version"):
        export(bundle=str(old), engine="onnx")
