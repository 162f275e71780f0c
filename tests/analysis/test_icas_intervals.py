"""Intervals of I-CAS are the jackknife's, and hold the mean of fresh test sets."""

from collections.abc import Callable
from math import sqrt

import pytest
import scipy.stats
import torch
from torch import Tensor

from conftest import seeded
from crossclass.analysis import attribution, instances, intervals
from crossclass.analysis.instances import Neighbours
from crossclass.analysis.intervals import Interval
from populations import (
    ends,
    specific,
    two,
)

exact = torch.float64


def literal_icas(nearest: Tensor, y: Tensor) -> tuple[float, float]:
    """I-CAS where no I_ij is near 0, and the variance of a stratified mean."""
    total = variance = 0.0
    for i in range(nearest.shape[1]):
        rows = nearest[y == i].double()
        others = [j for j in range(nearest.shape[1]) if j != i and float(rows[:, j].mean()) > 0]
        sums = rows[:, others].sum(dim=1)
        total += float(sums.mean())
        variance += float(sums.var()) / len(rows)
    return total, sqrt(variance)


def test_without_a_nearest_that_is_missed_icas_is_a_stratified_mean() -> None:
    y = torch.arange(300) % 4
    best = torch.rand(300, 4, generator=seeded(0)) * 0.5 + 0.2 * y[:, None] / 4 + 0.1
    best[:, 2] -= 1.0
    found = intervals.icas(in_its_class(best, y), y)
    total, deviation = literal_icas(best, y)
    assert found.estimate == pytest.approx(attribution.cas(instances.instance_correlation(best, y)))
    assert found.estimate == pytest.approx(total)
    assert found.bias == 0
    assert ends(found) == pytest.approx((total - 1.966 * deviation, total + 1.966 * deviation), rel=1e-3)


def in_its_class(best: Tensor, y: Tensor) -> Neighbours:
    """Each class's first sample is everybody's nearest, and its second one is as near."""
    first = torch.tensor([int((y == j).nonzero()[0, 0]) for j in range(best.shape[1])])
    return Neighbours(best, best.clone(), first.to(torch.int32).expand(len(best), -1))


def icas_of(g: Tensor, W: Tensor, y: Tensor) -> float:
    return attribution.cas(instances.instance_correlation(instances.nearest(g, W, y), y))


def literal_jackknife(
    value: Callable[[list[int]], float], y: Tensor
) -> tuple[float, float, dict[int, list[float]]]:
    """A value of all samples, its jackknife deviation stratified by class, and the losses of each class."""
    every, variance, losses = list(range(len(y))), 0.0, {}
    full = value(every)
    for i in y.unique().tolist():
        lost = [full - value([x for x in every if x != out]) for out in every if int(y[out]) == i]
        n, mean = len(lost), sum(lost) / len(lost)
        variance += (n - 1) / n * sum((loss - mean) ** 2 for loss in lost)
        losses[i] = lost
    return full, sqrt(variance), losses


SIZES = ((7, 3, 12, 0, 5), (2, 2, 2), (4, 9))


def small(sizes: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Samples of all signs, with a copy of an image, an image without attribution, an absent class."""
    generator = seeded(sum(sizes))
    y = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    g = torch.randn(len(y), 6, generator=generator, dtype=exact) + 0.2
    W = torch.randn(len(sizes), 6, generator=generator, dtype=exact)
    if len(y) > 10:
        g[1], g[3] = g[0], 0.0
    order = torch.randperm(len(y), generator=generator)
    return g[order], W, y[order]


def deviation(i: Interval, losses: dict[int, list[float]]) -> float:
    """The deviation from which an interval that touches no end of its range was made."""
    part = {c: (len(x) - 1) / len(x) * sum((v - sum(x) / len(x)) ** 2 for v in x) for c, x in losses.items()}
    freedom = sum(part.values()) ** 2 / sum(p**2 / (len(losses[c]) - 1) for c, p in part.items())
    return (i.high - i.low) / 2 / float(scipy.stats.t.ppf(0.975, freedom))


@pytest.mark.parametrize("sizes", SIZES)
def test_the_interval_of_icas_is_the_jackknife(sizes: tuple[int, ...]) -> None:
    g, W, y = small(sizes)

    def value(kept: list[int]) -> float:
        return icas_of(g[kept], W, y[kept])

    full, sd, losses = literal_jackknife(value, y)
    score = intervals._icas(instances.neighbours(g, W, y), y)
    for i, lost in losses.items():
        literal = torch.tensor(lost, dtype=exact) * (len(lost) - 1)
        torch.testing.assert_close(score.v[y == i], literal, rtol=0, atol=1e-10)
    wide = intervals._interval(score, y, -1e9, 1e9)
    assert wide.estimate == pytest.approx(full, abs=1e-10)
    assert (wide.low + wide.high) / 2 == pytest.approx(full, abs=1e-9)
    assert deviation(wide, losses) == pytest.approx(sd, abs=1e-9)
    order = torch.randperm(len(y), generator=seeded(1))
    moved = intervals.icas(instances.neighbours(g[order], W, y[order].int(), block=3), y[order].int())
    assert tuple(moved) == pytest.approx(tuple(intervals.icas(instances.neighbours(g, W, y), y)))


@pytest.mark.parametrize("sizes", SIZES)
def test_the_interval_of_a_difference_of_icas_is_the_jackknife(sizes: tuple[int, ...]) -> None:
    g, W, y = small(sizes)
    other, V = g[:, :4] + 0.3 * torch.randn(len(y), 4, generator=seeded(3)), W[:, :4]

    def value(kept: list[int]) -> float:
        return icas_of(g[kept], W, y[kept]) - icas_of(other[kept], V, y[kept])

    full, sd, losses = literal_jackknife(value, y)
    near, far = instances.neighbours(g, W, y), instances.neighbours(other, V, y)
    score = intervals._minus(intervals._icas(near, y), intervals._icas(far, y))
    wide = intervals._interval(score, y, -1e9, 1e9)
    assert wide.estimate == pytest.approx(full, abs=1e-10)
    assert deviation(wide, losses) == pytest.approx(sd, abs=1e-9)
    same = intervals.icas_difference(near, near, y)
    assert tuple(same) == (0, 0, 0, 0, 0)


def test_icas_of_single_samples_is_not_known() -> None:
    g, W, y = small((5, 1, 4))
    near = instances.neighbours(g, W, y)
    assert ends(intervals.icas(near, y)) == (0, 6)
    assert ends(intervals.icas_difference(near, near, y)) == (-6, 6)


def test_icas_of_fresh_test_sets_is_covered() -> None:
    population, times = specific(5, 40), 200

    def pair(generator: torch.Generator) -> tuple[Interval, Interval]:
        g, other, y = two(population, 60, generator)
        a, b = (instances.neighbours(x, population.W, y) for x in (g, other))
        return intervals.icas(a, y), intervals.icas_difference(a, b, y)

    generator = seeded(0)
    for found in zip(*(pair(generator) for _ in range(times)), strict=True):
        truth = sum(i.estimate for i in found) / times  # the mean of fresh test sets of this size
        share = sum(i.low <= truth <= i.high for i in found) / times
        assert share >= 0.95 - 2.6 * sqrt(0.95 * 0.05 / times)
        spread = float(torch.tensor([i.estimate for i in found]).std())
        width = sum(i.high - i.low for i in found) / times
        assert 0.95 <= width / (3.92 * spread) <= 1.4
