"""Whether a claim holds in the numbers at hand: three words, never two.

A claim about a difference that is known with an interval *holds* if the whole interval lies beyond the
margin, *does not hold* if the whole interval lies short of it, and is *undecided* otherwise.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Word = Literal["holds", "does not hold", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """One claim, judged."""

    claim: str
    """One sentence that can be true or false."""
    word: Word
    where: str = ""
    """The region, the sizes and the seeds that the word is about."""
    why: str = ""
    """The numbers that decide it, in words; a counter-example's if there is one."""
    numbers: Mapping[str, float | int | str | None] = field(default_factory=dict)
    """The same numbers for machines."""
    beyond: bool = False
    """Not a statement of the paper: a check, another reading, an extension."""

    def __str__(self) -> str:
        return f"{self.word}: {self.claim}" + (f" ({self.why})" if self.why else "")


def above(interval: tuple[float, float], margin: float = 0.0) -> Word:
    """The word on "this quantity is larger than `margin`", from its interval (low, high).

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


def everywhere(words: Sequence[Word]) -> Word:
    """The word on "all of these": one that does not hold is enough. Raises ValueError for none at all."""
    if not words:
        raise ValueError("a claim about everything needs something to be about")
    if "does not hold" in words:
        return "does not hold"
    return "undecided" if "undecided" in words else "holds"
