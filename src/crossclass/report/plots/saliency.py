"""Where a model looks: images and saliency maps side by side, all maps on one colour scale.

Scaling each map to its own maximum would hide the differences in strength that the figure is about.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from crossclass.core.errors import UserError
from crossclass.report.plots.style import STYLE

CELL, GAP, SIDE, HEAD, BAR = 1.06, 0.05, 0.56, 0.36, 0.8  # inches
ROOM = 18  # letters over a cell
_COLOURS = "plasma"  # rises in lightness: alike in grey and to colour-blind eyes


def saliency_grid(
    images: Any, maps: Mapping[str, Any], captions: Sequence[str] = (), *, columns: int = 6
) -> Figure:
    """Images in columns, `columns` to a block; below each image one row for every entry of `maps`.

    `images` [n, h, w, c] in [0, 1] or uint8, and each of `maps` [n, u, v], are arrays or CPU tensors; a
    coarse map is stretched over the image, bilinearly. One colour scale from 0 to the largest value of all
    maps; negative values are drawn as 0. A caption may have two lines. Raises UserError where
    shapes do not fit.
    """
    pixels = _pixels(images)
    shown = {label: np.nan_to_num(np.asarray(m, dtype=float)) for label, m in maps.items()}
    n = len(pixels)
    if n == 0 or not shown:
        raise UserError("there is no sample to draw saliency maps of; give at least one image and its maps")
    if any(m.ndim != 3 or len(m) != n for m in shown.values()) or len(captions) not in (0, n):
        sizes = {label: list(m.shape) for label, m in shown.items()}
        raise UserError(f"{n} images need {n} maps [n, h, w] and captions, not {sizes}, {len(captions)}")
    top = max(float(m.max()) for m in shown.values())
    block = HEAD + (1 + len(shown)) * (CELL + GAP) + 0.06
    width, height = SIDE + min(columns, n) * (CELL + GAP) + BAR, -(-n // columns) * block
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        rows = {"image": pixels} | {k: _overlay(pixels, m, top) for k, m in shown.items()}
        for i, (down, across) in enumerate(divmod(i, columns) for i in range(n)):
            for row, (label, pictures) in enumerate(rows.items()):
                left = SIDE + across * (CELL + GAP)
                below = height - down * block - HEAD - row * (CELL + GAP) - CELL
                ax = figure.add_axes((left / width, below / height, CELL / width, CELL / height))
                ax.imshow(pictures[i], interpolation="nearest")
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
                if across == 0:
                    ax.set_ylabel(_lines(label), fontsize=7, labelpad=3)
                if row == 0 and captions:
                    _caption(ax, str(captions[i]))
        tall = min(block - HEAD - 0.2, 2.6)
        bar = figure.add_axes(
            ((width - BAR + 0.12) / width, 1 - (HEAD + tall) / height, 0.11 / width, tall / height)
        )
        _bar(bar, top)
    return figure


def _pixels(images: Any) -> NDArray[Any]:
    """Images as [n, h, w, 3] in [0, 1]."""
    values = np.asarray(images)
    values = values / 255 if values.dtype == np.uint8 else values.astype(float)
    if values.ndim != 4 or values.shape[-1] not in (1, 3):
        raise UserError(f"images must be [n, h, w, 3] or [n, h, w, 1], not {list(values.shape)}")
    return np.broadcast_to(values.clip(0, 1), (*values.shape[:3], 3))


def _overlay(pixels: NDArray[Any], maps: NDArray[Any], top: float) -> NDArray[Any]:
    """The maps in colour over the images in grey: every hue is the map's, and 0 shows the bare image."""
    grey = 0.25 + 0.75 * pixels @ np.array([0.299, 0.587, 0.114])
    return _blend(grey, _stretched(maps, grey.shape[1:]), top)


def _blend(grey: NDArray[Any], values: NDArray[Any], top: float) -> NDArray[Any]:
    strength = np.clip(values / top, 0, 1) if top > 0 else np.zeros_like(values)
    opaque = 0.85 * np.sqrt(strength)[..., None]
    return (1 - opaque) * grey[..., None] + opaque * mpl.colormaps[_COLOURS](strength)[..., :3]


def _stretched(maps: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
    """[n, u, v] to [n, h, w], linear between the middles of places, constant beyond the outer ones."""
    for axis, length in zip((1, 2), size, strict=True):
        have = maps.shape[axis]
        at = ((np.arange(length) + 0.5) * have / length - 0.5).clip(0, have - 1)
        low = np.floor(at).astype(int)
        part = np.expand_dims(at - low, 2 - axis)
        after = maps.take(np.minimum(low + 1, have - 1), axis)
        maps = (1 - part) * maps.take(low, axis) + part * after
    return maps


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
