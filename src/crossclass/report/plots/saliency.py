"""Where a model looks: images and saliency maps side by side, all maps on one colour scale.

Scaling each map to its own maximum would hide the differences in strength that the figure is about.
"""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from crossclass.report.plots.style import styled

CELL, GAP, SIDE, HEAD, BAR = 1.06, 0.05, 0.56, 0.36, 0.8  # inches
ROOM = 18  # letters over a cell
COLUMNS = 6
_COLOURS = "plasma"  # rises in lightness: alike in grey and to colour-blind eyes


def saliency_grid(images: ArrayLike, maps: Mapping[str, ArrayLike], captions: Sequence[str]) -> Figure:
    """Images in columns, `COLUMNS` to a block; below each image one row for every entry of `maps`.

    `images` [n, h, w, 1 or 3] are in [0, 1], each of `maps` is [n, h, w], a caption has up to two lines; n is
    at least 1. One colour scale from 0 to the largest value of all maps; negative values are drawn as 0.
    """
    pixels = np.asarray(images, dtype=float)
    pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    n = len(pixels)
    shown = {label: np.nan_to_num(np.asarray(m, dtype=float)) for label, m in maps.items()}
    top = max(float(m.max()) for m in shown.values())
    block = HEAD + (1 + len(shown)) * (CELL + GAP) + 0.06
    width, height = SIDE + min(COLUMNS, n) * (CELL + GAP) + BAR, -(-n // COLUMNS) * block
    with styled():
        figure = Figure(figsize=(width, height))
        rows = {"image": pixels} | {k: overlay(pixels, m, top) for k, m in shown.items()}
        for i, (down, across) in enumerate(divmod(i, COLUMNS) for i in range(n)):
            for row, (label, pictures) in enumerate(rows.items()):
                left = SIDE + across * (CELL + GAP)
                below = height - down * block - HEAD - row * (CELL + GAP) - CELL
                ax = figure.add_axes((left / width, below / height, CELL / width, CELL / height))
                ax.imshow(pictures[i], interpolation="nearest")
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
                if across == 0:
                    ax.set_ylabel(_lines(label), fontsize=7, labelpad=3)
                if row == 0:
                    _caption(ax, captions[i])
        tall = min(block - HEAD - 0.2, 2.6)
        bar = figure.add_axes(
            ((width - BAR + 0.12) / width, 1 - (HEAD + tall) / height, 0.11 / width, tall / height)
        )
        _bar(bar, top)
    return figure


def overlay(pixels: NDArray[np.float64], maps: NDArray[np.float64], top: float) -> NDArray[np.float64]:
    """The maps in colour over the images in grey: every hue is the map's, and 0 shows the bare image."""
    grey = 0.25 + 0.75 * pixels @ np.array([0.299, 0.587, 0.114])
    return _blend(grey, maps, top)


def _blend(grey: NDArray[np.float64], values: NDArray[np.float64], top: float) -> NDArray[np.float64]:
    strength = np.clip(values / top, 0, 1) if top > 0 else np.zeros_like(values)
    opaque = 0.85 * np.sqrt(strength)[..., None]
    return (1 - opaque) * grey[..., None] + opaque * mpl.colormaps[_COLOURS](strength)[..., :3]


def _bar(ax: Axes, top: float) -> None:
    """The scale in the colours that a map has over a medium grey."""
    ramp = np.linspace(0, 1, 256)[:, None]
    end = top if top > 0 else 1.0
    ax.imshow(
        _blend(np.full_like(ramp, 0.62), ramp, 1.0), origin="lower", aspect="auto", extent=(0, 1, 0, end)
    )
    ax.set(xticks=[], yticks=[0, end / 2, end] if top > 0 else [0])
    ax.set_yticklabels([f"{t:.2g}" for t in ax.get_yticks()], fontsize=7)
    ax.yaxis.tick_right()
    ax.yaxis.set_label_position("right")
    ax.tick_params(length=2)
    ax.spines[:].set_visible(False)
    ax.grid(visible=False)
    label = f"Grad-CAM of the true class, at most {top:.2g}" if top > 0 else "all maps are 0"
    ax.set_ylabel(label, fontsize=7)


def _caption(ax: Axes, text: str) -> None:
    lines = [_short(line) for line in text.split("\n")][:2]
    for height, line in zip((1.03, 1.16), reversed(lines), strict=False):
        ax.text(0.5, height, line, transform=ax.transAxes, ha="center", va="baseline", fontsize=7)


def _lines(label: str) -> str:
    wrapped = textwrap.wrap(label, ROOM, break_long_words=False, break_on_hyphens=False)
    return "\n".join(_short(line) for line in wrapped[:3])


def _short(text: str) -> str:
    """The text, its middle left out where there is no room; most of the end stays, where the class is."""
    back = 2 * ROOM // 3
    return text if len(text) <= ROOM else text[: ROOM - 1 - back] + "…" + text[-back:]
