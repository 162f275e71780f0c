"""Class-by-class matrices: C, I-CAS, confusion, differences of two, and grids of many on one scale."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure

from crossclass.report.plots.style import BARE, NAMED, Matrix, Style, styled

MISSING = "#d4d4d8"
"""Colour of entries that are None."""
RAW = 300
"""Up to so many classes a drawing holds a pixel for each entry, else as many as it has room for."""


def matrix(
    C: Matrix,
    class_names: Sequence[str],
    vmin: float | int = 0,
    vmax: float | int = 1,
    cmap: str = "Blues",
    *,
    xlabel: str = "",
    ylabel: str = "",
    numbers: bool = False,
) -> Figure:
    """One K x K matrix with its class names and colour scale; entries that are None are grey, negative red.

    `numbers` writes the entries into the cells, for at most 12 classes.
    """
    values = _masked(C)
    K = len(values)
    with styled(BARE):
        foot = (0.9 if K <= NAMED else 0.25) + 0.2 * bool(xlabel)  # room for names
        height = foot + 2.4
        frame = foot / height, 2.25 / height
        figure = Figure(figsize=(3.8, height))
        ax = figure.add_axes((0.255, frame[0], 2.25 / 3.8, frame[1]))
        image = draw_matrix(ax, values, class_names, vmin, vmax, cmap, min(8.5, 110 / K))
        if numbers and K <= 12:
            write_numbers(ax, values, vmax, 0, 6)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        bar = figure.add_axes((0.87, frame[0], 0.025, frame[1]))
        _colour_bar(figure, image, bar)
    return figure


def draw_matrix(
    ax: Axes,
    values: "np.ma.MaskedArray[Any, Any]",
    class_names: Sequence[str],
    vmin: float | int,
    vmax: float | int,
    cmap: str,
    size: float,
) -> Any:
    """Draw a matrix into axes, with class names of this size in points up to `NAMED` classes.

    Entries that are masked are grey. Returns what a colour bar needs.
    """
    K = len(values)
    lowest, colors = _scale([values], vmin, vmax, cmap)
    scale: Style = {"cmap": colors, "vmin": lowest, "vmax": vmax}
    image: Any
    if K <= NAMED:
        image = ax.pcolormesh(values, edgecolors="white", linewidth=0.4, **scale)
        ax.invert_yaxis()
        short = [n if len(n) <= 13 else n[:12] + "…" for n in map(str, class_names)][:K]
        middle = [i + 0.5 for i in range(len(short))]
        ax.set_xticks(middle, short, rotation=90, fontsize=size)
        ax.set_yticks(middle, short, fontsize=size)
    else:
        image = ax.imshow(values, interpolation="none" if K <= RAW else "nearest", aspect="auto", **scale)
    ax.tick_params(length=0)
    return image


def _masked(C: Matrix) -> "np.ma.MaskedArray[Any, Any]":
    return np.ma.masked_invalid(np.array(C, dtype=float))


def _scale(
    matrices: Iterable["np.ma.MaskedArray[Any, Any]"], vmin: float | int, vmax: float | int, cmap: str
) -> tuple[float | int, Colormap]:
    """The lower end and the colours of a scale on which a negative entry does not look like 0.

    A scale that begins at 0 goes down to the smallest entry, in red: -0.2 is as dark as 0.2.
    """
    colors = mpl.colormaps[cmap]
    smallest = min((float(values.min()) for values in matrices if values.count()), default=0.0)
    if vmin == 0 and smallest < -0.005 * vmax:
        vmin = -vmax * min(10, math.ceil(-10 * smallest / vmax)) / 10
        at = np.linspace(vmin, vmax, 1024) / vmax
        below = mpl.colormaps["Reds"](-at)
        colors = ListedColormap(np.where(at[:, None] < 0, below, colors(at)), f"{cmap} and Reds")
    return vmin, colors.with_extremes(bad=MISSING)


def write_numbers(
    ax: Axes, values: "np.ma.MaskedArray[Any, Any]", vmax: float | int, digits: int, size: float | int
) -> None:
    """Write the entries of a matrix into its cells, dark on light and light on dark."""
    for (i, j), value in np.ma.ndenumerate(values):
        ink = "white" if abs(value) > 0.55 * vmax else "#27272a"
        text = f"{value:.{digits}f}"
        ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", size=size, color=ink)


def _colour_bar(figure: Figure, image: Any, ax: Axes) -> None:
    figure.colorbar(image, cax=ax).outline.set_visible(False)
    ax.tick_params(labelsize=7.5, length=2)
    ax.locator_params(axis="y", nbins=5)


def confusion(counts: Matrix, class_names: Sequence[str], *, attacked: bool = True) -> Figure:
    """Counts of images: a row for each true class, a column for each predicted one."""
    values = np.array(counts, dtype=float)
    top = float(values[np.isfinite(values)].max(initial=1))
    predicted = "predicted under attack" if attacked else "predicted"
    return matrix(counts, class_names, vmax=top, xlabel=predicted, ylabel="true", numbers=True)


def subtract(A: Matrix, B: Matrix) -> list[list[float | None]]:
    """A - B entry by entry; None where either is None."""
    rows = [list(zip(a, b, strict=True)) for a, b in zip(A, B, strict=True)]
    return [[None if None in (a, b) else a - b for a, b in row] for row in rows]


def difference(D: Matrix, class_names: Sequence[str]) -> Figure:
    """A difference of two matrices: white at 0, blue where the first is larger, red where the second is."""
    values = np.array(D, dtype=float)
    limit = float(np.ceil(10 * np.abs(values[np.isfinite(values)]).max(initial=0.1)) / 10)
    return matrix(D, class_names, -limit, limit, "RdBu")


def matrix_grid(
    rows: Mapping[str, Mapping[str, Matrix | None]],
    vmin: float | int = 0,
    vmax: float | int = 1,
    cmap: str = "Blues",
    *,
    columns: int | None = None,
) -> Figure:
    """Matrices on one colour scale: a row for each name, a column for each caption.

    `rows[name][caption]` is a matrix; None leaves its position empty. A row is wrapped after `columns`.
    """
    lines: list[tuple[str, list[tuple[str, Matrix | None]]]] = []
    for name, pictures in rows.items():
        each, width = list(pictures.items()), columns or len(pictures) or 1
        pieces = [each[i : i + width] for i in range(0, len(each), width)] or [[]]
        lines += [(name if i == 0 else "", piece) for i, piece in enumerate(pieces)]
    across = max((len(piece) for _, piece in lines), default=1) or 1
    side, head = 1.75, 0.42
    left = 0.3 if any(name for name, _ in lines) else 0.08
    size = left + across * (side + 0.12) + 0.62, max(1, len(lines)) * (side + head) + 0.08
    there = [_masked(C) for _, piece in lines for _, C in piece if C is not None]
    lowest, colors = _scale(there, vmin, vmax, cmap)
    with styled(BARE):
        figure, image = Figure(figsize=size), None
        for r, (name, piece) in enumerate(lines):
            bottom = size[1] - (r + 1) * (side + head)
            for c, (caption, C) in enumerate(piece):
                box = (left + c * (side + 0.12)) / size[0], bottom / size[1], side / size[0], side / size[1]
                ax = figure.add_axes(box)
                ax.set(xticks=[], yticks=[])
                ax.set_title(caption, fontsize=8, pad=3)
                if c == 0 and name:
                    ax.set_ylabel(name, fontsize=9)
                if C is not None:
                    image = ax.imshow(
                        _masked(C), interpolation="nearest", vmin=lowest, vmax=vmax, cmap=colors
                    )
        if image is not None:
            tall = min(size[1] - 0.6, 2.2) / size[1]
            bar = figure.add_axes((1 - 0.5 / size[0], 0.5 - tall / 2, 0.1 / size[0], tall))
            _colour_bar(figure, image, bar)
    return figure
