"""Named alarms about a run: pure functions of the rows that were logged, so that anyone's rows will do.

    robust overfitting         mean(best w checks) - mean(last w checks) > z s, while training rises
    catastrophic overfitting   FGSM - PGD is large, and PGD fell at once or is near zero
    predictor collapsed        nearly one class is predicted: CAS is then maximal and means nothing
    gradient cosine low        the loss is no longer locally linear: one step may soon not be enough (a note)
    CAS falling                CAS has fallen from its peak (a note)

They read the validation part; test images only where nothing is held out. An alarm is raised once, in the
check where it starts; it can end and start again. Beside each rule stand its thresholds with their source.
"""

from collections.abc import Callable, Sequence, Set

from crossclass.analysis.records import Alarm
from crossclass.training.alarms.cas import cas_falling, predictor_collapsed
from crossclass.training.alarms.catastrophic_overfitting import (
    catastrophic_overfitting,
    gradient_cosine_low,
)
from crossclass.training.alarms.checks import Check, Row, checks, pack, predicts_few, trends, watched
from crossclass.training.alarms.robust_overfitting import robust_overfitting

Rule = Callable[[Sequence[Check], int, Set[str]], Alarm | None]
"""From (checks so far, number of classes, standing alarms) to the alarm if it holds at the last check."""

RULES: dict[str, Rule] = {
    "catastrophic-overfitting": catastrophic_overfitting,
    "robust-overfitting": robust_overfitting,
    "predictor-collapsed": predictor_collapsed,
    "gradient-cosine-low": gradient_cosine_low,
    "cas-falling": cas_falling,
}
"""In the order in which they are asked: a rule may keep silent because another alarm stands."""

__all__ = ["RULES", "Alarm", "Check", "history", "pack", "predicts_few", "raised", "trends", "watched"]


def history(rows: Sequence[Row], classes: int, n: int | None = None) -> list[tuple[Alarm, int | None]]:
    """Every alarm that the rows have raised, in order, with the checked epoch in which it ended, if it did.

    `n` is the number of images behind the accuracies of rows that do not say so (`watched_n`). Raises
    UserError if neither does.
    """
    checked = checks(rows, n)
    out: list[tuple[Alarm, int | None]] = []
    index: dict[str, int] = {}  # of each standing alarm in `out`
    for count in range(1, len(checked) + 1):
        for name, rule in RULES.items():
            alarm = rule(checked[:count], classes, index.keys())
            if alarm is None and name in index:
                i = index.pop(name)
                out[i] = (out[i][0], checked[count - 1].epoch)
            elif alarm is not None and name not in index:
                index[name] = len(out)
                out.append((alarm, None))
    return out


def raised(rows: Sequence[Row], classes: int, n: int | None = None) -> list[Alarm]:
    """The alarms that start with the row just added; none if it was not checked."""
    return [a for a, _ in history(rows, classes, n) if a.epoch == rows[-1]["epoch"]]
