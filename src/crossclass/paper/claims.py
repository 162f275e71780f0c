"""Claims that several entries share, and what they are made of; those of one figure stand beside it.

**What is lost from best to last** is not judged by best minus last: the best of twenty checks is higher than
the last one also where nothing falls, because it was chosen for being high (with 3 and 10 seeds that alone
"holds" in 4 and 14 % of studies). It is judged by the fall of the line of least squares through the checks
after the first drop of the learning rate, a phase that the schedule sets and no result. That line is flat on
average wherever there is no trend; best minus last stands beside it. For numbers that are known at best and
last alone (I-CAS, CAS on clean images) the most that the choice can give is subtracted (`chosen_above`).
"""

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from statistics import NormalDist, fmean

from crossclass.analysis.metrics import metric
from crossclass.paper.entry import Claim, Effect, Numbers
from crossclass.paper.inference import LEVEL, largest_of
from crossclass.paper.run_numbers import percent

PerSeed = dict[int, float | int | None]


def by_seed(numbers: Numbers, run: str, values: Sequence[float | int | None]) -> PerSeed:
    """Stored values of a run, by seed."""
    return dict(zip(numbers["runs"][run]["seeds"], values, strict=True))


def combined(of: Callable[..., float], *series: Mapping[int, float | int | None]) -> PerSeed:
    """A function of the values of several series, for each seed that all of them have."""
    seeds = [seed for seed in series[0] if all(seed in one for one in series)]
    out: PerSeed = {}
    for seed in seeds:
        values = [one[seed] for one in series]
        out[seed] = None if any(v is None for v in values) else of(*values)
    return out


def per_seed(numbers: Numbers, run: str, stage: str, key: str) -> PerSeed:
    """One number per seed: of the full evaluation of best or last, or of a check within the schedule."""
    of = numbers["runs"][run]
    return by_seed(numbers, run, (of["on_the_way"] if "%" in stage else of)[stage][key])


def over_images(numbers: Numbers, run: str, stage: str, key: str) -> float | None:
    """The variance over test images of a number at best or last; a check on the way is taken as best."""
    images: float | None = numbers["runs"][run]["images"]["best" if "%" in stage else stage].get(key)
    return images


def lost_over_images(numbers: Numbers, run: str, key: str) -> float | None:
    """The variance over test images of what is lost from best to last, on the same images; None if unknown.

    The mean of the seeds' own; where every seed's best is its last, that of two checkpoints on other images.
    """
    ends = numbers["runs"][run]["best_minus_last"][key]
    known = [
        ((high - low) / (2 * NormalDist().inv_cdf(1 - LEVEL / 2))) ** 2
        for low, high in zip(ends["low"], ends["high"], strict=True)
        if low is not None and high is not None
    ]
    return fmean(known) if known else total(*(over_images(numbers, run, s, key) for s in ("best", "last")))


def total(*variances: float | None) -> float | None:
    """The variance of a sum or difference, an upper bound on the same images; None if one is not known."""
    return None if None in variances else sum(v for v in variances if v is not None)


def minus(a: Mapping[int, float | int | None], b: Mapping[int, float | int | None]) -> PerSeed:
    """a minus b, seed by seed."""
    return combined(lambda x, y: x - y, a, b)


def loss(numbers: Numbers, run: str, key: str) -> Effect:
    """What a run loses of `cas`, `robust` or `icas` from its best to its last checkpoint.

    By the line through the checks after the first drop of the learning rate; for numbers that no check has
    (`icas`) best minus last, less what the choice of the best can give.
    """
    of, label = numbers["runs"][run], metric(key).label
    plain = by_seed(numbers, run, of["best_minus_last"][key]["value"])
    images = lost_over_images(numbers, run, key)
    epochs = (by_seed(numbers, run, of[stage]["epoch"]) for stage in ("best", "last"))
    ended = frozenset(s for s, after in combined(lambda b, z: z - b, *epochs).items() if after == 0)
    each = ", ".join("?" if v is None else f"{v:.3g}" for v in plain.values())
    beside = f"best minus last, seeds {', '.join(map(str, plain))}: {each}"
    if key in of["late"]["fall"]:
        name = f"{label}, fall along the checks after the first drop"
        return Effect(
            name, by_seed(numbers, run, of["late"]["fall"][key]), images, ended=ended, beside=beside
        )
    values = combined(lambda v, above: v - above, plain, chosen_above(numbers, run, key))
    name = f"{label}, best minus last, less what choosing the best can give"
    return Effect(name, values, images, ended=ended, beside=beside)


def chosen_above(numbers: Numbers, run: str, key: str) -> PerSeed:
    """The most that a number can gain on average because the best of the checks was chosen, by seed.

    It is the expected largest of as many normal numbers as there are checks, times the noise from check to
    check: as much is gained if the number moves exactly as what the best is chosen by. The noise is that of
    CAS, in the same ratio to the number's level.
    """
    of = numbers["runs"][run]
    known = [
        (n, level) for n, level in zip(of["late"]["noise"]["cas"], of["late"]["mean"]["cas"], strict=True)
    ]
    if any(n is None or not level for n, level in known):
        raise ValueError(f"too few checks of {run} to tell its noise")
    relative = sqrt(fmean((n / level) ** 2 for n, level in known))
    best = per_seed(numbers, run, "best", key)
    checks = by_seed(numbers, run, of["late"]["checks_in_all"])
    return combined(lambda v, m: abs(v) * relative * largest_of(int(m)), best, checks)


def loss_difference(numbers: Numbers, key: str, a: str, b: str) -> Effect:
    """What run a loses from best to last, minus what run b loses."""
    ends = [loss(numbers, run, key) for run in (a, b)]
    name = f"{metric(key).label} lost, {a} minus {b}"
    return Effect(name, minus(*(end.values for end in ends)), total(*(end.images for end in ends)))


def stage_difference(numbers: Numbers, key: str, stage: str, a: str, b: str) -> Effect:
    """The number of run a at a stage, minus that of run b."""
    ends = (per_seed(numbers, run, stage, key) for run in (a, b))
    images = total(*(over_images(numbers, run, stage, key) for run in (a, b)))
    return Effect(f"{metric(key).label} at {stage}, {a} minus {b}", minus(*ends), images)


def falls(run: str, key: str, text: str, where: str = "") -> Claim:
    """A run loses of it from best to last."""
    return Claim(text, lambda m: [loss(m, run, key)], where=where)


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
    """CAS is higher at best than at a share of the schedule.

    The checks just before and after the best stand for it: its own was chosen.
    """

    def effects(m: Numbers) -> list[Effect]:
        best = by_seed(m, run, m["runs"][run]["beside_best"]["cas"])
        early, images = per_seed(m, run, percent(share), "cas"), over_images(m, run, "best", "cas")
        name = f"CAS, beside the best check minus {percent(share)} of the schedule"
        return [Effect(name, minus(best, early), total(images, images))]

    return Claim("CAS is higher at the best checkpoint than early in training", effects, where=where)
