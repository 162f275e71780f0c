"""The picture of C and CAS at the top of the README: python docs/pictures/explain.py

Writes explain-light.svg and explain-dark.svg beside itself. The attributions are made up, C and CAS are
computed from them by the functions that every measurement uses.
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure

from crossclass.analysis.attribution import cas, correlation
from crossclass.report.plots.output import save
from crossclass.report.plots.style import styled

CLASSES = "automobile", "truck", "frog"
FEATURES = "wheels", "windows", "low roof", "cargo bed", "green skin", "big eyes"
SHARED = 2  # so many features, the first ones, are used by two classes
CHECKPOINTS: dict[str, list[list[float]]] = {
    "most robust checkpoint": [
        [0.9, 0.6, 0.8, 0.0, 0.0, 0.0],
        [0.8, 0.7, 0.0, 0.9, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.9, 0.8],
    ],
    "last checkpoint": [
        [0.2, 0.1, 1.0, 0.0, 0.0, 0.0],
        [0.15, 0.22, 0.0, 1.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 1.0, 0.9],
    ],
}
BOTH, OWN = "#e07b39", "#7c8794"
WIDTH, HEIGHT = 9.2, 3.0  # inches


def picture(ink: str, ground: str) -> Figure:
    """Both checkpoints side by side, written in the colour `ink` on `ground`."""
    figure = Figure(figsize=(WIDTH, HEIGHT))
    for i, (title, rows) in enumerate(CHECKPOINTS.items()):
        left = 0.105 + 0.5 * i
        A = torch.tensor(rows, dtype=torch.float64)
        figure.text(left, 0.93, title, fontsize=11, weight="bold", color=ink)
        for k, values in enumerate(rows):
            ax = figure.add_axes((left, 0.66 - 0.2 * k, 0.205, 0.17))
            colors = [BOTH if f < SHARED else OWN for f in range(len(values))]
            ax.bar(range(len(values)), values, color=colors, width=0.72)
            ax.set(ylim=(0, 1.05), xlim=(-0.6, len(values) - 0.4), yticks=[], xticks=[])
            ax.set_ylabel(CLASSES[k], rotation=0, ha="right", va="center", fontsize=8.5, color=ink)
            ax.spines["bottom"].set_color(OWN)
        ax.set_xticks(range(len(FEATURES)), FEATURES, rotation=35, ha="right", fontsize=8)
        ax.tick_params(length=0, colors=ink)
        for f, label in enumerate(ax.get_xticklabels()):
            label.set_color(BOTH if f < SHARED else ink)
        _matrix(figure, left + 0.235, correlation(A).numpy(), float(cas(correlation(A))), ink, ground)
    return figure


def _matrix(figure: Figure, left: float, C: Any, score: float, ink: str, ground: str) -> None:
    side = 0.34
    ax = figure.add_axes((left, 0.42, side * HEIGHT / WIDTH * 1.2, side * 1.2))
    colors = mpl.colors.LinearSegmentedColormap.from_list("shared", [ground, BOTH])
    shown = C.copy()
    np.fill_diagonal(shown, 0)
    ax.pcolormesh(shown, cmap=colors, vmin=0, vmax=1, edgecolors=OWN, linewidth=0.6)
    ax.invert_yaxis()
    ax.spines[:].set_visible(False)
    for (i, j), value in np.ndenumerate(C):
        color = OWN if i == j else ink
        ax.text(j + 0.5, i + 0.5, f"{value:.2f}", ha="center", va="center", fontsize=8.5, color=color)
    short = [name[:4] + "." if len(name) > 5 else name for name in CLASSES]
    ax.set_xticks([0.5, 1.5, 2.5], short, fontsize=8, color=ink)
    ax.set_yticks([])
    ax.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    figure.text(left, 0.3, "C: cosine of two rows", fontsize=8.5, color=ink)
    pairs = [f"{C[i, j]:.2f}" for i in range(3) for j in range(3) if i != j and C[i, j] > 0.005]
    figure.text(left, 0.19, f"CAS = {' + '.join(pairs)}", fontsize=9, color=ink)
    figure.text(left + 0.033, 0.08, f"= {score:.2f}", fontsize=9, weight="bold", color=ink)


def main() -> None:
    """Write both files."""
    plain = {"axes.grid": False, "axes.spines.left": False, "savefig.transparent": True}
    for theme, ink, ground in (("light", "#27272a", "#ffffff"), ("dark", "#e4e4e7", "#0d1117")):
        with styled(plain):
            drawn = picture(ink, ground)
            drawn.patch.set_alpha(0)
            for ax in drawn.axes:
                ax.patch.set_alpha(0)
        save(drawn, Path(__file__).with_name(f"explain-{theme}.svg"))


if __name__ == "__main__":
    main()
