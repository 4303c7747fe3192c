"""Real encoders as ONNX and in integers, and the whole command in processes of its own."""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fakenews.engines import Batch, Engine, OnnxEngine, Outputs, TorchEngine
from fakenews.models.encoder import TextEncoder
from fakenews.models.networks import FusionNet, Network, SeedNet, TextNet
from fakenews.predictor import Predictor
from fakenews.serving.golden import TEXTS
from fakenews.serving.quantise import quantise
from fakenews.serving.to_onnx import to_onnx
from fixtures.commands import Commands

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
    "vocab_size": 1200,
    "pad_token_id": 1,
}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": SMALL,
    "roberta": SMALL,
    "mpnet": SMALL,
    "electra": SMALL,
    "albert": SMALL | {"embedding_size": 16},
    "distilbert": {
        "dim": 32,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 64,
        "max_position_embeddings": 256,
        "vocab_size": 1200,
    },
}


def batch(rows: int, tokens: int, seed: int = 0) -> Batch:
    generator = np.random.default_rng(seed)
    mask = np.ones((rows, tokens), dtype=np.int64)
    mask[0, max(tokens // 2, 1) :] = 0
    return Batch([], generator.integers(3, 1200, (rows, tokens)), mask)


def answer(engine: Engine, shape: tuple[int, int], features: int) -> Outputs:
    tabular = np.random.default_rng(1).normal(size=(shape[0], features)).astype(np.float32)
    return engine.classify(engine.encode(batch(*shape)), tabular)


def check_engines(network: Network, features: int) -> None:
    shapes = [(2, 3), (1, 1), (5, 40), (3, 200)]
    torch_engine = TorchEngine(network)
    expected = [answer(torch_engine, shape, features) for shape in shapes]
    parts = to_onnx(network)
    examples = [batch(8, 30, seed)._asdict() for seed in range(3)]
    quantised = parts | {"encoder": quantise(parts["encoder"], examples)}
    for engine, atol in ((OnnxEngine(parts), 1e-5), (OnnxEngine(quantised), 0.05)):
        for shape, wanted in zip(shapes, expected, strict=True):
            found = answer(engine, shape, features)
            np.testing.assert_allclose(found.logits, wanted.logits, atol=atol)
            assert found.embeddings.shape == wanted.embeddings.shape


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.filterwarnings("ignore")  # of transformers, about its own models
def test_encoders(kind: str) -> None:
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **ENCODERS[kind])
    backbone = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    check_engines(TextNet(TextEncoder(backbone), tabular_dim=0, num_classes=3), 0)


@pytest.mark.parametrize("network", [SeedNet, FusionNet])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_networks(network: type[Network], pooling: Any) -> None:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    backbone = BertModel(BertConfig(**SMALL), add_pooling_layer=False)
    encoder = TextEncoder(backbone, pooling=pooling)
    check_engines(network(encoder, tabular_dim=4, num_classes=2), 4)


@pytest.mark.parametrize("engine", ["torch", "onnx", "onnx-int8"])
def test_the_command_twice(
    command: Commands,
    tiny_run: Path,
    tmp_path: Path,
    engine: str,
) -> None:
    digests = []
    for threads in ("1", "2"):
        out = tmp_path / threads
        done = command(
            "scripts/export.py",
            f"bundle={tiny_run}",
            f"engine={engine}",
            f"out={out}",
            cwd=tmp_path,
            fresh=threads != "1",  # read when libraries load
            OMP_NUM_THREADS=threads,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert ("Rows a second" in done.stdout) == (engine != "torch")
        # What libraries tell on their way is not for people.
        told = [line for line in done.stdout.splitlines() if " INFO " in line]
        assert len(told) == {"torch": 2, "onnx": 3, "onnx-int8": 4}[engine], done.stdout
        (path,) = out.iterdir()
        digests.append((path.name, hashlib.sha256(path.read_bytes()).hexdigest()))
    assert digests[0] == digests[1]
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "unpacked")
    parts = list((tmp_path / "unpacked" / "bundle").glob("engine/*.onnx"))
    assert sorted(part.stem for part in parts) == ["encoder", "head"] * (engine != "torch")
    for place in (ROOT, Path(torch.__file__).parent):
        assert not any(str(place).encode() in part.read_bytes() for part in parts)
    one, other = (
        Predictor.load(where).predict(list(TEXTS))
        for where in (tiny_run, tmp_path / "unpacked" / "bundle")
    )
    tolerance = {"torch": 0, "onnx": 1e-5, "onnx-int8": 0.02}[engine]
    for ours, theirs in zip(one, other, strict=True):
        assert theirs.probabilities == pytest.approx(ours.probabilities, abs=tolerance)
