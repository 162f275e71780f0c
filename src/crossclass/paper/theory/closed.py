"""Closed forms of section 4: robust losses, their minimisers, thresholds, and robust accuracies.

All are unchecked (`setting.check` says which condition is broken), elementwise and broadcast. In the layout's
terms (d_E exclusive copies, N, M, s: see `Layout`; the paper has d_E = N = M = 1, s = 1/sqrt(pi)):

    L(w) = (1 - beta) [ -w1 d_E (mu - 2 eps) - w2 (N (mu - 2 eps) - s sigma) ]
           - beta M mu w2 + beta eps (c_E w1 + c_C w2) + (lambda/2) (w1^2 + w2^2).

beta = 0 is the robust loss (eqs. 9, 10, 17), and (c_E, c_C) depend on the reading of eq. (13): `penalty`.
"""

import numpy as np
from scipy.special import ndtr, owens_t

from crossclass.paper.theory.setting import PAPER, Layout, Number, check_reading


def penalty(reading: str = "A", layout: Layout = PAPER) -> tuple[float, float]:
    """(c_E, c_C): beta eps (c_E w1 + c_C w2) is what the adversary gains on the second term of eq. (13).

    That term is -(beta / (K-1)) sum_{j != i} f_j(x + delta). Which delta?
    A (adopted): its own worst case, since the outer maximum of eq. (12) acts on it; c = (1, 2) for K = 3.
    B: none, the term is clean; (0, 0).
    C: one delta that maximises the whole smoothed loss; (0, 0) for K = 3, valid for beta <= 1/2.
    D: the maximiser of the bracket is used again (0 where the bracket ignores it); (-1/2, -1/2) for K = 3.
    Raises UserError for an unknown reading.
    """
    check_reading(reading)
    k, d_e, d_c, pairwise = layout.classes, layout.exclusive, layout.shared, layout.kind == "pairwise"
    if reading == "A":
        return float(d_e), float((k - 1) * d_c)
    if reading == "B":
        return 0.0, 0.0
    if reading == "C":
        return (k - 3) / (k - 1) * d_e, ((k - 3) ** 2 / (k - 1) if pairwise else float(k - 3)) * d_c
    return -d_e / (k - 1), -layout.distinguishing / (k - 1)


def slopes(
    mu: Number, sigma: Number, eps: Number, beta: Number = 0.0, reading: str = "A", layout: Layout = PAPER
) -> tuple[Number, Number]:
    """(g1, g2): what a unit of w1 and of w2 gain, L = -g1 w1 - g2 w2 + (lambda/2) |w|^2."""
    c_e, c_c = penalty(reading, layout)
    gap = mu - 2 * eps
    g1 = (1 - beta) * layout.exclusive * gap - beta * eps * c_e
    g2 = (1 - beta) * (layout.distinguishing * gap - layout.rival_factor * sigma) + beta * (
        layout.common * mu - c_c * eps
    )
    return g1, g2


def loss(
    w1: Number,
    w2: Number,
    mu: Number,
    sigma: Number,
    eps: Number,
    lam: Number = 1.0,
    beta: Number = 0.0,
    reading: str = "A",
    layout: Layout = PAPER,
) -> Number:
    """The expected robust loss (eqs. 9, 10, 17), or with beta > 0 the smoothed one (eqs. 12, 13); w >= 0."""
    g1, g2 = slopes(mu, sigma, eps, beta, reading, layout)
    return lam / 2 * (w1 * w1 + w2 * w2) - g1 * w1 - g2 * w2


def optimum(
    mu: Number,
    sigma: Number,
    eps: Number,
    lam: Number = 1.0,
    beta: Number = 0.0,
    reading: str = "A",
    layout: Layout = PAPER,
) -> tuple[Number, Number]:
    """(w1*, w2*), the minimiser of `loss` over w1, w2 >= 0; theorem 1: w2* > 0 exactly for eps < eps0.

    w1* = (mu - 2 eps)/lambda and w2* = [mu - sigma/sqrt(pi) - 2 eps]_+ / lambda in the paper's robust loss.
    """
    g1, g2 = slopes(mu, sigma, eps, beta, reading, layout)
    return np.maximum(g1, 0.0) / lam, np.maximum(g2, 0.0) / lam


def eps0(mu: Number, sigma: Number, layout: Layout = PAPER) -> Number:
    """Theorem 1's threshold: mu/2 - sigma/(2 sqrt(pi)); in (0, mu/2) exactly if 0 < sigma < sqrt(pi) mu."""
    return mu / 2 - layout.rival_factor * sigma / (2 * layout.distinguishing)


def eps1(mu: Number, sigma: Number, beta: Number, reading: str = "A", layout: Layout = PAPER) -> Number:
    """Theorem 3's threshold: w2 of the smoothed loss is positive exactly for eps < eps1.

    mu/2 - (1 - beta) sigma/(2 sqrt(pi)) in the paper's layout under reading A.
    """
    n, (_, c_c) = layout.distinguishing, penalty(reading, layout)
    gain = (1 - beta) * (n * mu - layout.rival_factor * sigma) + beta * layout.common * mu
    return gain / (2 * (1 - beta) * n + beta * c_c)


def signal(w1: Number, w2: Number, mu: Number, sigma: Number, eps: Number, layout: Layout = PAPER) -> Number:
    """t, the mean of one worst-case margin over its standard deviation; P_pair = Phi(t). -inf for w = 0.

    t = (mu - 2 eps)(d_E w1 + N w2) / (sigma sqrt(d_E w1^2 + N w2^2)), which rises with w2 on [0, w1].
    """
    e, n = layout.exclusive, layout.distinguishing
    length = np.sqrt(e * np.square(w1) + n * np.square(w2))
    some = length > 0
    t = (mu - 2 * eps) / sigma * (e * w1 + n * w2) / np.where(some, length, 1.0)
    return np.where(some, t, -np.inf)[()]


def p_pair(w1: Number, w2: Number, mu: Number, sigma: Number, eps: Number, layout: Layout = PAPER) -> Number:
    """Eq. (11): the probability that one fixed other class stays below y under every perturbation.

    Phi(t) with t of `signal`; 0 for w = 0, a tie.
    """
    return ndtr(signal(w1, w2, mu, sigma, eps, layout))


def p_all(w1: Number, w2: Number, mu: Number, sigma: Number, eps: Number) -> Number:
    """Top-1 robust accuracy for K = 3: both other classes stay below y under every perturbation.

    The two margins have correlation w1^2 / (w1^2 + w2^2), so it is Phi(t) - 2 T(t, w2 / sqrt(2 w1^2 + w2^2))
    with t of `signal` and Owen's T function; 0 for w = 0 (a tie). The paper has no such formula.
    """
    return 1.0 - p_moved(w1, w2, mu, sigma, eps)


def p_moved(w1: Number, w2: Number, mu: Number, sigma: Number, eps: Number) -> Number:
    """1 - `p_all` without its rounding: some perturbation moves a sample to another class (K = 3)."""
    w1, w2 = np.asarray(w1, dtype=float), np.asarray(w2, dtype=float)
    length = np.sqrt(2 * w1 * w1 + w2 * w2)
    t = signal(w1, w2, mu, sigma, eps)
    return ndtr(-t) + 2 * owens_t(t, w2 / np.where(length > 0, length, 1.0))


def p_all_slope(r: Number, a: Number) -> Number:
    """(d P_all / dr) / phi(t), whose sign and zeros count; r = w2/w1, a = (mu - 2 eps)/sigma.

    At r = 0 it is a - 1/sqrt(pi): positive exactly for eps < eps0. At r = 1 it is negative for every a.
    """
    square = 1 + np.square(r)
    t = a * (1 + r) / np.sqrt(square)
    q = np.square(r) / (2 + np.square(r))  # (1 - rho) / (1 + rho), rho = 1 / (1 + r^2)
    rise = 2 * a * (1 - r) / square**1.5 * ndtr(t * np.sqrt(q))
    fall = np.exp(-t * t * q / 2) / (square * np.sqrt(np.pi * (1 + np.square(r) / 2)))
    return rise - fall


def ratio_at(mu: Number, sigma: Number, eps: Number) -> Number:
    """r_AT = w2*/w1* of adversarial training: [1 - 1/(a sqrt(pi))]_+ with a = (mu - 2 eps)/sigma."""
    return np.maximum(1 - sigma / (np.sqrt(np.pi) * (mu - 2 * eps)), 0.0)


def ratio_best(a: Number) -> Number:
    """r_opt: the w2/w1 in [0, 1] of the largest P_all, given a = (mu - 2 eps)/sigma > 0.

    0 for a <= 1/sqrt(pi) (eps >= eps0), else the zero of `p_all_slope`, by bisection.
    """
    low = np.zeros(np.shape(a))
    high = np.ones(np.shape(a))
    for _ in range(53):
        middle = (low + high) / 2
        rising = p_all_slope(middle, a) > 0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    return np.where(p_all_slope(0.0, a) > 0, low, 0.0)[()]
