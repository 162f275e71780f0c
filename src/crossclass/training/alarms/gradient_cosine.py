"""GradAlign's cosine (Andriushchenko & Flammarion 2020): how far the loss is from locally linear."""

from collections.abc import Sequence, Set

from crossclass.analysis.records import Alarm
from crossclass.training.alarms.checks import Check

LOW_COSINE = 0.3
"""Measured here without any collapse: 0.98 and more on CIFAR-10 at 8/255, 0.77 falling slowly to 0.45 on
digits at eps 0.3; so only well below that."""


def gradient_cosine_low(checks: Sequence[Check], classes: int, standing: Set[str]) -> Alarm | None:
    """The loss is no longer locally linear: an early sign of catastrophic overfitting."""
    now, least = checks[-1], LOW_COSINE * (1.25 if "gradient-cosine-low" in standing else 1)
    if now.cosine is None or now.train is None or now.cosine >= least:
        return None
    evidence = (
        f"input gradients at x and at x + eta have cosine {now.cosine:.2f} ({now.part_name}, n = "
        f"{now.fgsm_n:,}); one-step attacks may be about to fail"
    )
    return Alarm("gradient-cosine-low", now.epoch, now.epoch, evidence, "note")
