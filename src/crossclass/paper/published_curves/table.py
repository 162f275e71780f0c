"""A verdict as lines for a terminal, and the two curves for a figure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crossclass.paper.published_curves.anchors import anchor, known
from crossclass.paper.published_curves.conditions import Conditions
from crossclass.paper.published_curves.verify import Part, Verdict

Row = Mapping[str, Any]


def table(verdict: Verdict) -> Iterator[str]:
    """The verdict, what disagrees, every part, and the conditions that differ."""
    mode = "shape only" if verdict.shape_only else f"tolerance {100 * verdict.tolerance:g} points plus noise"
    yield f"against {verdict.anchor} (published): {verdict.verdict} ({mode})"
    marks = {True: "agrees", False: "DISAGREES", None: "undecided"}
    for part in verdict.parts:
        yield f"  {marks[part.agrees]:10}{part.said}"
    for note in verdict.notes:
        yield f"  note      {note}"
    yield summary(verdict)


def summary(verdict: Verdict) -> str:
    """One sentence: the verdict, and which part of the curve it is about."""
    name, counted = verdict.anchor, len(verdict.parts)
    if verdict.verdict == "holds":
        return f"the run follows {name} in all {counted} comparisons"
    if verdict.verdict == "does not hold":
        return f"the run does not follow {name}: {_names(p for p in verdict.parts if p.agrees is False)}"
    unclear = _names(p for p in verdict.parts if p.agrees is None)
    if not unclear:
        return f"the run has the shape of {name}, but {verdict.where[0]}"
    return f"whether the run follows {name} is undecided: {unclear}"


def _names(parts: Iterator[Part]) -> str:
    return "; ".join(dict.fromkeys(f"{p.name}, {p.what}" for p in parts))


def overlay(
    rows: Sequence[Row], name: str, label: str = "this run", run: Conditions | None = None
) -> dict[str, list[Row]]:
    """The run and the anchor as `plot.curves` takes them; another length is stretched onto the run's."""
    epochs = (run.epochs if run else None) or rows[-1]["epoch"]
    scale = epochs / known(name).epochs
    stretched = [{**row, "epoch": max(1, round(row["epoch"] * scale))} for row in anchor(name)]
    said = "published" if scale == 1 else f"published, {known(name).epochs} epochs drawn as {epochs}"
    return {label: list(rows), f"{name} ({said})": list(stretched)}
