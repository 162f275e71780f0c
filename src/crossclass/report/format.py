"""Numbers as text for pages and console: percent, a real minus sign, a dash for what is unknown."""

from collections.abc import Sequence

from crossclass.analysis.metrics import DIGITS, Metric
from crossclass.analysis.records import Intervals

UNKNOWN = "–"
NO_ATTACK = "attack not recorded"


def sentence(label: str) -> str:
    """A label at the start of a sentence or alone: its first letter is large."""
    return label[:1].upper() + label[1:]


def level(intervals: Intervals | None) -> str:
    """The level of intervals in percent."""
    return f"{100 * (intervals.level if intervals else 0.95):.0f}\u00a0%"


def short_attack(attack: str | None, n: int | None = None, split: str | None = None) -> str:
    """Under which attack, and on how many images, in the few words that stand at a number."""
    words = ", ".join((attack or NO_ATTACK).split(", ")[:2])
    images = f"{n:,} " if n else ""
    return f"{words}; {images}{split or ''} images".replace("  ", " ") if n or split else words


def split_name(name: str | None) -> str:
    """The full name of a split; `UNKNOWN` for None."""
    return {"val": "validation", None: UNKNOWN}.get(name, str(name))


def percent(value: float | int | None) -> str:
    """A fraction in percent with one decimal; `UNKNOWN` for None."""
    return UNKNOWN if value is None else f"{100 * value:.1f}\u00a0%"


def number(value: float | int | None, digits: int = 1) -> str:
    """A number with `digits` decimals; `UNKNOWN` for None."""
    return UNKNOWN if value is None else f"{value:z,.{digits}f}".replace("-", "−")


def signed(value: float | int | None, digits: int = 1) -> str:
    """A difference with its sign, ± where it rounds to 0; `UNKNOWN` for None."""
    if value is None:
        return UNKNOWN
    text = f"{value:+z,.{digits}f}".replace("-", "−")
    return text if text.strip("+0.") else text.replace("+", "±")


def holds_zero(ends: Sequence[float | None] | None) -> bool:
    """Whether an interval of a difference leaves its sign open, so that the difference may be chance."""
    low, high = ends or (None, None)
    return low is not None and high is not None and low <= 0 <= high


def value(x: float | int | None, metric: Metric) -> str:
    """The value of a metric in its unit."""
    if metric.unit == "accuracy":
        return percent(x)
    return (signed if metric.unit == "correlation" else number)(x, DIGITS[metric.unit])


def value_interval(ends: Sequence[float | None] | None, metric: Metric) -> str:
    """An interval of a metric or of its difference, "[low, high]" in its unit; empty where there is none."""
    scale, digits = _scale(metric)
    known = [number(scale * end, digits) for end in ends or () if end is not None]
    return f"[{known[0]},\u00a0{known[1]}]" if len(known) == 2 else ""


def value_change(difference: float | int | None, metric: Metric) -> str:
    """A difference of two values of a metric with its sign, in points for an accuracy."""
    scale, digits = _scale(metric)
    points = " points" if metric.unit == "accuracy" and difference is not None else ""
    return signed(None if difference is None else scale * difference, digits) + points


def change(
    difference: float | int, ends: Sequence[float | None] | None, metric: Metric, *, within: bool = True
) -> str:
    """How the second value of a metric differs from the first, such as "fell by 7.60 [6.94, 8.36]".

    `difference` and its interval `ends` are first minus second. `within` one run a value falls or rises;
    between two models it is lower or higher.
    """
    scale, digits = _scale(metric)
    down = difference > 0
    verb = ("fell" if down else "rose") if within else ("is lower" if down else "is higher")
    if not abs(round(scale * difference, digits)):
        verb = "moved" if within else "differs"
    if not down and ends and None not in ends:
        ends = [-end for end in reversed(ends) if end is not None]
    points = " points" if metric.unit == "accuracy" else ""
    return (
        f"{verb} by {number(scale * abs(difference), digits)}{points} {value_interval(ends, metric)}".rstrip()
    )


def _scale(metric: Metric) -> tuple[int, int]:
    return (100 if metric.unit == "accuracy" else 1), DIGITS[metric.unit]
