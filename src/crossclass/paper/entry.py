"""The types of the paper's statements: an entry (a figure, table or theorem) and its claims.

    runs -> evidence of each run and seed -> numbers (plain, stored) -> verdicts, figure

Measuring is slow and done once; judging and drawing read the stored numbers and take no time. The drawings
are in `report.plots.paper_figures`, by the id of the entry. Entries need no torch until they measure.

Most sentences say that one number is larger than another, so a claim names its *effect*: one number per seed,
positive where the sentence is true. It holds if the 95 % interval of the effect over seeds lies above the
margin, does not hold if it lies at or below it, and is undecided otherwise. One seed alone is judged by the
interval over test images, where there is one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from crossclass.core.errors import UserError
from crossclass.paper.verdict import Verdict, Word, all_hold, exceeds

if TYPE_CHECKING:
    from crossclass.paper.evidence import Evidence

Size = Literal["smoke", "mini", "paper"]
RunEvidence = Mapping[str, Sequence["Evidence"]]
"""For each run of an entry, the evidence of each seed."""
Numbers = dict[str, Any]
"""What an entry measured: plain lists, dictionaries and numbers, stored as JSON (see `run_numbers`)."""


class Estimate(NamedTuple):
    """A mean over n seeds with its 95 % interval, which is infinite for one seed."""

    mean: float
    low: float
    high: float
    n: int


def over_seeds(values: Sequence[float]) -> Estimate:
    """The mean of one value per seed and its 95 % interval by Student's t: mean +- t_(n-1) s / sqrt(n).

    With three seeds t is 4.3, so a difference must be 2.5 standard deviations large to be called one. Raises
    ValueError for no value, or for one that is not finite.
    """
    if not values:
        raise ValueError("no seed has a value")
    if not all(map(math.isfinite, values)):
        raise ValueError(f"a seed's value is not a number: {list(values)}")
    mean, n = fmean(values), len(values)
    if n == 1:
        return Estimate(mean, -math.inf, math.inf, 1)
    from scipy import stats  # slow to import, and whoever only lists the entries does not need it

    half = float(stats.t.ppf(0.975, n - 1) * stats.sem(values))
    return Estimate(mean, mean - half, mean + half, n)


@dataclass(frozen=True)
class Effect:
    """One number per seed, positive where the sentence is true."""

    name: str
    """What the number is, such as "CAS, best minus last"."""
    values: tuple[float, ...]
    """One per seed, in the order of the seeds."""
    over_images: tuple[float, float] | None = None
    """The interval over test images of the first seed; it counts where there is no other seed."""

    @property
    def estimate(self) -> Estimate:
        """Mean and interval over seeds."""
        return over_seeds(self.values)

    def verdict(self, margin: float) -> Word:
        """Whether the effect lies above the margin."""
        estimate = self.estimate
        if estimate.n == 1 and self.over_images is not None:
            return exceeds(self.over_images, margin)
        return exceeds((estimate.low, estimate.high), margin)

    def describe(self, margin: float) -> str:
        """The effect in words, with the value of every seed."""
        estimate = self.estimate
        each = ", ".join(_short(v) for v in self.values)
        if estimate.n > 1:
            ends = f"[{_short(estimate.low)}, {_short(estimate.high)}] over {estimate.n} seeds: {each}"
        elif self.over_images is not None:
            ends = f"[{_short(self.over_images[0])}, {_short(self.over_images[1])}] over images, one seed"
        else:
            ends = "one seed, which says nothing about others"
        beside = f", margin {_short(margin)}" if margin else ""
        return f"{self.name} {_short(estimate.mean)} ({ends}{beside})"


@dataclass(frozen=True)
class Claim:
    """One sentence, and how it is judged."""

    text: str
    effects: Callable[[Numbers], Sequence[Effect]]
    """Each must lie above the margin."""
    margin: float = 0.0
    where: str = ""
    """What the sentence is about, if that is less than the whole entry."""

    def judge(self, numbers: Numbers) -> Verdict:
        """The verdict; undecided, with the reason, where a number is missing."""
        try:
            effects = list(self.effects(numbers))
        except (UserError, LookupError, TypeError, ValueError) as e:
            return Verdict(self.text, "undecided", self.where, f"could not be judged: {_reason(e)}")
        usable = [e for e in effects if e.values and all(map(math.isfinite, e.values))]
        if not effects or len(usable) < len(effects):
            return Verdict(self.text, "undecided", self.where, "a number it needs was not measured")
        verdict = all_hold([e.verdict(self.margin) for e in effects])
        means = {e.name: round(e.estimate.mean, 6) for e in effects}
        reason = "; ".join(e.describe(self.margin) for e in effects)
        return Verdict(self.text, verdict, self.where, reason, means)


def _reason(e: Exception) -> str:
    return f"{e.args[0]} is missing" if isinstance(e, KeyError) else str(e) or type(e).__name__


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


@dataclass(frozen=True)
class Entry:
    """One figure, table or theorem of the paper."""

    id: str
    title: str
    claim: str
    """The paper's claim in one sentence."""
    runs: Mapping[str, str] = field(default_factory=dict)
    """The entry's name of each trained run, and the name of the run in `runs.NAMED`."""
    claims: tuple[Claim, ...] = ()
    stages: tuple[float, ...] = ()
    """Shares of the schedule at which the runs are looked at too, beside best and last."""
    extras: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Which further measurements each of these runs needs (`extra_measurements.EXTRAS`)."""
    printed: Mapping[str, Any] | None = None
    """The numbers that the paper prints; accuracies (`ra`) in percent."""
    compute: Callable[[RunEvidence, Size], Numbers] | None = None
    """Evidence to numbers, where they are more than `run_numbers`; the size is for entries without runs."""
    judge: Callable[[Numbers], Sequence[Verdict]] | None = None
    """Used instead of `claims` where the verdicts are stored with the numbers."""
    code: Callable[[], str] | None = None
    """A checksum of the source that computes the numbers, for entries that take long without any run:
    numbers stored with the same checksum are not computed again."""

    def measure(self, evidence: RunEvidence, size: Size) -> Numbers:
        """The plain numbers of this entry."""
        if self.compute is not None:
            return self.compute(evidence, size)
        from crossclass.paper.run_numbers import collect

        return collect(evidence, self.stages)

    def verdicts(self, numbers: Numbers) -> list[Verdict]:
        """Every sentence of this entry, judged on its numbers."""
        judged = list(self.judge(numbers)) if self.judge is not None else []
        return judged + [claim.judge(numbers) for claim in self.claims]
