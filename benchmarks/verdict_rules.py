"""How often the rules of the verdicts are wrong, and what they see: python benchmarks/verdict_rules.py [OUT]

Every rule of `crossclass.paper.inference` is tried on made seeds whose truth is known, at 20 checks of which
15 come after the first drop of the learning rate. The noise is that of the curves in results/mini/runs.
Writes benchmarks/results/verdict_rules.json; half a minute on one core.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from crossclass.analysis.records import EpochRow
from crossclass.core.files import json_text
from crossclass.paper import evidence
from crossclass.paper.inference import LEVEL, benjamini_hochberg, fall, holm, largest_of, mean_test, noise

ROOT = Path(__file__).parents[1]
DRAWS = 4000
CHECKS, LATE = 20, 15
SEEDS = (2, 3, 10)
Array = np.ndarray[Any, np.dtype[np.float64]]


def stored_noise() -> dict[str, float]:
    """Standard deviations around a cubic through the late checks, AT on CIFAR-10 (medians over runs)."""
    found: dict[str, list[float]] = {}
    for folder in sorted((ROOT / "results/mini/runs").glob("wei2025-at-l*")):
        if any(word in folder.name for word in ("cifar100", "tiny", "deit")):
            continue
        late = evidence.read(folder).late()
        x = np.array([r.epoch for r in late], dtype=float)
        rest = {
            k: _residuals(x, np.array([r[k] for r in late]))
            for k in ("val_robust", "test_robust", "cas", "val_cas")
        }
        shared = (rest["val_robust"] * rest["test_robust"]).mean()
        both = (rest["val_robust"] ** 2 + rest["test_robust"] ** 2).mean() / 2
        centred = [x - x.mean() for x in rest.values()]
        numbers = {
            "network, robust": shared,  # a variance: it may come out negative for one run
            "images, robust": both - shared,
            "CAS": float(np.sqrt((rest["cas"] * rest["val_cas"]).mean())),
            "correlation of CAS with robust accuracy": float(
                np.corrcoef(rest["cas"], rest["test_robust"])[0, 1]
            ),
            "autocorrelation, robust": _lag(centred[0] + centred[1]),
            "autocorrelation, CAS": _lag(centred[2] + centred[3]),
            "fall over the late checks, robust": fall(x.tolist(), _means(late)),
        }
        for k, v in numbers.items():
            found.setdefault(k, []).append(v)
    out = {k: float(np.median(v)) for k, v in found.items()}
    for k in ("network, robust", "images, robust"):
        out[k] = max(float(np.mean(found[k])), 0.0) ** 0.5
    return out


def _means(rows: list[EpochRow]) -> list[float]:
    halves = [(r.metrics["val_robust"], r.metrics["test_robust"]) for r in rows]
    return [(v + t) / 2 for v, t in halves if v is not None and t is not None]


def _residuals(x: Array, y: Array, degree: int = 3) -> Array:
    t = (x - x.mean()) / np.ptp(x)
    rest = y - np.polyval(np.polyfit(t, y, degree), t)
    return np.asarray(rest * np.sqrt(len(y) / (len(y) - degree - 1)))


def _lag(y: Array) -> float:
    return float((y[1:] * y[:-1]).mean() / (y * y).mean())


def shared_images() -> dict[str, float]:
    """Variance over images of the fall of robust accuracy, by comparing validation with test images.

    Half the difference of the falls on the two halves has nothing of the network in it: its square is the
    variance over the images of both, its mean over seeds what these share (means over the runs of CIFAR-10).
    """
    halves: dict[str, list[float]] = {}
    stored: dict[str, list[float]] = {}
    for folder in sorted((ROOT / "results/mini/runs").glob("wei2025-*")):
        if any(word in folder.name for word in ("cifar100", "tiny")):
            continue
        found, name = evidence.read(folder), folder.name.split("-mini-")[0]
        x = [r.epoch for r in found.late()]
        val, test = (
            fall(x, [r.metrics[k] or 0.0 for r in found.late()]) for k in ("val_robust", "test_robust")
        )
        halves.setdefault(name, []).append((val - test) / 2)
        pair = found.comparison
        if pair is not None and pair.intervals is not None and (ends := pair.intervals.ends("d_robust")):
            stored.setdefault(name, []).append((((ends[1] or 0.0) - (ends[0] or 0.0)) / 3.92) ** 2)
    own = [np.var(d, ddof=1) for d in halves.values()]
    common = [np.mean(d) ** 2 - np.var(d, ddof=1) / len(d) for d in halves.values()]
    of_both = float(np.mean(own) + np.mean(common))
    return {
        "by the halves": of_both,
        "by the stored intervals": float(np.mean([np.mean(v) for v in stored.values()])),
        "share that the seeds have in common": float(np.mean(common)) / of_both,
    }


def curves(
    rng: np.random.Generator, n: int, known: dict[str, float], lost: float = 0.0, carried: float = 0.0
) -> tuple[Array, Array]:
    """Robust accuracy on validation and test images, (draws, seeds, checks): a rise, then `lost` in a line.

    `carried` is the correlation of the network's noise from check to check.
    """
    level = np.concatenate([np.linspace(0.13, 0.24, CHECKS - LATE), np.full(LATE, 0.25)])
    shape = (DRAWS, n, CHECKS)
    seed = lost + 0.007 * rng.standard_normal((DRAWS, n, 1)) * (lost > 0)
    trend = seed * np.concatenate([np.zeros(CHECKS - LATE), np.linspace(0, 1, LATE)])
    z = rng.standard_normal(shape)
    for i in range(1, CHECKS):
        z[..., i] = carried * z[..., i - 1] + np.sqrt(1 - carried**2) * z[..., i]
    network = level - trend + known["network, robust"] * z
    halves = (network + known["images, robust"] * rng.standard_normal(shape) for _ in range(2))
    val, test = halves
    return val, test


def statistics(
    val: Array, test: Array, rng: np.random.Generator, known: dict[str, float]
) -> dict[str, Array]:
    """One number per draw and seed by each rule that was thought of; positive for a fall."""
    best = val.argmax(axis=-1)[..., None]
    at_best = np.take_along_axis(test, best, -1)[..., 0]
    both = ((val + test) / 2)[..., -LATE:]
    x = np.arange(LATE) - (LATE - 1) / 2
    index = np.arange(CHECKS)
    near = (abs(index - best) == 1).astype(float)
    end = ((index >= CHECKS - 3) & (index != best)).astype(float)
    mean = (val + test) / 2

    def over(weight: Array) -> Array:
        return np.asarray((mean * weight).sum(-1) / weight.sum(-1))

    return {
        "best minus last (as before)": at_best - test[..., -1],
        "the seed's own null: best and last against permuted late checks": both.mean(-1) - both[..., -1],
        "the neighbours of the best minus the last three": over(near) - over(end),
        "line of least squares over the late checks (used)": -(both * x).sum(-1) / (x * x).sum() * (LATE - 1),
    }


def decided(values: Array, images: float = 0.0) -> float:
    """The share of draws in which the mean over seeds lies above 0."""
    n = values.shape[1]
    t, z = stats.t.isf(LEVEL / 2, n - 1), stats.norm.isf(LEVEL / 2)
    half = np.sqrt(t**2 * values.var(1, ddof=1) / n + z**2 * images)
    return float((values.mean(1) > half).mean())


def selection(rng: np.random.Generator, known: dict[str, float]) -> dict[str, Any]:
    """False "holds" without a trend, and power with one, by rule and number of seeds."""
    out: dict[str, Any] = {}
    cases = {"no trend": (0.0, 0.0), "no trend, noise carried on by half": (0.0, 0.5)}
    cases |= {f"falls by {lost:g}": (lost, 0.0) for lost in (0.02, 0.03, 0.05)}
    for name, (lost, carried) in cases.items():
        for n in SEEDS:
            found = statistics(*curves(rng, n, known, lost, carried), rng, known)
            for rule, values in found.items():
                rates = {"over seeds alone": decided(values), "with images": decided(values, 1.1e-4)}
                out.setdefault(rule, {}).setdefault(name, {})[f"{n} seeds"] = rates
    return out


def allowance(rng: np.random.Generator) -> dict[str, Any]:
    """A number that is known at best and last alone: false "holds" without and with the allowance."""
    out: dict[str, Any] = {}
    for correlation in (0.0, 0.5, 1.0):
        for n in (3, 10):
            chosen, number = rng.standard_normal((2, DRAWS, n, CHECKS))
            number = correlation * chosen + np.sqrt(1 - correlation**2) * number
            best = chosen.argmax(-1)[..., None]
            lost = np.take_along_axis(number, best, -1)[..., 0] - number[..., -1]
            sd = np.sqrt((np.diff(number[..., -LATE:]) ** 2).mean((-1, -2)) / 2)[:, None]  # of all seeds
            plain, allowed = decided(lost), decided(lost - largest_of(CHECKS) * sd)
            key = f"correlation {correlation:g} with what the best is chosen by, {n} seeds"
            out[key] = {"without": plain, "with": allowed}
    return out


def images(rng: np.random.Generator) -> dict[str, Any]:
    """Coverage for fresh seeds and fresh images, and the half-width over that of the known variance."""
    out: dict[str, Any] = {}
    draws = 20 * DRAWS
    for n in SEEDS:
        for ratio in (0.1, 1.0, 10.0):  # variance of a seed's own part over that of images
            for share in (0.0, 0.25, 1.0):  # the part of the images' variance that all seeds share
                own = np.sqrt(ratio) * rng.standard_normal((draws, n))
                own += np.sqrt(1 - share) * rng.standard_normal((draws, n))
                mean = own.mean(1) + np.sqrt(share) * rng.standard_normal(draws)
                w = own.var(1, ddof=1) / n
                t, z = stats.t.isf(LEVEL / 2, n - 1), stats.norm.isf(LEVEL / 2)
                freedom = (w + 1) ** 2 / (w**2 / (n - 1) + 1 / 999)
                halves = {
                    "seeds alone": t * np.sqrt(w),
                    "Satterthwaite": stats.t.isf(LEVEL / 2, freedom) * np.sqrt(w + 1),
                    "fewest degrees of freedom": t * np.sqrt(w + 1),
                    "squares added (used)": np.sqrt(t**2 * w + z**2),
                }
                key = f"{n} seeds, own variance {ratio:g} of the images', {share:.0%} of these shared"
                out[key] = {
                    rule: [float((abs(mean) < half).mean()), float(half.mean())]
                    for rule, half in halves.items()
                }
    return out


def families(rng: np.random.Generator, draws: int = 1000) -> dict[str, Any]:
    """Any false word in an entry of five related claims, and the share of false ones among the study's."""
    any_plain = any_holm = 0
    for _ in range(draws):
        common = rng.standard_normal(10)
        values = [(common + rng.standard_normal(10)).tolist() for _ in range(5)]
        p = [2 * min(t.above, t.below) for t in map(mean_test, values)]
        any_plain += min(p) < LEVEL
        any_holm += min(holm(p)) < LEVEL
    false, called = [], 0.0
    for _ in range(draws):
        truth = np.array([0.0] * 33 + [1.2] * 30)
        data = truth[:, None] + rng.standard_normal((63, 10))
        t = stats.ttest_1samp(data, 0, axis=1)
        hit = np.array(benjamini_hochberg(t.pvalue.tolist())) < LEVEL
        false.append((hit & (truth == 0)).sum() / max(hit.sum(), 1))
        called += hit[truth > 0].mean()
    return {
        "any false word, five related claims without effect": {
            "as they are": any_plain / draws,
            "Holm (used)": any_holm / draws,
        },
        "63 claims, 30 with an effect of 1.2 deviations, ten seeds": {
            "false among the called (Benjamini-Hochberg)": float(np.mean(false)),
            "effects called": called / draws,
        },
    }


def correlations(rng: np.random.Generator) -> dict[str, Any]:
    """Two series that fall for reasons of their own, and two that move together: what is called related."""
    out: dict[str, Any] = {}
    for name, related in (("unrelated", 0.0), ("noise related by 0.5", 0.5)):
        for n in SEEDS:
            a, b = rng.standard_normal((2, DRAWS, n, LATE))
            b = related * a + np.sqrt(1 - related**2) * b
            a, b = (y - np.linspace(0, 6, LATE) for y in (a, b))
            out[f"{name}, {n} seeds"] = {
                "levels (as before)": decided(_pearson(a, b)),
                "differences, Fisher's z (used)": decided(np.arctanh(_pearson(np.diff(a), np.diff(b)))),
            }
    return out


def _pearson(a: Array, b: Array) -> Array:
    a, b = (y - y.mean(-1, keepdims=True) for y in (a, b))
    return np.asarray((a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1)))


def detectable(rng: np.random.Generator, draws: int = 1500) -> dict[str, Any]:
    """The power at the effect that is said to be detectable, where it is computed from the true spread."""
    out: dict[str, Any] = {}
    for n in SEEDS:
        for v in (0.0, 0.5):
            said = np.mean(
                [
                    mean_test((w / np.std(w, ddof=1)).tolist(), v).detectable()
                    for w in rng.standard_normal((5, n))
                ]
            )
            values = said + rng.standard_normal((draws, n)) + np.sqrt(v) * rng.standard_normal((draws, 1))
            out[f"{n} seeds, variance of images {v:g} of a seed's"] = {
                "effect": float(said),
                "power": decided(values, v),
            }
    return out


def main() -> None:
    """Simulate, print, write."""
    rng, known = np.random.default_rng(18), stored_noise()
    found = {
        "draws": DRAWS,
        "noise of the stored curves": known,
        "variance over images of the fall of robust accuracy": shared_images(),
        "a fall after the best: share of draws called": selection(rng, known),
        "numbers known at best and last alone: false holds": allowance(rng),
        "coverage for fresh seeds and images, and mean half-width": images(rng),
        "many claims": families(rng),
        "correlations: share of draws called": correlations(rng),
        "detectable effects": detectable(rng),
        "noise from differences over its truth, 15 checks": float(
            np.mean([noise(rng.standard_normal(LATE).tolist()) for _ in range(DRAWS)])
        ),
    }
    text = json_text(found)
    print(text)
    out = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "benchmarks/results/verdict_rules.json"
    out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
