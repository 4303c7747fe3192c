"""Networks in 8-bit integers: near the original, whatever stands beside a text."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from fakenews.bundle import BundleContent
from fakenews.engines import Batch, Engine, OnnxEngine
from fakenews.errors import ConfigError
from fakenews.predictor import Predictor
from fakenews.serving.optimise import Rows
from fakenews.serving.quantise import quantise

# Exports of networks take a second each, and there are many.
pytestmark = pytest.mark.slow

GENERATOR = np.random.default_rng(0)
TABLE = GENERATOR.normal(size=(2000, 16)).astype(np.float32)
# One channel is a hundred times as large as others, and weighs as much as they do.
GAIN = np.where(np.arange(16) == 3, 100, 1).astype(np.float32)
FIRST = GENERATOR.normal(size=(16, 24)).astype(np.float32)
FIRST[3] /= 100
SECOND = GENERATOR.normal(size=(24, 4)).astype(np.float32)
BIAS = GENERATOR.normal(size=24).astype(np.float32)


def graph(*, biased: bool = True, nodes: list[NodeProto] | None = None) -> bytes:
    """embedding -> gain -> linear (with a bias or none) -> ReLU -> linear without one."""
    inner = "product" if biased else "hidden"
    made = nodes or [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Mul", ["rows", "gain"], ["states"]),
        helper.make_node("MatMul", ["states", "first"], [inner]),
        *([helper.make_node("Add", ["bias", inner], ["hidden"])] if biased else []),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "second"], ["logits"]),
    ]
    arrays = {"table": TABLE, "first": FIRST, "second": SECOND, "bias": BIAS, "gain": GAIN}
    read = {name for node in made for name in node.input}
    model = helper.make_model(
        helper.make_graph(
            made,
            "g",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "t"])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", "t", 4])],
            [numpy_helper.from_array(a, name) for name, a in arrays.items() if name in read],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    return bytes(model.SerializeToString())


def feed(rows: int, tokens: int = 12, seed: int = 0) -> dict[str, NDArray[Any]]:
    ids = np.random.default_rng(seed).integers(0, 2000, (rows, tokens))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def run(model: bytes, given: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(["logits"], {"input_ids": given["input_ids"]})[0]
    return found


@pytest.mark.parametrize("biased", [True, False])
def test_the_answers_are_near(biased: bool) -> None:
    model = graph(biased=biased)
    quantised = quantise(model, [feed(40, seed=seed) for seed in range(3)])
    asked = feed(50, seed=9)
    expected, found = run(model, asked), run(quantised, asked)
    assert np.abs(found - expected).mean() < 0.02 * expected.std()
    # On average nothing is added.
    assert abs((found - expected).mean()) < 0.002 * expected.std()


def test_weights_and_embeddings_are_whole_numbers_of_7_bits_and_8() -> None:
    model = onnx.load_from_string(quantise(graph(), [feed(40)]))
    arrays = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    weights = [array for array in arrays.values() if array.ndim == 2 and array.shape[1] > 1]
    assert sorted(array.shape for array in weights) == [(16, 24), (24, 4), (2000, 16)]
    assert {array.dtype for array in weights} == {np.dtype(np.int8)}
    assert [np.abs(array).max() for array in weights if len(array) < 100] == [63, 63]
    assert not arrays.keys() & {"table", "first", "second"}
    onnx.checker.check_model(model)


def test_the_same_examples_give_the_same_bytes() -> None:
    assert quantise(graph(), [feed(8)]) == quantise(graph(), [feed(8)])


def test_padding_is_no_example() -> None:
    given = feed(8)
    padded = {name: np.pad(array, ((0, 0), (0, 30))) for name, array in given.items()}
    padded["input_ids"][:, 12:] = 7
    assert quantise(graph(), [padded]) == quantise(graph(), [given])


def test_layers_that_read_the_same_share_its_integers() -> None:
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["states"]),
        helper.make_node("MatMul", ["states", "first"], ["one"]),
        helper.make_node("MatMul", ["states", "first"], ["two"]),
        helper.make_node("Add", ["one", "two"], ["both"]),
        helper.make_node("MatMul", ["both", "second"], ["logits"]),
    ]
    model = graph(nodes=nodes)
    quantised = quantise(model, [feed(40)])
    kinds = [node.op_type for node in onnx.load_from_string(quantised).graph.node]
    assert kinds.count("QuantizeLinear") == 2
    expected, found = run(model, feed(9, seed=5)), run(quantised, feed(9, seed=5))
    assert np.abs(found - expected).mean() < 0.02 * expected.std()


def test_a_channel_that_is_always_zero() -> None:
    examples = feed(8)
    table = TABLE.copy()
    table[:, 5] = 0
    model = onnx.load_from_string(graph())
    for item in model.graph.initializer:
        if item.name == "table":
            item.CopyFrom(numpy_helper.from_array(table, "table"))
    found = run(quantise(model.SerializeToString(), [examples]), examples)
    assert np.isfinite(found).all()


def test_nothing_to_quantise() -> None:
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["states"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["states", "axis"], ["logits"]),
    ]
    model = onnx.load_from_string(graph(nodes=nodes))
    model.graph.initializer.append(numpy_helper.from_array(np.array([2]), "axis"))
    with pytest.raises(ConfigError, match="finds no layers in this model to quantise"):
        quantise(model.SerializeToString(), [feed(2)])


def test_a_transformer_answers_a_text_alone_as_among_others(
    checked_content: BundleContent, network_onnx: dict[str, bytes]
) -> None:
    predictor = Predictor.from_content(checked_content)
    rows = Rows.of(checked_content)
    examples = [i._asdict() for _, i in rows.take(np.arange(30)).batches(predictor)]
    quantised = quantise(network_onnx["encoder"], examples)
    engine = OnnxEngine(network_onnx | {"encoder": quantised})
    probabilities = np.empty((len(rows), 2))
    exact = np.empty_like(probabilities)

    def answer(engine: Engine, batch: Batch, which: NDArray[np.int64]) -> NDArray[np.float64]:
        outputs = engine.classify(engine.encode(batch), rows.tabular[which])
        return predictor.calibration.apply(outputs.logits)

    for of_batch, batch in rows.batches(predictor):
        probabilities[of_batch] = answer(engine, batch, of_batch)
        exact[of_batch] = answer(predictor.engine, batch, of_batch)
        for place, row in enumerate(of_batch):
            length = int(batch.attention_mask[place].sum())
            alone = Batch(
                [],
                batch.input_ids[[place], :length],
                batch.attention_mask[[place], :length],
            )
            (found,) = answer(engine, alone, np.array([row]))
            np.testing.assert_allclose(found, probabilities[row], atol=1e-6)
    assert 0 < np.abs(probabilities - exact).max() < 0.01
    assert np.abs(probabilities - exact).mean() < 0.1 * exact[:, 0].std()
    assert len(quantised) < 0.5 * len(network_onnx["encoder"])
