"""A sentence of the paper as a predicate on plain numbers, judged over seeds.

Most sentences say that one number is larger than another, so a claim names its *gain*: one number per seed,
positive where the sentence is true. It holds if the 95 % interval of the gain over seeds lies above the
margin, does not hold if it lies at or below it, and is undecided else. One seed alone is judged by the
interval over test images, where there is one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from crossclass.core.errors import UserError
from crossclass.paper.statistics import Estimate, over_seeds
from crossclass.paper.verdict import Verdict, Word, above, everywhere

Numbers = dict[str, Any]
"""What an experiment measured: plain lists, dictionaries, numbers; it is stored as JSON."""


@dataclass(frozen=True)
class Gain:
    """One number per seed, positive where the sentence is true."""

    name: str
    """What the number is, such as "CAS, best minus last"."""
    values: tuple[float, ...]
    """One per seed, in the order of the seeds."""
    over_images: tuple[float, float] | None = None
    """For one seed alone: the interval over test images."""

    @property
    def estimate(self) -> Estimate:
        """Mean and interval over seeds."""
        return over_seeds(self.values)

    def word(self, margin: float) -> Word:
        """Whether it lies above the margin."""
        found = self.estimate
        if found.n == 1 and self.over_images is not None:
            return above(self.over_images, margin)
        return above((found.low, found.high), margin)

    def said(self, margin: float) -> str:
        """In words, with every seed's value."""
        found = self.estimate
        each = ", ".join(_short(v) for v in self.values)
        if found.n > 1:
            ends = f"[{_short(found.low)}, {_short(found.high)}] over {found.n} seeds: {each}"
        elif self.over_images is not None:
            ends = f"[{_short(self.over_images[0])}, {_short(self.over_images[1])}] over images, one seed"
        else:
            ends = "one seed, which says nothing about others"
        beside = f", margin {_short(margin)}" if margin else ""
        return f"{self.name} {_short(found.mean)} ({ends}{beside})"


@dataclass(frozen=True)
class Claim:
    """One sentence, and how it is judged."""

    id: str
    text: str
    gains: Callable[[Numbers], Sequence[Gain]]
    """Each must be above the margin."""
    margin: float = 0.0
    where: str = ""
    """What the sentence is about, if less than its experiment."""

    def judge(self, numbers: Numbers) -> Verdict:
        """The verdict; undecided with the reason where the numbers are not there."""
        try:
            gains = list(self.gains(numbers))
        except (UserError, LookupError, TypeError, ValueError) as e:
            return Verdict(self.text, "undecided", self.where, f"could not be judged: {_reason(e)}")
        usable = [g for g in gains if g.values and all(map(math.isfinite, g.values))]
        if not gains or len(usable) < len(gains):
            return Verdict(self.text, "undecided", self.where, "a number it needs was not measured")
        word = everywhere([g.word(self.margin) for g in gains])
        found = {g.name: round(g.estimate.mean, 6) for g in gains}
        return Verdict(self.text, word, self.where, "; ".join(g.said(self.margin) for g in gains), found)


def _reason(e: Exception) -> str:
    return f"{e.args[0]} is missing" if isinstance(e, KeyError) else str(e) or type(e).__name__


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
