"""Engines: what they return, and that it is what the model says."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from fakenews.engines import Batch, OnnxEngine, Outputs, TfidfEngine, TorchEngine
from fakenews.errors import BundleError, ConfigError
from fakenews.models.networks import TabularNet
from fakenews.models.tfidf import TfidfClassifier

WEIGHT = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
ONE = np.array([1])


def batch(rows: int) -> Batch:
    empty = np.empty((rows, 0), dtype=np.int64)
    return Batch(["text"] * rows, empty, empty)


def features(rows: int) -> NDArray[np.float32]:
    return np.random.default_rng(rows).normal(size=(rows, 5)).astype(np.float32)


def test_torch_gives_the_logits_of_the_network_without_dropout() -> None:
    network = TabularNet(tabular_dim=5, num_classes=3, hidden_size=8, dropout=0.9)
    texts, tabular = batch(7), features(7)
    engine = TorchEngine(network.train())
    outputs = engine.classify(engine.encode(texts), tabular)
    with torch.no_grad():
        expected = network(*map(torch.from_numpy, (*texts[1:], tabular)))
    assert not network.training
    np.testing.assert_allclose(outputs.logits, expected.numpy(), atol=1e-6)
    assert outputs.logits.dtype == np.float64
    assert outputs.embeddings.shape == (7, 8)
    assert outputs.embeddings.dtype == np.float32


def test_the_logits_are_those_of_the_embeddings() -> None:
    network = TabularNet(tabular_dim=5, num_classes=2, hidden_size=8)
    engine = TorchEngine(network)
    outputs = engine.classify(engine.encode(batch(3)), features(3))
    with torch.no_grad():
        again = network.classify(torch.from_numpy(outputs.embeddings))
    np.testing.assert_allclose(outputs.logits, again.numpy(), atol=1e-6)


@pytest.mark.parametrize("device", ["abacus", "cuda:77", "meta:x"])
def test_a_device_that_is_not_there(device: str) -> None:
    network = TabularNet(tabular_dim=5, num_classes=2)
    with pytest.raises(ConfigError, match=f"device={device} cannot be used") as caught:
        TorchEngine(network, device=device)
    assert "\n" not in str(caught.value)


def test_tfidf_reads_the_texts_and_has_no_embeddings() -> None:
    model = TfidfClassifier(min_rows=1).fit(["good day", "bad night"] * 4, np.array([0, 1] * 4))
    empty = np.empty((2, 0), dtype=np.int64)
    engine = TfidfEngine(model)
    vectors = engine.encode(Batch(["bad night", "good day"], empty, empty))
    outputs = engine.classify(vectors, empty.astype(np.float32))
    assert outputs.logits.argmax(axis=1).tolist() == [1, 0]
    assert outputs.embeddings.shape == (2, 0)


# --- ONNX Runtime ----------------------------------------------------------------------


def model(
    nodes: list[NodeProto], reads: dict[str, ValueInfoProto], writes: dict[str, int]
) -> bytes:
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            list(reads.values()),
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
                for name, width in writes.items()
            ],
            [numpy_helper.from_array(WEIGHT, "weight"), numpy_helper.from_array(ONE, "one")],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    return bytes(made.SerializeToString())


@pytest.fixture(scope="module")
def head() -> bytes:
    """Logits that are a product of the tabular features, which are the embeddings."""
    nodes = [
        helper.make_node("MatMul", ["tabular", "weight"], ["logits"]),
        helper.make_node("Identity", ["tabular"], ["embeddings"]),
    ]
    reads = helper.make_tensor_value_info("tabular", TensorProto.FLOAT, ["batch", 5])
    return model(nodes, {"tabular": reads}, {"logits": 3, "embeddings": 5})


@pytest.fixture(scope="module")
def encoder() -> bytes:
    """The vector of a text is how many tokens it has."""
    nodes = [
        helper.make_node("ReduceSum", ["attention_mask", "one"], ["count"]),
        helper.make_node("Cast", ["count"], ["vectors"], to=TensorProto.FLOAT),
    ]
    reads = {
        name: helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask")
    }
    return model(nodes, reads, {"vectors": 1})


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_onnx_is_given_what_it_reads(head: bytes, encoder: bytes, threads: int | None) -> None:
    engine = OnnxEngine({"encoder": encoder, "head": head}, threads=threads)
    mask = np.tri(7, dtype=np.int64)
    vectors = engine.encode(Batch([], np.full_like(mask, 9), mask))
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[1], [2], [3], [4], [5], [6], [7]]
    tabular = features(7)
    outputs = engine.classify(vectors, tabular)
    np.testing.assert_allclose(outputs.logits, tabular @ WEIGHT, rtol=1e-5)
    np.testing.assert_array_equal(outputs.embeddings, tabular)
    assert outputs.logits.dtype == np.float64
    assert outputs.embeddings.dtype == np.float32


def test_a_network_without_an_encoder_has_no_vectors(head: bytes) -> None:
    vectors = OnnxEngine({"head": head}).encode(batch(3))
    assert (vectors.shape, vectors.dtype) == ((3, 0), np.float32)


def test_onnx_answers_several_threads_at_once(head: bytes) -> None:
    engine = OnnxEngine({"head": head}, threads=1)

    def ask(rows: int) -> Outputs:
        return engine.classify(engine.encode(batch(rows)), features(rows))

    with ThreadPoolExecutor(4) as pool:
        for rows, found in zip(range(1, 40), pool.map(ask, range(1, 40)), strict=True):
            np.testing.assert_allclose(found.logits, features(rows) @ WEIGHT, rtol=1e-5)


@pytest.mark.parametrize("damaged", [b"", b"no model", b"\x08\x07"])
def test_what_is_no_onnx(head: bytes, damaged: bytes) -> None:
    with pytest.raises(BundleError, match=r"engine/encoder\.onnx cannot be loaded: ") as caught:
        OnnxEngine({"encoder": damaged, "head": head})
    assert "\n" not in str(caught.value)


def test_onnx_runtime_may_be_missing(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="pip install onnxruntime, or use engine=torch"):
        OnnxEngine({"head": head})


def test_an_engines_library_is_imported_when_it_is_needed() -> None:
    code = (
        "import sys, fakenews.predictor, fakenews.serving.export, fakenews.retraining.promote; "
        "assert not {'torch', 'onnxruntime'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
