"""Figures of plain numbers: curves over epochs, class-by-class matrices, maps; matplotlib's one door.

Every function is pure: numbers in, a `Figure` out, without pyplot and its global state. The same
numbers give the same SVG, byte for byte, so that a committed figure changes only when they do.
"""

from matplotlib.figure import Figure

from crossclass.plot.epochs import chosen, curves, family, points
from crossclass.plot.maps import saliency_grid
from crossclass.plot.matrices import confusion, difference, matrix, minus
from crossclass.plot.output import inline, save, svg
from crossclass.plot.panels import dots, lines, sheet, words
from crossclass.plot.style import Best, Drops, Matrix, Row, Runs, Style
from crossclass.plot.theory import Success, feature_weights, phase_diagram, success_curves

__all__ = [
    "Best",
    "Drops",
    "Figure",
    "Matrix",
    "Row",
    "Runs",
    "Style",
    "Success",
    "chosen",
    "confusion",
    "curves",
    "difference",
    "dots",
    "family",
    "feature_weights",
    "inline",
    "lines",
    "matrix",
    "minus",
    "phase_diagram",
    "points",
    "saliency_grid",
    "save",
    "sheet",
    "success_curves",
    "svg",
    "words",
]
