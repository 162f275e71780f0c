"""Theorem 2: cross-class features always help against one other class, against all at once up to a point.

Eq. (11) fixes one other class y'. The sentence before it says "than any other class", which is top-1 robust
accuracy, P_all; both are judged here, and the form of the message that holds for both.
"""

import numpy as np

from crossclass.paper.theory import closed, integrals, montecarlo
from crossclass.paper.theory.judge import (
    ADMISSIBLE,
    COMPLEMENT,
    COPIES,
    PAIRWISE,
    Grid,
    Slack,
    judge_mean,
    judge_slack,
)
from crossclass.paper.theory.setting import PAPER, Layout
from crossclass.paper.verdict import Verdict

RATIOS = np.linspace(0.0, 1.0, 101)
"""w2/w1 within theorem 2's [0, 1]."""


def theorem2(rng: np.random.Generator, n: int) -> list[Verdict]:
    """Theorem 2 pairwise and top-1, by closed forms, by n samples, and in the layouts of appendix E.5."""
    return _pairwise() + _top1(rng, n) + _more_classes()


def _pairwise() -> list[Verdict]:
    g = Grid.over(sizes=(40, 40, 1))
    past = closed.signal(1.0, 1.0, g.mu, g.sigma, g.eps) - closed.signal(1.0, 1.5, g.mu, g.sigma, g.eps)
    return [
        judge_slack(
            "P[f_y > f_y'], y' one fixed other class, rises with w2 on [0, w1] (Theorem 2, eq. 11)",
            ADMISSIBLE,
            [_rise(PAPER)],
        ),
        judge_slack(
            "the interval [0, w1] of Theorem 2 is the largest: beyond w2 = w1 the probability falls",
            ADMISSIBLE,
            [g.slack(past, "mu sigma eps")],
        ),
        *(
            judge_slack(
                f"Theorem 2, pairwise, holds {name} (E.5)", where, [_rise(layout) for layout in layouts]
            )
            for name, where, layouts in (
                ("with d_E and d_C copies of the features", "(d_E, d_C) = (1, 4), (3, 2)", COPIES),
                ("for K classes in the complement layout", "K = 4, 5, 6, 10, 100", COMPLEMENT),
                ("for K classes in the pairwise layout", "K = 4, 5, 6, 10, 100", PAIRWISE),
            )
        ),
    ]


def _rise(layout: Layout) -> Slack:
    """The least rise of t (P = Phi(t) rounds to 1) from one ratio to the next, over [0, 1]."""
    g = Grid.over(layout, (40, 40, 1))
    t = closed.signal(1.0, RATIOS, g.mu[..., None], g.sigma[..., None], g.eps[..., None], layout)
    return g.slack(np.diff(t).min(axis=-1), "mu sigma eps", layout)


def _top1(rng: np.random.Generator, n: int) -> list[Verdict]:
    g = Grid.over(sizes=(40, 40, 1))
    of = "mu sigma eps"
    a = (g.mu - 2 * g.eps) / g.sigma
    slopes = np.asarray(closed.p_all_slope(RATIOS, a[..., None]))
    before = g.eps < closed.eps0(g.mu, g.sigma)
    best, trained = closed.ratio_best(a), closed.ratio_at(g.mu, g.sigma, g.eps)
    inside = np.where(before, np.minimum(best, 1 - best), np.nan)
    turns = np.where(before, 1.0 - np.abs((np.diff(np.sign(slopes)) != 0).sum(axis=-1) - 1), np.nan)
    near, far = (1.0, 0.9, 0.15), (1.0, 0.9, 0.3)
    r = float(closed.ratio_best((near[0] - 2 * near[2]) / near[1]))
    p = {ratio: float(closed.p_all(1.0, ratio, *near)) for ratio in (0.0, r, 1.0)}
    lost = {ratio: float(closed.p_all(1.0, ratio, *far)) for ratio in (0.0, 0.2, 1.0)}
    example = f"mu = 1, sigma = 0.9, eps = 0.3 > eps0 = {float(closed.eps0(1.0, 0.9)):.4f}: P_all is "
    example += ", ".join(f"{v:.4f} at w2 = {k:g} w1" for k, v in lost.items())
    always = "; ".join(f"{v:.4f} at w2 = {k:.3g} w1" for k, v in p.items())
    sampled = f"mu = 1, sigma = 0.9, eps = 0.15, {n:,} samples, paired"
    return [
        judge_slack(
            "top-1 robust accuracy P_all ('a higher logit than any other class', all at once) rises with "
            "w2 on all of [0, w1] (the words before eq. 11, wider than it)",
            ADMISSIBLE,
            [g.slack(slopes.min(axis=-1), of)],
            f"it falls again before w2 = w1, as at mu = 1, sigma = 0.9, eps = 0.15: {always}",
        ),
        judge_mean(
            f"the same in samples: P_all at w2 = {r:.3g} w1 is larger than at w2 = w1",
            sampled,
            montecarlo.p_all_gain((1.0, r), *near, n, rng),
        ),
        judge_slack(
            "for every eps some w2 > 0 has a higher P_all than w2 = 0 ('always more beneficial', top-1)",
            ADMISSIBLE,
            [g.slack(slopes[..., :-1].max(axis=-1), of)],
            example,
        ),
        judge_mean(
            "the same in samples, beyond eps0: P_all at w2 = 0 is larger than at w2 = w1",
            sampled.replace("0.15", "0.3"),
            montecarlo.p_all_gain((1.0, 0.0), *far, n, rng),
        ),
        judge_slack(
            "for eps >= eps0 P_all is largest at w2 = 0, where adversarial training puts it",
            ADMISSIBLE + ", eps >= eps0",
            [g.slack(np.where(before, np.nan, -slopes.max(axis=-1)), of)],
        ),
        judge_slack(
            "for eps < eps0 P_all has exactly one maximum over w2, and it lies strictly between 0 and w1",
            ADMISSIBLE + ", eps < eps0",
            [g.slack(np.minimum(inside, turns), of)],
        ),
        judge_slack(
            "0 < r_AT < r_opt: for eps < eps0 adversarial training uses cross-class features less than top-1 "
            "robust accuracy wants (the message of Theorem 2 in a form that holds)",
            ADMISSIBLE + ", eps < eps0; r = w2/w1",
            [g.slack(np.where(before, np.minimum(trained, best - trained), np.nan), of)],
        ),
    ]


def _more_classes() -> list[Verdict]:
    """The sign of the slope of P_all at w2 = 0 for K classes, by integration."""
    parts = []
    r = 0.01
    for layout in (Layout(4), Layout(10)):
        for sigma in np.array([0.2, 0.5, 0.8]) * layout.sigma_limit:
            eps0 = float(closed.eps0(1.0, float(sigma), layout))
            eps = eps0 + np.array([-0.5, -0.1, 0.1, 0.5]) * min(eps0, 0.5 - eps0)
            p = [integrals.p_all(1.0, r, 1.0, float(sigma), float(e), layout.classes) for e in eps]
            rise = np.array(p) - closed.p_pair(1.0, 0.0, 1.0, float(sigma), eps)  # at w2 = 0 all rivals tie
            parts.append(Slack(np.where(eps < eps0, rise, -rise), {"sigma": sigma, "eps": eps}, str(layout)))
    return [
        judge_slack(
            "for K classes too, a small w2 > 0 raises P_all for eps < eps0 and lowers it for eps > eps0",
            "complement layout, K = 4 and 10, mu = 1, w2 = w1/100, eps 10 % or more off eps0; by integration",
            parts,
        )
    ]
