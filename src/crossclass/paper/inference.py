"""What a few seeds and one set of test images say of a mean, and the corrections for many claims.

Of an effect d_s (one number per seed, all measured on the same test images) the mean over n seeds varies for
two reasons: other seeds, and other images. Write d_s = m + a_s + b + e_s with a seed's own part a, the part b
of the images, which is the same in every seed and so does not average out, and the rest e, particular to a
seed on these images:

    Var(mean) = (Var a + Var e) / n + Var b        s^2 estimates Var a + Var e;  v = Var b + Var e

v is the variance over images of one seed's number, known from its interval over images. Var b alone would
need numbers of every image, so v stands for it: intervals are rather wide (of the fall of robust accuracy at
size mini about a quarter of v is shared). The half-width over seeds has n - 1 degrees of freedom, that over
images as many as there are images, and their squares are added:

    half^2 = t^2 s^2 / n + z^2 v

Satterthwaite's degrees of freedom, the usual way to add two variances, are estimated from s: with two or
three seeds an s that is small by chance makes such an interval too short (`benchmarks/verdict_rules.py`).
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, stdev
from typing import NamedTuple

LEVEL = 0.05
"""Two-sided error of an interval, of an entry's claims together, and of the study's false discoveries."""
POWER = 0.8
"""The probability with which the detectable effect would be detected."""
LEAST_P = 1e-15
"""The smallest p-value that is told from 0."""


class MeanTest(NamedTuple):
    """A mean over seeds with its interval, and the one-sided p-values on either side of a margin.

    Of answers yes or no (`share_test`) it is the share of seeds that say yes, and the margin one half.
    """

    mean: float
    low: float
    high: float
    n: int
    above: float
    """The p-value of "the mean lies above the margin": the probability of these numbers if it did not."""
    below: float
    """The p-value of "the mean lies below the margin"."""
    spread: float | None
    """The standard deviation over seeds; None for fewer than two of them, for equal ones, and for shares."""
    images: float
    """The variance over images that was counted."""

    def detectable(self, level: float = LEVEL) -> float:
        """How far from the margin a mean must lie to be decided at a two-sided level, with power `POWER`.

        Over seeds by the noncentral t, over images by the normal, for the spread that these seeds have.
        """
        from scipy.special import nctdtrinc, ndtri, stdtrit

        if self.spread is None:
            return math.inf
        of_seeds = nctdtrinc(self.n - 1, 1 - POWER, -stdtrit(self.n - 1, level / 2))
        of_images = ndtri(level / 2) + ndtri(1 - POWER)
        return math.sqrt(of_seeds**2 * self.spread**2 / self.n + of_images**2 * self.images)


def mean_test(values: Sequence[float | int], images: float = 0.0, margin: float = 0.0) -> MeanTest:
    """Test the mean of one value per seed against a margin.

    `images` is the variance over test images of one seed's value. One value, or equal ones, say nothing about
    other seeds: the interval is infinite and both p-values are 1. Raises ValueError for no value, or for one
    that is not finite.
    """
    if not values:
        raise ValueError("no seed has a value")
    if not all(map(math.isfinite, values)):
        raise ValueError(f"a seed's value is not a number: {list(values)}")
    mean, n = fmean(values), len(values)
    spread = stdev(values) if n > 1 else 0.0
    if spread <= 1e-9 * max(map(abs, values)):  # equal but for rounding
        return MeanTest(mean, -math.inf, math.inf, n, 1.0, 1.0, None, images)
    parts = n - 1, spread**2 / n, images
    half = _half(LEVEL / 2, *parts)
    tail = _tail(abs(mean - margin), *parts)
    above, below = (tail, 1 - tail) if mean > margin else (1 - tail, tail)
    return MeanTest(mean, mean - half, mean + half, n, above, below, spread, images)


def _half(tail: float, freedom: int, seeds: float, images: float) -> float:
    """The half-width that leaves a probability in each tail, from the two variances of the mean."""
    from scipy.special import ndtri, stdtrit

    t, z = stdtrit(freedom, tail), ndtri(tail)
    return math.sqrt(t * t * seeds + z * z * images)


def _tail(distance: float, freedom: int, seeds: float, images: float) -> float:
    """The probability at which the half-width is as large as a distance: the one-sided p-value."""
    from scipy.optimize import brentq

    def over(log_p: float) -> float:
        return _half(math.exp(log_p), freedom, seeds, images) - distance

    least, most = math.log(LEAST_P), math.log(0.5)
    if over(least) <= 0:
        return LEAST_P
    return 0.5 if over(most) >= 0 else math.exp(float(brentq(over, least, most)))


def share_test(yes: Sequence[bool]) -> MeanTest:
    """Test whether most seeds say yes: the exact binomial test against 1/2, Clopper and Pearson's interval.

    Raises ValueError for no seed.
    """
    from scipy.stats import binomtest

    if not yes:
        raise ValueError("no seed has a value")
    hits, n = sum(yes), len(yes)
    ends = binomtest(hits, n).proportion_ci(1 - LEVEL)
    above, below = (float(binomtest(hits, n, alternative=a).pvalue) for a in ("greater", "less"))
    return MeanTest(hits / n, float(ends.low), float(ends.high), n, above, below, None, 0.0)


def holm(p: Sequence[float | int]) -> list[float]:
    """p-values adjusted for all of them at once (Holm 1979): a false one below alpha is as rare as alpha.

    In the order given: the k-th smallest of m times m - k + 1, made increasing and at most 1.
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    out, largest = [0.0] * len(p), 0.0
    for k, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - k) * p[i]))
        out[i] = largest
    return out


def benjamini_hochberg(p: Sequence[float | int]) -> list[float]:
    """p-values adjusted for the share of false ones among those called true (Benjamini and Hochberg 1995)."""
    from scipy.stats import false_discovery_control

    return [float(q) for q in false_discovery_control(list(p))] if p else []


def fall(x: Sequence[float | int], y: Sequence[float | int]) -> float:
    """How far the line of least squares through (x, y) falls from the first x to the last.

    It is 0 on average where y has no trend, whatever its noise, and no best point is chosen for it. Raises
    ValueError for fewer than three points.
    """
    if len(x) < 3:
        raise ValueError("a trend needs at least three checks")
    centre, mean = fmean(x), fmean(y)
    squares = sum((a - centre) ** 2 for a in x)
    slope = sum((a - centre) * (b - mean) for a, b in zip(x, y, strict=True)) / squares
    return -slope * (x[-1] - x[0])


def noise(y: Sequence[float | int]) -> float:
    """The standard deviation from check to check, from differences of neighbours (von Neumann 1941).

    A trend counts as noise. Raises ValueError for fewer than three points.
    """
    if len(y) < 3:
        raise ValueError("noise needs at least three checks")
    return math.sqrt(fmean((b - a) ** 2 for a, b in pairwise(y)) / 2)


def largest_of(m: int) -> float:
    """About the expected largest of m standard normal numbers (Blom 1958): 1.87 for 20 (exactly 1.867)."""
    from scipy.special import ndtri

    return float(ndtri((m - 0.375) / (m + 0.25)))
