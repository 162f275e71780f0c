"""Lemma 1 and theorem 1: a threshold eps0 exists, beyond which w2 is 0 while w1 is not."""

import numpy as np

from crossclass.paper.theory import closed, descent, montecarlo, samples
from crossclass.paper.theory.integrals import expected_max
from crossclass.paper.theory.judge import (
    ADMISSIBLE,
    COMPLEMENT,
    COPIES,
    PAIRWISE,
    Grid,
    Slack,
    judge_means,
    judge_slack,
    switch,
)
from crossclass.paper.theory.montecarlo import estimate
from crossclass.paper.theory.setting import PAPER, Layout
from crossclass.paper.verdict import Verdict


def lemma1(rng: np.random.Generator, n: int) -> list[Verdict]:
    """Lemma 1 (eqs. 18, 19) by integration and by n pairs of numbers; its form for K classes."""
    slack = 1e-12 - abs(expected_max(2) - 1 / np.sqrt(np.pi))
    pairs = [(estimate(rng.standard_normal((n, 2)).max(axis=1)), 1 / float(np.sqrt(np.pi)))]
    more = [(estimate(rng.standard_normal((n // 4, m)).max(axis=1)), expected_max(m)) for m in (3, 4, 9)]
    return [
        judge_slack(
            "E max(X, Y) = 1/sqrt(pi) for independent standard normal X and Y (Lemma 1)",
            "integral of z 2 phi(z) Phi(z), to 1e-12",
            [Slack(slack, {"difference": expected_max(2) - 1 / np.sqrt(np.pi)})],
        ),
        judge_means(
            "Lemma 1 in samples: E max(X, Y) = 1/sqrt(pi) to within 0.01", f"{n:,} pairs", pairs, 0.01
        ),
        judge_means(
            "K classes: the expected maximum of K - 1 normals takes the place of 1/sqrt(pi), to within 0.02",
            f"K = 4, 5 and 10, {n // 4:,} samples each",
            more,
            0.02,
        ),
    ]


def theorem1(rng: np.random.Generator, n: int) -> list[Verdict]:
    """Theorem 1 by its closed form, by samples, and in the layouts of appendix E.5."""
    settings = [
        (1.0, s, e) for s, e in zip(rng.uniform(0.1, 1.6, 6), rng.uniform(0.02, 0.48, 6), strict=True)
    ]
    losses = [
        (montecarlo.loss(w1, w2, *at, n, rng, brute=True), float(closed.loss(w1, w2, *at)))
        for at, w1, w2 in zip(settings, rng.uniform(0, 1, 6), rng.uniform(0, 1, 6), strict=True)
    ]
    narrow = [_threshold(layout, np.sqrt(np.pi)) for layout in COMPLEMENT]
    ten = float(closed.eps0(1.0, 0.9, Layout(10)))
    return [
        judge_slack("there is an eps0 in (0, mu/2) (Theorem 1)", ADMISSIBLE, [_threshold(PAPER)]),
        judge_slack(
            "w2* > 0 for eps < eps0, w2* = 0 for eps > eps0, and w1* > 0 for every eps < mu/2 (Theorem 1)",
            ADMISSIBLE,
            [_weights(PAPER)],
        ),
        judge_means(
            "the expected robust loss (eq. 17) has the closed form behind eps0, to within 0.1",
            f"6 random settings, {n:,} samples each, all 64 corners tried for each sample",
            losses,
            0.1,
        ),
        _descended(rng, n),
        judge_slack(
            "AT weighs cross-class features less than exclusive ones: w2*/w1* < 1, and it falls with eps",
            ADMISSIBLE + ", eps < eps0",
            [_falling()],
        ),
        judge_slack(
            "Theorem 1 holds with d_E and d_C copies of the features (E.5)",
            "(d_E, d_C) = (1, 4), (3, 2); 0 < sigma < sqrt(pi d_C) mu",
            [part for layout in COPIES for part in (_threshold(layout), _weights(layout))],
        ),
        judge_slack(
            "Theorem 1 holds for K classes in the complement layout (E.5), for sigma < mu/m_(K-1)",
            "K = 4, 5, 6, 10, 100; 0 < sigma < mu/m_(K-1), m_n the expected maximum of n standard normals",
            [part for layout in COMPLEMENT for part in (_threshold(layout), _weights(layout))],
        ),
        judge_slack(
            "Theorem 1 holds for K classes in the complement layout (E.5) for sigma < sqrt(pi) mu",
            "K = 4, 5, 6, 10, 100; 0 < sigma < sqrt(pi) mu",
            narrow,
            f"K = 10, mu = 1, sigma = 0.9 has eps0 = {ten:.4f}: w2* = 0 at every eps",
        ),
        judge_slack(
            "Theorem 1 holds for K classes in the pairwise layout (E.5)",
            "K = 4, 5, 6, 10, 100; 0 < sigma < (K-2) mu/m_(K-1), which is wider than sqrt(pi) mu",
            [part for layout in PAIRWISE for part in (_threshold(layout), _weights(layout))],
        ),
    ]


def _threshold(layout: Layout, sigma_limit: float | None = None) -> Slack:
    g = Grid.over(layout, (200, 1, 1), sigma_limit)
    eps0 = closed.eps0(g.mu, g.sigma, layout)
    return g.slack(np.minimum(eps0, g.mu / 2 - eps0), "mu sigma", layout)


def _weights(layout: Layout) -> Slack:
    g = Grid.over(layout, (60, 60, 1))
    w1, w2 = closed.optimum(g.mu, g.sigma, g.eps, layout=layout)
    slack = np.minimum(w1, switch(w2, g.eps < closed.eps0(g.mu, g.sigma, layout)))
    return g.slack(slack, "mu sigma eps", layout)


def _falling() -> Slack:
    g = Grid.over(sizes=(60, 60, 1))
    ratio = closed.ratio_at(g.mu, g.sigma, g.eps)
    later = closed.ratio_at(g.mu, g.sigma, g.eps + g.mu / 1000)
    slack = np.where(g.eps < closed.eps0(g.mu, g.sigma), np.minimum(1 - ratio, ratio - later), np.nan)
    return g.slack(slack, "mu sigma eps")


def _descended(rng: np.random.Generator, n: int) -> Verdict:
    """w2 of descent on samples is 0 beyond eps0 by three standard errors, and positive as far below it."""
    slack, where = [], []
    for sigma in rng.uniform(0.1, 1.6, 10):
        x, y = samples.draw(n, 1.0, float(sigma), PAPER, rng)
        eps0 = float(closed.eps0(1.0, float(sigma)))
        error = montecarlo.threshold(x, y).error
        for eps in (eps0 / 2, eps0 - 3.01 * error, eps0 + 3.01 * error, (eps0 + 0.5) / 2):
            if 0 < eps < 0.5:
                w2 = descent.descend(x, y, eps)[1]
                slack.append(float(switch(w2, eps < eps0)))
                where.append((float(sigma), eps))
    sigmas, radii = np.array(where).T
    return judge_slack(
        "projected descent on samples ends at w2 = 0 once eps exceeds eps0 by more than three standard "
        "errors, and at w2 > 0 once it is as far below",
        f"mu = 1, 10 random sigma, eps on either side of eps0, {n:,} samples each",
        [Slack(np.array(slack), {"sigma": sigmas, "eps": radii})],
    )
