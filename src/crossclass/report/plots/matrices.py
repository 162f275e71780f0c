"""Class-by-class matrices: C, I-CAS, confusion, and differences of two of them."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from crossclass.report.plots.style import NAMED, STYLE, Matrix, Style


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
    """One K x K matrix with its classes and colour scale; `numbers` writes counts into cells."""
    values = np.ma.masked_invalid(np.array(C, dtype=float))
    K = len(values)
    bare = dict.fromkeys(("axes.grid", "axes.spines.left", "axes.spines.bottom"), False)
    with mpl.rc_context(STYLE | bare):
        foot = (0.9 if K <= NAMED else 0.25) + 0.2 * bool(xlabel)  # room for names
        height = foot + 2.4
        frame = foot / height, 2.25 / height
        figure = Figure(figsize=(3.8, height))
        ax = figure.add_axes((0.255, frame[0], 2.25 / 3.8, frame[1]))
        colors = mpl.colormaps[cmap].with_extremes(bad="#d4d4d8")
        scale: Style = {"cmap": colors, "vmin": vmin, "vmax": vmax}
        image: Any
        if K <= NAMED:
            image = ax.pcolormesh(values, edgecolors="white", linewidth=0.4, **scale)
            ax.invert_yaxis()
            short = [n if len(n) <= 13 else n[:12] + "…" for n in map(str, class_names)][:K]
            middle, size = [i + 0.5 for i in range(len(short))], min(8.5, 110 / K)
            ax.set_xticks(middle, short, rotation=90, fontsize=size)
            ax.set_yticks(middle, short, fontsize=size)
        else:
            image = ax.imshow(values, interpolation="nearest", aspect="auto", **scale)
        ax.tick_params(length=0)
        for (i, j), value in np.ma.ndenumerate(values) if numbers and K <= 12 else ():
            ink = "white" if value > 0.55 * vmax else "#27272a"
            ax.text(j + 0.5, i + 0.5, f"{value:.0f}", ha="center", va="center", size=6, color=ink)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        bar = figure.add_axes((0.87, frame[0], 0.025, frame[1]))
        figure.colorbar(image, cax=bar).outline.set_visible(False)
        bar.tick_params(labelsize=7.5, length=2)
        bar.locator_params(axis="y", nbins=5)
    return figure


def confusion(counts: Matrix, class_names: Sequence[str], *, attacked: bool = True) -> Figure:
    """Counts of images, the true class by row, the predicted one by column."""
    values = np.array(counts, dtype=float)
    top = float(values[np.isfinite(values)].max(initial=1))
    predicted = "predicted under attack" if attacked else "predicted"
    return matrix(counts, class_names, vmax=top, xlabel=predicted, ylabel="true", numbers=True)


def minus(A: Matrix, B: Matrix) -> list[list[float | None]]:
    """A - B by entry; None where one of them has none."""
    rows = [list(zip(a, b, strict=True)) for a, b in zip(A, B, strict=True)]
    return [[None if None in (a, b) else a - b for a, b in row] for row in rows]


def difference(D: Matrix, class_names: Sequence[str]) -> Figure:
    """A difference of matrices, white at 0: blue where the first is larger, red the second."""
    values = np.array(D, dtype=float)
    limit = float(np.ceil(10 * np.abs(values[np.isfinite(values)]).max(initial=0.1)) / 10)
    return matrix(D, class_names, -limit, limit, "RdBu")
