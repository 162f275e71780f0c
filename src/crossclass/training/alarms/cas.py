"""CAS below its peak (section 3 of the paper), and predictors whose CAS means nothing."""

from collections.abc import Sequence, Set

from crossclass.analysis.metrics import collapsed
from crossclass.analysis.records import Alarm
from crossclass.training.alarms.checks import Check, percent

FALLEN = 0.75
"""Of its peak, at two checks in a row. No claim about chance: rows hold no interval of CAS."""

BEGINNING = 3
"""Checks, from the first on, that find one class before this is said."""


def cas_falling(checks: Sequence[Check], classes: int, standing: Set[str]) -> Alarm | None:
    """CAS fell from its peak; peaks of predictors at chance or of at most half of the classes do not count.

    In catastrophic overfitting CAS falls with all the rest, which is said once.
    """
    if "catastrophic-overfitting" in standing:
        return None
    usable = [c for c in checks if c.cas is not None]
    if len(usable) < 3 or usable[-1] is not checks[-1]:
        return None
    values = [c.cas for c in usable if c.cas is not None]
    learned = [i for i, c in enumerate(usable[:-2]) if c.above_chance(classes, len(usable))]
    if not learned:
        return None
    peak = max(learned, key=values.__getitem__)
    now, least = values[-1], values[peak] * (FALLEN * (1.1 if "cas-falling" in standing else 1))
    if max(values[-2:]) >= least:
        return None
    at, last = usable[peak], usable[-1]
    evidence = (
        f"CAS fell by {values[peak] - now:.1f}, from {values[peak]:.1f} to {now:.1f}, while {last.part_name} "
        f"robust accuracy went from {percent(at.robust)} to {percent(last.robust)}"
    )
    return Alarm("cas-falling", last.epoch, at.epoch, evidence, "note", at.epoch)


def predictor_collapsed(checks: Sequence[Check], classes: int, standing: Set[str]) -> Alarm | None:
    """Nearly one class is predicted.

    A network begins like this, so before it has ever predicted several classes, the first two checks say
    nothing, and then it is a note.
    """
    now = checks[-1]
    if not _is_collapsed(now, classes):
        return None
    sound = [c for c in checks if not _is_collapsed(c, classes)]
    if not sound and len(checks) < BEGINNING:
        return None
    share = (
        "" if now.largest_share is None else f"{percent(now.largest_share)} of the images go to one class, "
    )
    evidence = f"{share}{now.predicted_classes} of {classes} classes are predicted at all; CAS is meaningless"
    if not sound:
        return Alarm("predictor-collapsed", now.epoch, checks[0].epoch, evidence, "note")
    return Alarm("predictor-collapsed", now.epoch, now.epoch, evidence, "alarm", sound[-1].epoch)


def _is_collapsed(check: Check, classes: int) -> bool:
    return check.predicted_classes is not None and collapsed(
        check.largest_share, check.predicted_classes, classes
    )
