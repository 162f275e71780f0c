"""From the evidence of runs to plain numbers: what each run was like at best, at last, and on the way.

    numbers["runs"][name] = {
        "seeds": [0, 1, 2], "attack": "PGD-20, l_inf 8/255, ...", "n": 1000, "chosen_by": "val",
        "best": {"epoch": [...], "clean": [...], "robust": [...], "cas": [...], "icas": [...], ...},
        "last": {...},                             # the full evaluation, one value per seed
        "checks": {"35 %": {...}, "best": {...}, "last": {...}},    # the per-epoch checks, alike in attack
        "best_minus_last": {"cas": {"value": [...], "low": [...], "high": [...]}, ...},    # over images
        "curves": [{...}, ...],                    # per seed, what was checked by epoch
        "C": {"best": [...], "last": [...]},       # of the first seed
    }

Only numbers of one attack are ever compared: stages on the way with other checks, best with last.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crossclass.analysis.metrics import METRICS
from crossclass.paper.entry import Numbers, RunEvidence

if TYPE_CHECKING:
    from crossclass.analysis.records import EpochRow, Measurement
    from crossclass.paper.evidence import Evidence

Plain = dict[str, Any]


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


def collect(evidence: RunEvidence, shares: Sequence[float] = ()) -> Numbers:
    """The numbers of every run; `shares` are stages within the schedule, in [0, 1] (0.35 is "35 %")."""
    return {"runs": {name: _run(list(each), shares) for name, each in evidence.items()}}


def _run(each: list["Evidence"], shares: Sequence[float]) -> Plain:
    first = each[0]
    stages: dict[str, list[EpochRow]] = {"best": [_row(e, e.best.checkpoint.epoch) for e in each]}
    stages["last"] = [e.checked()[-1] for e in each]
    stages |= {percent(s): [e.at(s) for e in each] for s in shares}
    C: Plain = {"best": first.best.matrix("C"), "last": first.last.matrix("C")}
    C |= {stage: rows[0].C for stage, rows in stages.items() if stage not in C}
    return {
        "seeds": [e.seed for e in each],
        "attack": first.best.attack,
        "check": first.env.get("check"),
        "n": first.best.data.n,
        "data": first.env.get("data"),
        "data_checksums": sorted({str(e.env.get("data_checksum")) for e in each}),
        "chosen_by": first.best.checkpoint.chosen_by,
        "class_names": list(first.env.get("class_names") or ()),
        "best": _measured([e.best for e in each]),
        "last": _measured([e.last for e in each]),
        "checks": {
            stage: {
                key: [getattr(r, column, None) for r in rows] for key, column in checked_columns().items()
            }
            for stage, rows in stages.items()
        },
        "best_minus_last": {m.key: _best_minus_last(each, m.key) for m in METRICS},
        "curves": [{c: [getattr(r, c, None) for r in e.checked()] for c in curve_columns()} for e in each],
        "C": C,
    }


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
