"""Named alarms about a run: pure functions of the rows that were logged, so that anyone's rows will do.

    robust overfitting         mean(best w checks) - mean(last w checks) > z s sqrt(2/w), while training rises
    catastrophic overfitting   FGSM - PGD is large, and PGD fell at once or is near zero
    predictor collapsed        nearly one class is predicted: CAS is then maximal and means nothing
    gradient cosine low        the loss is no longer locally linear: one step may soon not be enough (a note)
    CAS falling                CAS has fallen from its peak (a note)

They look at the validation part; at test images only where nothing is held out. An alarm is raised once,
in the check where it starts; it can end and start again. What is known of each threshold stands beside it.
"""

from collections.abc import Sequence

from crossclass.training.alarms.checks import Row, checks, few, trends, watched
from crossclass.training.alarms.rules import RULES, Alarm

__all__ = ["RULES", "Alarm", "few", "history", "raised", "standing", "trends", "watched"]


def history(rows: Sequence[Row], classes: int, n: int | None = None) -> list[tuple[Alarm, int | None]]:
    """Every alarm that the rows have raised, in order, with the checked epoch in which it ended, if it did.

    `n` is the number of images behind the accuracies of rows that do not say so (`watched_n`). Raises
    UserError if neither does.
    """
    seen = checks(rows, n)
    out: list[tuple[Alarm, int | None]] = []
    standing: dict[str, int] = {}  # name to its place in `out`
    for upto in range(1, len(seen) + 1):
        for name, rule in RULES.items():
            found = rule(seen[:upto], classes, standing.keys())
            if found is None and name in standing:
                place = standing.pop(name)
                out[place] = (out[place][0], seen[upto - 1].epoch)
            elif found is not None and name not in standing:
                standing[name] = len(out)
                out.append((found, None))
    return out


def raised(rows: Sequence[Row], classes: int, n: int | None = None) -> list[Alarm]:
    """The alarms that start with the row just added; none if it was not checked."""
    return [a for a, _ in history(rows, classes, n) if a.epoch == rows[-1]["epoch"]]


def standing(rows: Sequence[Row], classes: int, n: int | None = None) -> list[Alarm]:
    """The alarms that hold after the last row, as they were raised."""
    return [a for a, ended in history(rows, classes, n) if ended is None]
