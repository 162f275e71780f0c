"""Populations of features whose class means, C and CAS are known, for the coverage of intervals.

g = relu(m + noise) and E relu(m + N(0, 1)) = m Phi(m) + phi(m). `benchmarks/coverage.py` draws from them too.
"""

from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor

from crossclass.analysis import attribution
from crossclass.analysis.intervals import Interval


def seeded(seed: int) -> torch.Generator:
    """A fresh CPU generator."""
    return torch.Generator().manual_seed(seed)


class Population:
    """ReLU features with known mean attributions; noise is partly common to all features.

    `scale` is the deviation of the logarithm of an image's scale, whose mean is 1.
    """

    def __init__(self, m: Tensor, W: Tensor, common: float = 0.1, scale: float = 0.0) -> None:
        self.m, self.W, self.common, self.scale = m, W, common, scale
        self.signs = torch.randn(m.shape[1], generator=seeded(9)).sign()
        normal = torch.distributions.Normal(0.0, 1.0)
        self.means = m * normal.cdf(m) + normal.log_prob(m).exp()
        self.cas = self.cas_with(W)

    def cas_with(self, W: Tensor) -> float:
        """CAS of the expected features with this head."""
        return attribution.cas(attribution.correlation(self.means.double() * W.double()))

    def features(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """Features of images of the classes y, all of scale 1."""
        one = torch.randn(len(y), 1, generator=generator) * self.signs
        own = torch.randn(len(y), self.m.shape[1], generator=generator)
        return torch.relu(self.m[y] + sqrt(self.common) * one + sqrt(1 - self.common) * own)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Features, head and labels of n images of each class."""
        y = torch.arange(len(self.m)).repeat_interleave(n)
        g = self.features(y, generator)
        if self.scale:
            g *= (self.scale * torch.randn(len(y), 1, generator=generator) - self.scale**2 / 2).exp()
        return g, self.W, y


def shared(k: int, d: int) -> Population:
    """All classes share most of their features."""
    m = torch.randn(1, d, generator=seeded(1)) * 0.5 + torch.randn(k, d, generator=seeded(2)) * 0.3
    return Population(m, torch.rand(k, d, generator=seeded(3)) + 0.1)


def specific(k: int, d: int, scale: float = 0.0) -> Population:
    """Like a trained net: each class has features of its own, some of which its neighbour uses."""
    m = torch.randn(k, d, generator=seeded(1)) * 0.4 - 0.3
    W = torch.randn(k, d, generator=seeded(2)) * 0.25 + 0.05
    for i in range(k):
        for j, strength in ((i, 2.0), ((i + 1) % k, 0.8)):
            m[i, j::k] += strength
            W[i, j::k] += 0.3 * strength
    return Population(m, W, common=0.3, scale=scale)


def unrelated(k: int, d: int) -> Population:
    """Every C_ij is exactly 0: heads are rows of a Hadamard matrix, means are equal."""
    H = torch.ones(1, 1)
    while len(H) < d:
        H = torch.cat([torch.cat([H, H], 1), torch.cat([H, -H], 1)])
    return Population(torch.zeros(k, d), H[:k])


def weakly_shared(k: int, d: int) -> Population:
    """Every C_ij is 0.06: from five images, where the bias that is left is largest."""
    return Population(torch.zeros(k, d), unrelated(k + 1, d).W[1:] + sqrt(0.06))


def scattered(k: int, d: int) -> Population:
    """C_ij scattered around 0, many of them within their noise."""
    m = torch.randn(k, d, generator=seeded(1)) * 0.5
    return Population(m, torch.randn(k, d, generator=seeded(2)))


def two(population: Population, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Features of the same images at two checkpoints: the second lost a fifth of each feature's noise."""
    g, _, y = population.draw(n, generator)
    again, _, _ = population.draw(n, generator)
    return g, 0.8 * g + 0.2 * again, y


def coverage(
    interval: Callable[[torch.Generator], tuple[float, float]], truth: float, times: int
) -> tuple[float, float]:
    """The share of intervals that hold the truth, and their mean width."""
    generator = seeded(0)
    ends = [interval(generator) for _ in range(times)]
    return (
        sum(low <= truth <= high for low, high in ends) / times,
        sum(high - low for low, high in ends) / times,
    )


def ends(i: Interval) -> tuple[float, float]:
    """Of an interval."""
    return i.low, i.high


TIMES = 100
LEAST = 0.95 - 2.6 * sqrt(0.95 * 0.05 / TIMES)  # 99.5 % of right methods do better
