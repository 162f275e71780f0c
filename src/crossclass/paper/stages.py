"""From the evidence of runs to plain numbers: what each run was like at best, at last, and on the way.

    numbers["runs"][name] = {
        "seeds": [0, 1, 2], "attack": "PGD-20, l_inf 8/255, ...", "n": 1000, "chosen_by": "val",
        "best": {"epoch": [...], "clean": [...], "robust": [...], "cas": [...], "icas": [...], ...},
        "last": {...},                             # the full evaluation, one value per seed
        "checks": {"35 %": {...}, "best": {...}, "last": {...}},    # the per-epoch checks, alike in attack
        "fall": {"cas": {"value": [...], "low": [...], "high": [...]}, ...},    # best minus last, over images
        "curves": {...},                           # per seed, what was checked by epoch
        "C": {"best": [...], "last": [...]},       # of the first seed
    }

Only numbers of one attack are ever compared: stages on the way with other checks, best with last.
"""

from collections.abc import Callable, Sequence
from typing import Any

from crossclass.paper.claims import Gain, Numbers
from crossclass.paper.entry import Found, Size
from crossclass.paper.evidence import Evidence

Plain = dict[str, Any]

MEASURED = ("epoch", "clean", "robust", "cas", "cas_normalised", "icas", "all_pairs_cas", "negative_mass")
CHECKED = {"epoch": "epoch", "clean": "test_clean", "robust": "test_robust", "cas": "cas"}
CHECKED |= {"negative_mass": "negative_mass", "train_robust": "train_robust"}
CURVES = ("epoch", "train_robust", "test_robust", "test_clean", "cas")
SAYS = {"cas": "CAS", "icas": "I-CAS", "robust": "robust accuracy", "clean": "clean accuracy"}
SAYS |= {"all_pairs_cas": "all pairs"}
"""What a number is called, in claims and on axes."""


def collect(found: Found, shares: Sequence[float] = ()) -> Numbers:
    """The numbers of every run; `shares` of the schedule are looked at on the way (0.35 is "35 %")."""
    return {"runs": {name: _run(list(each), shares) for name, each in found.items()}}


def collected(*shares: float) -> Callable[[Found, Size], Numbers]:
    """`collect` as what an entry measures; its numbers are those of its runs at any size."""
    return lambda found, size: collect(found, shares)


def _run(each: list[Evidence], shares: Sequence[float]) -> Plain:
    first = each[0]
    stages: dict[str, list[Plain]] = {"best": [_row(e, e.best["epoch"]) for e in each]}
    stages["last"] = [e.checked()[-1] for e in each]
    stages |= {percent(s): [e.at(s) for e in each] for s in shares}
    kept = {"best": first.best, "last": first.last, **{k: v[0] for k, v in stages.items() if "%" in k}}
    return {
        "seeds": [e.seed for e in each],
        "attack": first.best["attack"],
        "check": first.env.get("check"),
        "n": first.best["n"],
        "data": first.env.get("data"),
        "data_checksums": sorted({str(e.env.get("data_checksum")) for e in each}),
        "chosen_by": first.best.get("chosen_by"),
        "class_names": list(first.env.get("class_names") or ()),
        "best": {k: [e.best.get(k) for e in each] for k in MEASURED},
        "last": {k: [e.last.get(k) for e in each] for k in MEASURED},
        "checks": {
            s: {k: [r.get(c) for r in rows] for k, c in CHECKED.items()} for s, rows in stages.items()
        },
        "fall": {k: _fall(each, k) for k in ("clean", "robust", "cas", "icas")},
        "curves": [{k: [r.get(k) for r in e.checked()] for k in CURVES} for e in each],
        "C": {name: row.get("C") for name, row in kept.items()},
    }


def _row(e: Evidence, epoch: int) -> Plain:
    return next(r for r in e.rows if r["epoch"] == epoch)


def percent(share: float) -> str:
    """The name of a stage on the way."""
    return f"{100 * share:g} %"


def _fall(each: Sequence[Evidence], key: str) -> Plain:
    """Best minus last per seed, with the interval over test images."""
    out: dict[str, list[float | None]] = {"value": [], "low": [], "high": []}
    for e in each:
        c = e.comparison
        ends = (c or {}).get("intervals", {}).get(f"d_{key}") or (None, None)
        out["value"].append(0.0 if c is None else c[f"d_{key}"])  # one checkpoint: best is last
        out["low"].append(ends[0])
        out["high"].append(ends[1])
    return out


def fall(numbers: Numbers, run: str, key: str) -> Gain:
    """Best minus last of a run: `cas`, `icas`, `robust` or `clean`."""
    found = numbers["runs"][run]["fall"][key]
    ends = (found["low"][0], found["high"][0])
    over_images = None if None in ends else ends
    return Gain(f"{SAYS[key]}, best minus last", tuple(found["value"]), over_images)


def values(numbers: Numbers, run: str, stage: str, key: str, *, checks: bool = False) -> tuple[float, ...]:
    """One number per seed at a stage; from the per-epoch checks if asked, or if it is on the way."""
    found = numbers["runs"][run]
    part = found["checks"] if checks or "%" in stage else found
    return tuple(part[stage][key])


def difference(name: str, a: Sequence[float], b: Sequence[float]) -> Gain:
    """a minus b, seed by seed."""
    return Gain(name, tuple(x - y for x, y in zip(a, b, strict=True)))


def lost(numbers: Numbers, key: str, a: str, b: str) -> Gain:
    """What run a loses from best to last, minus what run b does."""
    ends = (fall(numbers, run, key).values for run in (a, b))
    return difference(f"{SAYS[key]} lost, {a} minus {b}", *ends)


def ahead(numbers: Numbers, key: str, stage: str, a: str, b: str) -> Gain:
    """What run a has at a stage, minus what run b has."""
    ends = (values(numbers, run, stage, key) for run in (a, b))
    return difference(f"{SAYS[key]} at {stage}, {a} minus {b}", *ends)


def slope(name: str, x: Sequence[float], ys: Sequence[Sequence[float]]) -> Gain:
    """The least-squares slope of y over x, seed by seed; `ys` holds one sequence over seeds per x."""
    middle = sum(x) / len(x)
    across = sum((v - middle) ** 2 for v in x)
    each = zip(*ys, strict=True)
    return Gain(
        name, tuple(sum((v - middle) * y for v, y in zip(x, seed, strict=True)) / across for seed in each)
    )
