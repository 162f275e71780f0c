"""Samples, exact adversaries, Monte Carlo, quadrature and descent agree with the closed forms."""

from itertools import product

import numpy as np
import pytest
import scipy.stats

from crossclass.paper.theory import closed, descent, integrals, montecarlo, samples
from crossclass.paper.theory.setting import PAPER, READINGS, Layout

SEED = 20250605  # declared before anything was drawn
LAYOUTS = (
    PAPER,
    Layout(5),
    Layout(10),
    Layout(4, "pairwise"),
    Layout(5, "pairwise"),
    Layout(10, "pairwise"),
    Layout(exclusive=1, shared=4),
    Layout(exclusive=3, shared=2),
)
names = [str(layout) for layout in LAYOUTS]


def logits(x: np.ndarray, w1: float, w2: float, layout: Layout) -> list[float]:
    """Eq. (16) of one sample, feature by feature."""
    k = layout.classes
    named: dict[object, float] = {}
    values = iter(x)
    for copy in range(layout.exclusive):
        named |= {("E", i, copy): next(values) for i in range(k)}
    pairs = [(a, b) for a in range(k) for b in range(a + 1, k)]
    if layout.kind == "complement" or k == 3:  # C_j stands for the pair without j
        active = {j: [i for i in range(k) if i != j] for j in range(k)}
    else:
        active = dict(enumerate(pairs))
    for copy in range(layout.shared):
        named |= {("C", j, copy): next(values) for j in active}
    f = []
    for i in range(k):
        own = sum(named["E", i, c] for c in range(layout.exclusive))
        cross = sum(named["C", j, c] for c in range(layout.shared) for j in active if i in active[j])
        f.append(w1 * own + w2 * cross)
    assert next(values, None) is None
    return f


@pytest.mark.parametrize("layout", LAYOUTS, ids=names)
def test_samples_and_scores(layout: Layout):
    rng = np.random.default_rng(1)
    n = 2000 * layout.classes
    x, y = samples.draw(n, 2.0, 0.5, layout, rng)
    assert np.bincount(y).tolist() == [2000] * layout.classes
    active = samples.design(layout).sum(axis=1)[y] > 0
    assert np.all(x[~active] == 0)
    assert abs(x[active].mean() - 2.0) < 4 * 0.5 / np.sqrt(active.sum())
    assert x[active].std() == pytest.approx(0.5, rel=0.05)
    # as many active features as eq. (8) says, all of them in the score of the own class
    per_sample = layout.exclusive + (layout.classes - 1) * layout.shared
    assert np.all(active.sum(axis=1) == per_sample)
    assert (x @ samples.weights(1.0, 1.0, layout).T)[np.arange(n), y] == pytest.approx(x.sum(axis=1))
    for row in (0, 1, layout.classes - 1):
        direct = logits(x[row], 0.7, 0.4, layout)
        assert x[row] @ samples.weights(0.7, 0.4, layout).T == pytest.approx(direct)


def test_the_design_is_not_changed_by_accident():
    with pytest.raises(ValueError, match="read-only"):
        samples.design()[0, 0, 0] = 2.0


SMALL = (
    PAPER,
    Layout(4),
    Layout(4, "pairwise"),
    Layout(exclusive=2, shared=1),
    Layout(exclusive=1, shared=2),
)


@pytest.mark.parametrize("layout", SMALL, ids=[str(layout) for layout in SMALL])
def test_signs_find_what_all_corners_find(layout: Layout):
    rng = np.random.default_rng(2)
    x, y = samples.draw(400 if layout == PAPER else 24, 1.0, 0.9, layout, rng)
    for reading, (w1, w2), beta in product(READINGS, ((0.8, 0.3), (0.3, 0.8), (1.0, 1.0)), (0.0, 0.25, 0.6)):
        at = (x, y, w1, w2, 0.15, beta, reading, layout)
        assert samples.worst_case(*at) == pytest.approx(samples.worst_of_corners(*at), abs=1e-12)


def test_corners_literally():
    """Eqs. (10) and (13) for single samples in loops, reading A and C."""
    rng, eps, beta, w = np.random.default_rng(3), 0.2, 0.3, (0.6, 0.5)
    x, y = samples.draw(9, 1.0, 0.9, PAPER, rng)
    seen = {r: samples.worst_of_corners(x, y, *w, eps, beta, r) for r in ("A", "C")}
    for row, (xi, i) in enumerate(zip(x, y, strict=True)):
        bracket, foreign, joint = [], [], []
        for delta in product((-eps, eps), repeat=6):
            f = logits(xi + np.array(delta), *w, PAPER)
            others = [f[j] for j in range(3) if j != i]
            bracket.append(max(others) - f[i])
            foreign.append(-beta / 2 * sum(others))
            joint.append((1 - beta) * bracket[-1] + foreign[-1])
        assert seen["A"][row] == pytest.approx((1 - beta) * max(bracket) + max(foreign), abs=1e-12)
        assert seen["C"][row] == pytest.approx(max(joint), abs=1e-12)
        margins = samples.margins(x[row : row + 1], y[row : row + 1], *w, eps)[0]
        assert margins.max() == pytest.approx(max(bracket), abs=1e-12)
        assert margins[i] == -np.inf


def judge(z: np.ndarray) -> None:
    """z-scores are standard normal."""
    assert scipy.stats.kstest(z, "norm").pvalue > 0.01
    assert abs(np.mean(z**2) - 1) < 4 * np.sqrt(2 / len(z))
    assert np.abs(z).max() < 4


def test_loss_against_monte_carlo_by_its_z_scores():
    rng = np.random.default_rng([SEED, 0])
    z = []
    for number in range(280):
        layout = LAYOUTS[number % len(LAYOUTS)]
        mu = float(rng.uniform(0.5, 2))
        sigma, eps, beta = (
            float(v) for v in rng.uniform(0.02, 0.98, 3) * (layout.sigma_limit * mu, mu / 2, 1 / 3)
        )
        w1, w2 = (float(w) for w in rng.uniform(0.01, 2, 2))
        reading = READINGS[int(rng.integers(4))]
        beta = 0.0 if number % 5 == 0 else beta
        at = (w1, w2, mu, sigma, eps)
        found = montecarlo.loss(*at, 1500, rng, 1.7, beta, reading, layout)
        assert found.n == 1500
        z.append((found.mean - closed.loss(*at, 1.7, beta, reading, layout)) / found.error)
    judge(np.array(z))


def p_robust(
    at: tuple[float, ...], n: int, rng: np.random.Generator, layout: Layout = PAPER
) -> tuple[montecarlo.Estimate, montecarlo.Estimate]:
    """(P_pair, P_all): shares of samples that no perturbation moves to the next class, or to any class."""
    w1, w2, mu, sigma, eps = at
    x, y = samples.draw(n, mu, sigma, layout, rng)
    behind = samples.margins(x, y, w1, w2, eps, layout) < 0
    pair, every = behind[np.arange(n), (y + 1) % layout.classes], behind.all(axis=1)
    return montecarlo.estimate(pair.astype(float)), montecarlo.estimate(every.astype(float))


def test_probabilities_against_monte_carlo_by_their_z_scores():
    """A count of hits is binomial; its distribution function, spread within its step, is exactly uniform."""
    rng, n = np.random.default_rng([SEED, 1]), 2000
    pair, top1 = [], []
    for number in range(240):
        layout = LAYOUTS[number % len(LAYOUTS)]
        mu = float(rng.uniform(0.5, 2))
        sigma, eps = (float(v) for v in rng.uniform(0.02, 0.98, 2) * (layout.sigma_limit * mu, mu / 2))
        at = (*(float(w) for w in rng.uniform(0.01, 2, 2)), mu, sigma, eps)
        one, every = p_robust(at, n, rng, layout)
        pair.append((one.mean, float(closed.p_pair(*at, layout))))
        if layout == PAPER or (layout.kind == "complement" and layout.classes > 3):
            top1.append((every.mean, integrals.p_all(*at, layout.classes)))
        if layout == PAPER:
            assert top1[-1][1] == pytest.approx(closed.p_all(*at), abs=1e-12)
    for seen in (pair, top1):
        hits, p = np.rint(np.array(seen)[:, 0] * n), np.array(seen)[:, 1].clip(max=1.0)
        below, here = scipy.stats.binom.cdf(hits - 1, n, p), scipy.stats.binom.pmf(hits, n, p)
        judge(scipy.stats.norm.ppf(below + rng.uniform(size=len(p)) * here))


def test_the_gain_of_probability_is_paired():
    rng = np.random.default_rng([SEED, 2])
    gain = montecarlo.p_all_gain((1.0, 0.4), 1.0, 0.9, 0.15, 100_000, rng)
    truth = closed.p_all(1.0, 0.4, 1.0, 0.9, 0.15) - closed.p_all(1.0, 1.0, 1.0, 0.9, 0.15)
    assert abs(gain.mean - truth) < 4 * gain.error < 0.006
    assert gain.interval(2) == pytest.approx((gain.mean - 2 * gain.error, gain.mean + 2 * gain.error))


@pytest.mark.parametrize("layout", LAYOUTS, ids=names)
def test_thresholds_in_samples(layout: Layout):
    rng = np.random.default_rng([SEED, 3])
    sigma = 0.5 * layout.sigma_limit
    x, y = samples.draw(8_000, 1.0, sigma, layout, rng)
    found = montecarlo.threshold(x, y, layout=layout)
    assert abs(found.mean - closed.eps0(1.0, sigma, layout)) < 4 * found.error < 0.1
    for reading in READINGS:
        found = montecarlo.threshold(x, y, 0.2, reading, layout)
        assert abs(found.mean - closed.eps1(1.0, sigma, 0.2, reading, layout)) < 4 * found.error


# Quadrature


def nodes(mu: float, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Samples of class 1 (eq. 8) and weights that sum to 1: weighted means are expectations (K = 3).

    A sample's loss is linear but for a kink where its two cross-class features are equal, so these are
    turned by 45 degrees and integrated on either side.
    """
    z, w = np.polynomial.hermite_e.hermegauss(2)
    t, v = np.polynomial.legendre.leggauss(40)
    d, v = 9 * (t + 1) / 2, 9 * v / 2 * scipy.stats.norm.pdf(9 * (t + 1) / 2)
    d, v = np.concatenate([-d, d]), np.concatenate([v, v])
    E, S, D = (a.ravel() for a in np.meshgrid(z, z, d, indexing="ij"))
    weight = (w[:, None, None] * w[:, None] * v).ravel() / w.sum() ** 2
    x = np.zeros((len(E), 6))
    x[:, 0] = mu + sigma * E
    x[:, 4], x[:, 5] = mu + sigma * (S + D) / np.sqrt(2), mu + sigma * (S - D) / np.sqrt(2)
    return x, weight


def test_expected_loss_by_quadrature():
    rng = np.random.default_rng(5)
    x, weight = nodes(1.3, 0.7)
    assert weight.sum() == pytest.approx(1.0, abs=1e-13)
    assert weight @ x[:, [0, 4, 5]] == pytest.approx([1.3] * 3, abs=1e-12)
    assert weight @ (x[:, [0, 4, 5]] - 1.3) ** 2 == pytest.approx([0.49] * 3, abs=1e-12)
    assert weight @ ((x[:, 4] - 1.3) * (x[:, 5] - 1.3)) == pytest.approx(0.0, abs=1e-12)
    for reading in READINGS:
        for _ in range(5):
            mu, sigma, eps, beta, w1, w2 = (
                float(v) for v in rng.uniform((0.5, 0.1, 0, 0, 0.01, 0.01), (2, 0.8, 0.24, 0.33, 2, 2))
            )
            x, weight = nodes(mu, sigma)
            worst = samples.worst_case(x, np.zeros(len(x), dtype=int), w1, w2, eps, beta, reading)
            direct = float(weight @ worst) + 0.35 * (w1 * w1 + w2 * w2)
            assert closed.loss(w1, w2, mu, sigma, eps, 0.7, beta, reading) == pytest.approx(direct, abs=1e-12)


# Descent


def test_descent_finds_the_optimum_of_its_sample():
    rng = np.random.default_rng(7)
    x, y = samples.draw(4000, 1.0, 0.9, PAPER, rng)
    for eps in (0.1, 0.24, 0.3):
        # written out for the robust loss: means of x_E and of the smaller of the two x_C
        own = x[np.arange(4000), y].mean()
        least = np.where(np.arange(3) == y[:, None], np.inf, x[:, 3:]).min(axis=1).mean()
        best = own - 2 * eps, max(least - 2 * eps, 0.0)
        assert descent.descend(x, y, eps) == pytest.approx(best, abs=1e-9)
        half = descent.descend(x, y, eps, 2.0, start=(0.0, 3.0))
        assert half == pytest.approx((best[0] / 2, best[1] / 2), abs=1e-9)
        for reading in READINGS:
            truth = closed.optimum(1.0, 0.9, eps, 1.0, 0.25, reading)
            assert descent.descend(x, y, eps, 1.0, 0.25, reading) == pytest.approx(truth, abs=0.06)


@pytest.mark.parametrize("layout", SMALL[:4], ids=[str(layout) for layout in SMALL[:4]])
@pytest.mark.parametrize("reading", READINGS)
def test_subgradient_is_the_slope_of_the_mean_loss(layout: Layout, reading: str):
    x, y = samples.draw(60, 1.0, 0.6, layout, np.random.default_rng(8))
    w, h = np.array([0.5, 0.7]), 1e-6

    def value(w: np.ndarray) -> float:
        values = samples.worst_case(x, y, float(w[0]), float(w[1]), 0.2, 0.3, reading, layout)
        return float(values.mean()) + 0.8 / 2 * float(w @ w)

    found = descent.subgradient(x, y, w, 0.2, 0.8, 0.3, reading, layout)
    direct = [(value(w + step) - value(w - step)) / (2 * h) for step in h * np.eye(2)]
    assert found == pytest.approx(direct, abs=1e-7)


def test_unknown_readings_are_refused_everywhere():
    x, y = samples.draw(3, 1.0, 0.9, PAPER, np.random.default_rng(9))
    for call in (samples.worst_case, samples.worst_of_corners):
        with pytest.raises(ValueError, match="no reading 'E'"):
            call(x, y, 1.0, 1.0, 0.1, 0.1, "E")
