"""Features on images on which they are strong: class beside class, checkpoint under checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from crossclass.report.plots.saliency import overlay
from crossclass.report.plots.style import BARE, styled

CELL, GAP, SIDE, HEAD, FOOT, BETWEEN = 0.72, 0.04, 0.75, 0.36, 0.2, 0.14  # inches
CLASSES_APART, TOP = 0.22, 0.55


@dataclass(frozen=True)
class Panel:
    """One class of one feature: images [m, h, w, c] in [0, 1], and a row of maps [m, h, w] per checkpoint."""

    class_name: str
    images: NDArray[np.floating[Any]]
    maps: Sequence[NDArray[np.floating[Any]]]
    adds: Sequence[NDArray[np.floating[Any]]]
    """What the feature adds to the class's logit on each image, per checkpoint."""


def feature_sheet(
    blocks: Sequence[tuple[str, Sequence[Panel]]], checkpoints: Sequence[str], head: str
) -> Figure:
    """`head`, then a block for each feature: its title, its classes side by side, a row per checkpoint.

    The maps of a block are on one colour scale, so that best and last can be compared; blocks are not.
    """
    across = max(sum(len(p.images) for p in panels) for _, panels in blocks)
    most = max(len(panels) for _, panels in blocks)
    rows = 1 + len(checkpoints)
    tall = HEAD + 0.2 + rows * (CELL + GAP) + FOOT + BETWEEN
    width = SIDE + across * (CELL + GAP) + (most - 1) * CLASSES_APART + 0.1
    height = len(blocks) * tall + TOP
    with styled(BARE):
        figure = Figure(figsize=(width, height))
        figure.text(0.08 / width, (height - 0.08) / height, head, fontsize=8, va="top", linespacing=1.5)
        for b, (title, panels) in enumerate(blocks):
            top = height - TOP - b * tall
            figure.text(0.08 / width, (top - 0.2) / height, title, fontsize=9, weight="bold", va="center")
            largest = max((float(m.max(initial=0)) for p in panels for m in p.maps), default=0.0)
            left = SIDE
            for p, panel in enumerate(panels):
                figure.text(
                    left / width, (top - HEAD - 0.08) / height, panel.class_name, fontsize=8, va="center"
                )
                for i in range(len(panel.images)):
                    _column(figure, panel, i, left, top - HEAD - 0.2, largest, (width, height))
                    left += CELL + GAP
                left += CLASSES_APART
                if p == 0:
                    for r, label in enumerate(("image", *checkpoints)):
                        middle = top - HEAD - 0.2 - r * (CELL + GAP) - CELL / 2
                        at = (SIDE - 0.08) / width, middle / height
                        figure.text(*at, label, fontsize=7.5, ha="right", va="center")
    return figure


def _column(
    figure: Figure, panel: Panel, i: int, left: float, top: float, largest: float, size: tuple[float, float]
) -> None:
    width, height = size
    image = np.broadcast_to(panel.images[i].astype(float), (*panel.images[i].shape[:2], 3))[None]
    drawn = [image[0], *(overlay(image, m[i].astype(float)[None], largest)[0] for m in panel.maps)]
    for r, picture in enumerate(drawn):
        below = top - r * (CELL + GAP) - CELL
        ax = figure.add_axes((left / width, below / height, CELL / width, CELL / height))
        ax.imshow(picture, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
    adds = " → ".join(f"{a[i] + 0.0:.2f}" for a in panel.adds)
    figure.text((left + CELL / 2) / width, (below - 0.1) / height, adds, fontsize=6, ha="center", va="center")
