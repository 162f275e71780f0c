"""A near-constant predictor: nearly one class is predicted, CAS is then maximal and means nothing."""

from collections.abc import Sequence, Set
from typing import Literal

from crossclass.analysis.metrics import collapsed
from crossclass.analysis.records import Alarm
from crossclass.training.alarms.checks import Check, percent


def predictor_collapsed(checks: Sequence[Check], classes: int, standing: Set[str]) -> Alarm | None:
    """Nearly one class is predicted; only a note before the network has ever predicted several."""
    now = checks[-1]
    if not _is_collapsed(now, classes):
        return None
    sound = [c for c in checks if not _is_collapsed(c, classes)]
    share = (
        "" if now.largest_share is None else f"{percent(now.largest_share)} of the images go to one class, "
    )
    evidence = f"{share}{now.predicted_classes} of {classes} classes are predicted at all; CAS is meaningless"
    level: Literal["alarm", "note"] = "alarm" if sound else "note"
    last_good = sound[-1].epoch if sound else None
    return Alarm("predictor-collapsed", now.epoch, now.epoch, evidence, level, last_good)


def _is_collapsed(check: Check, classes: int) -> bool:
    return check.predicted_classes is not None and collapsed(
        check.largest_share, check.predicted_classes, classes
    )
