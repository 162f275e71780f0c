"""Robust overfitting (Rice et al. 2020): robust accuracy falls for good while training's still rises.

    mean(best w checks) - mean(last w checks) > z s, s the standard error of that difference

Several windows w, for what falls fast and for what falls slowly; all longer than one check, so that no single
one raises anything. The best of m checks lies some sqrt(2 ln m) deviations above the others, hence
z = margin + sqrt(2 ln m), at every one of the m checks. A peak that guessing reaches is none.

Where rows say which images were right (`watched_correct`), s is of the same images (as in McNemar's test):

    s^2 = Var_i(d_i) / n + sum over the 2 w checks of v_t / w^2

d_i is what image i contributes to the difference. v_t is how far a network moves from check to check beyond
what its images explain, from second differences of checks at about the learning rate of check t: it is 3 to 4
points at a large learning rate, 0.6 after its first drop and next to nothing after the second
(results/mini). Rows without it, of older runs, are judged as if the images of all checks were others.

Simulated whole runs with noise as in results/mini (benchmarks/alarm_power.py; 200 runs a cell for false
alarms, 100 for power; per cent of the runs):

    20 checks of n images               300   500   1,000   10,000
    no fall, hardest case                 0   0.5     1.5      3.5
    no fall, rise at the drop             0     0     0.5        1
    a fall of 1, 2, 3 points          0 0 1  0 1 10  4 8 50  15 65 83
    a fall of 5 points                   18    69      90       93
    a fall of 7, 10 points            56 94  87 98  94 100   99 100

With 10 checks the hardest case gives 0.5, 0.5, 2 and 6.5 %: few differences tell little of the network's
noise. With 80 checks of 1,000 images it gives 7 % (4 of 60 runs), and 5 points are seen in 70 % (of 30 runs).
"""

import math
from collections.abc import Callable, Sequence, Set
from functools import cache, lru_cache
from statistics import fmean, median

import numpy as np

from crossclass.analysis.records import Alarm
from crossclass.training.alarms.checks import Check, percent

PAIRED, UNPAIRED = ((3, 6, 12), 2.2), ((2, 5), 2.0)
"""Windows and margin, by whether rows say which images were right."""
SMALLEST = 0.03
"""Of the best: a smaller fall is seen by chance of SGD in all curves of Rice et al., and worth no alarm."""
NEAR, LIKE, LEAST = 6, 3.0, 3
"""v_t is the mean over triples of checks at most so far away, whose learning rates differ at most by this
factor; with fewer triples than LEAST, over the nearest ones."""


def robust_overfitting(checks: Sequence[Check], classes: int, standing: Set[str]) -> Alarm | None:
    """Robust accuracy fell below its best by more than noise, for several checks, while training's rises."""
    now, stood = checks[-1], "robust-overfitting" in standing
    if "catastrophic-overfitting" in standing and not stood:
        return None  # the same fall, already under its better name
    values = [c.robust for c in checks]
    paired = all(c.correct is not None and c.n == now.n for c in checks)
    windows, margin = PAIRED if paired else UNPAIRED
    standard_error = _paired_error(checks) if paired else _unpaired_error(checks)
    z = margin + math.sqrt(2 * math.log(len(checks)))
    for w in windows:
        if len(checks) < 2 * w:
            continue
        means = [sum(values[i : i + w]) / w for i in range(len(values) - 2 * w + 1)]
        at = max(range(len(means)), key=means.__getitem__)
        top, level = means[at], sum(values[-w:]) / w
        train = _mean_train(checks[at : at + w]), _mean_train(checks[-w:])
        easier = 0.5 if stood else 1.0
        if top - level <= SMALLEST * top * easier or not train[0] < train[1]:
            continue
        if not now.exceeds_chance(top, classes, len(checks)):
            continue
        error = standard_error(at, w)
        least = max(SMALLEST * top, z * error) * easier
        stays = max(values[-2:]) < top - least / 2  # one bad check may not carry the mean alone
        if top - level > least and stays:
            best = max(checks[:-w], key=lambda c: c.robust)  # the first of equals
            evidence = (
                f"{now.part_name} robust accuracy ({now.attack}, n = {now.n:,}) was {percent(best.robust)} "
                f"there and is {percent(level)} in epochs {checks[-w].epoch} to {now.epoch} (mean of {w} "
                f"checks, {100 * (top - level):.1f} points below the best {w}, standard error "
                f"{100 * error:.1f}), while training's rose from {percent(train[0])} to {percent(train[1])}"
            )
            return Alarm("robust-overfitting", now.epoch, best.epoch, evidence, "alarm", best.epoch)
    return None


def _mean_train(checks: Sequence[Check]) -> float:
    """NaN, which is neither larger nor smaller than anything, where it was not logged."""
    return fmean(math.nan if c.train is None else c.train for c in checks)


def _unpaired_error(checks: Sequence[Check]) -> Callable[[int, int], float]:
    """Of rows that do not say which images were right: binomial, or what second differences say, if larger.

    A curve moves with the noise of SGD too, which is more than binomial at a large learning rate. Second
    differences of independent noise have variance 6 s^2, whatever line it rides on; their median does not
    see a jump at a drop of the learning rate.
    """
    p, n, values = max(c.robust for c in checks), min(c.n for c in checks), [c.robust for c in checks]
    s = math.sqrt(p * (1 - p) / n)
    second = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    if len(second) >= 5:
        s = max(s, 1.4826 * median(second) / math.sqrt(6))
    return lambda at, w: s * math.sqrt(2 / w)


def _paired_error(checks: Sequence[Check]) -> Callable[[int, int], float]:
    """Of the mean of w checks from `at` on, minus that of the last w, on the same images."""
    n = checks[-1].n
    right = [c.correct or b"" for c in checks]
    moved = [_beyond_images(n, *three) for three in zip(right, right[1:], right[2:], strict=False)]
    rates = [c.lr or 0.0 for c in checks]
    steady = [  # of each triple its learning rate, if it has one
        rates[j + 1] if max(rates[j : j + 3]) <= LIKE * min(rates[j : j + 3]) else math.nan
        for j in range(len(moved))
    ]

    @cache
    def of_network(t: int) -> float:
        """v_t, the variance of the network's own movement about check t."""
        by_distance = sorted(range(len(moved)), key=lambda j: (abs(j + 1 - t), j))
        like = [
            j
            for j in by_distance
            if abs(j + 1 - t) <= NEAR and steady[j] <= LIKE * rates[t] and rates[t] <= LIKE * steady[j]
        ]
        used = like if len(like) >= LEAST else by_distance[: LEAST + 2]
        return max(0.0, fmean(moved[j] for j in used)) if used else 0.0

    def standard_error(at: int, w: int) -> float:
        last = range(len(checks) - w, len(checks))
        first = range(at, at + w)
        d = sum((_unpacked(right[t], n).astype(float) for t in first), np.zeros(n))
        d = sum((-_unpacked(right[t], n).astype(float) for t in last), d) / w
        return math.sqrt(float(np.var(d)) / n + sum(of_network(t) for t in (*first, *last)) / w**2)

    return standard_error


@lru_cache(maxsize=1024)
def _unpacked(bits: bytes, n: int) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=n)


@lru_cache(maxsize=4096)
def _beyond_images(n: int, a: bytes, b: bytes, c: bytes) -> float:
    """Variance of the network's movement from the second difference of three checks, without its images'."""
    e = _unpacked(a, n).astype(float) - 2.0 * _unpacked(b, n) + _unpacked(c, n)
    return float(e.mean() ** 2 - np.var(e) / n) / 6
