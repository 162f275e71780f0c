"""What a few seeds say: a mean with its t interval, and correlations.

    mean +- t_(n-1, 97.5 %) s / sqrt(n)

With three seeds t is 4.3, so a difference must be 2.5 standard deviations large to be called one. One seed
alone has no spread and says nothing about others.
"""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from scipy.special import stdtrit


class Estimate(NamedTuple):
    """A mean over seeds with its 95 % interval; infinite for one seed."""

    mean: float
    low: float
    high: float
    n: int


def over_seeds(values: Sequence[float], level: float = 0.95) -> Estimate:
    """The mean of one value per seed. Raises ValueError for none, or for a value that is no number."""
    if not values:
        raise ValueError("no seed has a value")
    if not all(map(math.isfinite, values)):
        raise ValueError(f"a seed's value is not a number: {list(values)}")
    mean, n = fmean(values), len(values)
    if n == 1:
        return Estimate(mean, -math.inf, math.inf, 1)
    half = float(stdtrit(n - 1, (1 + level) / 2)) * stdev(values) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n)


def correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Pearson's correlation; None for fewer than three points or where one of them does not vary."""
    if len(x) != len(y):
        raise ValueError(f"{len(x)} values beside {len(y)}")
    if len(x) < 3:
        return None
    a, b = [v - fmean(x) for v in x], [v - fmean(y) for v in y]
    scale = math.sqrt(sum(v * v for v in a) * sum(v * v for v in b))
    return sum(p * q for p, q in zip(a, b, strict=True)) / scale if scale > 0 else None
