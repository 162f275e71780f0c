"""When a difference between accuracies is more than chance.

Comparisons are paired on the same images. Under "no difference" the images on which only one of two is
right split like fair coins (McNemar's exact test): P(Bin(b + c, 1/2) >= b).
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

ALPHA = 1e-3
"""A comparison errs on a sound network at most this often."""


def tail_probability(count: int, n: int, p: float) -> float:
    """P(Bin(n, p) >= count)."""
    from scipy.stats import binom  # a second that other commands need not wait for

    return float(binom.sf(count - 1, n, p))


def lead(a: Bool[Tensor, " n"], b: Bool[Tensor, " n"]) -> tuple[float, float]:
    """By what share of the images a is right more often than b, and the p-value of McNemar's exact test."""
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return (only_a - only_b) / max(1, len(a)), tail_probability(only_a, only_a + only_b, 0.5)


def beats(a: Bool[Tensor, " n"], b: Bool[Tensor, " n"], by: float = 0.0, tests: int = 1) -> bool:
    """Whether a is right more often than b, by more than a share `by` of the images and than chance.

    `tests` comparisons share the level (Bonferroni).
    """
    share, p = lead(a, b)
    return share > by and p < ALPHA / tests


def chance_level(labels: Int[Tensor, " n"]) -> float:
    """The accuracy of always saying the most frequent class."""
    return float(torch.bincount(labels).max()) / max(1, len(labels)) if len(labels) else 0.0


def above_chance(right: Bool[Tensor, " n"], labels: Int[Tensor, " n"], tests: int = 1) -> bool:
    """Whether more are right than by always saying the most frequent class, beyond binomial error."""
    p = tail_probability(int(right.sum()), len(right), chance_level(labels))
    return len(right) > 0 and p < ALPHA / tests
