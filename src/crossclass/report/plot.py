"""`cc.plot`: figures for papers and notebooks, of results and runs, with matplotlib.

    figure = cc.plot.matrix(result, order="similar")
    figure.axes[0].set_title("AT, l_inf 8/255")
    cc.plot.save(figure, "C.pdf")

Each function returns a matplotlib figure, which a notebook shows, and whose axes are yours to change; given
`ax`, it draws there instead. Colours can be told apart by colour-blind people, fonts in PDF files are
TrueType, and the same numbers give the same bytes.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from crossclass.analysis.class_order import by_similarity
from crossclass.analysis.measured_runs import load_results
from crossclass.analysis.metrics import METRICS
from crossclass.analysis.records import Measurement, ResultFile, columns
from crossclass.analysis.run_record import RunRecord, load_run
from crossclass.analysis.setting_names import differing, settings_of, value_of, words
from crossclass.core.errors import UserError, did_you_mean
from crossclass.report import plots
from crossclass.report.pictures import strip
from crossclass.report.plots.style import BARE, NAMED, RUNS, styled

__all__ = ["PAPER_WIDTHS", "Figure", "curves", "images", "matrix", "save"]

PAPER_WIDTHS = {"column": 3.25, "page": 6.75}
"""Inches of one column and of both, in the styles of ICML and CVPR; NeurIPS and ICLR have 5.5."""
Width: TypeAlias = Literal["column", "page"] | float | int
"""The width of a figure: a name of `PAPER_WIDTHS`, or inches."""
Run: TypeAlias = RunRecord | str | PathLike[str]
"""A run that `load_run` has read, or its folder."""
Runs: TypeAlias = Run | Sequence[Run] | Mapping[str, Run | Sequence[Run]]
_DIGEST = re.compile(r"-[0-9a-f]{12}$")
NUMBERS = 12
"""Up to so many classes the entries of a matrix are written into its cells."""


class Figure(plots.Figure):
    """A matplotlib figure that notebooks show, and that is saved with TrueType fonts."""

    def savefig(self, *given: Any, **more: Any) -> None:
        """As matplotlib's, which reads how fonts are embedded when it saves."""
        with styled():
            super().savefig(*given, **more)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=120)
        return buffer.getvalue()


def matrix(
    result: Any,
    class_names: Sequence[str] | None = None,
    *,
    key: str = "C",
    order: Literal["given", "similar"] = "given",
    numbers: bool | None = None,
    width: Width = "column",
    ax: Any = None,
) -> Any:
    """C, or another matrix of a result, class by class.

    Args:
        result: A measurement, a result file with one (or its path), or a matrix [K, K] with entries in
            [-1, 1] (NaN for a class without images).
        class_names: One for each class; unset are those of the measurement, or numbers.
        key: The matrix of the measurement: `C`, `icas_matrix`, `all_pairs_matrix`, `decision_matrix`,
            `offer_matrix`, `profile_matrix`.
        order: `similar` puts classes side by side that share much (average linkage over 1 - C).
        numbers: Write the entries into the cells; unset does so for at most 12 classes.
        width: `column` (3.25 inches), `page` (6.75), or inches.
        ax: Axes to draw into; unset makes a figure of its own.

    Returns:
        The figure; its first axes hold the matrix.

    Raises:
        UserError: The matrix is not square, the names are not one for each class, or there is no such matrix.
    """
    result = _measurement(result)
    if isinstance(result, Measurement):
        if key not in result.matrices:
            raise UserError(f"the result has no matrix '{key}'{did_you_mean(key, dict(result.matrices))}")
        class_names = class_names or result.class_names
        result = result.matrix(key)
    try:
        values = np.array(result, dtype=float)
    except (TypeError, ValueError) as e:
        raise UserError(
            f"a matrix [K, K] or a measurement is needed, and this is a {type(result).__name__}"
        ) from e
    K = values.shape[0] if values.ndim else 0
    if values.ndim != 2 or values.shape != (K, K) or not K:
        raise UserError(f"a matrix [K, K] is needed, and this has shape {list(values.shape)}")
    names = [str(name) for name in class_names or range(K)]
    if len(names) != K:
        raise UserError(f"there are {len(names)} class_names for {K} classes")
    at = by_similarity(values) if order == "similar" else list(range(K))
    masked = np.ma.masked_invalid(values[np.ix_(at, at)])
    side = _inches(width)
    with styled(BARE):
        figure = ax.figure if ax is not None else Figure(figsize=(side, 0.86 * side), layout="constrained")
        axes = ax if ax is not None else figure.add_subplot()
        points = 72 * (0.62 * side if ax is None else axes.get_window_extent().width / figure.dpi) / K
        image = plots.draw_matrix(axes, masked, [names[i] for i in at], 0, 1, "Blues", min(8.0, 0.8 * points))
        axes.spines[:].set_visible(False)
        if K <= NAMED:
            axes.set_aspect("equal")
        if numbers if numbers is not None else K <= NUMBERS:
            plots.write_numbers(axes, masked, 1, 2, min(7, 0.34 * points))
        bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7, length=2)
    return figure


def curves(
    runs: Runs,
    metric: str = "test_robust",
    *,
    label: str = "",
    width: Width = "column",
    ax: Any = None,
) -> Any:
    """A number over the epochs: a line for each run, a mean with a band for runs that differ by the seed.

    Args:
        runs: Runs of `load_run` or their folders: one, a list, or a mapping from a label to one or several
            that are drawn as a mean with a band from the smallest to the largest. Runs of a list that
            have all settings but the seed in common are drawn so too, and labelled by what differs.
        metric: A column of metrics.csv, such as `test_robust`, `test_clean`, `cas`.
        label: Of the vertical axis; unset is the name of the metric.
        width: `column` (3.25 inches), `page` (6.75), or inches.
        ax: Axes to draw into; unset makes a figure of its own.

    Returns:
        The figure; its first axes hold the curves.

    Raises:
        UserError: A folder is no run, no run has the metric, or there is none of its name.
    """
    if metric not in columns():
        raise UserError(f"a run has no column '{metric}'{did_you_mean(metric, columns())}")
    groups = _groups(runs)
    known = [m for m in METRICS if metric in (m.column("val"), m.column("test"))]
    percent = (known and known[0].unit == "accuracy") or metric.startswith("train_")
    percent = percent and metric != "train_loss"
    side = _inches(width)
    rows = {name: [[r.to_dict() for r in run.rows] for run in some] for name, some in groups.items()}
    each = {name: [dict(plots.series(one, metric)) for one in some] for name, some in rows.items()}
    if not any(any(some) for some in each.values()):
        raise UserError(f"'{metric}' was measured after no epoch of these runs")
    with styled():
        figure = ax.figure if ax is not None else Figure(figsize=(side, 0.66 * side), layout="constrained")
        axes = ax if ax is not None else figure.add_subplot()
        for i, (name, some) in enumerate(each.items()):
            style: dict[str, Any] = {"color": RUNS[i % len(RUNS)], "lw": 1.6, "label": name}
            style["ls"] = ("-", "--", ":", "-.")[i // len(RUNS) % 4]
            plots.mean_and_band(axes, some, 100 if percent else 1, **style)
        text = known[0].label if known else metric.replace("_", " ")
        part = metric.partition("_")[0]
        of = f"{part} " if part in ("val", "test", "train") and known else ""
        axes.set(xlabel="epoch", ylabel=label or f"{of}{text}{' (%)' if percent else ''}")
        axes.locator_params(axis="x", integer=True)
        if len(each) > 1:
            axes.legend(fontsize=7.5)
    return figure


def images(result: Any, n: int = 10) -> Any:
    """The images that a measurement has kept, the same under the attack, and the difference.

    Args:
        result: What `measure` has returned in this process, of one checkpoint (`Measure.images` says how many
            are kept).
        n: At most so many are shown, the first of each class where there are enough.

    Returns:
        The figure.

    Raises:
        UserError: The measurement holds no images, as one that was read from a file.
    """
    result = _measurement(result)
    if getattr(result, "pictures", None) is None:
        raise UserError("the measurement holds no images; measure again in this process with images=10")
    labels = result.pictures.labels
    nth = [list(labels[:i]).count(label) for i, label in enumerate(labels)]  # of its class
    few = np.sort(np.argsort(nth, kind="stable")[:n])
    cut = {k: getattr(result.pictures, k)[few] for k in ("images", "labels", "clean", "robust")}
    if result.pictures.attacked is not None:
        cut["attacked"] = result.pictures.attacked[few]
    drawn = strip([("", replace(result.pictures, **cut))], result.class_names, "")
    assert drawn is not None
    figure = drawn.drawing
    figure.__class__ = Figure  # so that a notebook shows it
    return figure


def save(figure: Any, path: Path | str) -> Path:
    """Write a figure as .pdf, .svg or .png (200 dots an inch); the same figure gives the same bytes.

    Args:
        figure: A figure of this module, or any of matplotlib.
        path: The file, which is replaced.

    Returns:
        The path.

    Raises:
        UserError: The ending is none of these.
    """
    return plots.save(figure, Path(path))


def _measurement(result: Any) -> Any:
    """The one measurement of a result file or of its path; anything else as it is."""
    if isinstance(result, str | PathLike):
        result = load_results(Path(result))
    return result.only if isinstance(result, ResultFile) else result


def _inches(width: Width) -> float:
    inches = PAPER_WIDTHS.get(width) if isinstance(width, str) else float(width)
    if inches is None or not 0.5 <= inches <= 50:
        raise UserError(f"width={width!r}: give column, page, or inches from 0.5 to 50")
    return inches


def _groups(runs: Runs) -> dict[str, list[RunRecord]]:
    """The runs of each line, by its label."""
    if isinstance(runs, Mapping):
        return {name: _records(some) for name, some in runs.items()}
    every = _records(runs)
    if not every:
        raise UserError("curves needs a run, such as load_run('runs/NAME')")
    settings = [settings_of(run.config) for run in every]
    names = differing(settings, pool=("seed",))
    out: dict[str, list[RunRecord]] = {}
    for run, own in zip(every, settings, strict=True):
        parts = [f"{name} {words(value_of(own, paths))}" for name, paths in names.items()]
        label = plots.without_seed(str(run.env.get("label") or _DIGEST.sub("", run.folder.name)))
        out.setdefault(", ".join(parts) or label, []).append(run)
    return out


def _records(runs: Any) -> list[RunRecord]:
    if isinstance(runs, RunRecord | str | PathLike):
        runs = [runs]
    return [run if isinstance(run, RunRecord) else load_run(Path(run)) for run in runs]
