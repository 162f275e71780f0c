"""Intervals hold the truth as often as they say."""

from collections.abc import Callable
from math import erf, exp, inf, pi, sqrt

import pytest
import scipy.stats
import torch
from torch import Tensor

from conftest import seeded
from crossclass.analysis import attribution, instances, intervals
from crossclass.analysis.instances import Neighbours
from crossclass.analysis.intervals import Interval

exact = torch.float64


# Populations whose class means are known: g = relu(m + noise), E relu(m + N(0, 1)) = m Phi(m) + phi(m)


class Population:
    """ReLU features with known mean attributions; noise is partly common to all features.

    `scale` is the deviation of the logarithm of an image's scale, whose mean is 1.
    """

    def __init__(self, m: Tensor, W: Tensor, common: float = 0.1, scale: float = 0.0) -> None:
        self.m, self.W, self.common, self.scale = m, W, common, scale
        self.signs = torch.randn(m.shape[1], generator=seeded(9)).sign()
        normal = torch.distributions.Normal(0.0, 1.0)
        self.C = attribution.correlation((m * normal.cdf(m) + normal.log_prob(m).exp()).double() * W.double())
        self.cas = attribution.cas(self.C)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        k, d = self.m.shape
        y = torch.arange(k).repeat_interleave(n)
        one = torch.randn(n * k, 1, generator=generator) * self.signs
        noise = sqrt(self.common) * one + sqrt(1 - self.common) * torch.randn(n * k, d, generator=generator)
        g = torch.relu(self.m[y] + noise)
        if self.scale:
            g *= (self.scale * torch.randn(n * k, 1, generator=generator) - self.scale**2 / 2).exp()
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
    return i.low, i.high


TIMES = 100
LEAST = 0.95 - 2.6 * sqrt(0.95 * 0.05 / TIMES)  # 99.5 % of right methods do better


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


def two(population: Population, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Features of the same images at two checkpoints: the second lost a fifth of each feature's noise."""
    g, _, y = population.draw(n, generator)
    again, _, _ = population.draw(n, generator)
    return g, 0.8 * g + 0.2 * again, y


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


# I-CAS


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


# Accuracy


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


def test_variances_too_small_to_be_squared_have_an_interval():
    # negative C_ij count as 0 by a smooth step, whose derivative may be 1e-200
    from crossclass.analysis.intervals import _interval, _Score

    y = torch.arange(12) % 3
    v = torch.linspace(-1, 1, 12, dtype=torch.float64)
    small, large = (_interval(_Score(0.5, 0.5, s * v), y, -9.0, 9.0) for s in (1e-120, 1.0))
    assert small.low <= small.estimate <= small.high
    assert small.high - small.low == pytest.approx((large.high - large.low) * 1e-120, abs=1e-15)
