"""Where a model looks: images and saliency maps side by side, all maps on one colour scale.

Scaling each map to its own maximum would hide the differences in strength that the figure is about.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from crossclass.errors import UserError
from crossclass.plot.style import STYLE, Style

CELL, GAP, SIDE, HEAD, BAR = 1.06, 0.05, 0.46, 0.34, 0.8  # inches
_MAP = "inferno"  # rises in lightness: read alike in grey and by colour-blind eyes
_STRENGTH = 0.68  # of the colour over the image


def saliency_grid(
    images: Any, maps: Mapping[str, Any], captions: Sequence[str] = (), *, columns: int = 6
) -> Figure:
    """Samples in columns, `columns` to a block: the image, below it one row per entry of `maps`.

    `images` [n, h, w, c] in [0, 1] (or uint8) and each of `maps` [n, u, v] are arrays or CPU tensors; a
    coarse map is stretched over the image, bilinearly. One scale from 0 to the largest value of all maps,
    which the colour bar states; what is negative is drawn as 0. A caption may have two lines.
    """
    pixels = _pixels(images)
    shown = {label: np.asarray(m, dtype=float) for label, m in maps.items()}
    n = len(pixels)
    if n == 0 or not shown:
        raise UserError("there is no sample to draw saliency maps of; give at least one image and its maps")
    wrong = [label for label, m in shown.items() if m.ndim != 3 or len(m) != n]
    if wrong or (captions and len(captions) != n):
        raise UserError(f"{n} images need {n} maps [n, h, w] and captions; {wrong or 'captions'} differ")
    top = max(float(np.nan_to_num(m).max()) for m in shown.values())
    scale = Normalize(0, top if top > 0 else 1)
    across, rows = min(columns, n), 1 + len(shown)
    blocks = -(-n // columns)
    width = SIDE + across * (CELL + GAP) + BAR
    block = HEAD + rows * (CELL + GAP) + 0.08
    height = blocks * block
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height))

        def cell(i: int, row: int) -> Axes:
            left = SIDE + (i % columns) * (CELL + GAP)
            above = (i // columns) * block + HEAD + row * (CELL + GAP)
            place = left / width, 1 - (above + CELL) / height, CELL / width, CELL / height
            ax = figure.add_axes(place)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            return ax

        for i in range(n):
            first = i % columns == 0
            ax = cell(i, 0)
            ax.imshow(pixels[i], interpolation="nearest")
            if captions:
                lines = [_short(line, 19) for line in str(captions[i]).split("\n")]
                ax.set_title("\n".join(lines[:2]), fontsize=7, pad=2.5, linespacing=1.15)
            if first:
                _label(ax, "image")
            for row, (label, m) in enumerate(shown.items(), 1):
                ax = cell(i, row)
                _overlay(ax, pixels[i], m[i], scale)
                if first:
                    _label(ax, label)
        _bar(figure, scale, top, (width, height, block))
    return figure


def _pixels(images: Any) -> NDArray[Any]:
    """Images as [n, h, w, 3] in [0, 1]."""
    values = np.asarray(images)
    values = values / 255 if values.dtype == np.uint8 else values.astype(float)
    if values.ndim != 4 or values.shape[-1] not in (1, 3):
        raise UserError(f"images must be [n, h, w, 3] or [n, h, w, 1], not {list(values.shape)}")
    return np.broadcast_to(values.clip(0, 1), (*values.shape[:3], 3))


def _overlay(ax: Axes, image: NDArray[Any], values: NDArray[Any], scale: Normalize) -> None:
    """The map in colour over the image in grey, so that every hue is the map's."""
    h, w = image.shape[:2]
    over: Style = {"extent": (0, w, h, 0)}
    grey = image @ np.array([0.299, 0.587, 0.114])
    ax.imshow(grey, cmap="gray", vmin=0, vmax=1, interpolation="nearest", **over)
    ax.imshow(values, cmap=_MAP, norm=scale, alpha=_STRENGTH, interpolation="bilinear", **over)


def _label(ax: Axes, text: str) -> None:
    lines = [_short(line, 19) for line in textwrap.wrap(text, 19)[:2]]
    ax.set_ylabel("\n".join(lines), fontsize=7.5, labelpad=3)


def _bar(figure: Figure, scale: Normalize, top: float, size: tuple[float, float, float]) -> None:
    width, height, block = size
    long = min(block - HEAD - 0.2, 2.6)
    place = (width - BAR + 0.1) / width, 1 - (HEAD + long) / height, 0.11 / width, long / height
    ax = figure.add_axes(place)
    colors = mpl.cm.ScalarMappable(scale, _MAP)
    bar: Any = figure.colorbar(colors, cax=ax)
    bar.outline.set_visible(False)
    ticks = [0, top / 2, top] if top > 0 else []
    bar.set_ticks(ticks, labels=[f"{t:.2g}" for t in ticks])
    ax.tick_params(labelsize=7, length=2)
    words = (
        f"Grad-CAM of the true class; the largest value here is {top:.2g}" if top > 0 else "all maps are 0"
    )
    ax.set_ylabel(words, fontsize=7)


def _short(text: str, room: int) -> str:
    """The text, its middle left out where it is longer than there is room."""
    if len(text) <= room:
        return text
    back = (room - 1) // 2
    return text[: room - 1 - back] + "…" + text[-back:]
