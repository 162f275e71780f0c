"""Catastrophic overfitting (Wong et al. 2020): accuracy under PGD is gone, under FGSM it is not.

How far FGSM lies above PGD says little by itself: 0.1 to 3.4 points were measured on CIFAR-10 (also where
robust overfitting is complete), 25 to 35 in a sound run on digits at eps 0.3. So something must have been
lost as well: a level that was clearly above chance.
"""

import math
from collections.abc import Sequence, Set

from crossclass.analysis.records import Alarm
from crossclass.training.alarms.checks import Check, percent

DROP = 0.20
"""Lost between two checks: Wong et al. 2020 stop their training at 20 points."""
NEAR_ZERO, GAP = 0.05, 0.15
"""A robust accuracy that is as good as none; FGSM minus PGD that no sound run on CIFAR-10 comes near."""
LOW_COSINE = 0.3
"""Measured without any collapse: 0.98 and more on CIFAR-10 at 8/255, 0.77 falling slowly to 0.45 on digits at
eps 0.3; so only well below that."""


def catastrophic_overfitting(checks: Sequence[Check], classes: int, standing: Set[str]) -> Alarm | None:
    """PGD accuracy is suddenly gone while FGSM accuracy is not: the network has learned to fool one step.

    Only where training is adversarial: a standard network never had what is lost here.
    """
    now, before = checks[-1], checks[-2] if len(checks) > 1 else None
    if not _large_gap(now, GAP):
        return None
    sound = [c for c in checks[:-1] if c.robust >= 2 * NEAR_ZERO and c.above_chance(classes, len(checks))]
    if "catastrophic-overfitting" in standing:
        holds = now.robust < max((c.robust for c in sound), default=1) / 2  # it may bounce back
    elif before is not None and before in sound:
        # the largest of the falls that noise makes between m pairs of checks
        z = 2 + math.sqrt(2 * math.log(len(checks)))
        fallen = before.robust - now.robust > z * math.hypot(before.standard_error, now.standard_error)
        holds = fallen and now.robust < max(before.robust - DROP, before.robust / 4)
    else:
        holds = False
    # what falls in several steps, or was never there, is judged by where it ends
    never = before is not None and all(
        c.robust <= NEAR_ZERO and _large_gap(c, 2 * GAP) for c in (before, now)
    )
    if not (holds or never or (sound and now.robust <= NEAR_ZERO)):
        return None
    evidence = f"FGSM {percent(now.fgsm)}, {now.attack} {percent(now.robust)}"
    if before is not None:
        evidence += f" (epoch {before.epoch}: {percent(before.fgsm)}, {percent(before.robust)})"
    evidence += f"; {now.part_name}, n = {now.fgsm_n:,} and {now.n:,}"
    last_good = max((c.epoch for c in sound), default=None)
    return Alarm("catastrophic-overfitting", now.epoch, now.epoch, evidence, "alarm", last_good)


def _large_gap(check: Check, least: float) -> bool:
    """Whether FGSM lies above PGD, on the same images, by so much and by more than noise."""
    if check.fgsm is None or check.fgsm_gap is None or check.train is None:
        return False
    p, q = check.fgsm, max(check.fgsm - check.fgsm_gap, 0.0)
    noise = math.sqrt((p * (1 - p) + q * (1 - q)) / check.fgsm_n)
    return check.fgsm_gap >= max(least, 3 * noise)


def gradient_cosine_low(checks: Sequence[Check], classes: int, standing: Set[str]) -> Alarm | None:
    """The loss is no longer locally linear, by GradAlign's cosine (Andriushchenko & Flammarion 2020).

    It warns of catastrophic overfitting, so it says nothing more once that stands.
    """
    if "catastrophic-overfitting" in standing:
        return None
    now, least = checks[-1], LOW_COSINE * (1.25 if "gradient-cosine-low" in standing else 1)
    if now.cosine is None or now.train is None or now.cosine >= least:
        return None
    evidence = (
        f"input gradients at x and at x + eta have cosine {now.cosine:.2f} ({now.part_name}, n = "
        f"{now.fgsm_n:,}); one-step attacks may be about to fail"
    )
    return Alarm("gradient-cosine-low", now.epoch, now.epoch, evidence, "note")
