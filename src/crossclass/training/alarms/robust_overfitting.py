"""Robust overfitting (Rice et al. 2020): robust accuracy falls for good while training's still rises.

    mean(best w checks) - mean(last w checks) > z s sqrt(2/w), s the noise of one check

Two windows w, for what falls fast and for what falls slowly; both longer than one check, so that no single
one raises anything. The best of m noisy checks lies some sqrt(2 ln m) deviations above their mean, hence
z = MARGIN + sqrt(2 ln m). False alarms in simulated flat curves of binomial noise (p .4, n 300 and 1,000):
0 in 1,200 runs of 10 checks, 1 in 1,200 runs of 20, 2 in 600 runs of 80, 1 in 160 runs of 200.
"""

import math
from collections.abc import Sequence, Set
from statistics import fmean, median

from crossclass.analysis.records import Alarm
from crossclass.training.alarms.checks import Check, percent

WINDOWS, MARGIN = (2, 5), 2.0
SMALLEST = 0.03
"""Of the best: a smaller fall is seen by chance of SGD in all curves of Rice et al., and worth no alarm."""


def robust_overfitting(checks: Sequence[Check], classes: int, standing: Set[str]) -> Alarm | None:
    """Robust accuracy fell below its best by more than noise, for several checks, while training's rises."""
    now, stood = checks[-1], "robust-overfitting" in standing
    if "catastrophic-overfitting" in standing and not stood:
        return None  # the same fall, already under its better name
    values = [c.robust for c in checks]
    s, z = _noise(checks), MARGIN + math.sqrt(2 * math.log(len(checks)))
    for w in WINDOWS:
        if len(checks) < 2 * w:
            continue
        means = [sum(values[i : i + w]) / w for i in range(len(values) - 2 * w + 1)]
        at = max(range(len(means)), key=means.__getitem__)
        top, level = means[at], sum(values[-w:]) / w
        least = max(SMALLEST * top, z * s * math.sqrt(2 / w)) * (0.5 if stood else 1)
        stays = max(values[-2:]) < top - least / 2  # one bad check may not carry the mean alone
        train = _mean_train(checks[at : at + w]), _mean_train(checks[-w:])
        if top - level > least and stays and train[0] < train[1]:
            best = max(checks[:-w], key=lambda c: c.robust)  # the first of equals
            evidence = (
                f"{now.part_name} robust accuracy ({now.attack}, n = {now.n:,}) was {percent(best.robust)} "
                f"there and is {percent(level)} in epochs {checks[-w].epoch} to {now.epoch} (mean of {w} "
                f"checks, one check's noise is {100 * s:.1f} points), while training's rose from "
                f"{percent(train[0])} to {percent(train[1])}"
            )
            return Alarm("robust-overfitting", now.epoch, best.epoch, evidence, "alarm", best.epoch)
    return None


def _mean_train(checks: Sequence[Check]) -> float:
    """NaN, which is neither larger nor smaller than anything, where it was not logged."""
    return fmean(math.nan if c.train is None else c.train for c in checks)


def _noise(checks: Sequence[Check]) -> float:
    """Standard deviation of one check: binomial, or what the curve's second differences say, if larger.

    A curve moves with the noise of SGD too, which is more than binomial at a large learning rate. Second
    differences of independent noise have variance 6 s^2, whatever line it rides on; their median does not
    see a jump at a drop of the learning rate.
    """
    p, n, values = max(c.robust for c in checks), min(c.n for c in checks), [c.robust for c in checks]
    binomial = math.sqrt(p * (1 - p) / n)
    second = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    return max(binomial, 1.4826 * median(second) / math.sqrt(6)) if len(second) >= 5 else binomial
