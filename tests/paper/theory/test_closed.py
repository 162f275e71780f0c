"""Closed forms of section 4 against their equations written out, their limits, the theorems as properties."""

from math import inf, pi, sqrt

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats
from hypothesis import given, strategies as st

from crossclass.core.errors import UserError
from crossclass.paper.theory import closed, integrals
from crossclass.paper.theory.integrals import expected_max
from crossclass.paper.theory.setting import PAPER, READINGS, Layout, admissible, check, check_reading

SP = sqrt(pi)
PHI, DENSITY = scipy.stats.norm.cdf, scipy.stats.norm.pdf


def setting(rng: np.random.Generator, sigma_limit: float = SP) -> tuple[float, float, float, float, float]:
    """mu, sigma, eps, beta, lambda."""
    mu = float(rng.uniform(0.3, 3))
    shares = rng.uniform(0.01, 0.99, 3)
    return (
        mu,
        float(shares[0] * sigma_limit * mu),
        float(shares[1] * mu / 2),
        float(shares[2] / 3),
        float(rng.uniform(0.2, 4)),
    )


# Lemma 1


def test_expected_maxima():
    assert expected_max(1) == pytest.approx(0.0, abs=1e-14)
    assert expected_max(2) == pytest.approx(1 / SP, abs=1e-14)
    for n, printed in ((3, 0.8463), (4, 1.0294), (9, 1.4850), (99, 2.5040)):
        direct = scipy.integrate.quad(lambda z, n=n: z * n * DENSITY(z) * PHI(z) ** (n - 1), -9, 9)[0]
        assert expected_max(n) == pytest.approx(direct, abs=1e-10)
        assert expected_max(n) == pytest.approx(printed, abs=6e-5)
    with pytest.raises(ValueError, match="at least one number"):
        expected_max(0)


# Equations written out


def test_robust_loss_and_optimum_are_the_papers():
    rng = np.random.default_rng(1)
    for _ in range(50):
        mu, sigma, eps, _, lam = setting(rng)
        w1, w2 = (float(w) for w in rng.uniform(0, 3, 2))
        direct = -w1 * (mu - 2 * eps) - w2 * (mu - sigma / SP - 2 * eps) + lam / 2 * (w1**2 + w2**2)
        assert closed.loss(w1, w2, mu, sigma, eps, lam) == pytest.approx(direct, abs=1e-12)
        best = (mu - 2 * eps) / lam, max(mu - sigma / SP - 2 * eps, 0) / lam
        assert closed.optimum(mu, sigma, eps, lam) == pytest.approx(best, abs=1e-12)
        assert closed.eps0(mu, sigma) == pytest.approx(mu / 2 - sigma / (2 * SP), abs=1e-12)
        assert closed.ratio_at(mu, sigma, eps) == pytest.approx(best[1] / best[0], abs=1e-12)


@pytest.mark.parametrize("reading", READINGS)
def test_smoothed_optimum_and_eps1_of_each_reading(reading: str):
    rng = np.random.default_rng(2)
    for _ in range(50):
        mu, sigma, eps, beta, lam = setting(rng)
        s = (1 - beta) * sigma / SP
        w1, w2, eps1 = {
            "A": (
                (1 - beta) * (mu - 2 * eps) - beta * eps,
                mu - 2 * eps - s,
                mu / 2 - s / 2,
            ),
            "B": (
                (1 - beta) * (mu - 2 * eps),
                mu - (1 - beta) * (sigma / SP + 2 * eps),
                mu / (2 * (1 - beta)) - sigma / (2 * SP),
            ),
            "D": (
                (1 - beta) * (mu - 2 * eps) + beta * eps / 2,
                mu - s - (2 - 5 * beta / 2) * eps,
                (mu - s) / (2 - 5 * beta / 2),
            ),
        }["B" if reading == "C" else reading]
        found = closed.optimum(mu, sigma, eps, lam, beta, reading)
        assert found == pytest.approx((max(w1, 0) / lam, max(w2, 0) / lam), abs=1e-12)
        assert closed.eps1(mu, sigma, beta, reading) == pytest.approx(eps1, abs=1e-12)
        at = (mu, sigma, eps, lam, beta, reading)
        # the loss is the quadratic whose unclipped minimiser this is
        for v1, v2 in rng.uniform(0, 2, (3, 2)):
            direct = lam / 2 * (v1**2 + v2**2) - w1 * v1 - w2 * v2
            assert closed.loss(float(v1), float(v2), *at) == pytest.approx(direct, abs=1e-12)


@pytest.mark.parametrize("k", [3, 4, 5, 10])
def test_layouts_of_k_classes(k: int):
    rng, m = np.random.default_rng(k), expected_max(k - 1)
    for _ in range(20):
        for kind, n, gain in (("pairwise", k - 2, 1), ("complement", 1, k - 2)):
            layout = Layout(k, kind)
            mu, sigma, eps, beta, lam = setting(rng, n / m)
            assert layout.sigma_limit == pytest.approx(n / m)
            w1, w2 = (float(w) for w in rng.uniform(0.1, 2, 2))
            robust = -w1 * (mu - 2 * eps) - w2 * (n * (mu - 2 * eps) - sigma * m)
            weights = lam / 2 * (w1**2 + w2**2)
            args = (w1, w2, mu, sigma, eps, lam)
            assert closed.loss(*args, layout=layout) == pytest.approx(robust + weights, abs=1e-11)
            # the second term: what its mean rewards, and what the adversary takes (theory of E.5)
            joint = {
                "pairwise": (k - 3) ** 2 / (k - 1),
                "complement": k - 3,
            }[kind]
            for reading, c_e, c_c in (
                ("A", 1, k - 1),
                ("B", 0, 0),
                ("C", (k - 3) / (k - 1), joint),
                ("D", -1 / (k - 1), -n / (k - 1)),
            ):
                second = -beta * gain * mu * w2 + beta * eps * (c_e * w1 + c_c * w2)
                direct = (1 - beta) * robust + second + weights
                assert closed.loss(*args, beta, reading, layout) == pytest.approx(direct, abs=1e-11)
            assert closed.eps0(mu, sigma, layout) == pytest.approx(mu / 2 - sigma * m / (2 * n))
            t = (mu - 2 * eps) * (w1 + n * w2) / (sigma * sqrt(w1**2 + n * w2**2))
            assert closed.p_pair(w1, w2, mu, sigma, eps, layout) == pytest.approx(PHI(t))
            # eps1 is a mediant
            low = closed.eps0(mu, sigma, layout) * 2 * (1 - beta) * n
            other = mu / (k - 1) if kind == "pairwise" else mu * (k - 2) / (k - 1)
            eps1 = (low + other * beta * (k - 1)) / (2 * (1 - beta) * n + beta * (k - 1))
            assert closed.eps1(mu, sigma, beta, "A", layout) == pytest.approx(eps1)


def test_layout_of_copies():
    rng = np.random.default_rng(5)
    for d_e, d_c in ((1, 4), (3, 2), (2, 1)):
        layout = Layout(exclusive=d_e, shared=d_c)
        for _ in range(20):
            mu, sigma, eps, beta, lam = setting(rng, sqrt(pi * d_c))
            w1, w2 = (float(w) for w in rng.uniform(0.1, 2, 2))
            assert closed.eps0(mu, sigma, layout) == pytest.approx(mu / 2 - sigma / (2 * sqrt(pi * d_c)))
            eps1 = mu / 2 - (1 - beta) * sigma / (2 * sqrt(pi * d_c))
            assert closed.eps1(mu, sigma, beta, "A", layout) == pytest.approx(eps1)
            best = d_e * (mu - 2 * eps) / lam, max(d_c * (mu - 2 * eps) - sqrt(d_c) * sigma / SP, 0) / lam
            assert closed.optimum(mu, sigma, eps, lam, layout=layout) == pytest.approx(best, abs=1e-12)
            t = (mu - 2 * eps) * (d_e * w1 + d_c * w2) / (sigma * sqrt(d_e * w1**2 + d_c * w2**2))
            assert closed.p_pair(w1, w2, mu, sigma, eps, layout) == pytest.approx(PHI(t))
            # w1 of a smoothed loss gains d_E times the paper's
            w1_ls = closed.optimum(mu, sigma, eps, lam, beta, "A", layout)[0]
            assert w1_ls == pytest.approx(d_e * closed.optimum(mu, sigma, eps, lam, beta)[0], abs=1e-12)


# Robust probabilities


def test_top1_probability_is_the_bivariate_normal_one():
    rng = np.random.default_rng(6)
    for _ in range(25):
        mu, sigma, eps, _, _ = setting(rng)
        w1, w2 = (float(w) for w in rng.uniform(0.05, 2, 2))
        t = (mu - 2 * eps) * (w1 + w2) / (sigma * sqrt(w1**2 + w2**2))
        rho = w1**2 / (w1**2 + w2**2)
        both = scipy.stats.multivariate_normal(cov=[[1, rho], [rho, 1]]).cdf([t, t])
        assert closed.p_all(w1, w2, mu, sigma, eps) == pytest.approx(both, abs=1e-6)
        direct = integrals.p_all(w1, w2, mu, sigma, eps)
        assert closed.p_all(w1, w2, mu, sigma, eps) == pytest.approx(direct, abs=1e-12)
        assert closed.p_moved(w1, w2, mu, sigma, eps) == pytest.approx(1 - both, abs=1e-6)
        assert closed.p_pair(w1, w2, mu, sigma, eps) == pytest.approx(PHI(t), abs=1e-12)


def test_probabilities_at_the_edges():
    a = (1 - 0.2) / 0.9
    at = (1.0, 0.9, 0.1)
    assert closed.p_pair(0.0, 0.0, *at) == closed.p_all(0.0, 0.0, *at) == 0.0
    assert closed.p_pair(2.0, 0.0, *at) == closed.p_all(2.0, 0.0, *at) == pytest.approx(PHI(a))
    assert closed.p_all(0.0, 2.0, *at) == pytest.approx(PHI(a) ** 2)
    # far in the tail nothing is lost to rounding
    tiny = closed.p_moved(1.0, 0.5, 1.0, 0.05, 0.0)
    t = closed.signal(1.0, 0.5, 1.0, 0.05, 0.0)
    assert 1.1 * scipy.stats.norm.sf(t) < tiny < 2.0001 * scipy.stats.norm.sf(t) < 1e-100


def test_slope_is_the_derivative_of_top1_probability():
    rng, h = np.random.default_rng(7), 1e-5
    for a, r in rng.uniform((0.1, 0.01), (3, 0.99), (40, 2)):
        ends = [closed.p_moved(1.0, float(r + d), 1.0, 1 / float(a), 0.0) for d in (h, -h)]
        t = closed.signal(1.0, float(r), 1.0, 1 / float(a), 0.0)
        direct = (ends[1] - ends[0]) / (2 * h) / scipy.stats.norm.pdf(t)
        assert closed.p_all_slope(float(r), float(a)) == pytest.approx(direct, rel=1e-4, abs=1e-8)


def test_best_ratio_maximises_top1_probability():
    a = np.array([0.3, 0.5642, 0.6, 0.8, 1, 1.5, 2, 3])
    for one, r in zip(a, closed.ratio_best(a), strict=True):
        value = lambda q, one=one: closed.p_moved(1.0, q, 1.0, 1 / one, 0.0)  # noqa: E731
        found = scipy.optimize.minimize_scalar(
            value, bounds=(0, 1), method="bounded", options={"xatol": 1e-10}
        )
        assert r == pytest.approx(found.x, abs=1e-5)
    assert closed.ratio_best(0.3) == 0.0


def test_numbers_of_the_tables():
    best = closed.ratio_best(np.array([0.8, 1.0, 1.5, 2.0, 3.0]))
    assert best == pytest.approx([0.4369, 0.6365, 0.8670, 0.9506, 0.9944], abs=1e-4)
    trained = closed.ratio_at(1.0, 1 / np.array([0.8, 1.0, 1.5, 2.0, 3.0]), 0.0)
    assert trained == pytest.approx([0.295, 0.436, 0.624, 0.718, 0.812], abs=6e-4)
    for beta, w1, w2, top1, pair in (
        (0.0, 0.700, 0.192, 0.7927, 0.830),
        (0.1, 0.615, 0.243, 0.7939, 0.844),
        (0.2, 0.530, 0.294, 0.7926, 0.855),
        (0.3, 0.445, 0.345, 0.7871, 0.862),
    ):
        w = closed.optimum(1.0, 0.9, 0.15, 1.0, beta)
        assert w == pytest.approx((w1, w2), abs=6e-4)
        assert closed.p_all(*w, 1.0, 0.9, 0.15) == pytest.approx(top1, abs=6e-5)
        assert closed.p_pair(*w, 1.0, 0.9, 0.15) == pytest.approx(pair, abs=6e-4)
    assert closed.eps0(1.0, 0.9) == pytest.approx(0.2461, abs=5e-5)
    assert closed.eps1(1.0, 0.9, 0.25) == pytest.approx(0.3096, abs=5e-5)
    same = scipy.optimize.brentq(
        lambda a: closed.p_all(1.0, 1.0, 1.0, 1 / a, 0.0) - closed.p_all(1.0, 0.0, 1.0, 1 / a, 0.0), 0.3, 2
    )
    assert same == pytest.approx(0.797, abs=5e-4)
    four = Layout(4, "pairwise")
    assert closed.eps0(1.0, 0.6, four) == pytest.approx(0.3731, abs=5e-5)
    assert closed.eps1(1.0, 0.6, 0.2, "A", four) == pytest.approx(0.3668, abs=5e-5)


# Limits


def test_limits():
    for layout in (PAPER, Layout(5), Layout(5, "pairwise"), Layout(exclusive=2, shared=3)):
        at = (1.3, 0.6 * layout.sigma_limit, 0.2)
        for reading in READINGS:
            assert closed.optimum(*at, 1.0, 0.0, reading, layout) == closed.optimum(*at, layout=layout)
            assert closed.eps1(*at[:2], 0.0, reading, layout) == pytest.approx(closed.eps0(*at[:2], layout))
            once = np.array(closed.optimum(*at, 1.0, 0.2, reading, layout))
            assert np.array(closed.optimum(*at, 2.5, 0.2, reading, layout)) == pytest.approx(once / 2.5)
        eps0 = closed.eps0(*at[:2], layout)
        assert closed.optimum(*at[:2], eps0, layout=layout)[1] == pytest.approx(0.0, abs=1e-12)
    for kind in ("pairwise", "complement"):
        three = Layout(3, kind)
        for reading in READINGS:
            args = (0.5, 0.7, 1.0, 0.9, 0.15, 2.0, 0.2, reading)
            assert closed.loss(*args, three) == closed.loss(*args)
            assert closed.eps1(1.0, 0.9, 0.2, reading, three) == closed.eps1(1.0, 0.9, 0.2, reading)


def test_closed_forms_broadcast_and_equal_their_scalars():
    rng = np.random.default_rng(8)
    mu, sigma, eps, beta = 1.0, rng.uniform(0.1, 1.7, (7, 1)), rng.uniform(0, 0.5, 5), rng.uniform(0, 0.3, 5)
    w1, w2 = closed.optimum(mu, sigma, eps, 1.0, beta)
    assert np.shape(w2) == np.shape(closed.p_all(w1, w2, mu, sigma, eps)) == (7, 5)
    for i, j in ((0, 0), (6, 4), (3, 2)):
        at = (mu, float(sigma[i, 0]), float(eps[j]))
        one = closed.optimum(*at, 1.0, float(beta[j]))
        assert w2[i, j] == one[1]
        assert closed.p_all(w1, w2, mu, sigma, eps)[i, j] == closed.p_all(*one, *at)
        assert closed.p_pair(w1, w2, mu, sigma, eps)[i, j] == closed.p_pair(*one, *at)
        assert closed.ratio_best(np.array([1.0, 2.0]))[1] == closed.ratio_best(2.0)


def test_a_million_settings_at_once():
    rng, n = np.random.default_rng(10), 10**6
    mu, shares = rng.uniform(0.5, 2, n), rng.uniform(0.02, 0.999, (3, n))
    sigma, eps, beta = shares[0] * SP * mu, shares[1] * mu / 2, shares[2] / 3
    assert admissible(mu, sigma, eps, beta).all()
    eps0, eps1 = closed.eps0(mu, sigma), closed.eps1(mu, sigma, beta)
    assert np.all((eps0 > 0) & (eps0 < eps1) & (eps1 < mu / 2))
    plain, smooth = closed.optimum(mu, sigma, eps), closed.optimum(mu, sigma, eps, 1.0, beta)
    clear = np.minimum(np.abs(eps - eps0), np.abs(eps - eps1)) > 1e-12
    assert np.array_equal((plain[1] > 0)[clear], (eps < eps0)[clear])
    assert np.array_equal((smooth[1] > plain[1])[clear], (eps < eps1)[clear])
    pair, top1 = (p(*plain, mu, sigma, eps) for p in (closed.p_pair, closed.p_all))
    assert np.all((2 * pair - 1 - 1e-12 <= top1) & (top1 <= pair + 1e-15))  # Bonferroni's bounds
    assert np.all(closed.loss(*plain, mu, sigma, eps) < 0)  # better than w = 0


# Theorems as properties


share = st.floats(0.001, 0.999)


@given(st.floats(0.01, 100), share, share, share)
def test_theorem_1(mu: float, s: float, e: float, r: float):
    sigma, eps = s * SP * mu, e * mu / 2
    check(mu, sigma, eps)
    eps0 = closed.eps0(mu, sigma)
    assert 0 < eps0 < mu / 2
    w1, w2 = closed.optimum(mu, sigma, eps)
    assert w1 > 0
    assert w2 < w1
    if abs(eps - eps0) > 1e-9 * mu:
        assert (w2 > 0) == (eps < eps0)
    # nothing else within w >= 0 is better
    v1, v2 = 2 * r * mu, 2 * (1 - r) * mu
    assert closed.loss(v1, v2, mu, sigma, eps) >= closed.loss(w1, w2, mu, sigma, eps) - 1e-12 * mu**2


@given(st.floats(0.01, 100), share, share, share, share)
def test_theorem_2_pairwise(mu: float, s: float, e: float, r: float, q: float):
    at = (mu, s * SP * mu, e * mu / 2)
    low, high = sorted((r, q))
    assert closed.p_pair(1.0, low, *at) <= closed.p_pair(1.0, high, *at)
    if high - low > 1e-6:
        assert closed.signal(1.0, low, *at) < closed.signal(1.0, high, *at)
    assert closed.signal(1.0, r, *at) == pytest.approx(closed.signal(1.0, 1 / r, *at))


@given(st.floats(0.02, 0.999), share)  # for smaller sigma P_all rounds to 1
def test_top1_wants_cross_class_features_exactly_below_eps0_and_more_of_them(s: float, e: float):
    sigma, eps = s * SP, e / 2
    a, eps0 = (1 - 2 * eps) / sigma, closed.eps0(1.0, sigma)
    best, trained = closed.ratio_best(a), closed.ratio_at(1.0, sigma, eps)
    assert closed.p_all_slope(1.0, a) < 0
    if eps > eps0 + 1e-9:
        assert best == trained == 0
    if eps < eps0 - 1e-6:
        assert 0 < trained < best < 1


# Mistakes


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"mu": 0.0}, "mu > 0"),
        ({"sigma": 0.0}, "sigma > 0"),
        ({"sigma": 1.8}, r"sigma < sqrt\(pi\) mu \(section 4.1\), but sigma = 1.8 and mu = 1"),
        ({"eps": -0.1}, "eps >= 0"),
        ({"eps": 0.5}, "eps < mu/2 .*eps = 0.5"),
        ({"beta": 1 / 3}, r"beta < 1/3 \(eq. 13\), but beta = 0.333"),
        ({"beta": -0.1}, "beta >= 0"),
        ({"w1": -1.0}, "w1 >= 0 .*w1 = -1"),
        ({"w2": -0.1}, "w2 >= 0"),
        ({"lam": 0.0}, "lambda > 0"),
        ({"sigma": float("nan")}, "sigma must be a finite number"),
        ({"mu": inf}, "mu must be a finite number"),
        ({"eps": np.array([0.1, 0.7, 0.2])}, "eps = 0.7"),
        ({"sigma": 0.7, "layout": Layout(10)}, "0.6734 mu in the complement layout, K = 10"),
    ],
)
def test_a_broken_condition_is_named(given_: dict, words: str):
    with pytest.raises(UserError, match=words):
        check(**{"mu": 1.0, "sigma": 0.9, "eps": 0.1, **given_})


def test_admissible_says_what_check_says():
    check(1.0, 0.9, 0.1, 0.25, 1.0, 0.5)
    rng = np.random.default_rng(9)
    values = rng.uniform((-0.2, -0.2, -0.1, -0.1), (1.5, 2.5, 0.8, 0.5), (300, 4))
    fine = admissible(*values.T)
    assert 0 < fine.sum() < 300
    for row, expected in zip(values, fine, strict=True):
        try:
            check(*(float(v) for v in row))
            assert expected
        except UserError:
            assert not expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((2,), "K >= 3 .*K = 2 is given"),
        ((3, "complement", 0), "d_E = 0"),
        ((3, "complement", 1, 0), "d_C = 0"),
        ((4, "pairwise", 1, 2), "K = 3 only"),
        ((3, "pairwize"), "did you mean 'pairwise'"),
    ],
)
def test_impossible_layouts_are_refused(arguments: tuple, words: str):
    with pytest.raises(UserError, match=words):
        Layout(*arguments)


def test_unknown_readings_are_refused():
    check_reading("D")
    for call in (lambda: check_reading("E"), lambda: closed.eps1(1.0, 0.9, 0.1, "E")):
        with pytest.raises(UserError, match=r"no reading 'E' of eq. \(13\); known: A, B, C, D"):
            call()
