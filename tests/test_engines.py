"""Engines: what they return, and that it is what the model says."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from fakenews.engines import Inputs, OnnxEngine, TfidfEngine, TorchEngine
from fakenews.errors import BundleError, ConfigError
from fakenews.models.networks import TabularNet
from fakenews.models.tfidf import TfidfClassifier

WEIGHT = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)


def batch(rows: int) -> Inputs:
    empty = np.empty((rows, 0), dtype=np.int64)
    tabular = np.random.default_rng(0).normal(size=(rows, 5)).astype(np.float32)
    return Inputs(["text"] * rows, empty, empty, tabular)


def test_torch_gives_the_logits_of_the_network_without_dropout() -> None:
    network = TabularNet(tabular_dim=5, num_classes=3, hidden_size=8, dropout=0.9)
    inputs = batch(7)
    outputs = TorchEngine(network.train()).run(inputs)
    with torch.no_grad():
        expected = network(*(torch.from_numpy(array) for array in inputs[1:]))
    assert not network.training
    np.testing.assert_allclose(outputs.logits, expected.numpy(), atol=1e-6)
    assert outputs.logits.dtype == np.float64
    assert outputs.embeddings.shape == (7, 8)
    assert outputs.embeddings.dtype == np.float32


def test_the_logits_are_those_of_the_embeddings() -> None:
    network = TabularNet(tabular_dim=5, num_classes=2, hidden_size=8)
    outputs = TorchEngine(network).run(batch(3))
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
    inputs = Inputs(["bad night", "good day"], empty, empty, empty.astype(np.float32))
    outputs = TfidfEngine(model).run(inputs)
    assert outputs.logits.argmax(axis=1).tolist() == [1, 0]
    assert outputs.embeddings.shape == (2, 0)


# --- ONNX Runtime ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def onnx_model() -> bytes:
    """Logits that are a product of the tabular features, which are the embeddings."""
    weight = numpy_helper.from_array(WEIGHT, "weight")
    nodes = [
        helper.make_node("MatMul", ["tabular", "weight"], ["logits"]),
        helper.make_node("Identity", ["tabular"], ["embeddings"]),
    ]
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
        for name, width in (("tabular", 5), ("logits", 3), ("embeddings", 5))
    }
    graph = helper.make_graph(
        nodes, "g", [values["tabular"]], [values["logits"], values["embeddings"]], [weight]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_onnx_is_given_what_it_reads(onnx_model: bytes, threads: int | None) -> None:
    inputs = batch(7)
    outputs = OnnxEngine(onnx_model, threads=threads).run(inputs)
    np.testing.assert_allclose(outputs.logits, inputs.tabular @ WEIGHT, rtol=1e-5)
    np.testing.assert_array_equal(outputs.embeddings, inputs.tabular)
    assert outputs.logits.dtype == np.float64
    assert outputs.embeddings.dtype == np.float32


def test_onnx_answers_several_threads_at_once(onnx_model: bytes) -> None:
    engine = OnnxEngine(onnx_model, threads=1)
    inputs = [batch(rows) for rows in range(1, 40)]
    with ThreadPoolExecutor(4) as pool:
        for given, found in zip(inputs, pool.map(engine.run, inputs), strict=True):
            np.testing.assert_allclose(found.logits, given.tabular @ WEIGHT, rtol=1e-5)


@pytest.mark.parametrize("model", [b"", b"no model", b"\x08\x07"])
def test_what_is_no_onnx(model: bytes) -> None:
    with pytest.raises(BundleError, match=r"engine/model\.onnx cannot be loaded: ") as caught:
        OnnxEngine(model)
    assert "\n" not in str(caught.value)


def test_onnx_runtime_may_be_missing(
    onnx_model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="pip install onnxruntime, or use engine=torch"):
        OnnxEngine(onnx_model)


def test_an_engines_library_is_imported_when_it_is_needed() -> None:
    code = (
        "import sys, fakenews.predictor, fakenews.serving.export, fakenews.retraining.promote; "
        "assert not {'torch', 'onnxruntime'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
