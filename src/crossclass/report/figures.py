"""A figure of a page: the drawing, what it shows in words, and its numbers for whoever takes it away."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crossclass.analysis.records import Matrix
from crossclass.report import plots
from crossclass.report.packed import pack


@dataclass(frozen=True)
class PageFigure:
    """What the macro `figure` draws."""

    drawing: plots.Figure
    title: str
    note: str = ""
    """Under which conditions; it stands below the title and is read aloud."""
    table: Mapping[str, Any] = field(default_factory=dict)
    """The numbers: `columns` and `rows`; `names` and a `packed` matrix; or `of` one matrix that stands
    elsewhere on the page, or the difference of two: the id of its data and its place in them."""
    narrow: plots.Figure | None = None
    """The same for a narrow window."""
    pictures: bool = False
    """Whether it shows images, whose colours stay in dark mode."""
    id: str = ""
    """By which other figures refer to its numbers."""

    @property
    def name(self) -> str:
        """The name of its files, without an ending."""
        return re.sub(r"[^\w.-]+", "-", self.title).strip("-.")[:80].lower() or "figure"


def rows(columns: Sequence[str], values: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """The numbers of a figure as a table."""
    return {"columns": list(columns), "rows": [list(row) for row in values]}


def matrix(
    C: Matrix,
    names: Sequence[str],
    title: str,
    note: str = "",
    drawing: plots.Figure | None = None,
    digits: int | None = None,
    id: str = "",
    of: Sequence[tuple[str, int]] = (),
) -> PageFigure:
    """A class-by-class matrix with its numbers.

    Args:
        C: The entries [K, K].
        names: The K classes.
        title: Above the figure.
        note: Below the title.
        drawing: Where it is not drawn from 0 to 1, as counts.
        digits: As `pack` takes it.
        id: By which other figures refer to its numbers.
        of: Where its numbers stand on the page already; two are subtracted.
    """
    table = {"of": of} if of else {"names": list(names), "packed": pack([C], digits)}
    return PageFigure(drawing or plots.matrix(C, names), title, note, table, id=id)
