"""Whether a run follows a published curve, and which part of it does not.

    a part agrees if  |run - anchor| <= tolerance + 2 sqrt(p (1 - p) / n_run + q (1 - q) / n_anchor)

The parts are those in which robust overfitting shows: before the first drop of the learning rate, the peak
right after it, between the drops, after the last, the end; then best, last, their gap, and when the best
was. Only a run of the anchor's schedule (as many epochs, the same drops) is compared level by level. Any
other is compared in shape, as in "rises, then falls": it can contradict the anchor, but never confirm it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any, NamedTuple

from crossclass.core.errors import UserError
from crossclass.paper.published_curves.anchors import anchor as curve_of
from crossclass.paper.published_curves.anchors import known
from crossclass.paper.published_curves.conditions import Conditions, differing
from crossclass.paper.verdict import Word

Row = Mapping[str, Any]

WINDOW = 0.05  # of a schedule: how long the peak after a drop and the end are
ACCURACIES = {"test_robust": "robust accuracy", "test_clean": "clean accuracy"}


@dataclass(frozen=True)
class Part:
    """One comparison: a number of the run, the same of the anchor, and whether they agree."""

    name: str
    what: str
    run: float | None
    anchor: float | None
    allowed: float | None
    """The largest difference that counts as agreement; None where only directions are compared."""
    agrees: bool | None
    """None: it could not be judged."""
    said: str
    """The comparison in plain numbers."""


@dataclass(frozen=True)
class Verdict:
    """Whether a run follows an anchor, with every comparison behind it."""

    anchor: str
    verdict: Word
    where: tuple[str, ...]
    """The parts that disagree; if none does, those that could not be judged."""
    parts: tuple[Part, ...]
    notes: tuple[str, ...]
    """What differs in the conditions: the numbers are to be read beside it."""
    shape_only: bool
    tolerance: float


class _Curve(NamedTuple):
    """One side of the comparison."""

    rows: list[Row]
    """Its checked epochs."""
    epochs: int
    lr_milestones: tuple[int, ...]
    n: int | None

    def variance(self, p: float) -> float:
        """Of an accuracy, binomial; zero where n is unknown."""
        return p * (1 - p) / self.n if self.n else 0.0

    def best(self) -> Row:
        """As the anchors chose it: the first with the largest accuracy on test images."""
        return max(self.rows, key=lambda r: r["test_robust"])

    @property
    def window(self) -> int:
        """In epochs."""
        return max(1, round(WINDOW * self.epochs))


class _Phase(NamedTuple):
    name: str
    first: int
    last: int
    peak: bool = False
    """Judged by its largest value instead of its mean."""


def verify(
    rows: Sequence[Row], name: str, *, tolerance: float | int = 0.02, run: Conditions | None = None
) -> Verdict:
    """Compare the test accuracies of a run with the anchor `name`; pure, nothing is read but the curve.

    `run` says what the run was (`conditions` reads it off a run folder's files). Raises UserError for an
    unknown name, a tolerance that is no fraction, or rows without test accuracies.
    """
    source, run = known(name), run or Conditions()
    if not 0 < tolerance < 0.5:
        raise UserError(
            f"tolerance={tolerance:g} must be a fraction in (0, 0.5), such as 0.02 for two points"
        )
    checked = [r for r in rows if r.get("test_robust") is not None and r.get("test_clean") is not None]
    if not checked:
        raise UserError(
            "the run has no epoch with test_clean and test_robust, so there is nothing to compare"
        )
    epochs = run.epochs or rows[-1]["epoch"]
    theirs = _Curve(list(curve_of(name)), source.epochs, source.lr_milestones, source.n)
    drops = run.lr_milestones
    if drops is None:
        drops = source.lr_milestones if epochs == source.epochs else ()
    ours = _Curve(checked, epochs, drops, run.n)
    notes = [*differing(run, source)]
    alike = epochs == source.epochs and drops == source.lr_milestones
    if not alike:
        notes.insert(
            0, f"not the same schedule, shape only: {_schedule(ours)} here, {_schedule(theirs)} there"
        )
    if checked[-1]["epoch"] < epochs:
        notes.insert(0, f"not finished: epoch {checked[-1]['epoch']} of {epochs}, so the end is not judged")
    parts = tuple(_levels(ours, theirs, tolerance) if alike else _shape(ours, theirs, tolerance))
    word, where = _said(parts)
    if word == "holds" and not alike:  # the shape agrees, and that is all that can be said
        word, where = "undecided", tuple(n for n in notes if n.startswith("not the same schedule"))
    return Verdict(name, word, where, parts, tuple(notes), not alike, tolerance)


def _said(parts: Sequence[Part]) -> tuple[Word, tuple[str, ...]]:
    against = tuple(p.said for p in parts if p.agrees is False)
    unclear = tuple(p.said for p in parts if p.agrees is None)
    return ("does not hold", against) if against else ("undecided", unclear) if unclear else ("holds", ())


def _schedule(curve: _Curve) -> str:
    drops = ", ".join(map(str, curve.lr_milestones))
    return f"{curve.epochs} epochs, " + (f"drops after {drops}" if drops else "no drops")


def _phases(curve: _Curve) -> list[_Phase]:
    """The schedule in parts, first and last epoch included; quarters where there are no drops.

    The first twentieth is left out: a single epoch there moves by more than two runs differ later.
    """
    T, w, drops = curve.epochs, curve.window, curve.lr_milestones
    if not drops:
        edges = [w, T // 4, T // 2, 3 * T // 4, T - w]
        names = ("first quarter", "second quarter", "third quarter", "fourth quarter")
        phases = [_Phase(n, a + 1, b) for n, (a, b) in zip(names, pairwise(edges), strict=True)]
    else:
        top = drops[0] + w
        phases = [_Phase("before the first drop", w + 1, drops[0])]
        phases += [_Phase("peak after the first drop", drops[0] + 1, top, peak=True)]
        phases += [_Phase("between the drops", top + 1, drops[-1])] if len(drops) > 1 else []
        phases += [_Phase("after the last drop", max(top, drops[-1]) + 1, T - w)]
    phases.append(_Phase("end", T - w + 1, T))
    return [p for p in phases if p.first <= p.last]


def _value(rows: Sequence[Row], key: str, phase: _Phase) -> float | None:
    values = [float(r[key]) for r in rows if phase.first <= r["epoch"] <= phase.last]
    return None if not values else max(values) if phase.peak else fmean(values)


def _levels(ours: _Curve, theirs: _Curve, tolerance: float) -> Iterator[Part]:
    """Part by part, on the epochs that both have checked."""
    there = {r["epoch"] for r in ours.rows} & {r["epoch"] for r in theirs.rows}
    a, b = (c._replace(rows=[r for r in c.rows if r["epoch"] in there]) for c in (ours, theirs))

    def level(place: str, what: str, p: float | None, q: float | None) -> Part:
        if p is None or q is None:
            return Part(place, what, p, q, None, None, f"{place}: {what} was not measured")
        allowed = tolerance + 2 * math.sqrt(a.variance(p) + b.variance(q))
        return _judged(place, what, p, q, allowed)

    for key, what in ACCURACIES.items():
        for phase in _phases(ours):
            place = f"{phase.name} (epochs {phase.first} to {phase.last})"
            yield level(place, what, _value(a.rows, key, phase), _value(b.rows, key, phase))
    if not a.rows or a.rows[-1]["epoch"] < ours.epochs:
        for what in ("best", "last", "best minus last", "epoch of the best"):
            yield Part(what, "robust accuracy", None, None, None, None, f"{what}: the run has not got there")
        return
    tops, ends = (a.best(), b.best()), (a.rows[-1], b.rows[-1])
    for place, (mine, its) in {"best": tops, "last": ends}.items():
        for key, what in ACCURACIES.items():
            yield level(place, what, float(mine[key]), float(its[key]))
    p, q = (top["test_robust"] - end["test_robust"] for top, end in zip(tops, ends, strict=True))
    four = (
        c.variance(r["test_robust"])
        for c, pair in zip((a, b), zip(tops, ends, strict=True), strict=True)
        for r in pair
    )
    yield _judged("best minus last", "robust accuracy", p, q, tolerance + 2 * math.sqrt(sum(four)))
    yield _place(a, tops[0], tops[1])


def _place(a: _Curve, top: Row, its: Row) -> Part:
    """When the best was: within a window, or where the run's own noise cannot tell."""
    name, p, q = "epoch of the best", top["epoch"], its["epoch"]
    same = next(r["test_robust"] for r in a.rows if r["epoch"] == q)
    unclear = top["test_robust"] - same <= 2 * math.sqrt(a.variance(top["test_robust"]) + a.variance(same))
    said = f"{name}: {p}, anchor {q}, {abs(p - q)} epochs apart ({a.window} allowed)"
    said += "; within noise of the run's best" if unclear and abs(p - q) > a.window else ""
    return Part(name, "epoch", float(p), float(q), float(a.window), abs(p - q) <= a.window or unclear, said)


def _shape(ours: _Curve, theirs: _Curve, tolerance: float) -> Iterator[Part]:
    """From part to part: does it rise, fall or stay, where the anchor does?"""
    sides = _alike(ours, theirs)
    for key, what in ACCURACIES.items():
        for (a1, b1), (a2, b2) in pairwise(zip(*sides, strict=True)):
            mine = [_value(ours.rows, key, phase) for phase in (a1, a2)]
            its = [_value(theirs.rows, key, phase) for phase in (b1, b2)]
            yield _moved(f"from {a1.name} to {a2.name}", what, (ours, mine), (theirs, its), tolerance)
    done = ours.rows[-1]["epoch"] == ours.epochs
    mine = [float(r["test_robust"]) if done else None for r in (ours.best(), ours.rows[-1])]
    its = [float(r["test_robust"]) for r in (theirs.best(), theirs.rows[-1])]
    yield _moved("from best to last", "robust accuracy", (ours, mine), (theirs, its), tolerance)
    p, q = (c.best()["epoch"] / c.epochs for c in (ours, theirs))
    names = [
        next((f.name for f in side if f.first <= c.best()["epoch"] <= f.last), "the start")
        for side, c in zip(sides, (ours, theirs), strict=True)
    ]
    said = f"the best lies at {p:.0%} of the schedule ({names[0]}), in the anchor at {q:.0%} ({names[1]})"
    near = abs(p - q) <= WINDOW or names[0] == names[1]
    yield Part("epoch of the best", "share of the schedule", p, q, None, near if done else None, said)


def _alike(ours: _Curve, theirs: _Curve) -> tuple[list[_Phase], list[_Phase]]:
    """The same parts of both: each by its own drops if they are as many, else the anchor's, by fraction."""
    its, scale = _phases(theirs), ours.epochs / theirs.epochs
    if len(ours.lr_milestones) == len(theirs.lr_milestones) and len(mine := _phases(ours)) == len(its):
        return mine, its
    scaled = [
        f._replace(first=math.floor((f.first - 1) * scale) + 1, last=round(f.last * scale)) for f in its
    ]
    return scaled, its


def _moved(
    place: str,
    what: str,
    mine: tuple[_Curve, Sequence[float | None]],
    its: tuple[_Curve, Sequence[float | None]],
    tolerance: float,
) -> Part:
    ways: list[str] = []
    changes: list[float] = []
    texts: list[str] = []
    for curve, (start, end) in (mine, its):
        if start is None or end is None:
            return Part(place, what, None, None, None, None, f"{place}: {what} was not measured")
        change, least = end - start, 2 * math.sqrt(curve.variance(start) + curve.variance(end))
        way = "stays" if abs(change) <= max(least, tolerance) else "rises" if change > 0 else "falls"
        ways.append(way)
        changes.append(change)
        texts.append(f"{way} ({_pct(start)} to {_pct(end)})")
    agrees = True if ways[0] == ways[1] else None if "stays" in ways else False
    said = f"{place}: {what} {texts[0]}, in the anchor it {texts[1]}"
    return Part(place, what, changes[0], changes[1], None, agrees, said)


def _judged(place: str, what: str, p: float, q: float, allowed: float) -> Part:
    apart = (
        "equal" if abs(p - q) < 5e-4 else f"{100 * abs(p - q):.1f} points {'lower' if p < q else 'higher'}"
    )
    said = f"{place}: {what} {_pct(p)}, anchor {_pct(q)}: {apart} ({100 * allowed:.1f} allowed)"
    return Part(place, what, p, q, allowed, abs(p - q) <= allowed, said)


def _pct(value: float) -> str:
    return f"{100 * value:.1f} %"
