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
from crossclass.report.downloads import download
from crossclass.report.ends import End, Ends, checked_ends, finding, measured_ends, verdict
from crossclass.report.format import (
    change,
    holds_zero,
    percent,
    value,
    value_change,
)
from crossclass.report.measurement import level, sentence
from crossclass.report.sections import Levels, Section, environment, render
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
    def ends(self) -> Ends | None:
        """Best and last; None before the first check on test images."""
        return measured_ends(self.run.results) or checked_ends(self.run, self.rows)

    @cached_property
    def names(self) -> list[str]:
        """The names of the classes."""
        sizes = [len(row.get("C") or row.get("classwise_robust") or ()) for row in self.rows]
        if self.ends:
            sizes.append(len(self.ends.best.classwise_robust))
        names = [str(name) for name in self.run.env.get("class_names") or ()]
        return names if len(names) == max(sizes) else [f"class {i}" for i in range(max(sizes))]

    @property
    def check(self) -> str | None:
        """The attack of the checks during training, in words."""
        check: str | None = self.run.env.get("check")
        return check

    @property
    def finding(self) -> str | None:
        """What happened, in one sentence."""
        return finding(self.ends, self.run.done) if self.ends else None

    @property
    def verdict(self) -> str:
        """Whether accuracy and CAS fell together, and whether that may be chance."""
        return verdict(self.ends) if self.ends else ""

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
        for where, texts, end in given:
            for text in map(str, texts):
                if re.split(end, text)[0] in names:
                    continue  # it is in the history
                one = unique.setdefault(re.sub(r"[\d.]+", "#", text), {"first": where, "times": 0})
                one |= {"text": text, "last": where, "times": one["times"] + 1}
        return list(unique.values())

    @cached_property
    def figures(self) -> dict[str, Markup]:
        """The curves for a wide and for a narrow window."""
        return curve_figures([self])

    def html(self, levels: Levels) -> Markup:
        """The whole article."""
        template = environment().get_template("run.html.j2")
        return Markup(
            template.render(
                view=self,
                run=self.run,
                ends=self.ends,
                levels=levels,
                sections=render("run", SECTIONS, self, levels),
            )
        )


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


def curve_figures(views: Sequence[RunView]) -> dict[str, Markup]:
    """Accuracies and CAS over the epochs of one or more runs, for a wide and for a narrow window."""
    rows = {v.label: v.rows for v in views}
    milestones = {v.label: v.run.config.get("lr_milestones") or () for v in views}
    best = {v.label: (v.ends.best.epoch or 0, v.ends.chosen_by) for v in views if v.ends}
    widths = {"wide": 10.0, "narrow": 4.6}
    return {k: Markup(plots.svg(plots.curves(rows, milestones, best, width=w))) for k, w in widths.items()}


def tiles(view: RunView) -> dict[str, Any] | None:
    """One tile for each headline metric at best and last, and the accuracy on training images."""
    ends = view.ends
    if ends is None:
        return None
    shown = [_tile(ends, m, both) for m in METRICS if m.headline and (both := ends.both(m))]
    train = dict(plots.series(view.rows, "train_robust"))
    first, last = (train.get(end.epoch or 0) for end in (ends.best, ends.last))
    if first is not None and last is not None:
        shown.append(
            {
                "title": "Train robust accuracy",
                "best": percent(first),
                "last": percent(last),
                "change": value_change(last - first, metric("robust")),
                "note": "as logged in training",
            }
        )
    return {"view": view, "ends": ends, "tiles": shown, "after": ends.last.epoch != view.rows[-1]["epoch"]}


def _tile(ends: Ends, m: Metric, both: tuple[float, float]) -> dict[str, Any]:
    a, b = both
    interval = ends.interval(m)
    notes = []
    if m.unit == "accuracy" and ends.n and (images := round(ends.n * (b - a))):
        notes.append(f"{abs(images):,} of {ends.n:,} images {'fewer' if images < 0 else 'more'}")
    if interval:
        notes.append(f"{level(ends.comparison and ends.comparison.intervals)} interval, same images for both")
        notes += ["it holds 0, so this may be chance"] * holds_zero(interval)
    notes += ["without an attack"] * (m.key == "clean")
    return {
        "title": f"{ends.split.capitalize()} {m.label}" if m.unit == "accuracy" else sentence(m.label),
        "best": value(a, m),
        "last": value(b, m),
        "change": change(a - b, interval, m) if interval else value_change(b - a, m),
        "note": "; ".join(notes)
        + (". Read with accuracy." if notes else "Read with accuracy.") * (m.unit == "score"),
    }


def curves(view: RunView) -> dict[str, Any]:
    """Accuracies and CAS over the epochs."""
    checked = [row for row in view.rows if row.get("cas") is not None]
    return {"view": view, "largest": max(checked, key=lambda row: row["cas"], default=None)}


def explorer(view: RunView) -> dict[str, Any] | None:
    """The epoch slider: matrices in thousandths, half of them where they are symmetric."""
    rows = [row for row in view.rows if row.get("C")]
    if not rows:
        return None
    step = -(
        -len(rows) * len(view.names) ** 2 // (2 * view.room)
    )  # every how many matrices there is room for
    ends = [view.ends.best.epoch, view.ends.last.epoch] if view.ends else [None, None]
    keys = {"epoch": "epoch", "robust": "test_robust", "cas": "cas", "predicted": "predicted_classes"}
    frames = [
        {"c": _thousandths(row["C"]), **{k: row.get(v) for k, v in keys.items()}}
        for i, row in enumerate(rows)
        if i % step == 0 or row["epoch"] in ends
    ]
    curve = [[row.get(key) for key in keys.values()] for row in view.rows]
    data = {"names": view.names, "frames": frames, "curve": curve, "ends": ends, "step": step}
    return {"view": view, "data": data}


def _thousandths(C: Matrix) -> list[int | None]:
    whole = [[None if v is None else round(1000 * v) for v in row] for row in C]
    half = all(whole[i][j] == whole[j][i] for i in range(len(C)) for j in range(i))
    return [v for i, row in enumerate(whole) for v in (row[i:] if half else row)]


def matrices(view: RunView) -> dict[str, Any] | None:
    """C at best, at last, and the difference."""
    if view.ends is None:
        return None
    matrices = {side: end.matrices["C"] for side, end in _sides(view.ends) if end.matrices.get("C")}
    if not matrices:
        return None
    figures = {side: plots.matrix(C, view.names) for side, C in matrices.items()}
    if len(matrices) == 2:
        figures["difference"] = plots.difference(
            plots.subtract(matrices["best"], matrices["last"]), view.names
        )
    return {
        "view": view,
        "ends": view.ends,
        "figures": {side: Markup(plots.svg(figure)) for side, figure in figures.items()},
        "empty": [view.names[i] for i in view.ends.best.empty_classes],
    }


def _sides(ends: Ends) -> tuple[tuple[str, End], tuple[str, End]]:
    return ("best", ends.best), ("last", ends.last)


def truth(view: RunView) -> dict[str, Any] | None:
    """C beside the planted sharing, on data where it is known."""
    ends = view.ends
    if ends is None or not ends.best.matrices.get("sharing") or not ends.best.matrices.get("C"):
        return None
    pictures = {key: plots.matrix(ends.best.matrices[key], view.names) for key in ("sharing", "C")}
    auc = [end.metrics.get("sharing_auc") for _, end in _sides(ends)]
    return {"ends": ends, "auc": auc, "figures": {k: Markup(plots.svg(f)) for k, f in pictures.items()}}


def classes(view: RunView) -> dict[str, Any] | None:
    """Robust accuracy per class, the largest loss first, the confusion matrix, and the most shared pairs."""
    ends = view.ends
    if ends is None:
        return None
    parts = zip(view.names, ends.best.classwise_robust, ends.last.classwise_robust, strict=False)
    rows = [{"name": n, "best": b, "last": z} for n, b, z in parts]
    counts, pairs = ends.best.matrices.get("confusion"), _pairs(view.names, ends)
    if not (rows or counts or pairs):
        return None
    return {
        "view": view,
        "ends": ends,
        "rows": sorted(rows, key=lambda r: (r["last"] or 0) - (r["best"] or 0)),
        "confusion": counts and Markup(plots.svg(plots.confusion(counts, view.names))),
        "pairs": pairs,
    }


def _pairs(names: Sequence[str], ends: Ends) -> list[dict[str, Any]]:
    """The most shared pairs of either checkpoint, with C at both."""
    pairs: dict[tuple[int, int], None] = {}
    both = [end.matrices["C"] for _, end in _sides(ends) if end.matrices.get("C")]
    for C in both:
        upper = ((i, j) for i in range(len(C)) for j in range(i + 1, len(C)))
        positive = (p for p in upper if (C[p[0]][p[1]] or 0) > 0)
        pairs |= dict.fromkeys(sorted(positive, key=lambda p: -(C[p[0]][p[1]] or 0))[:PAIRS])
    return [{"a": names[i], "b": names[j], "C": [C[i][j] for C in both]} for i, j in pairs]


def evaluations(view: RunView) -> dict[str, Any] | None:
    """Every evaluation of a checkpoint, as in `measure.json`."""
    views = measurement.views(view.run.results.results, f"run-{view.index}-measured")
    shown = measurement.measured_metrics(view.run.results.results)
    return {"views": views, "shown": shown} if views else None


def comparisons(view: RunView) -> dict[str, Any] | None:
    """The comparisons of `measure.json`."""
    results = view.run.results
    views = comparison.views(results.comparisons, results.results, view.run.folder, f"run-{view.index}")
    return {"views": views} if views else None


def conditions(view: RunView) -> dict[str, Any]:
    """What the numbers above were measured with."""
    return {"view": view, "run": view.run, "ends": view.ends, "config": view.run.config}


def settings(view: RunView) -> dict[str, Any]:
    """Settings that differ from their defaults, the environment, and files to take away."""
    files = [path for name in FILES if (path := view.run.folder / name).exists()]
    hidden = ("class_names", "settings_changed", "check", "final", "data", "data_path", "sharing")
    return {
        "run": view.run,
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
