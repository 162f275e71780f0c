"""What seeds and images say of a mean: intervals that cover, p-values that are not too small."""

import math

import numpy as np
import pytest
from scipy import stats

from crossclass.paper.inference import (
    benjamini_hochberg,
    fall,
    holm,
    largest_of,
    mean_test,
    noise,
    share_test,
)


class TestMean:
    def test_over_seeds_alone_it_is_student_s(self):
        found = mean_test([1.0, 3.0, 2.0])
        half = 4.302653 / math.sqrt(3)  # t for two degrees of freedom, from a table; s = 1
        assert (found.mean, found.low, found.high) == pytest.approx((2.0, 2.0 - half, 2.0 + half), rel=1e-6)
        for margin in (0.0, 1.5, 2.0, 5.0):
            t = stats.ttest_1samp([1.0, 3.0, 2.0], margin, alternative="greater")
            assert mean_test([1.0, 3.0, 2.0], margin=margin).above == pytest.approx(t.pvalue, rel=1e-6)

    def test_squares_of_the_half_widths_are_added(self):
        found = mean_test([1.0, 3.0, 2.0], 0.25)
        half = math.sqrt(4.302653**2 / 3 + (1.959964 * 0.5) ** 2)
        assert (found.low, found.high) == pytest.approx((2.0 - half, 2.0 + half), rel=1e-6)

    @pytest.mark.parametrize("images", [0.0, 0.04, 4.0])
    def test_the_p_value_is_where_the_interval_reaches_the_margin(self, images):
        values = [1.0, 1.6, 0.7, 1.2]
        found = mean_test(values, images)
        assert mean_test(values, images, found.low).above == pytest.approx(0.025, rel=1e-6)
        assert mean_test(values, images, found.high).below == pytest.approx(0.025, rel=1e-6)
        assert found.above + found.below == pytest.approx(1.0)
        assert mean_test(values, images, -1e9).above == pytest.approx(1e-15)

    @pytest.mark.parametrize("values", [[3.0], [0.014, 0.014], [0.0, 0.0, 0.0]])
    def test_without_a_spread_nothing_is_known_of_other_seeds(self, values):
        found = mean_test(values, 0.01)
        assert (found.low, found.high, found.above, found.below) == (-math.inf, math.inf, 1.0, 1.0)
        assert found.detectable() == math.inf

    @pytest.mark.parametrize("wrong", [[], [1.0, math.nan], [math.inf]])
    def test_what_is_no_number_is_refused(self, wrong):
        with pytest.raises(ValueError, match="seed"):
            mean_test(wrong)

    @pytest.mark.parametrize(
        ("n", "own", "shared"), [(2, 3.0, 1.0), (3, 0.3, 1.0), (10, 1.0, 1.0), (3, 3.0, 0.0)]
    )
    def test_it_covers_for_fresh_seeds_and_fresh_images(self, n, own, shared):
        rng, draws = np.random.default_rng(n), 400
        values = own * rng.standard_normal((draws, n)) + math.sqrt(1 - shared) * rng.standard_normal(
            (draws, n)
        )
        values += math.sqrt(shared) * rng.standard_normal((draws, 1))
        found = [mean_test(row.tolist(), 1.0) for row in values]
        covered = sum(t.low <= 0 <= t.high for t in found)
        assert covered >= 367  # 95 % less three standard errors
        assert sum(min(t.above, t.below) < 0.025 for t in found) == draws - covered

    @pytest.mark.parametrize("n", [2, 10])
    def test_the_detectable_effect_is_detected_in_four_of_five(self, n):
        rng, draws = np.random.default_rng(n), 400
        unit = rng.standard_normal(n)
        effect = mean_test((unit / unit.std(ddof=1)).tolist(), 0.5).detectable()
        values = effect + rng.standard_normal((draws, n)) + math.sqrt(0.5) * rng.standard_normal((draws, 1))
        power = sum(mean_test(row.tolist(), 0.5).low > 0 for row in values) / draws
        assert power == pytest.approx(0.8, abs=0.08)


def test_a_share_of_seeds_is_tested_exactly():
    found = share_test([True] * 6)
    assert (found.mean, found.above, found.below) == (1.0, 0.5**6, 1.0)
    assert (found.low, found.high) == pytest.approx((0.025 ** (1 / 6), 1.0))
    assert share_test([True, False]).above == 0.75
    with pytest.raises(ValueError, match="no seed"):
        share_test([])


def test_p_values_adjusted_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9, 0.001]) == pytest.approx([1.0, 1.0, 0.003])
    assert benjamini_hochberg([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
    assert holm([]) == benjamini_hochberg([]) == []


def test_holm_keeps_the_false_ones_of_a_family_rare():
    rng, draws = np.random.default_rng(0), 400
    common = rng.standard_normal((draws, 1, 5))  # five claims that share a run
    p = stats.ttest_1samp(common + rng.standard_normal((draws, 5, 5)), 0, axis=2).pvalue
    plain = (p < 0.05).any(1).mean()
    adjusted = np.mean([min(holm(row.tolist())) < 0.05 for row in p])
    assert plain > 0.1
    assert adjusted <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)


class TestFall:
    def test_of_a_line_it_is_its_fall(self):
        assert fall([18, 21, 60], [3.0, 2.9, 1.6]) == pytest.approx(1.4)
        assert fall([1, 2, 3], [5.0, 5.0, 5.0]) == 0.0
        with pytest.raises(ValueError, match="three"):
            fall([1, 2], [1.0, 2.0])

    @pytest.mark.parametrize("carried", [0.0, 0.6])
    def test_without_a_trend_it_is_rarely_said_to_fall_though_the_best_was_chosen(self, carried):
        rng, draws, seeds, checks = np.random.default_rng(1), 400, 10, 15
        y = rng.standard_normal((draws, seeds, checks))
        for i in range(1, checks):
            y[..., i] = carried * y[..., i - 1] + math.sqrt(1 - carried**2) * y[..., i]
        chosen = y.max(-1) - y[..., -1]  # positive for being chosen: it always "holds"
        assert np.mean([mean_test(d.tolist()).above < 0.025 for d in chosen[:50]]) == 1
        falls = [[fall(range(checks), seed.tolist()) for seed in one] for one in y]
        said = np.mean([mean_test(d).above < 0.025 for d in falls])
        assert said <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / draws)


def test_noise_and_the_largest_of_many():
    rng = np.random.default_rng(0)
    assert noise(rng.standard_normal(4000).tolist()) == pytest.approx(1.0, abs=0.05)
    assert noise([1.0, 1.0, 1.0, 1.0]) == 0.0
    with pytest.raises(ValueError, match="three"):
        noise([1.0, 2.0])
    for m in (2, 5, 20):
        assert largest_of(m) == pytest.approx(rng.standard_normal((20000, m)).max(1).mean(), abs=0.03)
