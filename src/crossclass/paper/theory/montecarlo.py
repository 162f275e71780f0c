"""The second check of the closed forms: means over samples, with the exact inner maximum."""

from math import sqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from crossclass.paper.theory.samples import Scalar, draw, margins, worst_case, worst_of_corners
from crossclass.paper.theory.setting import PAPER, Layout


class Estimate(NamedTuple):
    """A mean of n independent numbers and its standard error."""

    mean: float
    error: float
    n: int

    def interval(self, errors: Scalar = 3.0) -> tuple[float, float]:
        """The mean and so many standard errors to either side."""
        return self.mean - errors * self.error, self.mean + errors * self.error


def estimate(values: Float[np.ndarray, " n"]) -> Estimate:
    """The mean of at least two numbers with its standard error."""
    return Estimate(float(values.mean()), float(values.std(ddof=1)) / sqrt(len(values)), len(values))


def loss(
    w1: Scalar,
    w2: Scalar,
    mu: Scalar,
    sigma: Scalar,
    eps: Scalar,
    n: int,
    rng: np.random.Generator,
    lam: Scalar = 1.0,
    beta: Scalar = 0.0,
    reading: str = "A",
    layout: Layout = PAPER,
    brute: bool = False,
) -> Estimate:
    """The loss of `closed.loss`; `brute` tries all 2^d corners instead of the signs of weight differences."""
    x, y = draw(n, mu, sigma, layout, rng)
    worst = worst_of_corners if brute else worst_case
    values = worst(x, y, w1, w2, eps, beta, reading, layout) + lam / 2 * (w1 * w1 + w2 * w2)
    return estimate(values)


def p_all_gain(
    ratios: tuple[Scalar, Scalar], mu: Scalar, sigma: Scalar, eps: Scalar, n: int, rng: np.random.Generator
) -> Estimate:
    """P_all at the second w2/w1 minus P_all at the first, paired: on the same samples (K = 3)."""
    x, y = draw(n, mu, sigma, PAPER, rng)
    low, high = (margins(x, y, 1.0, r, eps).max(axis=1) < 0 for r in ratios)
    return estimate(high.astype(float) - low.astype(float))


def threshold(
    x: Float[np.ndarray, "n d"],
    y: Int[np.ndarray, " n"],
    beta: Scalar = 0.0,
    reading: str = "A",
    layout: Layout = PAPER,
) -> Estimate:
    """The threshold eps0 (beta > 0: eps1), where the slope of the sample loss in w2 at w2 = 0 changes sign.

    Each sample's worst case is linear in w2 >= 0 and in eps, so differences of `worst_case` are its slopes.
    The estimate is a ratio whose denominator is the same for all samples.
    """

    def slope(eps: float) -> np.ndarray:
        one, none = (worst_case(x, y, 1.0, w2, eps, beta, reading, layout) for w2 in (1.0, 1e-9))
        return one - none

    still = slope(0.0)
    return estimate(-still / (slope(1.0) - still).mean())
