"""Theorem 3 and corollary 1: what label smoothing does to w2, in each reading of eq. (13) and each layout."""

import numpy as np

from crossclass.paper.theory import closed, descent, montecarlo, samples
from crossclass.paper.theory.judge import (
    ADMISSIBLE,
    COMPLEMENT,
    COPIES,
    ERRORS,
    PAIRWISE,
    Grid,
    Slack,
    judge_means,
    judge_slack,
    switch,
)
from crossclass.paper.theory.setting import PAPER, READINGS, Layout, Number
from crossclass.paper.verdict import Verdict, all_hold, exceeds

SMOOTHED = ADMISSIBLE + ", 0 < beta < 1/3"
MEANING = {
    "A": "the second term's own worst case (adopted)",
    "B": "the second term clean",
    "C": "one perturbation for the whole smoothed loss",
    "D": "the bracket's perturbation used again",
}


def theorem3(rng: np.random.Generator, n: int) -> list[Verdict]:
    """Theorem 3 for each reading, by samples, and in the layouts of appendix E.5."""
    rows = [
        judge_slack(
            f"there is an eps1 with eps0 < eps1 < mu/2 (Theorem 3), reading {r}: {MEANING[r]}",
            SMOOTHED,
            [ordered(PAPER, r)],
            f"{_late_eps1(r)}: w2 never reaches 0",
        )
        for r in READINGS
    ]
    return [
        *rows,
        judge_slack(
            "w2_LS > 0 for eps < eps1 and w2_LS = 0 for eps > eps1, in all readings",
            SMOOTHED,
            [switched(PAPER, r) for r in READINGS],
        ),
        _losses(rng, n),
        _descended(rng, n),
        judge_slack(
            "Theorem 3 is about w2 only: w1_LS is 0 from eps = (1 - beta) mu/(2 - beta) < mu/2 on, reading A",
            SMOOTHED,
            [_w1_gone()],
        ),
        *_theorem3_layouts(),
    ]


def corollary1(rng: np.random.Generator, n: int) -> list[Verdict]:
    """Corollary 1 for each reading, by samples, in the layouts of appendix E.5, and what it does not say."""
    rows = []
    for r in READINGS:
        g, chain, more = Grid.over(), ordered(PAPER, r, (24, 24, 8)).values, gained(PAPER, r).values
        rows.append(
            judge_slack(
                f"Theorem 3's eps1 exists and w2_LS > w2* below it (Corollary 1 as printed), reading {r}",
                SMOOTHED + ", eps < eps1",
                [g.slack(np.where(np.isnan(more), np.nan, np.minimum(chain, more)))],
                _late_eps1(r),
            )
        )
    return [
        *rows,
        judge_slack(
            "w2_LS > w2* for all eps < min(eps1, mu/2), in all four readings (the inequality alone)",
            SMOOTHED,
            [gained(PAPER, r) for r in READINGS],
        ),
        _paired_descents(rng, n),
        *_side_effects(),
        *_corollary1_layouts(),
    ]


def _late_eps1(reading: str) -> str:
    """The counter-example of the readings in which theorem 3 fails."""
    eps1 = float(closed.eps1(1.0, 0.3, 0.25, reading))
    return f"mu = 1, sigma = 0.3, beta = 0.25 has eps1 = {eps1:.4f} > mu/2"


# The statements as slacks, in every layout and reading


def ordered(layout: Layout, reading: str = "A", sizes: tuple[int, int, int] = (100, 1, 34)) -> Slack:
    """The slack of eps0 < eps1 < mu/2."""
    g = Grid.over(layout, sizes)
    eps1 = closed.eps1(g.mu, g.sigma, g.beta, reading, layout)
    slack = np.minimum(eps1 - closed.eps0(g.mu, g.sigma, layout), g.mu / 2 - eps1)
    return g.slack(slack, "mu sigma beta", _name(layout, reading))


def switched(layout: Layout, reading: str = "A") -> Slack:
    """The slack of w2_LS > 0 exactly for eps < eps1."""
    g = Grid.over(layout)
    w2 = closed.optimum(g.mu, g.sigma, g.eps, 1.0, g.beta, reading, layout)[1]
    on = g.eps < closed.eps1(g.mu, g.sigma, g.beta, reading, layout)
    return g.slack(switch(w2, on), name=_name(layout, reading))


def gained(layout: Layout, reading: str = "A") -> Slack:
    """The slack of w2_LS > w2* where eps < eps1."""
    g = Grid.over(layout)
    plain = closed.optimum(g.mu, g.sigma, g.eps, layout=layout)[1]
    smooth = closed.optimum(g.mu, g.sigma, g.eps, 1.0, g.beta, reading, layout)[1]
    below = g.eps < closed.eps1(g.mu, g.sigma, g.beta, reading, layout)
    return g.slack(np.where(below, smooth - plain, np.nan), name=_name(layout, reading))


def _name(layout: Layout, reading: str) -> str:
    return f"{layout}, reading {reading}"


# Samples, and what the theorems do not say


def _w1_gone() -> Slack:
    g = Grid.over()
    w1 = closed.optimum(g.mu, g.sigma, g.eps, 1.0, g.beta)[0]
    end = (1 - g.beta) * g.mu / (2 - g.beta)
    slack = np.minimum(switch(w1, g.eps < end), g.mu / 2 - end)
    return g.slack(slack, "mu eps beta")


def _losses(rng: np.random.Generator, n: int) -> Verdict:
    pairs = []
    for r in READINGS:
        for _ in range(2):
            sigma, eps, beta = (float(v) for v in rng.uniform((0.1, 0.02, 0.02), (1.6, 0.48, 0.32)))
            w1, w2 = (float(v) for v in rng.uniform(0.1, 1.0, 2))
            sampled = montecarlo.loss(w1, w2, 1.0, sigma, eps, n, rng, 1.0, beta, r, brute=True)
            pairs.append((sampled, float(closed.loss(w1, w2, 1.0, sigma, eps, 1.0, beta, r))))
    return judge_means(
        "the expected smoothed loss (eqs. 12, 13) has the closed form behind eps1, to within 0.15",
        f"2 random settings for each reading, {n:,} samples each, all 64 corners tried for each sample",
        pairs,
        0.15,
    )


def _descended(rng: np.random.Generator, n: int) -> Verdict:
    slack, where = [], []
    for sigma, beta in zip(rng.uniform(0.1, 1.6, 8), rng.uniform(0.05, 0.33, 8), strict=True):
        x, y = samples.draw(n, 1.0, float(sigma), PAPER, rng)
        eps1, eps0 = float(closed.eps1(1.0, float(sigma), float(beta))), float(closed.eps0(1.0, float(sigma)))
        error = montecarlo.threshold(x, y, float(beta)).error
        for eps in ((eps0 + eps1) / 2, eps1 - 3.01 * error, eps1 + 3.01 * error, (eps1 + 0.5) / 2):
            if 0 < eps < 0.5 and abs(eps - eps1) > 3 * error:
                w2 = descent.descend(x, y, eps, 1.0, float(beta))[1]
                slack.append(float(switch(w2, eps < eps1)))
                where.append((float(sigma), eps, float(beta)))
    sigmas, radii, betas = np.array(where).T
    return judge_slack(
        "projected descent on the smoothed loss ends at w2 = 0 once eps exceeds eps1 by more than three "
        "standard errors, and at w2 > 0 once it is as far below, reading A",
        f"mu = 1, 8 random (sigma, beta), eps on either side of eps1, {n:,} samples each",
        [Slack(np.array(slack), {"sigma": sigmas, "eps": radii, "beta": betas})],
    )


def _paired_descents(rng: np.random.Generator, n: int) -> Verdict:
    blocks = 10
    verdicts, least = [], np.inf
    for sigma, beta in zip(rng.uniform(0.3, 1.6, 6), rng.uniform(0.1, 0.33, 6), strict=True):
        eps1 = float(closed.eps1(1.0, float(sigma), float(beta)))
        gains = np.zeros((2, blocks))
        for block in range(blocks):
            x, y = samples.draw(n // 2, 1.0, float(sigma), PAPER, rng)
            for i, share in enumerate((0.4, 0.8)):
                plain, smooth = (descent.descend(x, y, share * eps1, 1.0, b)[1] for b in (0.0, float(beta)))
                gains[i, block] = smooth - plain
        for gain in gains:
            low, high = montecarlo.estimate(gain).interval(ERRORS)
            verdicts.append(exceeds((low, high)))
            least = min(least, low)
    return Verdict(
        "projected descent ends at a larger w2 on the smoothed loss than on the robust loss, reading A",
        all_hold(verdicts),
        f"mu = 1, 6 random (sigma, beta), eps = 0.4 and 0.8 eps1, {blocks} blocks of {n // 2:,} samples",
        f"least mean gain less three standard errors {least:.4f}",
        {"settings": len(verdicts), "least": float(least)},
    )


def _side_effects() -> list[Verdict]:
    """What a larger w2 does to r = w2/w1 and to robust accuracy, reading A."""
    g = Grid.over()
    plain = closed.optimum(g.mu, g.sigma, g.eps)
    smooth = closed.optimum(g.mu, g.sigma, g.eps, 1.0, g.beta)
    below = g.eps < closed.eps1(g.mu, g.sigma, g.beta)
    early = below & (g.eps < closed.eps0(g.mu, g.sigma))

    def part(slack: Number, where: Number = below) -> Slack:
        return g.slack(np.where(where, slack, np.nan))

    left = np.asarray(smooth[0] - smooth[1])
    inside = g.beta * (g.mu - g.eps) < (1 - g.beta) * g.sigma / np.sqrt(np.pi)
    pair = closed.signal(*smooth, g.mu, g.sigma, g.eps) - closed.signal(*plain, g.mu, g.sigma, g.eps)
    moved = [np.asarray(closed.p_moved(*w, g.mu, g.sigma, g.eps)) for w in (plain, smooth)]
    top1 = np.where(moved[1] > 1e-250, moved[0] - moved[1], np.nan)  # smaller ones are no longer numbers
    w1, w2 = closed.optimum(g.mu, g.sigma, g.eps, 1.0, 0.01)
    best = closed.ratio_best((g.mu - 2 * g.eps) / g.sigma)
    little = np.minimum(w2 / w1 - closed.ratio_at(g.mu, g.sigma, g.eps), best - w2 / w1)
    where = SMOOTHED + ", eps < eps1; reading A"
    return [
        judge_slack(
            "smoothing leaves w2 within Theorem 2's [0, w1]: w2_LS <= w1_LS",
            where,
            [part(left)],
            _example(0.3, 0.3, 0.3),
        ),
        judge_slack(
            "w2_LS < w1_LS exactly where beta (mu - eps) < (1 - beta) sigma/sqrt(pi)",
            where,
            [part(np.where(inside, left, -left))],
        ),
        judge_slack(
            "label smoothing raises P_pair, robust accuracy against one class (Corollary 1 is about w2 only)",
            where,
            [part(pair)],
            _example(0.2, 0.3, 0.33),
        ),
        judge_slack(
            "label smoothing raises P_pair wherever it leaves w2_LS <= w1_LS",
            where + ", w2_LS <= w1_LS",
            [part(pair, below & (left >= 0))],
        ),
        judge_slack(
            "label smoothing raises P_all, top-1 robust accuracy (Corollary 1 is about w2 only)",
            where,
            [part(top1)],
            _example(0.9, 0.28, 0.3),
        ),
        judge_slack(
            "for eps0 <= eps < eps1 label smoothing lowers P_all: there w2 = 0 was best",
            SMOOTHED + ", eps0 <= eps < eps1; reading A",
            [part(-top1, below & ~early)],
        ),
        judge_slack(
            "a little label smoothing (beta = 0.01) brings w2/w1 closer to r_opt without passing it",
            ADMISSIBLE + ", eps < eps0; reading A",
            [g.slack(np.where(g.eps < closed.eps0(g.mu, g.sigma), little, np.nan), "mu sigma eps")],
        ),
    ]


def _example(sigma: float, eps: float, beta: float) -> str:
    parts = []
    for name, b in (("AT", 0.0), ("smoothed", beta)):
        w1, w2 = (float(w) for w in closed.optimum(1.0, sigma, eps, 1.0, b))
        pair, every = closed.p_pair(w1, w2, 1.0, sigma, eps), closed.p_all(w1, w2, 1.0, sigma, eps)
        parts.append(f"{name} w = ({w1:.3f}, {w2:.3f}), P_pair {float(pair):.4f}, P_all {float(every):.4f}")
    return f"mu = 1, sigma = {sigma}, eps = {eps}, beta = {beta}: " + "; ".join(parts)


# Copies of features and K classes (appendix E.5), reading A


def _theorem3_layouts() -> list[Verdict]:
    """Theorem 3 with copies of features and for K classes, reading A."""

    def order(layout: Layout) -> Slack:
        g = Grid.over(layout, (100, 1, 34))
        slack = closed.eps1(g.mu, g.sigma, g.beta, "A", layout) - closed.eps0(g.mu, g.sigma, layout)
        return g.slack(slack, "mu sigma beta", layout)

    def region(layout: Layout) -> Slack:
        """The chain holds exactly inside the stated region."""
        part, k, m = ordered(layout), layout.classes, layout.max_normal
        mu, sigma, beta = (part.settings[name] for name in ("mu", "sigma", "beta"))
        if layout.kind == "pairwise":
            inside = sigma > (k - 2) * (k - 3) / ((k - 1) * m) * mu
        else:
            inside = beta * (k - 3) * mu / 2 < (1 - beta) * sigma * m
        return Slack(np.where(inside, part.values, -np.asarray(part.values)), part.settings, part.name)

    many = "K = 4, 5, 6, 10, 100; reading A; 0 < sigma < "
    return [
        judge_slack(
            "Theorem 3 holds with d_E and d_C copies of the features (E.5)",
            "(d_E, d_C) = (1, 4), (3, 2); reading A; 0 < sigma < sqrt(pi d_C) mu",
            [part for layout in COPIES for part in (ordered(layout), switched(layout))],
        ),
        judge_slack(
            "eps0 < eps1 for K classes in the complement layout (E.5)",
            many + "mu/m_(K-1)",
            [order(layout) for layout in COMPLEMENT],
        ),
        judge_slack(
            "eps0 < eps1 < mu/2 for K classes in the complement layout (E.5, Theorem 3 in full)",
            many + "mu/m_(K-1)",
            [ordered(layout) for layout in COMPLEMENT],
            _example_eps(Layout(10), 0.5, 0.25) + " > mu/2: w2_LS > 0 at every eps < mu/2",
        ),
        judge_slack(
            "complement layout: Theorem 3 holds exactly where beta (K-3) mu/2 < (1 - beta) sigma m_(K-1), "
            "so for no sigma once beta >= 2/(K-1)",
            many + "mu/m_(K-1)",
            [*map(region, COMPLEMENT), *(_never(layout) for layout in COMPLEMENT if _late(layout) < 1 / 3)],
        ),
        judge_slack(
            "eps0 < eps1 < mu/2 for K >= 4 classes in the pairwise layout (E.5)",
            many + "(K-2) mu/m_(K-1)",
            [ordered(layout) for layout in PAIRWISE],
            _example_eps(Layout(4, "pairwise"), 0.6, 0.2) + " < eps0",
        ),
        judge_slack(
            "pairwise layout, K >= 4: Theorem 3 holds exactly where sigma > (K-2)(K-3) mu/((K-1) m_(K-1))",
            many + "(K-2) mu/m_(K-1)",
            [region(layout) for layout in PAIRWISE],
        ),
    ]


def _corollary1_layouts() -> list[Verdict]:
    """Corollary 1 with copies of features and for K classes, reading A."""
    return [
        judge_slack(
            "Corollary 1 holds with d_E and d_C copies of the features (E.5), reading A",
            "(d_E, d_C) = (1, 4), (3, 2); 0 < sigma < sqrt(pi d_C) mu",
            [gained(layout) for layout in COPIES],
        ),
        judge_slack(
            "w2_LS > w2* below eps1 for K classes in the complement layout (E.5), reading A",
            "K = 4, 5, 6, 10, 100; 0 < sigma < mu/m_(K-1), eps < min(eps1, mu/2)",
            [gained(layout) for layout in COMPLEMENT],
        ),
        judge_slack(
            "w2_LS > w2* below eps1 for K classes in the pairwise layout (E.5), reading A",
            "K = 4, 5, 6, 10, 100; 0 < sigma < (K-2) mu/m_(K-1), eps < min(eps1, mu/2)",
            [gained(layout) for layout in PAIRWISE],
            _example_weights(Layout(4, "pairwise"), 0.6, 0.3, 0.2),
        ),
        judge_slack(
            "pairwise layout, K >= 4: w2_LS > w2* > 0 holds exactly where sigma m_(K-1) > (K-3)(mu - eps)",
            "K = 4, 5, 6, 10, 100; eps < eps0; reading A",
            [_gain_region(layout) for layout in PAIRWISE],
        ),
    ]


def _gain_region(layout: Layout) -> Slack:
    g = Grid.over(layout)
    plain = closed.optimum(g.mu, g.sigma, g.eps, layout=layout)[1]
    smooth = closed.optimum(g.mu, g.sigma, g.eps, 1.0, g.beta, "A", layout)[1]
    region = g.sigma * layout.max_normal > (layout.classes - 3) * (g.mu - g.eps)
    slack = np.where(region, smooth - plain, plain - smooth)
    return g.slack(np.where(plain + 0 * smooth > 0, slack, np.nan), name=layout)


def _late(layout: Layout) -> float:
    """The beta from which on no sigma will do; below 1/3, as eq. (13) has it, for K >= 8."""
    return 2 / (layout.classes - 1)


def _never(layout: Layout) -> Slack:
    """The slack of eps1 >= mu/2 from that beta on."""
    g = Grid.over(layout, (100, 1, 34))
    eps1 = closed.eps1(g.mu, g.sigma, g.beta, "A", layout)
    slack = np.where(g.beta >= _late(layout), eps1 - g.mu / 2, np.nan)
    return g.slack(slack, "mu sigma beta", layout)


def _example_eps(layout: Layout, sigma: float, beta: float) -> str:
    eps0, eps1 = closed.eps0(1.0, sigma, layout), closed.eps1(1.0, sigma, beta, "A", layout)
    return (
        f"K = {layout.classes}, mu = 1, sigma = {sigma}, beta = {beta} has "
        f"eps0 = {float(eps0):.4f}, eps1 = {float(eps1):.4f}"
    )


def _example_weights(layout: Layout, sigma: float, eps: float, beta: float) -> str:
    plain = float(closed.optimum(1.0, sigma, eps, layout=layout)[1])
    smooth = float(closed.optimum(1.0, sigma, eps, 1.0, beta, "A", layout)[1])
    return (
        f"K = {layout.classes}, mu = 1, sigma = {sigma}, eps = {eps}, beta = {beta} has "
        f"w2* = {plain:.4f}, w2_LS = {smooth:.4f}"
    )
