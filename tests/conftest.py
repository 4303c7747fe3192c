"""What tests of several packages share: one finished run of the real job."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fakenews.bundle import BundleContent, write_bundle
from fakenews.features.pipeline import FeaturePipeline
from fakenews.models.networks import TabularNet

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: 400 generated rows, a random encoder, one epoch."""
    folder = tmp_path_factory.mktemp("tiny")
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "train.py"),
            "name=tiny",
            "data.fetch.rows=400",
            "encoder=tiny",
            "trainer.max_epochs=1",
            "logger=none",
            "bootstrap=10",
            f"paths.runs={folder}/runs",
            f"paths.cache={folder}/cache",
        ],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "runs" / "tiny").iterdir()
    return run


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run: Path) -> Path:
    """The bundle of `tiny_run`: classes fake and real, no columns beside the text."""
    return tiny_run / "bundle"


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
