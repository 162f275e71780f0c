"""Many small pictures on one sheet: matrices in rows and columns, numbers per seed, a table of words."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crossclass.report.plots.output import freeze_layout
from crossclass.report.plots.style import RUNS, STYLE, Matrix, Style

_BARE = dict.fromkeys(("axes.grid", "axes.spines.left", "axes.spines.bottom"), False)


def matrix_grid(
    rows: Mapping[str, Mapping[str, Matrix | None]],
    vmin: float | int = 0,
    vmax: float | int = 1,
    cmap: str = "Blues",
    *,
    columns: int | None = None,
) -> Figure:
    """Matrices on one colour scale: a row for each name, a column for each caption; None stays empty.

    With `columns`, the pictures of a row are wrapped after so many.
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
    colors = mpl.colormaps[cmap].with_extremes(bad="#d4d4d8")
    with mpl.rc_context(STYLE | _BARE):
        figure, image = Figure(figsize=size), None
        for r, (name, piece) in enumerate(lines):
            bottom = size[1] - (r + 1) * (side + head)
            for c, (caption, C) in enumerate(piece):
                place = (left + c * (side + 0.12)) / size[0], bottom / size[1], side / size[0], side / size[1]
                ax = figure.add_axes(place)
                ax.set(xticks=[], yticks=[])
                ax.set_title(caption, fontsize=8, pad=3)
                if c == 0 and name:
                    ax.set_ylabel(name, fontsize=9)
                if C is not None:
                    values = np.ma.masked_invalid(np.array(C, dtype=float))
                    image = ax.imshow(values, interpolation="nearest", vmin=vmin, vmax=vmax, cmap=colors)
        if image is not None:
            tall = min(size[1] - 0.6, 2.2) / size[1]
            bar = figure.add_axes((1 - 0.5 / size[0], 0.5 - tall / 2, 0.1 / size[0], tall))
            figure.colorbar(image, cax=bar).outline.set_visible(False)
            bar.tick_params(labelsize=7.5, length=2)
            bar.locator_params(axis="y", nbins=5)
    return figure


def dots(panels: Mapping[str, Mapping[str, Mapping[str, Sequence[float | int | None]]]]) -> Figure:
    """One panel per quantity; in it, for each name, the seeds' values at each stage and their mean."""
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    stages = list(dict.fromkeys(s for panel in panels.values() for part in panel.values() for s in part))
    colors = {s: RUNS[i % len(RUNS)] for i, s in enumerate(stages)}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.0), layout="constrained")
        axes = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
        for ax, (title, panel) in zip(axes, panels.items(), strict=False):
            for n, name in enumerate(names):
                for k, (stage, values) in enumerate(panel.get(name, {}).items()):
                    known = [float(v) for v in values if v is not None]
                    x = n + 0.7 * ((k + 0.5) / max(1, len(stages)) - 0.5)
                    style: Style = {"color": colors[stage], "mec": "white", "ls": "", "marker": "o", "ms": 5}
                    ax.plot([x] * len(known), known, **style)
                    if known:
                        mean = sum(known) / len(known)
                        ax.plot([x - 0.08, x + 0.08], [mean, mean], color=colors[stage], lw=2)
            ax.set_xticks(range(len(names)), names, fontsize=8.5)
            ax.set_title(title, fontsize=9.5)
            ax.margins(x=0.1)
            _from_zero(ax)
        for stage in stages:
            axes[0].plot([], [], "o", color=colors[stage], label=stage)
        axes[0].legend(fontsize=8)
        return freeze_layout(figure)


def _from_zero(ax: Axes) -> None:
    """An axis that holds 0 and leaves room above the highest point."""
    low, high = ax.dataLim.y0, ax.dataLim.y1
    if low <= high:  # else nothing was drawn
        ax.set_ylim(min(0.0, 1.08 * low), max(0.0, 1.08 * high) or 1.0)


def lines(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float | int, Sequence[float | int | None]]]]],
    xlabel: str = "",
    width: float | int = 9,
) -> Figure:
    """One panel per quantity; in it a line through the means of each series, and a dot for every seed.

    A series is a sequence of (x, values of the seeds).
    """
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, 2.9), layout="constrained")
        axes = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
        for ax, (title, panel) in zip(axes, panels.items(), strict=False):
            for name, series in panel.items():
                color = RUNS[names.index(name) % len(RUNS)]
                known = [(x, [float(v) for v in ys if v is not None]) for x, ys in series]
                known = [(x, ys) for x, ys in known if ys]
                ax.plot(
                    [x for x, _ in known], [sum(ys) / len(ys) for _, ys in known], color=color, label=name
                )
                for x, ys in known:
                    ax.plot([x] * len(ys), ys, ".", ms=4, color=color)
            ax.set_title(title, fontsize=9.5)
            ax.set_xlabel(xlabel)
            _from_zero(ax)
            ax.locator_params(axis="x", nbins=5)
        if len(names) > 1:
            axes[0].legend(fontsize=8)
        return freeze_layout(figure)


def words(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Figure:
    """A table of words."""
    cells = [[str(c) for c in row] for row in rows]
    widths = [max(len(r[i]) for r in [list(header), *cells]) + 2 for i in range(len(header))]
    size = 0.085 * sum(widths), 0.24 * (len(cells) + 1) + 0.1
    with mpl.rc_context(STYLE | _BARE):
        figure = Figure(figsize=size)
        ax = figure.add_axes((0, 0, 1, 1))
        ax.set(xlim=(0, sum(widths)), ylim=(len(cells) + 1, 0), xticks=[], yticks=[])
        for r, row in enumerate([list(header), *cells]):
            for c, text in enumerate(row):
                ax.text(
                    sum(widths[:c]) + 1,
                    r + 0.5,
                    text,
                    fontsize=8.5,
                    va="center",
                    weight="bold" if r == 0 else "normal",
                )
    return figure
