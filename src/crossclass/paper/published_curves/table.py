"""An agreement as lines for a terminal, and the two curves for a figure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crossclass.paper.published_curves.conditions import Conditions
from crossclass.paper.published_curves.curves import anchor, known
from crossclass.paper.published_curves.verify import Agreement, Part

Row = Mapping[str, Any]


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
    scale = epochs / known(name).epochs
    stretched = [{**row, "epoch": max(1, round(row["epoch"] * scale))} for row in anchor(name)]
    title = "published" if scale == 1 else f"published, {known(name).epochs} epochs drawn as {epochs}"
    return {label: list(rows), f"{name} ({title})": list(stretched)}
