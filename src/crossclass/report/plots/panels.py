"""Panels of numbers per seed: dots by stage, lines over a parameter; and a table as a figure."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crossclass.report.plots.output import freeze_layout
from crossclass.report.plots.style import BARE, RUNS, Style, styled


def dots(
    panels: Mapping[str, Mapping[str, Mapping[str, Sequence[float | int | None]]]],
    aside: Mapping[str, Collection[int]] | None = None,
) -> Figure:
    """One panel per quantity: for each name and stage a dot for every seed, and a bar at their mean.

    `panels[quantity][name][stage]` holds the values of the seeds; None is left out. `aside[quantity]` holds
    the places of seeds that are not counted: their dots are hollow and grey, and not in the mean.
    """
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    stages = list(dict.fromkeys(s for panel in panels.values() for part in panel.values() for s in part))
    colors = {s: RUNS[i % len(RUNS)] for i, s in enumerate(stages)}
    with styled():
        figure = Figure(figsize=(9, 3.0), layout="constrained")
        axes = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
        for ax, (title, panel) in zip(axes, panels.items(), strict=False):
            for n, name in enumerate(names):
                for k, (stage, values) in enumerate(panel.get(name, {}).items()):
                    places = (aside or {}).get(title, ())
                    known = [float(v) for i, v in enumerate(values) if v is not None and i not in places]
                    grey = [float(v) for i, v in enumerate(values) if v is not None and i in places]
                    x = n + 0.7 * ((k + 0.5) / max(1, len(stages)) - 0.5)
                    style: Style = {"color": colors[stage], "mec": "white", "ls": "", "marker": "o", "ms": 5}
                    ax.plot([x] * len(known), known, **style)
                    ax.plot([x] * len(grey), grey, **style | {"mfc": "white", "mec": "#8a8a93"})
                    if known:
                        mean = sum(known) / len(known)
                        ax.plot([x - 0.08, x + 0.08], [mean, mean], color=colors[stage], lw=2)
            ax.set_xticks(range(len(names)), names, fontsize=8.5)
            ax.set_title(title, fontsize=9.5)
            ax.margins(x=0.1)
            _from_zero(ax)
        for stage in stages:
            axes[0].plot([], [], "o", color=colors[stage], label=stage)
        if any((aside or {}).values()):
            axes[0].plot([], [], "o", mfc="white", mec="#8a8a93", label="not counted")
        axes[0].legend(fontsize=8)
        return freeze_layout(figure)


def _from_zero(ax: Axes) -> None:
    """Let the axis hold 0 and leave room above the highest point."""
    low, high = ax.dataLim.y0, ax.dataLim.y1
    if low <= high:  # something was drawn
        ax.set_ylim(min(0.0, 1.08 * low), max(0.0, 1.08 * high) or 1.0)


def lines(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float | int, Sequence[float | int | None]]]]],
    xlabel: str = "",
    width: float | int = 9,
) -> Figure:
    """One panel per quantity: for each series a line through the means, and a dot for every seed.

    `panels[quantity][name]` is a sequence of (x, values of the seeds); None is left out.
    """
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    with styled():
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


def text_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Figure:
    """A table of texts, the header in bold."""
    cells = [[str(c) for c in row] for row in rows]
    widths = [max(len(r[i]) for r in [list(header), *cells]) + 2 for i in range(len(header))]
    size = 0.085 * sum(widths), 0.24 * (len(cells) + 1) + 0.1
    with styled(BARE):
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
