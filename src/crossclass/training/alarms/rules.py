"""One rule per alarm: it looks at the checks so far and returns the alarm if it holds at the last of them.

What is known of each threshold stands beside it; the simulations are in the tests.
"""

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from crossclass.analysis.metrics import collapsed
from crossclass.training.alarms.checks import Check


@dataclass(frozen=True)
class Alarm:
    """One thing that went wrong, when, and the numbers that say so."""

    name: str
    epoch: int
    """The checked epoch in which it was raised."""
    since: int
    """The epoch from which it holds: of the best checkpoint for what builds up, else the same."""
    evidence: str
    level: Literal["alarm", "note"] = "alarm"
    good: int | None = None
    """The last checked epoch before the trouble, to roll back to; none if there was none."""

    def __str__(self) -> str:
        when = f"since epoch {self.since}" if self.since < self.epoch else f"in epoch {self.epoch}"
        return f"{self.name.replace('-', ' ')} {when}: {self.evidence}"


# Two windows, for what falls fast and for what falls slowly; both longer than one check, so that no single
# one raises anything. The best of m noisy checks lies some sqrt(2 ln m) deviations above their mean, hence
# z = MARGIN + sqrt(2 ln m). False alarms in simulated flat curves of binomial noise (p .4, n 300 and 1,000):
# 0 in 1,200 runs of 10 checks, 1 in 1,200 runs of 20, 2 in 600 runs of 80, 1 in 160 runs of 200. A real curve
# moves with the noise of SGD too, more than binomial at a large learning rate: `_noise` reads that off the
# curve itself.
WINDOWS, MARGIN = (2, 5), 2.0
SMALLEST = 0.03  # of the best: less is seen by chance of SGD in all of Rice's curves, and worth no alarm


def _robust_overfitting(checks: Sequence[Check], classes: int, on: Set[str]) -> Alarm | None:
    """Robust accuracy fell below its best by more than noise, for several checks, while training's rises."""
    now, was = checks[-1], "robust-overfitting" in on
    if "catastrophic-overfitting" in on and not was:
        return None  # the same fall, already under its better name
    values = [c.robust for c in checks]
    s, z = _noise(checks), MARGIN + math.sqrt(2 * math.log(len(checks)))
    for w in WINDOWS:
        if len(checks) < 2 * w:
            continue
        means = [sum(values[i : i + w]) / w for i in range(len(values) - 2 * w + 1)]
        at = max(range(len(means)), key=means.__getitem__)
        top, level = means[at], sum(values[-w:]) / w
        least = max(SMALLEST * top, z * s * math.sqrt(2 / w)) * (0.5 if was else 1)
        stays = max(values[-2:]) < top - least / 2  # one bad check may not carry the mean alone
        train = _mean_train(checks[at : at + w]), _mean_train(checks[-w:])
        if top - level > least and stays and train[0] < train[1]:
            best = max(checks[:-w], key=lambda c: c.robust)  # the first of equals
            evidence = (
                f"{_part(now)} robust accuracy ({now.attack}, n = {now.n:,}) was {_pct(best.robust)} there "
                f"and is {_pct(level)} in epochs {checks[-w].epoch} to {now.epoch} (mean of {w} checks, one "
                f"check's noise is {100 * s:.1f} points), while training's rose from {_pct(train[0])} to "
                f"{_pct(train[1])}"
            )
            return Alarm("robust-overfitting", now.epoch, best.epoch, evidence, "alarm", best.epoch)
    return None


def _mean_train(checks: Sequence[Check]) -> float:
    """NaN, which is neither larger nor smaller than anything, where it was not logged."""
    return fmean(math.nan if c.train is None else c.train for c in checks)


def _noise(checks: Sequence[Check]) -> float:
    """Standard deviation of one check: binomial, or what the curve's second differences say, if larger.

    Second differences of independent noise have variance 6 s^2, whatever line it rides on; their median
    does not see a jump at a drop of the learning rate.
    """
    p, n, values = max(c.robust for c in checks), min(c.n for c in checks), [c.robust for c in checks]
    binomial = math.sqrt(p * (1 - p) / n)
    second = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    return max(binomial, 1.4826 * median(second) / math.sqrt(6)) if len(second) >= 5 else binomial


# 20 points within one step: Wong 2020. How far FGSM lies above PGD says little by itself: 0.1 to 3.4 points
# were measured on CIFAR-10 (also where robust overfitting is complete), 25 to 35 in a sound run on digits at
# eps 0.3. So something must have been lost as well: a level that was clearly above chance and is gone.
DROP, NEAR_ZERO, FAR = 0.20, 0.05, 0.15


def _catastrophic_overfitting(checks: Sequence[Check], classes: int, on: Set[str]) -> Alarm | None:
    """PGD accuracy is suddenly gone while FGSM accuracy is not: the network has learned to fool one step.

    Only where training is adversarial: a standard network never had what is lost here.
    """
    now, before = checks[-1], checks[-2] if len(checks) > 1 else None
    if not _far(now, FAR):
        return None
    sound = [c for c in checks[:-1] if c.robust >= 2 * NEAR_ZERO and c.robust > 1 / classes + 3 * _error(c)]
    if "catastrophic-overfitting" in on:
        holds = now.robust < max((c.robust for c in sound), default=1) / 2  # it may bounce back
    elif before is not None and before in sound:
        fallen = before.robust - now.robust > 3 * math.hypot(_error(before), _error(now))
        holds = fallen and now.robust < max(before.robust - DROP, before.robust / 4)
    else:
        holds = False
    # what falls in several steps, or was never there, is judged by where it ends
    never = before is not None and all(c.robust <= NEAR_ZERO and _far(c, 2 * FAR) for c in (before, now))
    if not (holds or never or (sound and now.robust <= NEAR_ZERO)):
        return None
    evidence = f"FGSM {_pct(now.fgsm)}, {now.attack} {_pct(now.robust)}"
    if before is not None:
        evidence += f" (epoch {before.epoch}: {_pct(before.fgsm)}, {_pct(before.robust)})"
    evidence += f"; {_part(now)}, n = {now.fgsm_n:,} and {now.n:,}"
    good = max((c.epoch for c in sound), default=None)
    return Alarm("catastrophic-overfitting", now.epoch, now.epoch, evidence, "alarm", good)


def _far(check: Check, least: float) -> bool:
    """Whether FGSM lies above PGD, on the same images, by so much and by more than noise."""
    if check.fgsm is None or check.gap is None or check.train is None:
        return False
    p, q = check.fgsm, max(check.fgsm - check.gap, 0.0)
    return check.gap >= max(least, 3 * math.sqrt((p * (1 - p) + q * (1 - q)) / check.fgsm_n))


def _error(check: Check) -> float:
    return math.sqrt(check.robust * (1 - check.robust) / check.n)


def _predictor_collapsed(checks: Sequence[Check], classes: int, on: Set[str]) -> Alarm | None:
    """Nearly one class is predicted; only a note before the network has ever predicted several."""
    now = checks[-1]
    if not _is_collapsed(now, classes):
        return None
    sound = [c for c in checks if not _is_collapsed(c, classes)]
    parts = [f"{_pct(now.share)} of the images go to one class"] if now.share else []
    parts += [f"{now.predicted} of {classes} classes are predicted at all"] if now.predicted else []
    evidence = f"{', '.join(parts) or 'nearly one class is predicted'}; CAS is meaningless"
    level: Literal["alarm", "note"] = "alarm" if sound else "note"
    good = sound[-1].epoch if sound else None
    return Alarm("predictor-collapsed", now.epoch, now.epoch, evidence, level, good)


def _is_collapsed(check: Check, classes: int) -> bool:
    return check.said_collapsed or (
        check.predicted is not None and collapsed(check.share, check.predicted, classes)
    )


# GradAlign's cosine (Andriushchenko & Flammarion 2020). Measured here without any collapse: 0.98 and more
# on CIFAR-10 at 8/255, 0.77 falling slowly to 0.45 on digits at eps 0.3. So only well below that.
LOW_COSINE = 0.3


def _gradient_cosine_low(checks: Sequence[Check], classes: int, on: Set[str]) -> Alarm | None:
    """The loss is no longer locally linear: an early sign of catastrophic overfitting."""
    now, least = checks[-1], LOW_COSINE * (1.25 if "gradient-cosine-low" in on else 1)
    if now.cosine is None or now.train is None or now.cosine >= least:
        return None
    evidence = (
        f"input gradients at x and at x + eta have cosine {now.cosine:.2f} ({_part(now)}, n = "
        f"{now.fgsm_n:,}); one-step attacks may be about to fail"
    )
    return Alarm("gradient-cosine-low", now.epoch, now.epoch, evidence, "note")


FALLEN_CAS = 0.75  # of its peak, at two checks in a row; no claim about chance: rows hold no interval of CAS


def _cas_falling(checks: Sequence[Check], classes: int, on: Set[str]) -> Alarm | None:
    """CAS fell from its peak; peaks of predictors that use at most half of the classes do not count."""
    usable = [c for c in checks if c.cas is not None]
    if len(usable) < 3 or usable[-1] is not checks[-1]:
        return None
    values = [c.cas for c in usable if c.cas is not None]
    peak = max(range(len(values) - 2), key=values.__getitem__)
    now, least = values[-1], values[peak] * (FALLEN_CAS * (1.1 if "cas-falling" in on else 1))
    if max(values[-2:]) >= least:
        return None
    at, last = usable[peak], usable[-1]
    evidence = (
        f"CAS fell by {values[peak] - now:.1f}, from {values[peak]:.1f} to {now:.1f}, while {_part(last)} "
        f"robust accuracy went from {_pct(at.robust)} to {_pct(last.robust)}"
    )
    return Alarm("cas-falling", last.epoch, at.epoch, evidence, "note", at.epoch)


_Rule = Callable[[Sequence[Check], int, Set[str]], Alarm | None]

RULES: dict[str, _Rule] = {
    "catastrophic-overfitting": _catastrophic_overfitting,
    "robust-overfitting": _robust_overfitting,
    "predictor-collapsed": _predictor_collapsed,
    "gradient-cosine-low": _gradient_cosine_low,
    "cas-falling": _cas_falling,
}
"""In the order in which they are asked: a rule is told which alarms stand, so that it may keep silent."""


def _part(check: Check) -> str:
    return {"val": "validation"}.get(check.part, check.part)


def _pct(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
