"""Features on images on which they are strong: class beside class, checkpoint under checkpoint."""

import base64
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import NDArray

from crossclass.report.plots.saliency import overlay
from crossclass.report.plots.style import BARE, styled

CELL, GAP, SIDE, HEAD, FOOT, BETWEEN = 0.72, 0.04, 0.75, 0.36, 0.2, 0.14  # inches
CLASSES_APART = 0.22
LETTER, TITLE_LETTER, LINE = 0.065, 0.085, 0.17  # about the width of a letter above, in a title, and a line


@dataclass(frozen=True)
class Panel:
    """One class of one feature: images [m, h, w, c] in [0, 1], and a row of maps [m, h, w] per checkpoint."""

    class_name: str
    images: NDArray[np.floating[Any]]
    maps: Sequence[NDArray[np.floating[Any]]]
    adds: Sequence[NDArray[np.floating[Any]]]
    """What the feature adds to the class's logit on each image, per checkpoint."""
    part: NDArray[np.floating[Any]] | None = None
    """The planted part that the feature finds [s, s, 3], where it is known."""


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
    planted = any(p.part is not None for _, panels in blocks for p in panels)
    width = SIDE + across * (CELL + GAP) + (most - 1) * CLASSES_APART + planted * (CELL + CLASSES_APART) + 0.1
    width = max(width, TITLE_LETTER * max(len(title) for title, _ in blocks) + 0.2)
    lines = [part for line in head.split("\n") for part in textwrap.wrap(line, int((width - 0.2) / LETTER))]
    above = 0.21 + LINE * len(lines)
    height = len(blocks) * tall + above
    with styled(BARE):
        figure = Figure(figsize=(width, height))
        figure.text(
            0.08 / width, (height - 0.08) / height, "\n".join(lines), fontsize=8, va="top", linespacing=1.5
        )
        for b, (title, panels) in enumerate(blocks):
            top = height - above - b * tall
            figure.text(0.08 / width, (top - 0.2) / height, title, fontsize=9, weight="bold", va="center")
            largest = max((float(m.max(initial=0)) for p in panels for m in p.maps), default=0.0)
            left = SIDE
            for p, panel in enumerate(panels):
                figure.text(
                    left / width, (top - HEAD - 0.08) / height, panel.class_name, fontsize=8, va="center"
                )
                _panel(figure, panel, left, top - HEAD - 0.2, largest, (width, height))
                left += len(panel.images) * (CELL + GAP) + CLASSES_APART
                if p == 0:
                    for r, label in enumerate(("image", *checkpoints)):
                        middle = top - HEAD - 0.2 - r * (CELL + GAP) - CELL / 2
                        at = (SIDE - 0.08) / width, middle / height
                        figure.text(*at, label, fontsize=7.5, ha="right", va="center")
            if panels and (part := panels[0].part) is not None:
                below = top - HEAD - 0.2 - CELL
                figure.text(left / width, (top - HEAD - 0.08) / height, "planted", fontsize=8, va="center")
                ax = figure.add_axes((left / width, below / height, CELL / width, CELL / height))
                ax.imshow(part, interpolation="nearest")
                ax.set_axis_off()
    return figure


def _panel(
    figure: Figure, panel: Panel, left: float, top: float, largest: float, size: tuple[float, float]
) -> None:
    """All images of a class and their maps as one picture: an axes for each would take most of the time."""
    width, height = size
    m = len(panel.images)
    images = np.broadcast_to(panel.images.astype(float), (*panel.images.shape[:3], 3))
    rows = [images, *(overlay(images, of.astype(float), largest) for of in panel.maps)]
    whole = mosaic(rows, CELL / GAP)
    wide, tall = m * (CELL + GAP) - GAP, len(rows) * (CELL + GAP) - GAP
    ax = figure.add_axes((left / width, (top - tall) / height, wide / width, tall / height))
    ax.imshow(whole, interpolation="nearest", aspect="auto")
    ax.set_axis_off()
    for i in range(m):
        adds = " → ".join(f"{a[i] + 0.0:.2f}" for a in panel.adds)
        at = (left + i * (CELL + GAP) + CELL / 2) / width, (top - tall - 0.1) / height
        figure.text(*at, adds, fontsize=6, ha="center", va="center")


def mosaic(rows: Sequence[NDArray[np.floating[Any]]], cell_to_gap: float) -> NDArray[np.floating[Any]]:
    """Rows of images [m, h, w, 3] as one picture with an alpha channel, with nothing between the images.

    Each pixel becomes a square of several, so that the gap is `cell_to_gap` times smaller than an image.
    """
    m, h, w = rows[0].shape[:3]
    times = max(1, round(cell_to_gap / min(h, w)))
    gap_h, gap_w = (max(1, round(times * side / cell_to_gap)) for side in (h, w))
    large = np.stack(rows).repeat(times, axis=2).repeat(times, axis=3)
    out = np.zeros((len(rows), times * h + gap_h, m, times * w + gap_w, 4))
    out[:, : times * h, :, : times * w, :3] = large.transpose(0, 2, 1, 3, 4)
    out[:, : times * h, :, : times * w, 3] = 1
    return out.reshape(len(rows) * (times * h + gap_h), m * (times * w + gap_w), 4)[:-gap_h, :-gap_w]


def overlay_strip(images: NDArray[np.floating[Any]], maps: NDArray[np.floating[Any]]) -> str:
    """Images [m, h, w, 1 or 3] side by side, below each its maps [r, m, h, w], as the URL of a PNG.

    Images and maps are in [0, 1]; each pixel of an image is one of the picture.
    """
    pixels = np.broadcast_to(images, (*images.shape[:3], 3))
    stream = io.BytesIO()
    whole = mosaic([pixels, *(overlay(pixels, of, 1.0) for of in maps)], float(min(pixels.shape[1:3])))
    imsave(stream, whole, format="png")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
