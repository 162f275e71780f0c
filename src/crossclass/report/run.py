"""The page of one run: what happened between its best and its last checkpoint."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from markupsafe import Markup

from crossclass.analysis.metrics import METRICS, Metric, metric
from crossclass.analysis.records import Matrix
from crossclass.analysis.run_record import RunRecord
from crossclass.core.errors import UserError
from crossclass.report import comparison, measurement, plots
from crossclass.report.best_and_last import BestAndLast, checked, measured
from crossclass.report.format import change, level, percent
from crossclass.report.measurement import matrix_of
from crossclass.report.sections import Section, download, render
from crossclass.training import alarms

FILES = ("metrics.csv", "config.yaml", "measure.json")
"""Files of the run that the page offers for download."""
PAIRS = 10
"""Number of most shared pairs of classes that are listed for each checkpoint."""


@dataclass(frozen=True)
class RunView:
    """What the sections of a run's page read."""

    run: RunRecord
    label: str
    index: int
    """Tells its anchors from those of other runs."""
    room: int
    """How many matrix entries its slider may carry."""

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The epochs as plain data."""
        return [row.to_dict() for row in self.run.rows]

    @cached_property
    def both(self) -> BestAndLast | None:
        """Best and last; None before the first check on test images."""
        return measured(self.run.results) or checked(self.run, self.rows)

    @cached_property
    def names(self) -> list[str]:
        """The names of the classes."""
        sizes = [len(row.get("C") or row.get("classwise_robust") or ()) for row in self.rows]
        if self.both:
            sizes.append(len(self.both.best.classwise_robust or ()))
        names = [str(name) for name in self.run.env.get("class_names") or ()]
        return names if len(names) == max(sizes) else [f"class {i}" for i in range(max(sizes))]

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """Every alarm and note with the epoch in which it ended; empty if the rows lack their numbers."""
        try:
            n = (self.run.config.get("validation") or {}).get("n")
            raised = alarms.history(self.rows, len(self.names), n)
        except UserError:  # rows that do not say how many images were checked
            return []
        return [{"text": str(a), "level": a.level, "ended": ended} for a, ended in raised]

    @property
    def failure(self) -> list[dict[str, Any]]:
        """Why training stopped, as an alarm, if it stopped by itself."""
        failure = self.run.failure
        if not {"name", "epoch", "evidence"} <= set(failure):
            return []
        name, epoch = str(failure["name"]).replace("-", " "), failure["epoch"]
        text = f"{name} in epoch {epoch}, where training stopped: {failure['evidence']}"
        return [{"text": text, "level": "alarm", "ended": None}]

    @cached_property
    def warnings(self) -> list[dict[str, Any]]:
        """What else was warned of, and where; texts that differ in numbers only are one warning."""
        unique: dict[str, dict[str, Any]] = {}
        names = {name.replace("-", " ") for name in alarms.RULES} if self.history else set()
        given = [(f"epoch {row['epoch']}", row["warnings"], r" (?:since|in) epoch|:") for row in self.rows]
        given += [(m.checkpoint.name, m.warnings, r" (?:since|in) epoch") for m in self.run.results.results]
        given = [("the start", self.run.env.get("warnings") or [], ":$"), *given]
        for where, texts, end in given:
            for text in map(str, texts):
                if re.split(end, text)[0] in names:
                    continue  # it is in the history
                one = unique.setdefault(re.sub(r"[\d.]+", "#", text), {"first": where, "times": 0})
                one |= {"text": text, "last": where, "times": one["times"] + 1}
        return list(unique.values())

    def html(self, heading: int) -> Markup:
        """The whole article."""
        return render("run", SECTIONS, self, heading)


def labels(runs: Sequence[RunRecord]) -> list[str]:
    """A name for each run; the seed is in it only where runs differ in nothing else."""
    given = [str(run.env.get("label") or run.folder.name) for run in runs]
    names = [plots.without_seed(name) for name in given]
    alike = [(name, {**run.config, "seed": None}) for name, run in zip(names, runs, strict=True)]
    out: list[str] = []
    for run, label, name, one in zip(runs, given, names, alike, strict=True):
        if names.count(name) > 1:
            label = name if names.count(name) == alike.count(one) else f"{name} ({run.folder.name[-8:]})"
            label += f", seed {run.env.get('seed', run.config.get('seed', 'unknown'))}"
        out.append(label if label not in out else f"{label} ({run.folder})")
    return out


def curve_figures(views: Sequence[RunView]) -> dict[str, plots.Figure]:
    """Accuracies and CAS over the epochs of one or more runs, for a wide and for a narrow window."""
    rows = {v.label: v.rows for v in views}
    milestones = {v.label: v.run.config.get("lr_milestones") or () for v in views}
    best = {v.label: (v.both.best.checkpoint.epoch or 0, v.both.chosen_by) for v in views if v.both}
    return {
        name: plots.curves(rows, milestones, best, width=width)
        for name, width in {"wide": 10.0, "narrow": 4.6}.items()
    }


def tiles(view: RunView) -> dict[str, Any] | None:
    """One tile for each headline metric at best and last, and the accuracy on training images."""
    both = view.both
    if both is None:
        return None
    shown = [_tile(both, m, values) for m in METRICS if m.headline and (values := both.values(m))]
    train, robust = dict(plots.series(view.rows, "train_robust")), metric("robust")
    first, last = (train.get(m.checkpoint.epoch or 0) for m in (both.best, both.last))
    if first is not None and last is not None:
        tile = {"title": "Train robust accuracy", "best": percent(first), "last": percent(last)}
        shown.append(tile | {"change": change(first - last, None, robust), "note": "as logged in training"})
    return {"tiles": shown, "after": both.last.checkpoint.epoch != view.rows[-1]["epoch"]}


def _tile(both: BestAndLast, m: Metric, values: tuple[float, float]) -> dict[str, Any]:
    (a, b), n, ends, notes = values, both.best.data.n, both.interval(m), []
    if m.unit == "accuracy" and n and (images := round(n * (b - a))):
        notes.append(f"{abs(images):,} of {n:,} images {'fewer' if images < 0 else 'more'}")
    by = change(a - b, ends, m)
    tile = comparison.difference_tile(m, values, by, ends, level(both.intervals), notes)
    return tile | ({"title": f"{both.split.capitalize()} {m.label}"} if m.unit == "accuracy" else {})


def curves(view: RunView) -> dict[str, Any]:
    """Accuracies and CAS over the epochs."""
    rows = [row for row in view.rows if row.get("cas") is not None]
    largest = max(rows, key=lambda row: row["cas"], default=None)
    return {"figures": curve_figures([view]), "largest": largest}


def explorer(view: RunView) -> dict[str, Any] | None:
    """The epoch slider: matrices in thousandths, half of them where they are symmetric."""
    rows = [row for row in view.rows if row.get("C")]
    if not rows:
        return None
    step = -(-len(rows) * len(view.names) ** 2 // (2 * view.room))  # there is room for every `step`th matrix
    ends = [m.checkpoint.epoch for m in view.both.checkpoints] if view.both else [None, None]
    keys = {"epoch": "epoch", "robust": "test_robust", "cas": "cas", "predicted": "predicted_classes"}
    frames = [
        {"c": _thousandths(row["C"]), **{k: row.get(v) for k, v in keys.items()}}
        for i, row in enumerate(rows)
        if i % step == 0 or row["epoch"] in ends
    ]
    curve = [[row.get(key) for key in keys.values()] for row in view.rows]
    data = {"names": view.names, "frames": frames, "curve": curve, "ends": ends, "step": step}
    return {"data": data}


def _thousandths(C: Matrix) -> list[int | None]:
    whole = [[None if v is None else round(1000 * v) for v in row] for row in C]
    half = all(whole[i][j] == whole[j][i] for i in range(len(C)) for j in range(i))
    return [v for i, row in enumerate(whole) for v in (row[i:] if half else row)]


def matrices(view: RunView) -> dict[str, Any] | None:
    """C at best, at last, and the difference."""
    if view.both is None:
        return None
    best, last = (matrix_of(m, "C") for m in view.both.checkpoints)
    figures = {side: plots.matrix(C, view.names) for side, C in (("best", best), ("last", last)) if C}
    if best and last:
        figures["difference"] = plots.difference(plots.subtract(best, last), view.names)
    empty = [view.names[i] for i in view.both.best.empty_classes]
    return {"figures": figures, "empty": empty} if figures else None


def truth(view: RunView) -> dict[str, Any] | None:
    """C beside the planted sharing, on data where it is known."""
    if view.both is None:
        return None
    shown = {key: matrix_of(view.both.best, key) for key in ("sharing", "C")}
    figures = {key: plots.matrix(matrix, view.names) for key, matrix in shown.items() if matrix}
    auc = [m.metrics.get("sharing_auc") for m in view.both.checkpoints]
    return {"auc": auc, "figures": figures} if len(figures) == 2 else None


def classes(view: RunView) -> dict[str, Any] | None:
    """Robust accuracy per class, the largest loss first, the confusion matrix, and the most shared pairs."""
    if view.both is None:
        return None
    best, last = view.both.checkpoints
    parts = zip(view.names, best.classwise_robust or (), last.classwise_robust or (), strict=False)
    rows = [{"name": n, "best": b, "last": z} for n, b, z in parts]
    counts, pairs = matrix_of(best, "confusion"), _pairs(view.names, view.both)
    if not (rows or counts or pairs):
        return None
    return {
        "rows": sorted(rows, key=lambda r: (r["last"] or 0) - (r["best"] or 0)),
        "confusion": plots.confusion(counts, view.names) if counts else None,
        "pairs": pairs,
    }


def _pairs(names: Sequence[str], both: BestAndLast) -> list[dict[str, Any]]:
    """The most shared pairs of either checkpoint, with C at both."""
    pairs: dict[tuple[int, int], None] = {}
    known = [C for m in both.checkpoints if (C := matrix_of(m, "C"))]
    for C in known:
        upper = ((i, j) for i in range(len(C)) for j in range(i + 1, len(C)))
        positive = (p for p in upper if (C[p[0]][p[1]] or 0) > 0)
        pairs |= dict.fromkeys(sorted(positive, key=lambda p: -(C[p[0]][p[1]] or 0))[:PAIRS])
    return [{"a": names[i], "b": names[j], "C": [C[i][j] for C in known]} for i, j in pairs]


def evaluations(view: RunView) -> dict[str, Any] | None:
    """Every evaluation of a checkpoint, as in `measure.json`."""
    views = measurement.views(view.run.results.results, f"run-{view.index}-measured")
    shown = measurement.measured_metrics(view.run.results.results)
    return {"views": views, "shown": shown} if views else None


def comparisons(view: RunView) -> dict[str, Any] | None:
    """The comparisons of `measure.json`."""
    views = comparison.views(view.run.results, view.run.folder, f"run-{view.index}")
    return {"views": views} if views else None


def conditions(view: RunView) -> dict[str, Any]:
    """What the numbers above were measured with."""
    return {"config": view.run.config}


def settings(view: RunView) -> dict[str, Any]:
    """Settings that differ from their defaults, the environment, and files to take away."""
    files = [path for name in FILES if (path := view.run.folder / name).exists()]
    hidden = ("class_names", "settings_changed", "check", "final", "data", "data_path", "sharing")
    return {
        "changed": view.run.env.get("settings_changed"),
        "environment": {k: v for k, v in view.run.env.items() if k not in hidden},
        "seconds": [sum(row.get(k) or 0 for row in view.rows) for k in ("seconds", "check_seconds")],
        "downloads": dict(map(download, files)),
    }


SECTIONS: list[Section[RunView]] = [
    Section("tiles", "Best and last checkpoint in numbers", tiles),
    Section("curves", "Curves", curves),
    Section("explorer", "Which classes share features, epoch by epoch", explorer),
    Section("matrices", "C at the best and at the last checkpoint", matrices),
    Section("truth", "Against the planted truth", truth),
    Section("classes", "Class by class", classes),
    Section("evaluations", "Every evaluation of a checkpoint", evaluations),
    Section("comparisons", "", comparisons),
    Section("conditions", "Under which conditions", conditions),
    Section("settings", "Settings off their defaults", settings),
]
"""The sections of a run, in the order of the page."""
