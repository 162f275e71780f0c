"""CAS below its peak, as the paper sees it along robust overfitting (section 3)."""

from collections.abc import Sequence, Set

from crossclass.analysis.records import Alarm
from crossclass.training.alarms.checks import Check, percent

FALLEN = 0.75
"""Of its peak, at two checks in a row. No claim about chance: rows hold no interval of CAS."""


def cas_falling(checks: Sequence[Check], classes: int, standing: Set[str]) -> Alarm | None:
    """CAS fell from its peak; peaks of predictors that use at most half of the classes do not count."""
    usable = [c for c in checks if c.cas is not None]
    if len(usable) < 3 or usable[-1] is not checks[-1]:
        return None
    values = [c.cas for c in usable if c.cas is not None]
    peak = max(range(len(values) - 2), key=values.__getitem__)
    now, least = values[-1], values[peak] * (FALLEN * (1.1 if "cas-falling" in standing else 1))
    if max(values[-2:]) >= least:
        return None
    at, last = usable[peak], usable[-1]
    evidence = (
        f"CAS fell by {values[peak] - now:.1f}, from {values[peak]:.1f} to {now:.1f}, while {last.part_name} "
        f"robust accuracy went from {percent(at.robust)} to {percent(last.robust)}"
    )
    return Alarm("cas-falling", last.epoch, at.epoch, evidence, "note", at.epoch)
