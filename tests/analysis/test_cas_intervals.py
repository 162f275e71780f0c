"""Intervals of CAS hold the truth as often as they say, and are their equations."""

from math import erf, exp, pi, sqrt

import pytest
import scipy.stats
import torch
from torch import Tensor

from conftest import seeded
from crossclass.analysis import attribution, intervals
from crossclass.analysis.intervals import Interval
from populations import (
    LEAST,
    TIMES,
    Population,
    coverage,
    ends,
    scattered,
    shared,
    specific,
    two,
    unrelated,
    weakly_shared,
)

exact = torch.float64


@pytest.mark.parametrize(
    ("population", "n"),
    [
        (shared(10, 64), 50),
        (shared(3, 16), 100),
        (specific(10, 64), 50),
        (unrelated(10, 32), 50),
        (unrelated(3, 16), 50),
        (scattered(20, 32), 50),
        (specific(10, 64, scale=1.0), 25),
    ],
    ids=["shared", "shared3", "specific", "unrelated", "unrelated3", "scattered", "scaled"],
)
def test_cas_is_covered(population: Population, n: int) -> None:
    share, _ = coverage(lambda g: ends(intervals.cas(*population.draw(n, g))), population.cas, TIMES)
    assert share >= LEAST


@pytest.mark.parametrize(
    ("population", "n"),
    [
        (unrelated(100, 128), 5),
        (scattered(100, 128), 5),
        (scattered(100, 128), 10),
        (weakly_shared(30, 128), 5),
    ],
    ids=["unrelated", "scattered", "scattered10", "weakly shared"],
)
def test_cas_is_covered_from_few_images_of_many_classes(population: Population, n: int) -> None:
    times = 25  # most of the noise of C is that of products of two means' noise, and the bias has one sign
    share, _ = coverage(lambda g: ends(intervals.cas(*population.draw(n, g))), population.cas, times)
    assert share >= 0.95 - 2.6 * sqrt(0.95 * 0.05 / times)


@pytest.mark.parametrize(
    "population", [unrelated(100, 128), scattered(100, 128)], ids=["unrelated", "scattered"]
)
def test_a_difference_is_covered_from_few_images_of_many_classes(population: Population) -> None:
    times = 25
    W = population.W + 0.05 * torch.randn(population.W.shape, generator=seeded(8))
    truth = population.cas - Population(population.m, W).cas

    def paired(generator: torch.Generator) -> tuple[float, float]:
        g, other, y = two(population, 5, generator)
        return ends(intervals.cas_difference((g, population.W), (other, W), y))

    share, _ = coverage(paired, truth, times)
    assert share >= 0.95 - 2.6 * sqrt(0.95 * 0.05 / times)


@pytest.mark.parametrize(
    ("population", "n", "most"),
    [
        (shared(10, 64), 200, 1.3),
        (specific(10, 128), 200, 1.3),
        (unrelated(10, 32), 50, 1.4),  # the bound of the bias that is left adds to it
        (scattered(20, 32), 50, 2.2),  # it too
    ],
    ids=["shared", "specific", "unrelated", "scattered"],
)
def test_the_interval_is_hardly_wider_than_the_noise(population: Population, n: int, most: float) -> None:
    found = [intervals.cas(*population.draw(n, g)) for g in map(seeded, range(60))]
    noise = torch.tensor([i.estimate for i in found]).std() * 2 * 1.96
    width = sum(i.high - i.low for i in found) / 60
    assert 0.8 <= width / float(noise) <= most


def test_noise_is_named_where_it_is_most_of_c() -> None:
    few, many = (intervals.cas(*scattered(20, 32).draw(n, seeded(0))) for n in (5, 200))
    nothing = intervals.cas(*unrelated(10, 32).draw(50, seeded(0)))
    assert many.noise < 0.1 < intervals.TOO_NOISY < few.noise < nothing.noise
    assert nothing.noise == pytest.approx(1, abs=0.2)
    assert intervals.doubt(many) is None
    said = intervals.doubt(few)
    assert said
    assert f"{few.estimate:.2f}" in said
    assert f"{few.estimate - few.bias:.2f}" in said


@pytest.mark.parametrize("population", [shared(10, 64), unrelated(10, 32), scattered(20, 32)])
def test_the_bias_that_is_named_is_the_bias(population: Population) -> None:
    found = [intervals.cas(*population.draw(50, g)) for g in map(seeded, range(100))]
    off = torch.tensor([i.estimate for i in found]) - population.cas
    named = torch.tensor([i.bias for i in found])
    left = float((off - named).mean())
    assert abs(left) <= 3 * float((off - named).std()) / 10 + 0.15 * float(off.std())
    if population.cas == pytest.approx(0, abs=1e-6):
        assert float(named.mean()) > 3 * float(off.std())  # the kink lifts it
    g, W, y = population.draw(50, seeded(0))
    C = attribution.correlation(attribution.class_means(g, W, y))
    assert found[0].estimate == pytest.approx(attribution.cas(C))


def test_the_difference_is_paired_and_covered() -> None:
    one = specific(5, 40)
    W = one.W.clamp(min=-0.1)  # the other checkpoint's head
    truth = one.cas - Population(one.m, W).cas

    def paired(generator: torch.Generator) -> Interval:
        g, other, y = two(one, 60, generator)
        return intervals.cas_difference((g, one.W), (other, W), y)

    share, width = coverage(lambda g: ends(paired(g)), truth, TIMES)
    assert share >= LEAST
    single = [intervals.cas(*one.draw(60, seeded(s))) for s in range(20)]
    assert width < 0.8 * sum(i.high - i.low for i in single) / 20 * sqrt(2)
    g, W, y = one.draw(60, seeded(0))
    none = intervals.cas_difference((g, W), (3 * g, 2 * W), y)
    assert none.estimate == pytest.approx(0, abs=1e-6)
    assert none.high - none.low == pytest.approx(0, abs=1e-6)
    other = g.flip(1)
    forth = intervals.cas_difference((g, W), (other, W), y)
    back = intervals.cas_difference((other, W), (g, W), y)
    assert ends(forth) == pytest.approx((-back.high, -back.low))
    assert forth.bias == pytest.approx(-back.bias)
    narrow = intervals.cas_difference((g, W), (g[:, :20], W[:, :20]), y)  # another width, another head
    alone = intervals.cas(g[:, :20], W[:, :20], y).estimate
    assert narrow.estimate == pytest.approx(intervals.cas(g, W, y).estimate - alone)
    a, b = (intervals.cas(x, W, y) for x in (g, other))
    assert forth.estimate == pytest.approx(a.estimate - b.estimate)
    assert forth.bias == pytest.approx(a.bias - b.bias)


# The interval of CAS again, from its equations, with the derivatives by autograd


def literal_cas(g: Tensor, W: Tensor, y: Tensor, second_order: bool) -> tuple[float, float, float, float]:
    """Corrected CAS, the deviation of its linearisation, Welch's degrees of freedom, the bias left."""
    k, g, W = len(W), g.double(), W.double()
    a = [g[y == i] * W[i] for i in range(k)]
    n = [len(x) for x in a]
    unit = [x.mean(0) / x.mean(0).norm() for x in a]
    across = [(x - x.mean(0)) - ((x - x.mean(0)) @ u)[:, None] * u for x, u in zip(a, unit, strict=True)]
    noise = [float((t**2).sum()) / (m - 1) / m for t, m in zip(across, n, strict=True)]
    weights = [torch.full((m,), 1 / m, dtype=exact, requires_grad=True) for m in n]

    def length(i: int) -> Tensor:
        mean = weights[i] / weights[i].sum() @ a[i]
        return (mean @ mean - noise[i]).sqrt()

    def cosine(i: int, j: int) -> Tensor:
        ai, aj = (weights[c] / weights[c].sum() @ a[c] for c in (i, j))
        return ai @ aj / (length(i) * length(j))

    def variance(v: Tensor, m: int) -> float:
        return float(((v - v.mean()) ** 2).sum()) / (m - 1) / m

    def twice(i: int, j: int) -> float:
        squares = sum(float(x @ z) ** 2 for x in across[i] for z in across[j])
        return (
            squares / float((length(i) * length(j)).detach()) ** 2 / (n[i] * (n[i] - 1) * n[j] * (n[j] - 1))
        )

    total, left, v = 0.0, 0.0, [torch.zeros(m, dtype=exact) for m in n]
    for i in range(k):
        for j in range(k):
            if i != j:
                c = cosine(i, j)
                gradients = torch.autograd.grad(c, (weights[i], weights[j]))
                s2 = sum(variance(d, len(d)) for d in gradients)
                if second_order:
                    s2 = max(s2 - twice(i, j), s2 / 2)
                at, s = float(c.detach()), sqrt(s2)
                total += literal_part(at, s)
                left += 0.171 * s * exp(-((at / s) ** 2) / 12)
                slope = (literal_part(at + 1e-6, s) - literal_part(at - 1e-6, s)) / 2e-6
                v[i] += slope * gradients[0]
                v[j] += slope * gradients[1]
    part = [variance(x, m) for x, m in zip(v, n, strict=True)]
    freedom = sum(part) ** 2 / sum(p**2 / (m - 1) for p, m in zip(part, n, strict=True))
    return total, sqrt(sum(part)), freedom, left


def literal_part(c: float, s: float) -> float:
    z = c / s
    phi, Phi = exp(-z * z / 2) / sqrt(2 * pi), (1 + erf(-abs(z) / sqrt(2))) / 2
    return max(c, 0) - s * (phi - abs(z) * Phi) - s * 4 * (sqrt(2) - 1) * (1 - z * z) * phi


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("few", [18, 17])
def test_the_interval_of_cas_is_its_equations(seed: int, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "_FEW", few)
    k, d = 4, 9
    y = torch.repeat_interleave(torch.arange(k), torch.tensor([12, 20, 9, 31]))[
        torch.randperm(72, generator=seeded(seed))
    ]
    g = (
        torch.randn(72, d, generator=seeded(seed + 10)).clamp(min=0)
        * torch.rand(k, d, generator=seeded(3))[y]
    )
    W = torch.randn(k, d, generator=seeded(seed + 20)) + 0.3
    centre, deviation, freedom, left = literal_cas(g, W, y, second_order=few == 18)
    wider = float(scipy.stats.t.ppf(0.975, freedom)) / 1.959964 * deviation
    half = wider * float(scipy.stats.foldnorm.ppf(0.95, left / wider))
    found = intervals.cas(g, W, y)
    assert found.estimate - found.bias == pytest.approx(centre, abs=1e-6)
    assert found.low == pytest.approx(max(0, centre - half), abs=1e-4)
    assert found.high == pytest.approx(min(12, centre + half), abs=1e-4)
    order = torch.randperm(72, generator=seeded(5))
    shuffled = intervals.cas(g[order], W, y[order].int())
    assert tuple(shuffled) == pytest.approx(tuple(found))
    for longer in (1e-12, 1e12):
        assert tuple(intervals.cas(g.double() * longer, W * longer, y)) == pytest.approx(tuple(found))


def test_positive_part_is_unbiased_at_zero_and_on_average() -> None:
    z = torch.linspace(-12, 12, 4801, dtype=exact)
    density = torch.exp(-z * z / 2) / sqrt(2 * pi) * (z[1] - z[0])
    t = torch.linspace(-6, 6, 121, dtype=exact)
    at = t[:, None] + z[None, :]
    value, slope = positive_part(at, 1.0)
    bias = (value * density).sum(1) - t.clamp(min=0)
    assert float(bias[60]) == pytest.approx(0, abs=1e-5)
    assert float(bias.sum() * 0.1) == pytest.approx(0, abs=2e-3)
    assert float(bias.abs().max()) < 0.16  # 0.40 without any correction
    bound = (intervals.bias_left(at, torch.ones_like(at)) * density).sum(1)
    assert bool((bound >= bias.abs() - 1e-5).all())
    by_c = (bias[1:] - bias[:-1]) / (t[1:] - t[:-1])
    assert float(by_c.abs().max()) <= 0.48
    assert float((bias[1:] - t[1:] * by_c).abs().max()) <= 0.34 + 0.02  # by s, from quotients
    mean = (value * density).sum(1)
    variance = (value**2 * density).sum(1) - mean**2
    assert bool((variance <= (slope**2 * density).sum(1) + 1e-3).all())  # never too narrow


def positive_part(c: Tensor, s: float) -> tuple[Tensor, Tensor]:
    return intervals.positive_part(c, torch.full_like(c, s))


def test_positive_part_far_from_zero_and_without_noise() -> None:
    c = torch.tensor([-5.0, -0.3, 0.0, 0.3, 5.0], dtype=exact)
    value, slope = positive_part(c, 0.0)
    assert torch.equal(value, c.clamp(min=0))
    assert slope[[0, 1, 3, 4]].tolist() == pytest.approx([0, 0, 1, 1])
    value, slope = positive_part(c, 0.02)
    torch.testing.assert_close(value[[0, 1, 3, 4]], c.clamp(min=0)[[0, 1, 3, 4]])
    assert float(value[2]) < 0
    around = torch.linspace(-3, 3, 41, dtype=exact) + 0.01
    up, down = positive_part(around + 1e-6, 0.7)[0], positive_part(around - 1e-6, 0.7)[0]
    torch.testing.assert_close(positive_part(around, 0.7)[1], (up - down) / 2e-6, rtol=1e-5, atol=1e-6)


def test_constant_and_disjoint_classifiers_leave_no_doubt() -> None:
    y = torch.arange(30) % 3
    sure = intervals.cas(torch.ones(30, 3), torch.ones(3, 3), y)
    assert tuple(sure) == pytest.approx((6, 6, 6, 0, 0), abs=1e-6)
    g = torch.rand(30, 3, generator=seeded(0))
    assert tuple(intervals.cas(g, torch.eye(3), y)) == pytest.approx((0, 0, 0, 0, 0), abs=1e-6)


def test_absent_single_and_unusable_classes() -> None:
    g, W, y = specific(4, 16).draw(20, seeded(0))
    wider = torch.cat([W, torch.ones(1, 16)])
    assert tuple(intervals.cas(g, wider, y)) == pytest.approx(tuple(intervals.cas(g, W, y)))
    before = torch.cat([torch.ones(1, 16), W])  # the absent class comes first
    assert tuple(intervals.cas(g, before, y + 1)) == pytest.approx(tuple(intervals.cas(g, W, y)))
    one = torch.cat([y, torch.tensor([4])])
    assert ends(intervals.cas(torch.cat([g, g[:1]]), wider, one)) == (0, 20)
    plain = attribution.cas(attribution.correlation(attribution.class_means(g, W, y)))
    assert intervals.cas(torch.cat([g, g[:1]]), wider, one).estimate >= plain
    assert ends(intervals.cas(g[:0], W, y[:0])) == (0, 12)
    pair = (torch.cat([g, g[:1]]), wider)
    assert ends(intervals.cas_difference(pair, pair, one)) == (-20, 20)
    off, bad = g.clone(), g.clone()
    off[y == 2] = 0
    bad[20 * 2 + 3, 1] = torch.nan
    assert tuple(intervals.cas(off, W, y)) == pytest.approx(tuple(intervals.cas(bad, W, y)))
    kept = y != 2
    rest = intervals.cas(g[kept], W[[0, 1, 3]], (y[kept] - (y[kept] == 3).long()))
    assert ends(intervals.cas(off, W, y)) == pytest.approx(ends(rest))


def test_noise_longer_than_the_mean_gives_a_finite_interval_within_the_range() -> None:
    y = torch.arange(12) % 3
    for seed in range(5):  # features around 0: about half of the class means are shorter than their noise
        g = torch.randn(12, 200, generator=seeded(seed))
        found = intervals.cas(g, torch.ones(3, 200), y)
        assert 0 <= found.low <= found.high <= 6
        assert abs(found.bias) < 20
    cancelled = intervals.cas(torch.cat([g, -g]), torch.ones(3, 200), torch.cat([y, y]))
    assert 0 <= cancelled.low <= cancelled.high <= 6


def test_variances_too_small_to_be_squared_have_an_interval():
    # negative C_ij count as 0 by a smooth step, whose derivative may be 1e-200
    from crossclass.analysis.intervals import _interval, _Score

    y = torch.arange(12) % 3
    v = torch.linspace(-1, 1, 12, dtype=torch.float64)
    small, large = (_interval(_Score(0.5, 0.5, s * v), y, -9.0, 9.0) for s in (1e-120, 1.0))
    assert small.low <= small.estimate <= small.high
    assert small.high - small.low == pytest.approx((large.high - large.low) * 1e-120, abs=1e-15)
