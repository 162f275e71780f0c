"""Images, the same under attack, and the difference, side by side; and the planted parts of a data set."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from crossclass.report.plots.style import BARE, STYLE

Pixels = NDArray[np.uint8]  # [n, h, w, 1 or 3]
CELL, GAP, SIDE, FOOT = 0.92, 0.08, 0.95, 0.42  # inches


def amplified(images: Pixels, attacked: Pixels) -> tuple[NDArray[np.float64], int]:
    """The difference around grey, and by how much it is multiplied so that the largest just fits."""
    difference = (attacked.astype(float) - images) / 255
    top = float(np.abs(difference).max(initial=0))
    times = max(1, int(0.5 / top)) if top else 1
    return np.clip(0.5 + times * difference, 0, 1), times


def image_strip(
    rows: Sequence[tuple[str, Pixels | NDArray[np.float64]]], captions: Sequence[str], columns: int
) -> Figure:
    """Rows of pictures under one another, wrapped after so many columns.

    Args:
        rows: A label, and pictures [n, h, w, 1 or 3] as uint8 or in [0, 1].
        captions: Below each column, in up to two lines.
        columns: Pictures side by side.
    """
    n = len(captions)
    columns = min(columns, n)
    block = len(rows) * (CELL + GAP) + FOOT
    width, height = SIDE + columns * (CELL + GAP), -(-n // columns) * block
    with mpl.rc_context(STYLE | BARE):
        figure = Figure(figsize=(width, height))
        for i in range(n):
            down, across = divmod(i, columns)
            left = (SIDE + across * (CELL + GAP)) / width
            for r, (label, pictures) in enumerate(rows):
                bottom = (height - down * block - r * (CELL + GAP) - CELL) / height
                ax = figure.add_axes((left, bottom, CELL / width, CELL / height))
                picture = np.broadcast_to(pictures[i], (*pictures[i].shape[:2], 3))
                ax.imshow(picture, interpolation="none")
                ax.set(xticks=[], yticks=[])
                if across == 0:
                    at = (SIDE - 0.1) / width, bottom + CELL / height / 2
                    figure.text(*at, label, ha="right", va="center", fontsize=8.5)
            below = (height - down * block - len(rows) * (CELL + GAP) - 0.02) / height
            figure.text(left + CELL / width / 2, below, captions[i], ha="center", va="top", fontsize=7.5)
    return figure


def planted_parts(parts: Pixels, shows: Sequence[Sequence[int]], class_names: Sequence[str]) -> Figure:
    """The parts that each class shows, a column for each class; a part in two columns is shared.

    Args:
        parts: Pictures [p, s, s, 3].
        shows: The parts of each class, its own first.
        class_names: The K classes.
    """
    K, deep = len(class_names), max(map(len, shows))
    cell, gap = 0.7, 0.12
    width, height = SIDE + K * (cell + gap), deep * (cell + gap) + 0.4
    with mpl.rc_context(STYLE | BARE):
        figure = Figure(figsize=(width, height))
        for k, own in enumerate(shows):
            left = (SIDE + k * (cell + gap)) / width
            figure.text(left + cell / width / 2, 1 - 0.18 / height, class_names[k], ha="center", fontsize=8.5)
            for r, p in enumerate(own):
                bottom = (height - 0.3 - (r + 1) * (cell + gap) + gap) / height
                ax = figure.add_axes((left, bottom, cell / width, cell / height))
                ax.imshow(parts[p], interpolation="none")
                ax.set(xticks=[], yticks=[])
                partners = [class_names[j] for j, other in enumerate(shows) if j != k and p in other]
                if partners:
                    at = left + cell / width / 2, bottom - 0.03 / height
                    figure.text(*at, f"= {partners[0]}'s", ha="center", va="top", fontsize=6.5)
        for r, label in enumerate(["own part", *["shared part"] * (deep - 1)]):
            at = (SIDE - 0.1) / width, (height - 0.3 - (r + 0.5) * (cell + gap) + gap / 2) / height
            figure.text(*at, label, ha="right", va="center", fontsize=8.5)
    return figure
