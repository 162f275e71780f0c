"""From the evidence of runs to plain numbers: what each run was like at best, at last, and on the way.

    numbers["not_counted"] = [0]                   # seeds that settings were chosen on: shown, not judged
    numbers["runs"][name] = {
        "seeds": [0, 1, 2], "shown": 1, "attack": "PGD-20, l_inf 8/255, ...", "n": 1000, "chosen_by": "val",
        "best": {"epoch": [...], "clean": [...], "robust": [...], "cas": [...], "icas": [...], ...},
        "last": {...},                             # the full evaluation, one value per seed
        "images": {"best": {"cas": ...}, ...},     # the variance of these over test images, mean of the seeds
        "checks": {"35 %": {...}, "best": {...}, "last": {...}},    # the per-epoch checks, alike in attack
        "on_the_way": {"35 %": {"cas": [...], "robust": [...]}},    # mean of validation and test images
        "beside_best": {"cas": [...]},             # mean of the checks before and after the best one
        "late": {"fall": {"cas": [...], ...}, ...},    # the checks after the first drop of the learning rate
        "best_minus_last": {"cas": {"value": [...], "low": [...], "high": [...]}, ...},    # over images
        "curves": [{...}, ...],                    # per seed, what was checked by epoch on test images
        "checked": [{...}, ...],                   # the same, mean of validation and test images
        "C": {"best": [...], "last": [...]},       # of the seed that is shown, the first one that counts
    }

Only numbers of one attack are ever compared: stages on the way with other checks, best with last.
"""

from collections.abc import Sequence
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, Any

from crossclass.analysis.metrics import METRICS
from crossclass.paper.entry import NOT_COUNTED, Numbers, RunEvidence, Size
from crossclass.paper.inference import LEVEL, fall, noise

if TYPE_CHECKING:
    from crossclass.analysis.records import EpochRow, Measurement
    from crossclass.paper.evidence import Evidence

Plain = dict[str, Any]
HALVES = {
    "robust": ("val_robust", "test_robust"),
    "cas": ("val_cas", "cas"),
    "train_robust": ("train_robust",),
}
"""The columns of metrics.csv with one number on validation and on test images, where both are checked."""


def percent(share: float) -> str:
    """The name of a stage within the schedule: 0.35 is "35 %"."""
    return f"{100 * share:g} %"


def checked_columns() -> dict[str, str]:
    """The numbers of the checks of test images after every epoch, with their columns in metrics.csv."""
    columns = {m.key: m.column("test") for m in METRICS if "test" in m.per_epoch}
    return {"epoch": "epoch", **columns, "train_robust": "train_robust"}


def curve_columns() -> list[str]:
    """What is collected of every checked epoch, for curves."""
    return ["epoch", "train_robust", *(m.column("test") for m in METRICS if m.headline and m.per_epoch)]


def shown(seeds: Sequence[int], size: Size) -> int:
    """The index of the seed whose pictures are shown: the first one that counts, else the first."""
    return next((i for i, seed in enumerate(seeds) if seed not in NOT_COUNTED[size]), 0)


def collect(evidence: RunEvidence, size: Size, shares: Sequence[float] = ()) -> Numbers:
    """The numbers of every run; `shares` are stages within the schedule, in [0, 1] (0.35 is "35 %")."""
    runs = {name: _run(list(each), size, shares) for name, each in evidence.items()}
    return {"not_counted": list(NOT_COUNTED[size]), "runs": runs}


def _run(each: list["Evidence"], size: Size, shares: Sequence[float]) -> Plain:
    at = shown([e.seed for e in each], size)
    first = each[at]
    stages: dict[str, list[EpochRow]] = {"best": [_row(e, e.best.checkpoint.epoch) for e in each]}
    stages["last"] = [e.checked()[-1] for e in each]
    on_the_way = {percent(s): [e.at(s) for e in each] for s in shares}
    stages |= on_the_way
    C: Plain = {"best": first.best.matrix("C"), "last": first.last.matrix("C")}
    C |= {stage: rows[at].C for stage, rows in stages.items() if stage not in C}
    return {
        "seeds": [e.seed for e in each],
        "shown": at,
        "attack": first.best.attack,
        "check": first.env.get("check"),
        "n": first.best.data.n,
        "data": first.env.get("data"),
        "data_checksums": sorted({str(e.env.get("data_checksum")) for e in each}),
        "chosen_by": first.best.checkpoint.chosen_by,
        "class_names": list(first.env.get("class_names") or ()),
        "best": _measured([e.best for e in each]),
        "last": _measured([e.last for e in each]),
        "images": {
            "best": _over_images([e.best for e in each]),
            "last": _over_images([e.last for e in each]),
        },
        "checks": {
            stage: {
                key: [getattr(r, column, None) for r in rows] for key, column in checked_columns().items()
            }
            for stage, rows in stages.items()
        },
        "on_the_way": {
            stage: {key: [_halves(r, key) for r in rows] for key in HALVES}
            for stage, rows in on_the_way.items()
        },
        "beside_best": {key: [_beside_best(e, key) for e in each] for key in ("robust", "cas")},
        "late": _late(each),
        "best_minus_last": {m.key: _best_minus_last(each, m.key) for m in METRICS},
        "checked": [
            {"epoch": [r.epoch for r in e.checked()]}
            | {key: [_halves(r, key) for r in e.checked()] for key in ("robust", "cas")}
            for e in each
        ],
        "curves": [{c: [getattr(r, c, None) for r in e.checked()] for c in curve_columns()} for e in each],
        "C": C,
    }


def _halves(row: "EpochRow", key: str) -> float | None:
    """The mean of a number over validation and test images, or what there is of them."""
    known = [v for column in HALVES[key] if (v := getattr(row, column, None)) is not None]
    return fmean(known) if known else None


def _beside_best(e: "Evidence", key: str) -> float | None:
    """The mean of the checks just before and after the best one, which itself was chosen for being high."""
    rows = e.checked()
    best = next((i for i, r in enumerate(rows) if r.epoch == e.best.checkpoint.epoch), None)
    if best is None:
        return None
    beside = rows[max(0, best - 1) : best] + rows[best + 1 : best + 2]
    known = [v for r in beside if (v := _halves(r, key)) is not None]
    return fmean(known) if known else None


def _late(each: Sequence["Evidence"]) -> Plain:
    """Fall, noise and mean of the checks after the first drop of the learning rate; None for too few."""
    fallen: Plain = {key: [] for key in HALVES}
    noises, means = [], []
    for e in each:
        for key in HALVES:
            known = [(r.epoch, v) for r in e.late() if (v := _halves(r, key)) is not None]
            x, y = [epoch for epoch, _ in known], [v for _, v in known]
            fallen[key].append(fall(x, y) if len(y) > 2 else None)
            if key == "cas":
                noises.append(noise(y) if len(y) > 2 else None)
                means.append(fmean(y) if y else None)
    return {
        "epochs": [[r.epoch for r in e.late()] for e in each],
        "checks_in_all": [len(e.checked()) for e in each],
        "fall": fallen,
        "noise": {"cas": noises},
        "mean": {"cas": means},
    }


def _over_images(each: Sequence["Measurement"]) -> Plain:
    """The variance over test images of every metric with an interval, mean of the seeds that have one."""
    out: Plain = {}
    for m in METRICS:
        ends = [e for one in each if one.intervals is not None and (e := one.intervals.ends(m.key))]
        known = [(high - low) ** 2 for low, high in ends if low is not None and high is not None]
        if known:
            out[m.key] = fmean(known) / (2 * NormalDist().inv_cdf(1 - LEVEL / 2)) ** 2
    return out


def _row(e: "Evidence", epoch: int | None) -> "EpochRow":
    return next(r for r in e.rows if r.epoch == epoch)


def _measured(each: Sequence["Measurement"]) -> Plain:
    """The epoch and every metric of a checkpoint, one value per seed."""
    return {
        "epoch": [m.checkpoint.epoch for m in each],
        **{metric.key: [m.metrics.get(metric.key) for m in each] for metric in METRICS},
    }


def _best_minus_last(each: Sequence["Evidence"], key: str) -> Plain:
    """The difference per seed, with the interval over test images."""
    out: dict[str, list[float | None]] = {"value": [], "low": [], "high": []}
    for e in each:
        c, ends = e.comparison, None
        if c is not None and c.intervals is not None:
            ends = c.intervals.ends(f"d_{key}")
        low, high = ends or (None, None)
        out["value"].append(0.0 if c is None else c.metrics.get(f"d_{key}"))  # one checkpoint: best is last
        out["low"].append(low)
        out["high"].append(high)
    return out
