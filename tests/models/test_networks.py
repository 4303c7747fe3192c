"""The four networks."""

import json

import pytest
import torch
from torch import Tensor

from fakenews.errors import ConfigError
from fakenews.models.encoder import TextEncoder
from fakenews.models.networks import NETWORKS, Network, build

ENCODER = {
    "config": {
        "model_type": "bert",
        "vocab_size": 50,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    },
    "pooling": "mean",
}
B, T, F, C = 5, 7, 4, 3


def make(name: str) -> Network:
    torch.manual_seed(0)
    kind = NETWORKS[name]
    encoder = TextEncoder.from_architecture(ENCODER) if kind.reads_text else None
    tabular_dim = F if kind.reads_tabular else 0
    return kind(encoder=encoder, tabular_dim=tabular_dim, num_classes=C).eval()


def inputs(seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 50, (B, T), generator=generator)
    mask = (torch.arange(T) < torch.tensor([[7], [3], [1], [5], [7]])).long()
    return ids * mask, mask, torch.randn(B, F, generator=generator)


every = pytest.mark.parametrize("name", sorted(NETWORKS))


@every
def test_logits_are_the_classified_embedding(name: str):
    network = make(name)
    ids, mask, tabular = inputs()
    text = network.pooled(ids, mask)
    assert text.shape == (B, 16 if network.reads_text else 0)
    embedding = network.embed(text, tabular)
    assert embedding.shape[0] == B
    assert network(*inputs()).shape == (B, C)
    torch.testing.assert_close(network.classify(embedding), network(*inputs()))


@every
def test_it_reads_the_inputs_that_it_names_and_no_other(name: str):
    network = make(name)
    ids, mask, tabular = inputs()
    base = network(ids, mask, tabular)
    other_ids, _, other_tabular = inputs(seed=2)
    assert torch.equal(base, network(other_ids * mask, mask, tabular)) != network.reads_text
    assert torch.equal(base, network(ids, mask, other_tabular)) != network.reads_tabular


@every
def test_what_it_does_not_read_may_be_empty(name: str):
    network = make(name)
    ids, mask, tabular = inputs()
    if not network.reads_text:
        ids, mask = ids[:, :0], mask[:, :0]
    if not network.reads_tabular:
        tabular = tabular[:, :0]
    torch.testing.assert_close(network(ids, mask, tabular), network(*inputs()))


@every
def test_every_parameter_gets_a_gradient(name: str):
    network = make(name).train()
    network(*inputs()).square().sum().backward()
    without = [
        parameter_name
        for parameter_name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    # A key's bias moves all scores of a query alike, which the softmax takes out again.
    assert [name for name in without if not name.endswith("attention.self.key.bias")] == []


@every
def test_it_is_rebuilt_from_plain_json(name: str):
    network = make(name)
    torch.manual_seed(9)
    again = build(json.loads(json.dumps(network.architecture()))).eval()
    assert not torch.equal(again(*inputs()), network(*inputs()))
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(*inputs()), network(*inputs()))


@every
def test_padding_changes_nothing(name: str):
    network = make(name)
    ids, mask, tabular = inputs()
    wider = torch.nn.functional.pad(ids, (0, 9)), torch.nn.functional.pad(mask, (0, 9))
    torch.testing.assert_close(
        network(*wider, tabular), network(ids, mask, tabular), atol=1e-5, rtol=0
    )


@every
def test_the_rows_of_a_batch_do_not_meet(name: str):
    network = make(name)
    ids, mask, tabular = inputs()
    alone = torch.cat(
        [network(*(x[i : i + 1] for x in (ids, mask, tabular))) for i in range(B)]
    )
    torch.testing.assert_close(alone, network(ids, mask, tabular), atol=1e-5, rtol=0)


@every
def test_zero_features_and_an_empty_text_give_finite_logits_and_gradients(name: str):
    network = make(name).train()
    ids, mask, tabular = inputs()
    mask[0] = 0
    logits = network(ids * mask, mask, torch.zeros_like(tabular))
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_the_seed_normalises_both_halves():
    network = make("seed")
    ids, mask, features = inputs()
    embedding = network.embed(network.pooled(ids, mask), features)
    text, tabular = embedding[:, :12], embedding[:, 12:]
    torch.testing.assert_close(tabular.norm(dim=1), torch.ones(B))
    norms = text.norm(dim=1)
    # All units of a text may be off after the ReLU: then its half is 0.
    assert all(norm == 0 or norm == pytest.approx(1, abs=1e-5) for norm in norms.tolist())
    assert (norms > 0).any()


@every
def test_dropout_is_active_in_training_only(name: str):
    network = make(name)
    assert torch.equal(network(*inputs()), network(*inputs()))
    network.train()
    assert not torch.equal(network(*inputs()), network(*inputs()))


@pytest.mark.parametrize("name", ["fusion", "seed", "tabular"])
def test_features_are_needed(name: str):
    encoder = TextEncoder.from_architecture(ENCODER)
    with pytest.raises(ConfigError, match="choose features=headline or model=text"):
        NETWORKS[name](encoder=encoder, tabular_dim=0, num_classes=C)


@pytest.mark.parametrize("name", ["fusion", "seed", "text"])
def test_an_encoder_is_needed(name: str):
    with pytest.raises(ConfigError, match="needs an encoder"):
        NETWORKS[name](encoder=None, tabular_dim=F, num_classes=C)
