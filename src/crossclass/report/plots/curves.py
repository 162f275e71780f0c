"""Accuracies and CAS over the epochs of one run or of several, with the best and the last epoch marked."""

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crossclass.report.plots.output import freeze_layout
from crossclass.report.plots.style import (
    CAS,
    CLEAN,
    PAPER,
    ROBUST,
    RUNS,
    TRAIN,
    VAL,
    Best,
    Milestones,
    Row,
    Runs,
    Style,
    styled,
)
from crossclass.training import alarms

_SEED = re.compile(r"(?:^|[\s,·(\[_-]+)seed[\s=_-]*\d+[)\]]?", re.IGNORECASE)
_SPLITS = {"val": "validation", "test": "test"}


def series(rows: Sequence[Row], key: str) -> list[tuple[int, float]]:
    """The (epoch, value) pairs of the epochs in which `key` was measured."""
    pairs = ((int(r["epoch"]), r.get(key)) for r in rows)
    return [(e, float(v)) for e, v in pairs if v is not None and np.isfinite(v)]


def without_seed(label: str) -> str:
    """The label of a run without its seed; runs that share it are drawn as one."""
    return _SEED.sub("", label) or label


def best_epoch(rows: Sequence[Row]) -> Best:
    """The epoch of the largest robust accuracy and the split that chose it: validation, else test."""
    for split in _SPLITS:
        if pairs := series(rows, f"{split}_robust"):
            return max(pairs, key=lambda p: p[1])[0], split  # the first of equals
    return None


def curves(
    runs: Runs,
    milestones: Milestones | None = None,
    best: Mapping[str, Best] | None = None,
    *,
    evaluated: Sequence[tuple[int, float, float | None]] = (),
    width: float | int = 10,
) -> Figure:
    """Accuracies (above) and CAS (below) over the epochs.

    One run shows every accuracy with its best and last epoch marked; several are overlaid, and runs that
    differ in the seed only become a mean with a band. `milestones` are the epochs at which the learning
    rate drops, `best` replaces `best_epoch`, both by label; `evaluated` are epoch, robust accuracy and CAS of
    checkpoints of the one run that were evaluated after training; `width` is in inches.
    """
    at = {label: best_epoch(rows) for label, rows in runs.items()} | dict(best or {})
    with styled():
        figure = Figure(figsize=(width, 5.8), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        if len(runs) == 1:
            ((label, rows),) = runs.items()
            _one(top, bottom, rows, at[label])
            ring: Style = {"ls": "", "marker": "D", "ms": 7, "mfc": "none", "mew": 1.4, "zorder": 7}
            points = [(epoch, robust) for epoch, robust, _ in evaluated]
            _line(top, points, 100, color=ROBUST, label="after training", **ring)
            points = [(epoch, cas) for epoch, _, cas in evaluated if cas is not None]
            _line(bottom, points, color=CAS, label="after training", **ring)
        else:
            _several(top, bottom, runs, at)
        _milestones(top, bottom, runs, milestones or {})
        _scale_of_cas(bottom, [row for rows in runs.values() for row in rows])
        room = 1.2 if len(runs) == 1 else 1.05  # for the name of the best epoch
        top.set(ylabel="accuracy (%)", ylim=(0, room * max(top.dataLim.y1, 1.0)))
        top.set_yticks([t for t in top.get_yticks() if 0 <= t <= min(top.get_ylim()[1], 100)])
        bottom.set(ylabel="CAS (test, adversarial)", xlabel="epoch")
        bottom.locator_params(axis="x", integer=True)
        for ax, columns in ((top, 5 if width > 6 else 3 - min(len(runs), 2)), (bottom, width // 3)):
            names = ax.get_legend_handles_labels()[1]
            if len(names) > (ax is bottom):
                fitting = (width - 0.8) / (0.065 * max(map(len, names)) + 0.55)  # inches: letters, handle
                above: Style = {"loc": "lower left", "bbox_to_anchor": (0, 1 + 0.05 * (ax is top))}
                ax.legend(ncols=max(1, min(len(names), columns, int(fitting))), fontsize=8.5, **above)
        with warnings.catch_warnings(action="ignore"):  # a glyph that is missing here
            return freeze_layout(figure)


def _line(ax: Axes, pairs: Sequence[tuple[int, float]], scale: float | int = 1, **style: Any) -> None:
    if pairs:
        ax.plot([e for e, _ in pairs], [scale * v for _, v in pairs], **style)


def _one(top: Axes, bottom: Axes, rows: Sequence[Row], best: Best) -> None:
    """One run: every accuracy, best and last epoch marked, epochs with few predicted classes as rings."""
    dots: Style = {"marker": "o", "markersize": 2.4} if len(series(rows, "cas")) <= 80 else {}
    thin: Style = {"linewidth": 0.9, "alpha": 0.8, **dots}
    bold: Style = {"linewidth": 2, **dots}
    _line(top, series(rows, "train_robust"), 100, color=TRAIN, label="train robust", ls="--")
    robust, cas = series(rows, "test_robust"), series(rows, "cas")
    _line(top, robust, 100, color=ROBUST, label="test robust", zorder=3, **bold)
    _line(top, series(rows, "val_robust"), 100, color=VAL, label="validation robust", **thin)
    _line(top, series(rows, "test_clean"), 100, color=CLEAN, label="test clean", **thin)
    _line(bottom, cas, color=CAS, label="test", zorder=3, **bold)
    _line(bottom, series(rows, "val_cas"), color="#86b3d8", label="validation", **thin)
    if hollow := series([row for row in rows if alarms.predicts_few(row)], "cas"):
        ring: Style = {"color": CAS, "marker": "o", "mfc": "white", "ls": "", "zorder": 4}
        _line(bottom, hollow, label="at most half the classes predicted", **ring)
    if best is None:
        return
    epoch, by = best[0], _SPLITS.get(best[1], best[1])
    for ax, pairs, scale, color in ((top, robust, 100.0, ROBUST), (bottom, cas, 1.0, CAS)):
        ax.axvline(epoch, color="#3f3f46", linewidth=0.9)
        last = pairs[-1][0] if pairs else None
        for x, y in pairs:
            if x not in (epoch, last):
                continue
            ax.plot(x, scale * y, "s" if x == last else "o", ms=7, mec="white", zorder=5, c=color)
            right = x - pairs[0][0] > 0.55 * (pairs[-1][0] - pairs[0][0])
            offset: Style = {"xytext": (-6 if right else 7, 9), "textcoords": "offset points"}
            side: Style = {"ha": "right" if right else "left", "fontsize": 8.5, "bbox": PAPER}
            text, to = f"{y:,.1f}", (x, scale * y)
            if ax is top and y > 0.12:
                offset["xytext"] = (-6 if right else 7, -14)
            if ax is top and x == last:
                text = f"{'best and last' if x == epoch else 'last'}, epoch {x}: {100 * y:.1f} %"
            elif ax is top:  # beside its line, clear of the falling curve
                text = f"best (by {by})\nepoch {x}: {100 * y:.1f} %"
                to, offset["xycoords"] = (x, 0.93), top.get_xaxis_transform()
            ax.annotate(text, to, color=color, zorder=6, **offset, **side)


def mean_and_band(
    ax: Axes,
    each: Sequence[Mapping[int, float]],
    scale: float | int = 1,
    *,
    band: bool = True,
    **style: Any,
) -> None:
    """The mean over runs of their values by epoch, where all have one; each as a thin line, all as a band."""
    common = sorted(set.intersection(*(set(one) for one in each)))
    values = scale * np.array([[one[e] for e in common] for one in each])
    _line(ax, list(zip(common, values.mean(0), strict=True)), **style)
    if len(each) > 1 and band:
        color = style["color"]
        for one in each:
            _line(ax, list(one.items()), scale, color=color, lw=0.6, alpha=0.5)
        ax.fill_between(common, values.min(0), values.max(0), color=color, alpha=0.15, linewidth=0)


def _scale_of_cas(bottom: Axes, rows: Sequence[Row]) -> None:
    """Keep a collapsed epoch, whose CAS is near its maximum, from flattening the curve; write what is cut."""
    kept = series([row for row in rows if not alarms.predicts_few(row)], "cas")
    cut = series([row for row in rows if alarms.predicts_few(row)], "cas")
    top = 1.3 * max((v for _, v in kept), default=0)
    above = [p for p in cut if p[1] > 1.5 * top] if kept else []
    bottom.set_ylim(0, top if above else 1.2 * max(bottom.dataLim.y1, 0.1))
    if above:
        where: Style = {"transform": bottom.get_xaxis_transform(), "va": "top", "bbox": PAPER}
        beside = max(min(e for e, _ in kept), max(e for e, _ in above))
        text = f"↑ {max(v for _, v in above):,.1f}, few classes predicted"
        bottom.text(beside, 0.97, text, color="#71717a", fontsize=7.5, **where)


def _several(top: Axes, bottom: Axes, runs: Runs, best: Mapping[str, Best]) -> None:
    """A colour per run; runs that differ only by their seed share it: thin lines, mean and band."""
    by_label: dict[str, list[str]] = {}
    for label in runs:
        by_label.setdefault(without_seed(label), []).append(label)
    panels = ((top, "train_robust", 100), (top, "test_robust", 100), (bottom, "cas", 1))
    for i, (shared, labels) in enumerate(by_label.items()):
        color, alone = RUNS[i % len(RUNS)], len(labels) == 1
        name = labels[0] if alone else f"{shared} (mean of {len(labels)} seeds, band: all)"
        for ax, key, scale in panels:
            train = key == "train_robust"
            bold: Style = {"color": color, "ls": "--" if train else "-", "lw": 1 if train else 2}
            bold["label"] = name if key == "test_robust" else "_"
            each = [dict(series(runs[label], key)) for label in labels]
            mean_and_band(ax, each, scale, band=not train, **bold)
            for at, one in zip((best[label] for label in labels), each, strict=True):
                if at and at[0] in one and not train:
                    ax.plot(at[0], scale * one[at[0]], "o", color=color, mec="white", zorder=5)
    keys: dict[str, Style] = {"test robust, CAS": {}, "train robust": {"ls": "--", "lw": 1.0}}
    for label, style in (keys | {"best epoch": {"ls": "", "marker": "o"}}).items():
        top.plot([], [], color="#71717a", label=label, **style)


def _milestones(top: Axes, bottom: Axes, runs: Runs, milestones: Milestones) -> None:
    """Dashed lines where the learning rate drops, with the factor if the rows hold the rates."""
    labels: dict[int, str] = {}
    for label, rows in runs.items():
        rates = series(rows, "lr")
        for epoch in milestones.get(label, ()):
            before = [v for e, v in rates if e < epoch]
            after = [v for e, v in rates if e > epoch]  # whether it falls before or after `epoch`
            if any(int(row["epoch"]) >= epoch for row in rows):
                known = before and after and after[0] > 0
                labels[epoch] = f"lr /{before[-1] / after[0]:.3g}" if known else "lr drop"
    for epoch, text in labels.items():
        for ax in (top, bottom):
            ax.axvline(epoch, color="#a1a1aa", linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        at: Style = {"transform": top.get_xaxis_transform(), "ha": "center", "va": "bottom"}
        top.text(epoch, 1.01, text, color="#71717a", fontsize=7.5, **at)
