"""Accuracy per class as horizontal bars, one or two for each class."""

import warnings
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from crossclass.report.plots.output import freeze_layout
from crossclass.report.plots.style import STYLE

FIRST, SECOND = "#08519c", "#8cb8dc"
MOST = 24
"""Classes that have a bar; of more, the first and the last half of these are drawn."""


def class_bars(
    rows: Sequence[tuple[str, float | None, float | None]],
    labels: tuple[str, str],
    xlabel: str,
    *,
    width: float | int = 5.2,
) -> Figure:
    """Shares in [0, 1] of each class, in the order given; the axis runs from 0 to 100 %.

    Args:
        rows: A class, its first and its second value; None is unknown and has no bar.
        labels: What the first and the second value are.
        xlabel: What is shown, under which attack.
        width: In inches.
    """
    shown = [*rows[: MOST // 2], *rows[-MOST // 2 :]] if len(rows) > MOST else list(rows)
    places = [i + (1.2 if len(rows) > MOST and i >= MOST // 2 else 0) for i in range(len(shown))]
    with mpl.rc_context({**STYLE, "axes.spines.left": False}):
        figure = Figure(figsize=(width, 0.9 + 0.26 * len(shown)), layout="constrained")
        ax = figure.subplots()
        for values, shift, color, label in (
            ([a for _, a, _ in shown], -0.2, FIRST, labels[0]),
            ([b for _, _, b in shown], 0.2, SECOND, labels[1]),
        ):
            if any(v is not None for v in values):
                lengths = [100 * (v or 0) for v in values]
                ax.barh([p + shift for p in places], lengths, height=0.38, color=color, label=label)
        for place, (_, a, b) in zip(places, shown, strict=True):
            text = " / ".join(f"{100 * v:.0f}" for v in (a, b) if v is not None)
            end = 100 * max(a or 0, b or 0)
            ax.text(end + 1.5, place, text, va="center", fontsize=7.5, color="#52525b")
        if len(rows) > MOST:
            left_out = f"… {len(rows) - MOST:,} more"
            ax.text(1, MOST // 2 + 0.1, left_out, va="center", fontsize=8, color="#71717a")
        names = [n if len(n) <= 18 else n[:17] + "…" for n, _, _ in shown]
        ax.set_yticks(places, names)
        ax.tick_params(axis="y", length=0)
        ax.set(xlim=(0, 112), ylim=((places or [0])[-1] + 0.7, -0.7), xlabel=xlabel)
        ax.set_xticks(range(0, 101, 25), [f"{t} %" for t in range(0, 101, 25)])
        ax.grid(visible=False, axis="y")
        figure.legend(loc="outside upper left", ncols=2, fontsize=8.5)
        with warnings.catch_warnings(action="ignore"):  # a glyph that is missing here
            return freeze_layout(figure)
