"""Figures of plain numbers: curves over epochs, class-by-class matrices, saliency maps, the theory.

Every function takes numbers and returns a `Figure`, without pyplot and its global state. The same numbers
give the same SVG, byte for byte, so that a committed figure changes only when they do.
"""

from crossclass.report.plots import backend  # noqa: F401 - before anything imports matplotlib

# isort: split
from matplotlib.figure import Figure

from crossclass.report.plots.ablation import ablation_curves
from crossclass.report.plots.bars import class_bars
from crossclass.report.plots.curves import best_epoch, curves, mean_and_band, series, without_seed
from crossclass.report.plots.feature_sheet import Panel, feature_sheet, overlay_strip
from crossclass.report.plots.matrices import (
    confusion,
    difference,
    draw_matrix,
    matrix,
    matrix_grid,
    subtract,
    write_numbers,
)
from crossclass.report.plots.output import file_kind, inline, save, svg
from crossclass.report.plots.panels import dots, lines, text_table
from crossclass.report.plots.saliency import saliency_grid
from crossclass.report.plots.strip import amplified, image_strip, planted_parts
from crossclass.report.plots.theory import SuccessCurve, feature_weights, phase_diagram, success_curves

__all__ = [
    "Figure",
    "Panel",
    "SuccessCurve",
    "ablation_curves",
    "amplified",
    "best_epoch",
    "class_bars",
    "confusion",
    "curves",
    "difference",
    "dots",
    "draw_matrix",
    "feature_sheet",
    "feature_weights",
    "file_kind",
    "image_strip",
    "inline",
    "lines",
    "matrix",
    "matrix_grid",
    "mean_and_band",
    "overlay_strip",
    "phase_diagram",
    "planted_parts",
    "saliency_grid",
    "save",
    "series",
    "subtract",
    "success_curves",
    "svg",
    "text_table",
    "without_seed",
    "write_numbers",
]
