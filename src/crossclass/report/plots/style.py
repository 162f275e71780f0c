"""What all figures share: the types of their inputs, colours, and settings of matplotlib."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import matplotlib as mpl
from numpy.typing import NDArray

Row: TypeAlias = Mapping[str, Any]  # an epoch as logged; what was not measured is missing or None
Runs: TypeAlias = Mapping[str, Sequence[Row]]  # by the label of the run
Milestones: TypeAlias = Mapping[str, Sequence[int]]  # epochs at which the learning rate drops, by label
Best: TypeAlias = tuple[int, str] | None  # the best epoch and the split that chose it
Matrix: TypeAlias = Sequence[Sequence[float | int | None]] | NDArray[Any]  # None: a class without images
Style: TypeAlias = dict[str, Any]
ROBUST, VAL, CAS, TRAIN, CLEAN = "#c2410c", "#f0a274", "#08519c", "#52525b", "#0f9d76"
RUNS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#6a3d9a", "#b8860b", "#1b1b1b", "#56b4e9")
NAMED = 30  # more classes than this, and the axes count instead of naming
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e7",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "text.parse_math": False,  # a class may be called "$x$"
    "svg.hashsalt": "crossclass",
    "pdf.fonttype": 42,  # TrueType, which publishers want: matplotlib's own is Type 3
    "ps.fonttype": 42,
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's own font
}
BARE: Any = dict.fromkeys(("axes.grid", "axes.spines.left", "axes.spines.bottom"), False)
"""On top of `STYLE`, for pictures without axes."""
_THEIRS = ("backend", "interactive", "toolbar", "timezone", "webagg", "tk.", "figure.hooks", "date.epoch")
"""What says how figures are shown: of no meaning for files, and the business of whoever shows some."""


def styled(changes: Style | None = None) -> AbstractContextManager[None]:
    """Inside, figures are drawn in `STYLE` on top of matplotlib's defaults, not of a matplotlibrc."""
    usual: dict[str, Any] = {k: v for k, v in mpl.rcParamsDefault.items() if not k.startswith(_THEIRS)}
    return mpl.rc_context(usual | STYLE | (changes or {}))


PAPER = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 0.8}
