"""When a difference between accuracies is more than chance.

Comparisons are paired on the same images. Under "no difference" the images on which only one of two is
right split like fair coins (McNemar's exact test): P(Bin(b + c, 1/2) >= b).
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

ALPHA = 1e-3
"""A comparison errs on a sound network at most this often."""

GUESSED = 0.05
"""An accuracy may be one of guessing if guessing reaches it more often than this."""


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


def hardly_learned(right: Bool[Tensor, " n"], labels: Int[Tensor, " n"]) -> bool:
    """Whether an accuracy is one of guessing, or of a head that was never trained.

    Features tell classes apart without a trained head: of 500 random heads on the features of ResNet-20 5 %
    are right on 17.6 % of CIFAR-10 or more.
    """
    guessed = tail_probability(int(right.sum()), len(right), chance_level(labels)) > GUESSED
    return guessed or float(right.double().mean()) < _level(labels, 0.1, 2.0)


def learned(right: Bool[Tensor, " n"], labels: Int[Tensor, " n"]) -> bool:
    """Whether an accuracy is beyond what heads that were never trained reach.

    The best of eight ways to feed such a head is right on 21.6 % of CIFAR-10 or more in 1 % of 500 heads.
    """
    return above_chance(right, labels) and float(right.double().mean()) > _level(labels, 0.25, 3.0)


def _level(labels: Int[Tensor, " n"], part: float, times: float) -> float:
    """A part of the way from guessing to 1, or so many times guessing if that is less."""
    chance = chance_level(labels)
    return min(chance + part * (1 - chance), times * chance)
