"""The types of the paper's statements: an entry (a figure, table or theorem) and its claims.

    runs -> evidence of each run and seed -> numbers (plain, stored) -> verdicts, figure

Measuring is slow and done once; judging and drawing read the stored numbers and take no time. The drawings
are in `report.plots.paper_figures`, by the id of the entry. Entries need no torch until they measure.

Most sentences say that one number is larger than another, so a claim names its *effects*: one number per
seed, positive where the sentence is true. The mean of an effect has a 95 % interval over seeds and images
(`inference`) and a p-value on either side of the margin. A claim with several effects holds if each lies
above the margin, so the largest p-value counts for it; it does not hold if one lies below, so the smallest
counts against it, times their number. **The word of the verdict goes by the p-value that Holm's method
adjusts for the claims of the entry**, at 5 %. The seeds on which settings were chosen are shown, not counted.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from crossclass.core.errors import UserError
from crossclass.paper.inference import LEVEL, MeanTest, holm, mean_test, share_test
from crossclass.paper.verdict import Verdict, Word

if TYPE_CHECKING:
    from crossclass.paper.evidence import Evidence

Size = Literal["smoke", "mini", "paper"]
RunEvidence = Mapping[str, Sequence["Evidence"]]
"""For each run of an entry, the evidence of each seed."""
Numbers = dict[str, Any]
"""What an entry measured: plain lists, dictionaries and numbers, stored as JSON (see `run_numbers`)."""
NOT_COUNTED: Mapping[Size, tuple[int, ...]] = {"smoke": (0,), "mini": (0,), "paper": ()}
"""The seeds on which the settings of a size were chosen; those of the paper's size are the paper's."""


@dataclass(frozen=True)
class Effect:
    """One number per seed, positive where the sentence is true."""

    name: str
    """What the number is, such as "CAS at last, KD minus AT"."""
    values: Mapping[int, float | int | None]
    """By seed; None where it was not measured."""
    images: float | None = None
    """The variance of one seed's number over test images; None where it is not known and so not counted."""
    yes_no: bool = False
    """Whether the values are 1 for yes and 0 for no; then the question is whether most seeds say yes."""
    ended: frozenset[int] = frozenset()
    """Seeds whose best checkpoint is their last, where the effect is about what comes after the best."""
    beside: str = ""
    """What is said after the numbers."""

    def counted(self, aside: Sequence[int]) -> dict[int, float]:
        """The values of the seeds that count. Raises ValueError if there is none, or one was not measured."""
        values = {seed: v for seed, v in self.values.items() if seed not in aside}
        if not values:
            only = f"; seed {_list(self.values)} is not counted" if self.values else ""
            raise ValueError(f"no seed that counts was trained{only}")
        known = {seed: float(v) for seed, v in values.items() if v is not None and math.isfinite(v)}
        if len(known) < len(values):
            raise ValueError("a number it needs was not measured")
        return known

    def test(self, margin: float, aside: Sequence[int] = ()) -> MeanTest:
        """Its mean over the seeds that count, against the margin. Raises ValueError as `counted` does."""
        values = list(self.counted(aside).values())
        if self.yes_no:
            return share_test([v > 0.5 for v in values])
        return mean_test(values, self.images or 0.0, margin)

    def describe(self, margin: float, aside: Sequence[int], level: float) -> str:
        """The effect in words: mean, interval, the value of every seed, and what could have been decided."""
        test, seeds = self.test(margin, aside), self.counted(aside)
        over = "seeds" if self.images is None else "seeds and images"
        if test.n == 1:
            ends = "one seed, which says nothing about others"
        elif test.spread is None and not self.yes_no:
            ends = "all seeds have this number, so their spread is not known"
        else:
            ends = f"[{_short(test.low)}, {_short(test.high)}] over {over}"
        each = f"seeds {_list(seeds)}: {', '.join(_short(v) for v in seeds.values())}"
        others = {s: v for s, v in self.values.items() if s in aside and v is not None and math.isfinite(v)}
        if others:
            each += f"; not counted, seed {_list(others)}: {', '.join(_short(v) for v in others.values())}"
        beside = f"; margin {_short(margin)}" if margin else ""
        if self.yes_no:
            beside += f"; can be decided by {math.ceil(math.log2(2 / level))} seeds that agree"
        if test.spread is not None:
            beside += f"; could have decided a difference of {_short(test.detectable(level))}"
        return f"{self.name} {_short(test.mean)} ({ends}; {each}{beside}{self.beside and '; '}{self.beside})"


@dataclass(frozen=True)
class Claim:
    """One sentence, and how it is judged."""

    text: str
    effects: Callable[[Numbers], Sequence[Effect]]
    """Each must lie above the margin."""
    margin: float = 0.0
    where: str = ""
    """What the sentence is about, if that is less than the whole entry."""

    def judge(self, numbers: Numbers, claims: int = 1) -> Verdict:
        """The verdict on this claim alone; undecided, with the reason, where a number is missing.

        `claims` is the number of claims in the entry: what could have been decided is said for the level that
        the smallest of their p-values must reach.
        """
        aside = tuple(numbers.get("not_counted", ()))
        try:
            effects = list(self.effects(numbers))
            tests = [e.test(self.margin, aside) for e in effects]
        except (UserError, LookupError, TypeError, ValueError) as e:
            return Verdict(self.text, "undecided", self.where, f"could not be judged: {_reason(e)}", p=1.0)
        if not effects:
            return Verdict(self.text, "undecided", self.where, "a number it needs was not measured", p=1.0)
        seeds = sorted({s for e in effects for s in e.counted(aside)})
        above = max(t.above for t in tests)
        below = min(1.0, len(tests) * min(t.below for t in tests))
        p = min(1.0, 2 * min(above, below))
        reason = "; ".join(e.describe(self.margin, aside, LEVEL / claims) for e in effects)
        if any(e.ended.issuperset(e.counted(aside)) for e in effects):
            p, reason = 1.0, f"the best checkpoint is the last for every seed that counts: {reason}"
        word: Word = "undecided" if p > LEVEL else "holds" if above < below else "does not hold"
        means = {e.name: round(t.mean, 6) for e, t in zip(effects, tests, strict=True)}
        seen = {
            e.name: round(d, 6) if math.isfinite(d := t.detectable(LEVEL / claims)) else None
            for e, t in zip(effects, tests, strict=True)
            if not e.yes_no
        }
        return Verdict(self.text, word, self.where, reason, means, p=p, seeds=seeds, detectable=seen)


def adjusted(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Verdicts of one entry with Holm's p-values beside their own, and undecided where these exceed 5 %."""
    family = [v.p for v in verdicts if v.p is not None]
    rest, out = iter(holm(family)), []
    for v in verdicts:
        if v.p is None:
            out.append(v)
        else:
            p_holm = next(rest)
            out.append(replace(v, p_holm=p_holm, verdict="undecided" if p_holm > LEVEL else v.verdict))
    return out


def _reason(e: Exception) -> str:
    return f"{e.args[0]} is missing" if isinstance(e, KeyError) else str(e) or type(e).__name__


def _list(seeds: Mapping[int, Any]) -> str:
    return ", ".join(map(str, seeds))


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

        return collect(evidence, size, self.stages)

    def verdicts(self, numbers: Numbers) -> list[Verdict]:
        """Every sentence of this entry, judged on its numbers."""
        judged = list(self.judge(numbers)) if self.judge is not None else []
        return adjusted(judged + [claim.judge(numbers, len(self.claims)) for claim in self.claims])
