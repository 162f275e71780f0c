"""Figures of plain numbers: curves over epochs, class-by-class matrices, maps; matplotlib's one door.

Every function is pure: numbers in, a `Figure` out, without pyplot and its global state. The same
numbers give the same SVG, byte for byte, so that a committed figure changes only when they do.
"""

from matplotlib.figure import Figure

from crossclass.report.plots.curves import chosen, curves, family, points
from crossclass.report.plots.matrices import confusion, difference, matrix, minus
from crossclass.report.plots.output import inline, save, svg
from crossclass.report.plots.panels import dots, lines, matrix_grid, words
from crossclass.report.plots.saliency import saliency_grid
from crossclass.report.plots.style import Best, Drops, Matrix, Row, Runs, Style
from crossclass.report.plots.theory import Success, feature_weights, phase_diagram, success_curves

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
    "matrix_grid",
    "minus",
    "phase_diagram",
    "points",
    "saliency_grid",
    "save",
    "success_curves",
    "svg",
    "words",
]
