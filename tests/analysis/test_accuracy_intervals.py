"""Intervals of accuracies and of paired means hold the truth as often as they say."""

from math import inf, sqrt

import pytest
import scipy.stats
import torch
from torch import Tensor

from conftest import seeded
from crossclass.analysis import intervals
from populations import coverage, ends

exact = torch.float64


@pytest.mark.parametrize("n", [5, 30])
@pytest.mark.parametrize("mean", [0.02, 0.3, 0.5, 0.97])
def test_accuracy_is_covered_for_equal_and_unequal_classes(mean: float, n: int) -> None:
    spread = torch.linspace(-1, 1, 10) * 0.8 * min(mean, 1 - mean)
    y = torch.arange(10).repeat_interleave(n)
    for rates in (torch.full((10,), mean), mean + spread):

        def interval(g: torch.Generator, rates: Tensor = rates) -> tuple[float, float]:
            return ends(intervals.accuracy(torch.rand(len(y), generator=g) < rates[y], y))

        share, _ = coverage(interval, float(rates.double().mean()), 1000)
        assert 0.91 <= share <= 0.99  # Wilson's own lowest at these counts is 0.92


def test_strata_make_the_interval_narrower_where_classes_differ() -> None:
    y = torch.arange(1000) % 10
    mixed = torch.arange(1000) % 20 < 10  # half of every class
    easy = y < 5  # five classes right, five wrong
    wide, narrow = intervals.accuracy(mixed, y), intervals.accuracy(easy, y)
    assert wide.estimate == narrow.estimate == 0.5
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)
    wilson = scipy.stats.binomtest(500, 1000).proportion_ci(method="wilson")
    assert ends(wide) == pytest.approx((wilson.low, wilson.high), abs=1e-3)


def test_accuracies_of_zero_and_one_are_not_certain() -> None:
    y = torch.arange(1000) % 10
    none = intervals.accuracy(torch.zeros(1000, dtype=torch.bool), y)
    wilson = scipy.stats.binomtest(0, 1000).proportion_ci(method="wilson")
    assert ends(none) == pytest.approx((wilson.low, wilson.high), abs=1e-6)
    every = intervals.accuracy(torch.ones(1000, dtype=torch.bool), y)
    assert ends(every) == pytest.approx((1 - none.high, 1), abs=1e-9)
    assert every.estimate == 1
    unequal = torch.cat([torch.zeros(90, dtype=torch.int64), torch.full((10,), 3)])
    right = torch.arange(100) < 45  # half of the first class, none of the fourth
    assert intervals.accuracy(right, unequal).estimate == pytest.approx(0.45)


@pytest.mark.parametrize("n", [20, 60])
@pytest.mark.parametrize(("only_a", "only_b"), [(0.02, 0.02), (0.1, 0.02), (0.3, 0.2), (0.05, 0.0)])
def test_differences_of_accuracy_are_covered_exactly(n: int, only_a: float, only_b: float) -> None:
    share = 0.0
    for i in range(n + 1):
        for j in range(n + 1 - i):
            chance = float(
                scipy.stats.multinomial.pmf([i, j, n - i - j], n, [only_a, only_b, 1 - only_a - only_b])
            )
            if chance < 1e-7:
                continue
            a = torch.arange(n) < i
            b = (torch.arange(n) >= i) & (torch.arange(n) < i + j)
            found = intervals.accuracy_difference(a, b)
            assert found.estimate == pytest.approx((i - j) / n)
            share += chance * (found.low <= only_a - only_b <= found.high)
    assert 0.93 <= share <= 1


def test_images_on_which_both_agree_do_not_count_as_noise() -> None:
    right = torch.arange(1000) % 2 == 0
    moved = right.clone()
    moved[:20] = False  # ten fewer
    found = intervals.accuracy_difference(right, moved)
    assert found.estimate == pytest.approx(0.01)
    assert 0 < found.low < 0.01 < found.high < 0.02
    same = intervals.accuracy_difference(right, right)
    assert 0 < same.high == -same.low < found.high
    back = intervals.accuracy_difference(moved, right)
    assert ends(back) == pytest.approx((-found.high, -found.low))
    p, half = 10 / 1002, 1.959964 * sqrt((12 - 10**2 / 1002) / 1002**2)  # 10 and 0 images, one more each
    assert ends(found) == pytest.approx((p - half, p + half))


def test_a_paired_mean_is_students() -> None:
    x, y = torch.randn(12, generator=seeded(0)) + 1, torch.randn(12, generator=seeded(1))
    theirs = scipy.stats.ttest_rel(x, y).confidence_interval(0.95)
    found = intervals.mean_difference(x, y)
    assert ends(found) == pytest.approx((theirs.low, theirs.high), abs=1e-4)
    assert found.estimate == pytest.approx(float((x - y).mean()))
    assert ends(intervals.mean_difference(x[:1], y[:1])) == (-inf, inf)
