"""Learning-rate schedules, as a factor on each group's own rate."""

import math
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fakenews.bounds import Probability

Shape = Literal["constant", "linear", "cosine"]


def warmup_then(
    optimizer: Optimizer,
    *,
    total_steps: int,
    warmup: Probability = 0.1,
    shape: Shape = "linear",
) -> LambdaLR:
    """Rise linearly from 0, then stay, or fall to 0 by a line or half a cosine.

    Args:
        optimizer: Its groups' learning rates are the peaks.
        total_steps: Optimizer steps of the whole training.
        warmup: Share of the steps to rise for, in [0, 1).
        shape: What follows the rise.
    """
    rising = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        progress = min((step - rising) / max(total_steps - rising, 1), 1.0)
        if shape == "linear":
            return 1 - progress
        if shape == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        return 1.0

    return LambdaLR(optimizer, factor)
