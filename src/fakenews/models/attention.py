"""Attention that is fast on a CPU where texts are short.

PyTorch's fused attention saves memory that short texts do not need. Two batched matrix
products with a softmax between them make a training step on headlines a twelfth shorter.

Shapes: B batch, H heads, T tokens, D dim of a head.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NAME = "short_texts"
# Beyond, the T x T weights of all heads take more memory than they save time.
_LONGEST = 128


def use_short_attention(backbone: "PreTrainedModel") -> None:
    """Let a model attend by `attend`, if it takes its attention from transformers."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(_NAME, attend)
    AttentionMaskInterface.register(_NAME, eager_mask)
    if backbone.config._attn_implementation == "sdpa":  # noqa: SLF001 no public reader
        backbone.set_attn_implementation(_NAME)


def use_plain_attention(backbone: "PreTrainedModel") -> None:
    """Let a model that attends by `attend` do so without asking how long the texts are.

    An exported network is one graph for all lengths.
    """
    if backbone.config._attn_implementation == _NAME:  # noqa: SLF001 no public reader
        backbone.set_attn_implementation("eager")


def attend(  # noqa: PLR0917 as transformers calls it
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention (Vaswani et al., 2017).

    What is long, on another device or not plain self-attention goes to PyTorch's own.

    Args:
        module: The attention layer.
        query: [B, H, T, D].
        key: Likewise.
        value: Likewise.
        attention_mask: Added to the scores, broadcast to [B, H, T, T]; None: nothing is
            masked.
        dropout: Of the weights.
        scaling: Factor on the scores; None: 1 / sqrt(D).
        **kwargs: Of other kinds of attention.

    Returns:
        [B, T, H, D], and no weights.
    """
    batch, heads, tokens, dim = query.shape
    plain = (
        query.shape == key.shape == value.shape
        and not getattr(module, "is_causal", False)
        and not any(kwargs.get(name) is not None for name in ("position_bias", "softcap"))
    )
    if not plain or tokens > _LONGEST or query.device.type != "cpu":
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            **kwargs,
        )
    flat = (batch * heads, tokens, dim)
    query_MTD, key_MTD, value_MTD = query.reshape(flat), key.reshape(flat), value.reshape(flat)
    scale = dim**-0.5 if scaling is None else scaling
    if attention_mask is None:
        scores_MTT = torch.bmm(query_MTD * scale, key_MTD.transpose(1, 2))
    else:
        mask_MTT = attention_mask.expand(batch, heads, tokens, tokens).reshape(
            -1, tokens, tokens
        )
        scores_MTT = torch.baddbmm(mask_MTT, query_MTD, key_MTD.transpose(1, 2), alpha=scale)
    weights_MTT = functional.dropout(scores_MTT.softmax(dim=-1), dropout)
    mixed = torch.bmm(weights_MTT, value_MTD).view(batch, heads, tokens, dim)
    return mixed.transpose(1, 2).contiguous(), None
