"""Claims that several entries share, and what they are made of; those of one figure stand beside it."""

from collections.abc import Sequence

from crossclass.analysis.metrics import metric
from crossclass.paper.entry import Claim, Effect, Numbers
from crossclass.paper.run_numbers import percent


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
    return Claim(text, lambda m: [best_minus_last(m, run, key)], where=where)


def both_fall(*runs: str) -> tuple[Claim, ...]:
    """CAS and robust accuracy are lower at last than at best, in each of the runs."""
    return tuple(
        falls(run, key, f"{metric(key).label} is lower at the last checkpoint than at the best", where=run)
        for run in runs
        for key in ("cas", "robust")
    )


def loses_more(text: str, key: str, run: str, *others: str) -> Claim:
    """From best to last a run loses more than each of the others."""
    return Claim(text, lambda m: [loss_difference(m, key, run, other) for other in others])


def has_more(text: str, key: str, stage: str, run: str, *others: str) -> Claim:
    """At a stage a run has more than each of the others."""
    return Claim(text, lambda m: [stage_difference(m, key, stage, run, other) for other in others])


def keeps_more(text: str, key: str, run: str, than: str) -> Claim:
    """A run loses less than another one from best to last, and has more at last."""

    def effects(m: Numbers) -> list[Effect]:
        return [loss_difference(m, key, than, run), stage_difference(m, key, "last", run, than)]

    return Claim(text, effects, where=run)


def rises(share: float, run: str = "AT", where: str = "") -> Claim:
    """CAS is higher at best than at a share of the schedule; both of the per-epoch checks."""

    def effects(m: Numbers) -> list[Effect]:
        best, early = (per_seed(m, run, s, "cas", checks=True) for s in ("best", percent(share)))
        return [difference(f"CAS, best minus {percent(share)} of the schedule", best, early)]

    return Claim("CAS is higher at the best checkpoint than early in training", effects, where=where)
