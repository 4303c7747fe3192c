"""Networks as ONNX: the same answers, for any number of texts and tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fakenews.engines import Batch, OnnxEngine
from fakenews.errors import ServingError
from fakenews.models.networks import TabularNet
from fakenews.predictor import Predictor
from fakenews.serving.to_onnx import to_onnx

# Exports of networks take a second each, and there are many.
pytestmark = pytest.mark.slow


def batch(predictor: Predictor, rows: int, tokens: int) -> tuple[Batch, NDArray[np.float32]]:
    """Random texts, the first of which is half as long, and features."""
    generator = np.random.default_rng(rows)
    mask = np.ones((rows, tokens), dtype=np.int64)
    mask[0, tokens // 2 + 1 :] = 0
    assert predictor.features is not None
    tabular = generator.normal(size=(rows, predictor.features.dim)).astype(np.float32)
    ids = generator.integers(1000, 20_000, mask.shape)
    return Batch([""] * rows, np.where(mask == 1, ids, predictor.pad_id), mask), tabular


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 32), (7, 20), (2, 200)])
def test_the_answers_are_those_of_the_network(
    fusion_bundle: Path, network_onnx: dict[str, bytes], shape: tuple[int, int]
) -> None:
    predictor = Predictor.load(fusion_bundle)
    texts, tabular = batch(predictor, *shape)
    expected, found = (
        engine.classify(engine.encode(texts), tabular)
        for engine in (predictor.engine, OnnxEngine(network_onnx))
    )
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
    np.testing.assert_allclose(found.embeddings, expected.embeddings, atol=1e-5)


def test_nothing_tells_where_it_was_made(network_onnx: dict[str, bytes]) -> None:
    names = {}
    for part, content in network_onnx.items():
        for place in (Path(torch.__file__).parent, Path.cwd(), Path.home(), 'File "'):
            assert str(place).encode() not in content
        model = onnx.load_from_string(content)
        onnx.checker.check_model(model)
        names[part] = [node.name for node in (*model.graph.input, *model.graph.output)]
    assert names == {
        "encoder": ["input_ids", "attention_mask", "vectors"],
        "head": ["vectors", "tabular", "logits", "embeddings"],
    }


def test_the_same_network_gives_the_same_bytes_and_a_model_without_text_goes_too() -> None:
    torch.manual_seed(0)
    network = TabularNet(tabular_dim=5, num_classes=3, hidden_size=8)
    parts = to_onnx(network)
    assert to_onnx(network) == parts
    assert parts.keys() == {"head"}
    empty = np.empty((4, 0), dtype=np.int64)
    tabular = np.ones((4, 5), dtype=np.float32)
    engine = OnnxEngine(parts)
    outputs = engine.classify(engine.encode(Batch([""] * 4, empty, empty)), tabular)
    with torch.no_grad():
        expected = network(*map(torch.from_numpy, (empty, empty, tabular)))
    np.testing.assert_allclose(outputs.logits, expected.numpy(), atol=1e-6)


class Stubborn(TabularNet):
    """Looks at the numbers to know what to do."""

    def embed(self, *inputs: Tensor) -> Tensor:
        found: Any = super().embed(*inputs)
        return found if found.sum() > 0 else -found


def test_a_network_that_cannot_be_exported() -> None:
    network = Stubborn(tabular_dim=5, num_classes=3, hidden_size=8)
    with pytest.raises(ServingError, match="cannot be exported as ONNX") as caught:
        to_onnx(network)
    assert str(caught.value).endswith("choose engine=torch")
    assert "\n" not in str(caught.value)
