"""Verdicts from numbers: a claim says that its slack is positive, on a grid of settings or in samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from crossclass.paper.theory.montecarlo import Estimate
from crossclass.paper.theory.setting import PAPER, Layout, Number
from crossclass.paper.verdict import Verdict, all_hold, exceeds

ERRORS = 3.0
"""Intervals of Monte Carlo means are so many standard errors to either side."""
ADMISSIBLE = "mu > 0, 0 < sigma < sqrt(pi) mu, 0 < eps < mu/2"
COPIES = (Layout(exclusive=1, shared=4), Layout(exclusive=3, shared=2))
COMPLEMENT = tuple(Layout(k) for k in (4, 5, 6, 10, 100))
PAIRWISE = tuple(Layout(k, "pairwise") for k in (4, 5, 6, 10, 100))


@dataclass(frozen=True)
class Grid:
    """Admissible settings as broadcasting arrays [mu, sigma, eps, beta], at the middles of equal cells.

    sigma fills (0, `sigma_limit` mu), by default of the layout, eps (0, mu/2), beta (0, 1/3). No setting
    lies on a threshold: they are linear in sigma and eps, and sigma is off the middle by an irrational share.
    """

    mu: np.ndarray
    sigma: np.ndarray
    eps: np.ndarray
    beta: np.ndarray

    @classmethod
    def over(
        cls,
        layout: Layout = PAPER,
        sizes: tuple[int, int, int] = (24, 24, 8),
        sigma_limit: float | None = None,
    ) -> "Grid":
        """mu in {1/2, 1, 2} and so many values of sigma, eps and beta."""
        s, e, b = ((np.arange(n) + at) / n for n, at in zip(sizes, (np.sqrt(0.2), 0.5, 0.5), strict=True))
        mu = np.array([0.5, 1.0, 2.0])[:, None, None, None]
        sigma = s[:, None, None] * (sigma_limit or layout.sigma_limit) * mu
        return cls(mu, sigma, e[:, None] * mu / 2, b / 3)

    def slack(self, values: Number, of: str = "mu sigma eps beta", name: object = "") -> "Slack":
        """The slack of a claim on this grid; `of` names the settings that it depends on."""
        return Slack(values, {setting: getattr(self, setting) for setting in of.split()}, str(name))


class Slack(NamedTuple):
    """The slack of a claim over settings: positive where the claim is true, NaN where it says nothing."""

    values: Number
    settings: Mapping[str, Number]
    name: str = ""


def judge_slack(claim: str, where: str, parts: Sequence[Slack], example: str = "") -> Verdict:
    """The verdict on a claim about all settings, by its smallest slack; with the share and the worst setting.

    The smallest slack is a number without noise, so the verdict is `holds` or `does not hold`. `example` is a
    counter-example in round numbers, shown if the claim does not hold.
    """
    slack = [np.asarray(p.values, dtype=float) for p in parts]
    least = [float(np.nanmin(s)) for s in slack]
    worst = int(np.argmin(least))
    total = int(sum(np.isfinite(s).sum() for s in slack))
    share = float(sum((s > 0).sum() for s in slack)) / total
    verdict = exceeds((least[worst], least[worst]))
    at = int(np.nanargmin(slack[worst]))
    shape = slack[worst].shape
    point = {k: float(np.broadcast_to(v, shape).flat[at]) for k, v in parts[worst].settings.items()}
    numbers: dict[str, float | int | str | None] = {"share": share, "settings": total, "least": least[worst]}
    numbers |= point | ({"part": parts[worst].name} if parts[worst].name else {})
    if verdict == "holds":
        return Verdict(claim, verdict, where, f"at each of {total:,} settings" if total > 1 else "", numbers)
    spot = ", ".join(f"{k} = {v:.4g}" for k, v in point.items())
    far = f"farthest from it at {spot}" + (f" ({parts[worst].name})" if parts[worst].name else "")
    return Verdict(claim, verdict, where, f"at {share:.1%} of {total:,} settings; {example or far}", numbers)


def judge_means(claim: str, where: str, pairs: Sequence[tuple[Estimate, float]], tolerance: float) -> Verdict:
    """The verdict on "these means equal those numbers to within `tolerance`", from three standard errors."""
    verdicts = []
    for estimate, truth in pairs:
        off, error = abs(estimate.mean - truth), ERRORS * estimate.error
        verdicts.append(exceeds((tolerance - off - error, tolerance - max(off - error, 0.0))))
    z = max(abs(e.mean - t) / e.error for e, t in pairs)
    off = max(abs(e.mean - t) for e, t in pairs)
    numbers = {"means": len(pairs), "largest": off, "z": z, "tolerance": tolerance}
    reason = f"largest difference of {len(pairs)} means {off:.2g}, {z:.1f} of its standard errors"
    return Verdict(claim, all_hold(verdicts), where, reason, numbers)


def judge_mean(claim: str, where: str, estimate: Estimate) -> Verdict:
    """The verdict on "this mean is positive", from three standard errors."""
    low, high = estimate.interval(ERRORS)
    numbers = {"mean": estimate.mean, "error": estimate.error, "n": estimate.n}
    reason = f"{estimate.mean:.4f}, three standard errors either way {low:.4f} to {high:.4f}"
    return Verdict(claim, exceeds((low, high)), where, reason, numbers)


def switch(w: Number, on: Number) -> np.ndarray:
    """The slack of "w is positive where `on`, and exactly 0 elsewhere"."""
    w = np.asarray(w, dtype=float)
    return np.where(on, w, np.where(w == 0, 1.0, -np.abs(w)))
