"""Theorem 3 and corollary 1 as slacks, in every layout and reading; what is left of them for K classes."""

import numpy as np

from crossclass.paper.theory import closed
from crossclass.paper.theory.judge import COMPLEMENT, COPIES, PAIRWISE, Grid, Slack, judge_slack, switch
from crossclass.paper.theory.setting import Layout
from crossclass.paper.verdict import Verdict


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


def theorem_layouts() -> list[Verdict]:
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


def corollary_layouts() -> list[Verdict]:
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
