"""Numbers and names in words, as the page says them: percent on screen, a minus that is one."""

from collections.abc import Sequence


def split(name: str | None) -> str:
    """A split's name in full; an en dash for none."""
    return {"val": "validation", None: "–"}.get(name, str(name))


def pct(value: float | int | None) -> str:
    """A fraction in percent, one decimal; an en dash for what is not known."""
    return "–" if value is None else f"{100 * value:.1f}\u00a0%"


def number(value: float | int | None, digits: int = 1) -> str:
    """A number with its decimals; an en dash for what is not known."""
    return "–" if value is None else f"{value:z,.{digits}f}".replace("-", "−")


def signed(value: float | int, digits: int = 1) -> str:
    """A difference with its sign, ± where it rounds to nothing."""
    text = f"{value:+z,.{digits}f}".replace("-", "−")
    return text if text.strip("+0.") else text.replace("+", "±")


def span(ends: Sequence[float | int] | None, scale: float | int = 1, digits: int = 1) -> str:
    """An interval as [low, high], `scale` 100 for percent; nothing where there is none."""
    if not ends:
        return ""
    low, high = (number(scale * end, digits) for end in ends)
    return f"[{low},\u00a0{high}]"


def moved(
    difference: float | int,
    ends: Sequence[float | int] | None = None,
    *,
    points: bool = False,
    within: bool = True,
) -> str:
    """How the second differs from the first, given first minus second: "fell by 7.6 [6.9, 8.4]".

    `within` a run a number falls or rises; between models it is lower or higher. `points`: of percent.
    """
    scale = 100 if points else 1
    down = difference > 0
    verb = ("fell" if down else "rose") if within else ("is lower" if down else "is higher")
    if not abs(round(scale * difference, 1)):
        verb = "moved" if within else "differs"
    ends = ends if down or not ends else (-ends[1], -ends[0])
    tail = f" {span(ends, scale)}" if ends else ""
    return f"{verb} by {number(scale * abs(difference))}{' points' if points else ''}{tail}"
