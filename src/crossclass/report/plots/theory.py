"""The theory's pictures: weights against eps, probabilities against the ratio of weights, a phase diagram.

Where a weight vanishes or a maximum lies is given, not computed here. Colour is never the only sign:
curves and thresholds carry their names, regions have text, lightness or hatching.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import pi, sqrt

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from crossclass.report.plots.output import freeze_layout
from crossclass.report.plots.style import PAPER, Style, styled

AT, SMOOTHED = "#0b5394", "#b84a00"
_SHADES = ("#08519c", "#6a3d9a", "#b84a00", "#00755a", "#a03c78")  # dark enough for text on white
_INK, _SOFT = "#27272a", "#71717a"
_WIDEST = sqrt(pi)  # the paper allows sigma below so many mu (section 4.1)


@dataclass(frozen=True)
class SuccessCurve:
    """Robust probabilities at one eps, over a grid of r = w2/w1."""

    label: str
    pair: ArrayLike
    """P_pair over the grid."""
    both: ArrayLike
    """P_all over the grid."""
    at: float | int
    """The r that adversarial training chooses."""
    best: float | int
    """The r in [0, 1] of the largest P_all."""


def feature_weights(
    eps: ArrayLike,
    at: Sequence[ArrayLike],
    smoothed: Sequence[ArrayLike],
    eps0: float | int,
    eps1: float | int,
    *,
    title: str = "",
) -> Figure:
    """w1*, w2* of adversarial training and of label smoothing over eps [n], both thresholds marked.

    `at` and `smoothed` are (w1, w2), each [n].
    """
    x = np.asarray(eps)
    named = (("AT", AT, at), ("LS", SMOOTHED, smoothed))
    lines = [
        (f"w{i} {who}", color, np.asarray(values))
        for who, color, pair in named
        for i, values in enumerate(pair, 1)
    ]
    with styled():
        figure = Figure(figsize=(5.6, 3.5), layout="constrained")
        ax = figure.subplots()
        for name, color, values in lines:
            line: Style = {"ls": "--", "lw": 1.1} if name.startswith("w1") else {"lw": 2.2}
            ax.plot(x, values, label=name, color=color, **line)
        width = x[-1] - x[0]
        top = max(float(values.max()) for _, _, values in lines) or 1.0
        ax.set(xlim=(x[0] - 0.16 * width, x[-1]), ylim=(0, 1.12 * top))
        ax.set(xlabel="perturbation radius $\\epsilon$", ylabel="weight at the optimum")
        ax.xaxis.label.set_parse_math(True)
        ax.set_xticks([t for t in ax.get_xticks() if x[0] <= t <= x[-1] + 1e-9 * width])
        starts = _apart([float(values[0]) for _, _, values in lines], 0.062 * 1.12 * top)
        for (name, color, _), height in zip(lines, starts, strict=True):
            to: Style = {"ha": "right", "va": "center", "fontsize": 8.5, "parse_math": True, "color": color}
            ax.text(x[0] - 0.015 * width, height, f"$w_{name[1]}$ {name[3:]}", **to)
        for value, name, color, side in ((eps0, "0", AT, "right"), (eps1, "1", SMOOTHED, "left")):
            if x[0] <= value <= x[-1]:
                ax.axvline(value, color=color, lw=0.9, ls=(0, (4, 3)), gid=f"eps{name}", zorder=1)
                style: Style = {"color": color, "bbox": PAPER, "parse_math": True, "ha": side, "va": "top"}
                style |= {"xytext": (-4 if side == "right" else 4, 0), "textcoords": "offset points"}
                axis = ax.get_xaxis_transform()
                ax.annotate(f"$\\epsilon_{name}$ = {value:.3f}", (value, 0.97), xycoords=axis, **style)
        ax.set_title(title, fontsize=9.5)
    return freeze_layout(figure)


def success_curves(ratio: ArrayLike, curves: Sequence[SuccessCurve]) -> Figure:
    """P_pair (left) and P_all (right) over r [n], a line per eps; AT's choice and the maxima marked.

    P_pair is largest at r = 1 whatever eps is (theorem 2). The grid covers [0, 1].
    """
    r = np.asarray(ratio)
    heights = [np.asarray(p, dtype=float) for c in curves for p in (c.pair, c.both)]
    span = max(float(p.max()) for p in heights) - min(float(p.min()) for p in heights)
    with styled():
        figure = Figure(figsize=(8.4, 3.7), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for ax, what, title in (
            (left, "pair", "$P_{pair}$: above one"),
            (right, "both", "$P_{all}$: above both"),
        ):
            drawn = [np.asarray(getattr(c, what)) for c in curves]
            ends = _apart([float(p[-1]) for p in drawn], 0.058 * span)
            for i, (c, p, height) in enumerate(zip(curves, drawn, ends, strict=True)):
                color = _SHADES[i % len(_SHADES)]
                ax.plot(r, p, color=color, lw=1.8, label=c.label)
                best = 1.0 if what == "pair" else float(c.best)
                mark: Style = {"ls": "", "zorder": 4, "clip_on": False}
                ring: Style = {"mfc": "none", "mec": color, "mew": 1.4, **mark}
                ax.plot(best, np.interp(best, r, p), "o", ms=11, gid="best", **ring)
                ax.plot(c.at, np.interp(c.at, r, p), "s", ms=6, gid="at", mfc=color, mec="white", **mark)
                side: Style = {"va": "center", "fontsize": 8.5, "color": color, "clip_on": False}
                ax.text(r[-1] + 0.02 * (r[-1] - r[0]), height, c.label, **side)
            ax.set_title(
                f"{title} other class{'es, top-1' * (what == 'both')}", fontsize=9.5, parse_math=True
            )
            ax.set(xlim=(r[0], r[-1]), xlabel="$r = w_2/w_1$")
            ax.xaxis.label.set_parse_math(True)
        left.set_ylabel("probability under attack")
        left.plot([], [], "s", color=_SOFT, ms=6, label="adversarial training's choice")
        left.plot([], [], "o", mec=_SOFT, mfc="none", ms=11, label="maximum on [0, 1]")
        handles = left.get_legend_handles_labels()[0][-2:]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8.5)
    return freeze_layout(figure)


def phase_diagram(sigma: ArrayLike, eps0: ArrayLike, eps1: ArrayLike, *, beta: float | int) -> Figure:
    """Where cross-class features are used at all: over eps/mu and sigma/mu, all three [n] in units of mu.

    AT uses them below eps0, label smoothing below eps1. Grey hatching: outside the paper's conditions
    sigma < sqrt(pi) mu and eps < mu/2.
    """
    s, low, high = np.asarray(sigma), np.clip(eps0, 0, 0.5), np.clip(eps1, 0, 0.5)
    inside = s <= _WIDEST
    with styled({"axes.grid": False}):
        figure = Figure(figsize=(5.2, 4), layout="constrained")
        ax = figure.subplots()
        s, low, high = s[inside], low[inside], high[inside]
        edges = (np.zeros_like(s), low, high, np.full_like(s, 0.5))
        colors = ("#2166ac", "#fdb863", "#f4f4f5")
        for name, color, a, b in zip(("at", "smoothed", "none"), colors, edges, edges[1:], strict=False):
            ax.fill_betweenx(s, a, b, color=color, lw=0, gid=name)
        ax.plot(low, s, color=_INK, lw=1.4, gid="eps0")
        ax.plot(high, s, color=_INK, lw=1.4, ls="--", gid="eps1")
        ends = 0.58, 1.12 * _WIDEST
        out: Style = {"facecolor": "#d4d4d8", "edgecolor": "#a1a1aa", "hatch": "////", "lw": 0}
        ax.axhspan(_WIDEST, ends[1], **out)
        ax.fill_between([0.5, ends[0]], 0, _WIDEST, **out)
        ax.set(xlim=(0, ends[0]), ylim=(0, ends[1]))
        ax.set(xlabel="$\\epsilon/\\mu$", ylabel="$\\sigma/\\mu$")
        for axis in (ax.xaxis, ax.yaxis):
            axis.label.set_parse_math(True)
        _named(ax, s, low, high, beta)
    return freeze_layout(figure)


def _named(ax: Axes, s: np.ndarray, low: np.ndarray, high: np.ndarray, beta: float | int) -> None:
    """Names in the regions; that of the smoothed one stands beside its narrow strip."""
    centred: Style = {"ha": "center", "va": "center", "fontsize": 9}
    below = 0.3 * _WIDEST
    ax.text(float(np.interp(below, s, low)) / 2, below, "AT and LS\nuse them", color="white", **centred)
    beyond = 0.78 * _WIDEST
    ax.text((float(np.interp(beyond, s, high)) + 0.5) / 2, beyond, "neither", color=_INK, **centred)
    middle = 0.55 * _WIDEST
    strip = float(np.interp(middle, s, low) + np.interp(middle, s, high)) / 2
    ax.annotate(
        f"only LS\n($\\beta$ = {beta:g})",
        (strip, middle),
        xytext=(0.43, 0.52 * _WIDEST),
        color=_INK,
        bbox=PAPER,
        parse_math=True,
        arrowprops={"arrowstyle": "-", "color": _INK, "lw": 0.8},
        **centred,
    )
    up = 0.86 * _WIDEST
    for curve, name in ((low, "0"), (high, "1")):
        at = float(np.interp(up, s, curve)), up
        ax.annotate(
            f"$\\epsilon_{name}$", at, color=_INK, fontsize=10, bbox=PAPER, parse_math=True, ha="center"
        )
    outside: Style = {"bbox": PAPER, "color": _INK, "parse_math": True, **centred}
    ax.text(0.29, 1.06 * _WIDEST, "outside: $\\sigma \\geq \\sqrt{\\pi}\\,\\mu$", **outside)
    ax.text(0.54, 0.5 * _WIDEST, "outside: $\\epsilon \\geq \\mu/2$", rotation=90, **outside)


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """The heights moved up until neighbours are `gap` from each other."""
    placed = list(heights)
    order = sorted(range(len(placed)), key=placed.__getitem__)
    for below, i in pairwise(order):
        placed[i] = max(placed[i], placed[below] + gap)
    return placed
