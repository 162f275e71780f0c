"""A sentence of the paper as a predicate on plain numbers, judged over seeds.

Most sentences say that one number is larger than another, so a claim names its *effect*: one number per seed,
positive where the sentence is true. It holds if the 95 % interval of the effect over seeds lies above the
margin, does not hold if it lies at or below it, and is undecided otherwise. One seed alone is judged by the
interval over test images, where there is one.

Here are the claims that several figures and tables share; those of one figure stand beside it in `figures`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from crossclass.analysis.metrics import metric
from crossclass.core.errors import UserError
from crossclass.paper.verdict import Verdict, Word, all_hold, exceeds

Numbers = dict[str, Any]
"""What an entry measured: plain lists, dictionaries and numbers, stored as JSON (`collect` says which)."""


class Estimate(NamedTuple):
    """A mean over n seeds with its 95 % interval, which is infinite for one seed."""

    mean: float
    low: float
    high: float
    n: int


def over_seeds(values: Sequence[float], level: float = 0.95) -> Estimate:
    """The mean of one value per seed and Student's t interval: mean +- t_(n-1) s / sqrt(n).

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

    half = float(stats.t.ppf((1 + level) / 2, n - 1) * stats.sem(values))
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

    id: str
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


def percent(share: float) -> str:
    """The name of a stage within the schedule: 0.35 is "35 %"."""
    return f"{100 * share:g} %"


def per_seed(numbers: Numbers, run: str, stage: str, key: str, *, checks: bool = False) -> tuple[float, ...]:
    """One number per seed at a stage; of the per-epoch checks if `checks`, or within the schedule."""
    of = numbers["runs"][run]
    part = of["checks"] if checks or "%" in stage else of
    return tuple(part[stage][key])


def difference(name: str, a: Sequence[float], b: Sequence[float]) -> Effect:
    """a minus b, seed by seed."""
    return Effect(name, tuple(x - y for x, y in zip(a, b, strict=True)))


def best_minus_last(numbers: Numbers, run: str, key: str) -> Effect:
    """What a run loses from best to last of `cas`, `icas`, `robust` or `clean`."""
    lost = numbers["runs"][run]["best_minus_last"][key]
    low, high = lost["low"][0], lost["high"][0]
    over_images = None if low is None or high is None else (low, high)
    return Effect(f"{metric(key).label}, best minus last", tuple(lost["value"]), over_images)


def loss_difference(numbers: Numbers, key: str, a: str, b: str) -> Effect:
    """What run a loses from best to last, minus what run b loses."""
    ends = (best_minus_last(numbers, run, key).values for run in (a, b))
    return difference(f"{metric(key).label} lost, {a} minus {b}", *ends)


def stage_difference(numbers: Numbers, key: str, stage: str, a: str, b: str) -> Effect:
    """The number of run a at a stage, minus that of run b."""
    ends = (per_seed(numbers, run, stage, key) for run in (a, b))
    return difference(f"{metric(key).label} at {stage}, {a} minus {b}", *ends)


def falls(run: str, key: str, text: str, where: str = "") -> Claim:
    """Best minus last is positive."""
    return Claim(f"{key}-{run}", text, lambda m: [best_minus_last(m, run, key)], where=where)


def both_fall(*runs: str) -> tuple[Claim, ...]:
    """CAS and robust accuracy are lower at last than at best, in each of the runs."""
    return tuple(
        falls(run, key, f"{metric(key).label} is lower at the last checkpoint than at the best", where=run)
        for run in runs
        for key in ("cas", "robust")
    )


def loses_more(id_: str, text: str, key: str, run: str, *others: str) -> Claim:
    """From best to last a run loses more than each of the others."""
    return Claim(id_, text, lambda m: [loss_difference(m, key, run, other) for other in others])


def has_more(id_: str, text: str, key: str, stage: str, run: str, *others: str) -> Claim:
    """At a stage a run has more than each of the others."""
    return Claim(id_, text, lambda m: [stage_difference(m, key, stage, run, other) for other in others])


def keeps_more(text: str, key: str, run: str, than: str) -> Claim:
    """A run loses less than another one from best to last, and has more at last."""
    return Claim(
        f"{key}-{run}",
        text,
        lambda m: [loss_difference(m, key, than, run), stage_difference(m, key, "last", run, than)],
        where=run,
    )


def rises(share: float, run: str = "AT", id_: str = "rises", where: str = "") -> Claim:
    """CAS is higher at best than at a share of the schedule; both of the per-epoch checks."""

    def effects(m: Numbers) -> list[Effect]:
        best, early = (per_seed(m, run, s, "cas", checks=True) for s in ("best", percent(share)))
        return [difference(f"CAS, best minus {percent(share)} of the schedule", best, early)]

    return Claim(id_, "CAS is higher at the best checkpoint than early in training", effects, where=where)
