"""Dropout whose masks are cheap to draw on a CPU."""

import numpy as np
import torch
from torch import Tensor, nn

_STEPS = 1 << 16


class Dropout(nn.Dropout):
    """`nn.Dropout`, with 16 random bits for each unit on a CPU.

    On a CPU torch may draw a mask one number after the other on one thread, which took a
    twentieth of a step's time. Here the probability is rounded to a multiple of 1/65536,
    and kept units are scaled by exactly what that leaves. The masks follow from torch's
    seed. On other devices, and when compiled, it is `nn.Dropout`.

    Source: Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from
    Overfitting".
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the name nn.Dropout gives it
        """Drop units of a tensor of any shape, in training."""
        dropped = round(self.p * _STEPS)
        if (
            not self.training
            or dropped in (0, _STEPS)
            or input.device.type != "cpu"
            or torch.compiler.is_compiling()
        ):
            return super().forward(input)
        seed = int(torch.randint(2**63 - 1, ()))
        raw = np.random.SFC64(seed).random_raw(-(-input.numel() // 4))
        bits = torch.from_numpy(raw.view(np.int16)[: input.numel()]).view(input.shape)
        # Signed, as torch compares no unsigned numbers.
        kept = (bits >= dropped - _STEPS // 2).to(input.dtype)
        return input * kept.mul_(_STEPS / (_STEPS - dropped))


def replace_dropout(module: nn.Module) -> None:
    """Put `Dropout` in the place of every `nn.Dropout` within `module`."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p))
