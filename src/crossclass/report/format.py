"""Numbers as text for pages and console: percent, a real minus sign, a dash for what is unknown."""

from collections.abc import Sequence

UNKNOWN = "–"


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


def interval(ends: Sequence[float | int] | None, scale: float | int = 1, digits: int = 1) -> str:
    """The two ends as "[low, high]", times `scale` (100 for percent); an empty text for None."""
    if not ends:
        return ""
    low, high = (number(scale * end, digits) for end in ends)
    return f"[{low},\u00a0{high}]"


def holds_zero(ends: Sequence[float | int] | None) -> bool:
    """Whether an interval of a difference leaves its sign open, so that the difference may be chance."""
    return bool(ends and ends[0] <= 0 <= ends[1])


def change(
    difference: float | int,
    ends: Sequence[float | int] | None = None,
    *,
    points: bool = False,
    within: bool = True,
) -> str:
    """How the second value differs from the first, such as "fell by 7.6 [6.9, 8.4]".

    `difference` and its interval `ends` are first minus second; `points` says that they are fractions,
    shown in points of percent. `within` one run a value falls or rises; between models it is lower or higher.
    """
    scale = 100 if points else 1
    down = difference > 0
    verb = ("fell" if down else "rose") if within else ("is lower" if down else "is higher")
    if not abs(round(scale * difference, 1)):
        verb = "moved" if within else "differs"
    ends = ends if down or not ends else (-ends[1], -ends[0])
    tail = f" {interval(ends, scale)}" if ends else ""
    return f"{verb} by {number(scale * abs(difference))}{' points' if points else ''}{tail}"
