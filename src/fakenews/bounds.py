"""Bounded number types for signatures; the config is checked against them."""

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

Probability = Annotated[float, Ge(0), Lt(1)]
"""In [0, 1): a dropout, a share that must leave something."""

Fraction = Annotated[float, Gt(0), Le(1)]
"""In (0, 1]: a similarity, a decay."""

NonNegative = Annotated[float, Ge(0)]

Positive = Annotated[float, Gt(0)]

Share = Annotated[float, Ge(0), Le(1)]
"""In [0, 1]: a part of a whole."""

Count = Annotated[int, Ge(0)]

PositiveCount = Annotated[int, Ge(1)]
