"""Short attention gives what PyTorch's own gives, forward and backward."""

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from fakenews.models.attention import attend, use_short_attention


def model(**arguments: float) -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=32,
        **arguments,
    )
    return BertModel(config, add_pooling_layer=False)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("tokens", [1, 7, 128, 129])
def test_states_and_gradients_are_those_of_pytorch(padded: bool, tokens: int) -> None:
    ours, theirs = model().eval(), model().eval()
    use_short_attention(ours)
    assert ours.config._attn_implementation != theirs.config._attn_implementation == "sdpa"
    ids = torch.randint(1, 50, (3, tokens))
    mask = torch.ones_like(ids)
    if padded:
        mask[1, tokens // 2 + 1 :] = 0
    states = []
    for each in (ours, theirs):
        found = each(input_ids=ids, attention_mask=mask).last_hidden_state
        (found * mask[..., None]).square().sum().backward()
        states.append(found * mask[..., None])
    torch.testing.assert_close(states[0], states[1], rtol=1e-5, atol=1e-5)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-4)


def test_dropout_of_the_weights() -> None:
    query = torch.randn(2, 3, 5, 4)
    none, _ = attend(nn.Identity(), query, query, query, None)
    some, _ = attend(nn.Identity(), query, query, query, None, dropout=0.5)
    assert none.shape == (2, 5, 3, 4)
    assert not torch.equal(none, some)


def test_fewer_keys_than_queries_go_to_pytorch() -> None:
    query, key = torch.randn(1, 2, 6, 4), torch.randn(1, 2, 3, 4)
    mixed, weights = attend(nn.Identity(), query, key, key, None, is_causal=False)
    expected = nn.functional.scaled_dot_product_attention(query, key, key).transpose(1, 2)
    assert weights is None
    torch.testing.assert_close(mixed, expected)
