"""Whether a run follows a published curve, and which part of it does not.

    a part agrees if  |run - anchor| <= tolerance + 2 sqrt(p (1 - p) / n_run + q (1 - q) / n_anchor)

The parts are those in which robust overfitting shows: before the first drop of the learning rate, the peak
right after it, between the drops, after the last, the end; then best, last, their gap, and when the best
was. Only a run of the anchor's schedule (as many epochs, the same drops) is compared level by level. Any
other is compared in shape, as in "rises, then falls": it can contradict the anchor, but never confirm it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

from crossclass.core.errors import UserError
from crossclass.paper.published_curves.conditions import Conditions, Row, differing
from crossclass.paper.published_curves.curves import anchor as curve_of, find_anchor
from crossclass.paper.verdict import Word

WINDOW = 0.05  # of a schedule: how long the peak after a drop and the end are
UNMEASURED = "was not measured; finish the run, validate more often (validation.every) or train more epochs"
ACCURACIES = {"test_robust": "robust accuracy", "test_clean": "clean accuracy"}


@dataclass(frozen=True)
class Part:
    """One comparison: a number of the run, the same of the anchor, and whether they agree."""

    name: str
    quantity: str
    agrees: bool | None
    """None: it could not be judged."""
    text: str
    """The comparison as a sentence with its numbers."""
    run: float | None = None
    anchor: float | None = None
    allowed: float | None = None
    """The largest difference that counts as agreement; None where only directions are compared."""


@dataclass(frozen=True)
class Agreement:
    """Whether a run follows an anchor, with every comparison that decides it."""

    anchor: str
    verdict: Word
    where: tuple[str, ...]
    """The comparisons that disagree; if none does, those that could not be judged."""
    parts: tuple[Part, ...]
    notes: tuple[str, ...]
    """Differences in the conditions, which may explain differences in the numbers."""
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
    """Whether the largest value counts, instead of the mean."""


def verify(
    rows: Sequence[Row], name: str, *, tolerance: float | int = 0.02, run: Conditions | None = None
) -> Agreement:
    """Compare the test accuracies of a run with the anchor `name`; pure, nothing is read but the curve.

    `tolerance` is a difference of accuracies in (0, 0.5); `run` holds the conditions of the run (`conditions`
    reads them from the files of its folder). Raises UserError for an unknown name, another tolerance, or rows
    without test accuracies.
    """
    source, run = find_anchor(name), run or Conditions()
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
    published = _Curve(list(curve_of(name)), source.epochs, source.lr_milestones, source.n)
    drops = run.lr_milestones
    if drops is None:
        drops = source.lr_milestones if epochs == source.epochs else ()
    own = _Curve(checked, epochs, drops, run.n)
    notes = [*differing(run, source)]
    same_schedule = epochs == source.epochs and drops == source.lr_milestones
    if not same_schedule:
        notes.insert(
            0, f"not the same schedule, shape only: {_schedule(own)} here, {_schedule(published)} there"
        )
    if checked[-1]["epoch"] < epochs:
        notes.insert(0, f"not finished: epoch {checked[-1]['epoch']} of {epochs}, so the end is not judged")
    parts = tuple(_levels(own, published, tolerance) if same_schedule else _shape(own, published, tolerance))
    verdict, where = _conclude(parts)
    if verdict == "holds" and not same_schedule:  # a shape that agrees confirms nothing
        verdict, where = "undecided", tuple(n for n in notes if n.startswith("not the same schedule"))
    return Agreement(name, verdict, where, parts, tuple(notes), not same_schedule, tolerance)


def _conclude(parts: Sequence[Part]) -> tuple[Word, tuple[str, ...]]:
    against = tuple(p.text for p in parts if p.agrees is False)
    unclear = tuple(p.text for p in parts if p.agrees is None)
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


def _levels(own: _Curve, published: _Curve, tolerance: float) -> Iterator[Part]:
    """Part by part, on the epochs that both have checked."""
    there = {r["epoch"] for r in own.rows} & {r["epoch"] for r in published.rows}
    a, b = (c._replace(rows=[r for r in c.rows if r["epoch"] in there]) for c in (own, published))
    for key, quantity in ACCURACIES.items():
        for phase in _phases(own):
            name = f"{phase.name} (epochs {phase.first} to {phase.last})"
            p, q = (_value(c.rows, key, phase) for c in (a, b))
            if p is None or q is None:
                yield _not_measured(name, quantity)
            else:
                yield _compare_level(name, quantity, p, q, tolerance, a.variance(p) + b.variance(q))
    if not a.rows or a.rows[-1]["epoch"] < own.epochs:
        for name in ("best", "last", "best minus last", "epoch of the best"):
            yield Part(name, "robust accuracy", None, f"{name}: the run is not finished")
        return
    tops, ends = (a.best(), b.best()), (a.rows[-1], b.rows[-1])
    for name, (mine, theirs) in {"best": tops, "last": ends}.items():
        for key, quantity in ACCURACIES.items():
            p, q = float(mine[key]), float(theirs[key])
            yield _compare_level(name, quantity, p, q, tolerance, a.variance(p) + b.variance(q))
    p, q = (top["test_robust"] - end["test_robust"] for top, end in zip(tops, ends, strict=True))
    four = sum(c.variance(r["test_robust"]) for c, *two in zip((a, b), tops, ends, strict=True) for r in two)
    yield _compare_level("best minus last", "robust accuracy", p, q, tolerance, four)
    yield _compare_best_epoch(a, tops[0], tops[1])


def _not_measured(name: str, quantity: str) -> Part:
    return Part(name, quantity, None, f"{name}: {quantity} {UNMEASURED}")


def _compare_level(name: str, quantity: str, p: float, q: float, tolerance: float, variance: float) -> Part:
    allowed = tolerance + 2 * math.sqrt(variance)
    apart = (
        "equal" if abs(p - q) < 5e-4 else f"{100 * abs(p - q):.1f} points {'lower' if p < q else 'higher'}"
    )
    text = f"{name}: {quantity} {_pct(p)}, anchor {_pct(q)}: {apart} ({100 * allowed:.1f} allowed)"
    return Part(name, quantity, abs(p - q) <= allowed, text, p, q, allowed)


def _compare_best_epoch(a: _Curve, top: Row, reference: Row) -> Part:
    """When the best was: within a window, or where the run's own noise cannot tell."""
    name, p, q = "epoch of the best", top["epoch"], reference["epoch"]
    same = next(r["test_robust"] for r in a.rows if r["epoch"] == q)
    unclear = top["test_robust"] - same <= 2 * math.sqrt(a.variance(top["test_robust"]) + a.variance(same))
    text = f"{name}: {p}, anchor {q}, {abs(p - q)} epochs apart ({a.window} allowed)"
    text += "; within noise of the run's best" if unclear and abs(p - q) > a.window else ""
    return Part(name, "epoch", abs(p - q) <= a.window or unclear, text, float(p), float(q), float(a.window))


def _shape(own: _Curve, published: _Curve, tolerance: float) -> Iterator[Part]:
    """From part to part: does it rise, fall or stay, where the anchor does?"""
    curves, sides = (own, published), _matching_phases(own, published)
    for key, quantity in ACCURACIES.items():
        for phases in zip(*map(pairwise, sides), strict=True):
            ends = [[_value(c.rows, key, p) for p in two] for c, two in zip(curves, phases, strict=True)]
            name = f"from {phases[0][0].name} to {phases[0][1].name}"
            yield _compare_direction(name, quantity, curves, ends, tolerance)
    done = own.rows[-1]["epoch"] == own.epochs
    ends = [[c.best()["test_robust"], c.rows[-1]["test_robust"]] if done else [None, None] for c in curves]
    yield _compare_direction("from best to last", "robust accuracy", curves, ends, tolerance)
    p, q = (c.best()["epoch"] / c.epochs for c in curves)
    names = [
        next((f.name for f in side if f.first <= c.best()["epoch"] <= f.last), "the start")
        for side, c in zip(sides, curves, strict=True)
    ]
    text = f"the best lies at {p:.0%} of the schedule ({names[0]}), in the anchor at {q:.0%} ({names[1]})"
    near = abs(p - q) <= WINDOW or names[0] == names[1]
    yield Part("epoch of the best", "share of the schedule", near if done else None, text, p, q)


def _matching_phases(own: _Curve, published: _Curve) -> tuple[list[_Phase], list[_Phase]]:
    """The same phases of both: each by its own drops if they are as many, else the anchor's, by fraction."""
    phases, reference, scale = _phases(own), _phases(published), own.epochs / published.epochs
    if len(own.lr_milestones) == len(published.lr_milestones) and len(phases) == len(reference):
        return phases, reference
    scaled = [
        f._replace(first=math.floor((f.first - 1) * scale) + 1, last=round(f.last * scale)) for f in reference
    ]
    return scaled, reference


def _compare_direction(
    name: str,
    quantity: str,
    curves: Sequence[_Curve],
    ends: Sequence[Sequence[float | None]],
    tolerance: float,
) -> Part:
    ways, changes, texts = list[str](), list[float](), list[str]()
    for curve, (start, end) in zip(curves, ends, strict=True):
        if start is None or end is None:
            return _not_measured(name, quantity)
        change, least = end - start, 2 * math.sqrt(curve.variance(start) + curve.variance(end))
        way = "stays" if abs(change) <= max(least, tolerance) else "rises" if change > 0 else "falls"
        ways.append(way)
        changes.append(change)
        texts.append(f"{way} ({_pct(start)} to {_pct(end)})")
    agrees = True if ways[0] == ways[1] else None if "stays" in ways else False
    text = f"{name}: {quantity} {texts[0]}, in the anchor it {texts[1]}"
    return Part(name, quantity, agrees, text, *changes)


def _pct(value: float) -> str:
    return f"{100 * value:.1f} %"


# An agreement as lines for a terminal, and the two curves for a figure


def table(agreement: Agreement) -> Iterator[str]:
    """The verdict, every comparison, and the conditions that differ."""
    mode = (
        "shape only" if agreement.shape_only else f"tolerance {100 * agreement.tolerance:g} points plus noise"
    )
    yield f"against {agreement.anchor} (published): {agreement.verdict} ({mode})"
    marks = {True: "agrees", False: "DISAGREES", None: "undecided"}
    for part in agreement.parts:
        yield f"  {marks[part.agrees]:10}{part.text}"
    for note in agreement.notes:
        yield f"  note      {note}"
    yield summary(agreement)


def summary(agreement: Agreement) -> str:
    """One sentence: the verdict, and which part of the curve it is about."""
    name, counted = agreement.anchor, len(agreement.parts)
    if agreement.verdict == "holds":
        return f"the run follows {name} in all {counted} comparisons"
    if agreement.verdict == "does not hold":
        return f"the run does not follow {name}: {_names(p for p in agreement.parts if p.agrees is False)}"
    unclear = _names(p for p in agreement.parts if p.agrees is None)
    if not unclear:
        return f"the run has the shape of {name}, but {agreement.where[0]}"
    return f"whether the run follows {name} is undecided: {unclear}"


def _names(parts: Iterator[Part]) -> str:
    return "; ".join(dict.fromkeys(f"{p.name}, {p.quantity}" for p in parts))


def overlay(
    rows: Sequence[Row], name: str, label: str = "this run", run: Conditions | None = None
) -> dict[str, list[Row]]:
    """The rows of the run and of the anchor by label; an anchor of another length is scaled to the run's."""
    epochs = (run.epochs if run else None) or rows[-1]["epoch"]
    scale = epochs / find_anchor(name).epochs
    stretched = [{**row, "epoch": max(1, round(row["epoch"] * scale))} for row in curve_of(name)]
    title = "published" if scale == 1 else f"published, {find_anchor(name).epochs} epochs drawn as {epochs}"
    return {label: list(rows), f"{name} ({title})": list(stretched)}
