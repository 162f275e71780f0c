"""Robust accuracy against what was removed: attribution mass, or clean accuracy lost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crossclass.report.plots.output import freeze_layout
from crossclass.report.plots.style import RUNS, Style, styled

COLORS = {"shared": RUNS[0], "specific": RUNS[1], "random": "#71717a"}


@dataclass(frozen=True)
class Point:
    """One set of features: what was removed, and the accuracies without it; all are parts in [0, 1]."""

    mass: float
    clean: float
    clean_interval: tuple[float, float]
    robust: float
    robust_interval: tuple[float, float]


Paths = Mapping[str, Sequence[Sequence[Point]]]
"""`shared`, `specific`, `random`: the sets of every path, the first of which removes nothing."""


def ablation_curves(rows: Mapping[str, Paths]) -> Figure:
    """A row for each network: clean and robust accuracy by mass removed, robust accuracy by clean loss.

    Lines with bars are the shared and the specific features with 95 % intervals over images; each thin grey
    line is a random order.
    """
    with styled():
        figure = Figure(figsize=(11, 0.5 + 2.9 * len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), 3, squeeze=False)
        for line, (title, paths) in zip(axes, rows.items(), strict=True):
            clean, robust, traded = line
            _draw(clean, paths, "mass", "clean")
            _draw(robust, paths, "mass", "robust")
            _draw(traded, paths, "clean", "robust")
            clean.set(ylabel="clean accuracy (%)", xlabel="attribution mass removed (%)")
            robust.set(ylabel="robust accuracy (%)", xlabel="attribution mass removed (%)")
            traded.set(ylabel="robust accuracy (%)", xlabel="clean accuracy lost (points)")
            traded.sharey(robust)
            clean.set_title(title, fontsize=9.5, loc="left")
            for ax in (clean, robust):
                ax.set_ylim(0, None)
        axes[0][0].legend(fontsize=8)
        return freeze_layout(figure)


def _draw(ax: Axes, paths: Paths, x: Literal["mass", "clean"], y: Literal["clean", "robust"]) -> None:
    for sort in ("random", "shared", "specific"):
        for i, points in enumerate(paths.get(sort, ())):
            whole = points[0].clean
            across = [100 * (p.mass if x == "mass" else whole - p.clean) for p in points]
            up = [100 * getattr(p, y) for p in points]
            label = sort if i == 0 else None
            if sort == "random":
                ax.plot(across, up, color=COLORS[sort], lw=0.7, alpha=0.5, label=label)
                continue
            ends = [getattr(p, f"{y}_interval") for p in points]
            bars = [[100 * (getattr(p, y) - e[0]) for p, e in zip(points, ends, strict=True)]]
            bars += [[100 * (e[1] - getattr(p, y)) for p, e in zip(points, ends, strict=True)]]
            style: Style = {"color": COLORS[sort], "marker": "o", "ms": 3.5, "lw": 1.6, "elinewidth": 0.8}
            ax.errorbar(across, up, bars, label=label, **style)
