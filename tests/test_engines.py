"""Engines: what they return, and that it is what the model says."""

import numpy as np
import pytest
import torch

from fakenews.engines import Inputs, TfidfEngine, TorchEngine
from fakenews.errors import ConfigError
from fakenews.models.networks import TabularNet
from fakenews.models.tfidf import TfidfClassifier


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
