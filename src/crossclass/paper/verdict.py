"""The verdict on a claim: it holds, it does not hold, or the numbers at hand leave it undecided.

A claim that a quantity is larger than a margin *holds* if the whole interval of the quantity lies above the
margin, *does not hold* if the whole interval lies at or below it, and is *undecided* otherwise. Claims about
trained networks are also adjusted for the other claims of their entry (`entry`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Word = Literal["holds", "does not hold", "undecided"]
WORDS: tuple[Word, ...] = ("holds", "does not hold", "undecided")


@dataclass(frozen=True)
class Verdict:
    """One claim, judged."""

    claim: str
    """One sentence that can be true or false."""
    verdict: Word
    where: str = ""
    """The region, the sizes and the seeds that the verdict is about."""
    reason: str = ""
    """The numbers that decide it, in words; those of a counter-example if there is one."""
    numbers: Mapping[str, float | int | str | None] = field(default_factory=dict)
    """The same numbers by name."""
    extension: bool = False
    """Whether this is not a statement of the paper, but a check of it, another reading or an extension."""
    p: float | None = None
    """The two-sided p-value over seeds and images, 1 where they say nothing; None where nothing is random."""
    p_holm: float | None = None
    """The same, adjusted for the claims of the entry (Holm); the word goes by it."""
    seeds: Sequence[int] = field(default_factory=list)
    """The seeds that were counted."""
    detectable: Mapping[str, float | None] = field(default_factory=dict)
    """By effect, the smallest distance from the margin that these seeds would decide with 80 % power."""


def exceeds(interval: tuple[float, float], margin: float = 0.0) -> Word:
    """The verdict on "this quantity is larger than `margin`", from its interval (low, high).

    An interval without a finite end decides nothing. Raises ValueError if low exceeds high.
    """
    low, high = interval
    if low > high:
        raise ValueError(f"an interval runs from low to high, not from {low} to {high}")
    if not (math.isfinite(low) or math.isfinite(high)) or math.isnan(low) or math.isnan(high):
        return "undecided"
    if low > margin:
        return "holds"
    return "does not hold" if high <= margin else "undecided"


def all_hold(words: Sequence[Word]) -> Word:
    """The verdict on "all of these hold": one that does not is enough. Raises ValueError for none at all."""
    if not words:
        raise ValueError("a verdict on all claims needs at least one claim")
    if "does not hold" in words:
        return "does not hold"
    return "undecided" if "undecided" in words else "holds"
