"""The page of one run: what happened between its best and its last checkpoint."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from markupsafe import Markup

from crossclass.analysis.feature_pictures import load_feature_pictures
from crossclass.analysis.forgotten_records import SharedAndForgotten
from crossclass.analysis.metrics import METRICS, Metric, metric
from crossclass.analysis.pictures import Pictures, load_pictures
from crossclass.analysis.run_record import RunRecord
from crossclass.core.errors import UserError
from crossclass.report import comparison, figures, forgotten, measurement, pictures as drawn, plots
from crossclass.report.best_and_last import BestAndLast, checked, measured
from crossclass.report.format import (
    change,
    number,
    percent,
    sentence,
    short_attack,
    signed,
    split_name,
    value,
    value_change,
    value_interval,
)
from crossclass.report.measurement import class_figure, confusion_figure, matrix_of
from crossclass.report.packed import COARSE, viewer
from crossclass.report.sections import Section, download, render
from crossclass.training import alarms

FILES = ("metrics.csv", "config.yaml", "measure.json")
"""Files of the run that the page offers for download."""
MATRICES_TITLE = "C at the best and at the last checkpoint"
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
    def pictures(self) -> list[Pictures | None]:
        """The pictures beside the evaluations after training, in their order."""
        results = self.run.results.results
        return load_pictures(self.run.folder / "measure.json", len(results))

    @property
    def forgotten(self) -> SharedAndForgotten | None:
        """Which features carried the sharing at best and were forgotten; None where it is not known."""
        return self.both.comparison.features if self.both and self.both.comparison else None

    @property
    def facts(self) -> list[str]:
        """What stands below the name."""
        seed, sizes = self.run.env.get("seed", self.run.config.get("seed")), self.run.env.get("sizes") or {}
        facts = [] if seed is None else [f"seed {seed}"]
        data = self.run.config.get("data")
        kind = str(self.run.env.get("data") or (data.get("kind") if isinstance(data, dict) else "") or "")
        facts += [kind.partition(" (")[0]] * bool(kind)
        if sizes.get("train"):
            facts.append(f"{sizes['train']:,} training images")
        if self.label_noise:
            facts.append(f"{percent(self.label_noise)} of the training labels wrong")
        return facts

    @property
    def label_noise(self) -> float:
        """The share of the training labels that are wrong on purpose."""
        data = self.run.config.get("data")
        return float(data.get("label_noise") or 0) if isinstance(data, dict) else 0.0

    @property
    def attack(self) -> str:
        """The attack on the best and the last checkpoint, and on what, in few words."""
        both = self.both
        return short_attack(both.attack, both.best.data.n, both.split) if both else self.check

    @property
    def check(self) -> str:
        """The attack of the checks during training, and on what, in few words."""
        words = str(self.run.env.get("check") or "an attack that was not recorded")
        found = re.search(r"([\d,]+) test images", words)
        n = int(found[1].replace(",", "")) if found else None
        return short_attack(words.partition("; ")[0], n, "test") if n else words

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


def curve_figure(views: Sequence[RunView], title: str, note: str) -> figures.PageFigure:
    """Accuracies and CAS over the epochs of one or more runs, with the numbers of every check."""
    rows = {v.label: v.rows for v in views}
    milestones = {v.label: v.run.config.get("lr_milestones") or () for v in views}
    best = {v.label: (v.both.best.checkpoint.epoch or 0, v.both.chosen_by) for v in views if v.both}
    evaluated: list[tuple[int, float, float | None]] = []
    if len(views) == 1 and views[0].both and views[0].both.comparison is not None:
        evaluated = [(m.checkpoint.epoch or 0, m["robust"], m.get("cas")) for m in views[0].both.checkpoints]
    wide, narrow = (
        plots.curves(rows, milestones, best, evaluated=evaluated, width=width) for width in (10.0, 4.6)
    )
    keys = ["epoch", "lr", "train_robust", "val_robust", "test_clean", "test_robust", "cas"]
    table = [[v.label, *(row.get(key) for key in keys)] for v in views for row in v.rows]
    return figures.PageFigure(wide, title, note, figures.rows(["run", *keys], table), narrow)


def pictures(view: RunView) -> dict[str, Any]:
    """The images at the best checkpoint, and what was planted."""
    both, results = view.both, view.run.results.results
    of = {id(m): one for m, one in zip(results, view.pictures, strict=True)}
    shown = of.get(id(both.best)) if both else None
    named = [("", shown)] if shown else []
    attack = f"{both.attack}; at the best checkpoint, epoch {both.best.checkpoint.epoch}" if both else ""
    strip = drawn.strip(named, view.names, attack)
    C = matrix_of(both.best, "C") if both else None
    parts = drawn.planted(shown, view.names)
    return {"figures": [f for f in (strip, parts) if f], "example": drawn.examples(C, view.names)}


def tiles(view: RunView) -> dict[str, Any] | None:
    """One tile for each headline metric at best and last, and the accuracy on training images."""
    both = view.both
    if both is None:
        return None
    shown = [_tile(both, m, values) for m in METRICS if m.headline and (values := both.values(m))]
    train, robust = dict(plots.series(view.rows, "train_robust")), metric("robust")
    first, last = (train.get(m.checkpoint.epoch or 0) for m in (both.best, both.last))
    if first is not None and last is not None:
        attack = f"{_training_attack(view)}; training images as they were trained on"
        tile = {"title": "Train robust accuracy", "best": percent(first), "attack": attack, "note": ""}
        by = "" if both.one else change(first - last, None, robust)
        shown.append({**tile, "last": None if both.one else percent(last), "change": by})
    ended = " (the last one checked)" * (both.last.checkpoint.epoch != view.rows[-1]["epoch"])
    note = (
        f"Best is epoch {both.best.checkpoint.epoch}, chosen by robust accuracy on the "
        f"{split_name(both.chosen_by)} split; last is epoch {both.last.checkpoint.epoch}{ended}. "
        f"Attack: {both.attack}. "
    )
    if view.label_noise:
        wrong = percent(view.label_noise)
        note += f"{wrong} of the training labels are wrong on purpose; those of the other images are right. "
    note += "" if both.one else comparison.intervals_note(both.comparison)
    return {"tiles": shown, "note": note}


def _training_attack(view: RunView) -> str:
    recipe = view.run.config.get("recipe")
    attack = recipe.get("attack") if isinstance(recipe, dict) else None
    if not isinstance(attack, dict) or "kind" not in attack:
        return "the attack of training"
    steps = f"-{attack['steps']}" if attack.get("steps") else ""
    threat = attack.get("threat") or {}
    kind = str(threat.get("kind", "")).replace("linf", "l_inf").replace("l2", "l_2")
    ball = f", {kind} {threat.get('eps', '')}" if threat else ""
    return f"{str(attack['kind']).upper()}{steps}{ball}"


def _tile(both: BestAndLast, m: Metric, values: tuple[float, float]) -> dict[str, Any]:
    (a, b), n, ends, notes = values, both.best.data.n, both.interval(m), []
    attack = short_attack(both.attack, n, both.split)
    title = f"{both.split.capitalize()} {m.label}" if m.unit == "accuracy" else sentence(m.label)
    if both.one:
        under = f"no attack; {attack.partition('; ')[2]}" if m.key == "clean" else attack
        tile = {"best": value(a, m), "last": None, "change": "", "attack": under, "note": ""}
        return {"title": title, **tile}
    if m.unit == "accuracy" and n and (images := round(n * (b - a))):
        notes.append(f"{abs(images):,} of {n:,} images {'fewer' if images < 0 else 'more'}")
    by = change(a - b, ends, m)
    return comparison.difference_tile(m, values, by, ends, attack, notes) | {"title": title}


def curves(view: RunView) -> dict[str, Any]:
    """Accuracies and CAS over the epochs."""
    rows = [row for row in view.rows if row.get("cas") is not None]
    largest = max(rows, key=lambda row: row["cas"], default=None)
    note = f"Lines: the checks during training ({view.check}). "
    if view.both and view.both.comparison is not None:
        after = short_attack(view.both.attack, view.both.best.data.n, view.both.split)
        note += f"Diamonds: the evaluation after training ({after}), which the tiles above show. "
    note += "Round mark: best epoch; square: last; dashed vertical lines: drops of the learning rate."
    if largest:
        few = largest.get("predicted_classes")
        of = f", where {few} of {len(view.names)} classes were predicted" if few is not None else ""
        note += f" CAS was largest in epoch {largest['epoch']}: {number(largest['cas'], 2)}{of}."
    title = f"Accuracy and CAS over the epochs of {view.label}"
    return {"figures": [curve_figure([view], title, note)], "note": ""}


def explorer(view: RunView) -> dict[str, Any] | None:
    """The epoch slider."""
    rows = [row for row in view.rows if row.get("C")]
    if not rows or len(view.names) < 2:
        return None
    step = -(-len(rows) * len(view.names) ** 2 // (2 * view.room))  # there is room for every `step`th matrix
    ends = [m.checkpoint.epoch for m in view.both.checkpoints] if view.both else [None, None]
    keys = {"epoch": "epoch", "robust": "test_robust", "cas": "cas", "predicted": "predicted_classes"}
    frames = [
        ({"label": f"epoch {row['epoch']}", **{k: row.get(v) for k, v in keys.items()}}, row["C"])
        for i, row in enumerate(rows)
        if i % step == 0 or row["epoch"] in ends
    ]
    curve = [[row.get(key) for key in keys.values()] for row in view.rows]
    ordered_by = next((C for at, C in frames if at["epoch"] == ends[0]), frames[-1][1])
    check = f"Of each check: {view.check}."
    check += f" Of the stored matrices every {step}th is on this page." * (step > 1)
    to = forgotten.links(view.forgotten, f"run-{view.index}-pair", view.run.folder.name)
    data = viewer(view.names, frames, ordered_by, curve=curve, ends=ends, features=to)
    return {"id": f"run-{view.index}-epochs", "data": data, "check": check, "note": ""}


def matrices(view: RunView) -> dict[str, Any] | None:
    """C at best, at last, and the difference."""
    both = view.both
    if both is None:
        return None
    attack, known = short_attack(both.attack, both.best.data.n, both.split), {}
    shown = []
    for side, m in (("best", both.best), ("last", both.last))[: 1 if both.one else 2]:
        if C := matrix_of(m, "C"):
            known[side] = C
            text = f"robust accuracy {value(m.get('robust'), metric('robust'))}, "
            text += f"CAS {value(m.get('cas'), metric('cas'))}; {attack}"
            title = f"C at {side}, epoch {m.checkpoint.epoch}"
            id_ = f"table-run-{view.index}-{side}"
            shown.append(figures.matrix(C, view.names, title, text, id=id_))
    if len(known) == 2:
        D = plots.subtract(known["best"], known["last"])
        text = "blue: larger at best, red: larger at last"
        if cas := both.values(metric("cas")):
            text += f"; CAS differs by {value_change(cas[0] - cas[1], metric('cas'))}"
        drawing = plots.difference(D, view.names)
        of, title = [(one.id, 0) for one in shown] if len(D) > COARSE else [], "C at best minus C at last"
        shown.append(figures.matrix(D, view.names, title, f"{text}; {attack}", drawing, of=of))
    empty = ", ".join(view.names[i] for i in both.best.empty_classes)
    note = (
        "Negative entries of C are red" + "; the difference has a scale of its own" * (len(known) == 2) + "."
    )
    note += f" Classes without attribution, counted as sharing nothing: {empty}." if empty else ""
    if not shown:
        return None
    title = "C at the best checkpoint, which is the last" if both.one else MATRICES_TITLE
    return {"figures": shown, "note": note, "title": title}


def truth(view: RunView) -> dict[str, Any] | None:
    """C beside the planted sharing, on data where it is known."""
    both = view.both
    sharing, C = (matrix_of(both.best, key) if both else None for key in ("sharing", "C"))
    if both is None or not sharing or not C:
        return None
    attack = short_attack(both.attack, both.best.data.n, both.split)
    title = f"C found at best, epoch {both.best.checkpoint.epoch}"
    shown = [
        figures.matrix(sharing, view.names, "Planted sharing", "1 where two classes have a common part"),
        figures.matrix(C, view.names, title, f"CAS {number(both.best.get('cas'), 2)}; {attack}"),
    ]
    note, auc = "", [m.metrics.get("sharing_auc") for m in both.checkpoints]
    if auc[0] is not None:
        note = (
            f"AUC {number(auc[0], 2)}: of a pair of classes that share a planted part and one that does not, "
            f"C ranks the sharing pair higher in {percent(auc[0])} of cases (chance: 50 %)."
        )
        note += f" At the last checkpoint: {number(auc[1], 2)}." if auc[1] is not None else ""
    return {"figures": shown, "note": note}


def classes(view: RunView) -> dict[str, Any] | None:
    """Robust accuracy per class, the largest loss first, the confusion matrix, and the most shared pairs."""
    both = view.both
    if both is None:
        return None
    best, last = both.checkpoints
    attack = short_attack(both.attack, best.data.n, both.split)
    parts = zip(view.names, best.classwise_robust or (), last.classwise_robust or (), strict=False)
    rows = sorted(parts, key=lambda r: (r[2] or 0) - (r[1] or 0))
    counts, pairs = matrix_of(best, "confusion"), _pairs(view, both)
    if not (rows or counts or pairs):
        return None
    names = f"best, epoch {best.checkpoint.epoch}", f"last, epoch {last.checkpoint.epoch}"
    if both.one:
        rows = [(name, a, None) for name, a, _ in sorted(rows, key=lambda r: -(r[1] or 0))]
    bars = class_figure(rows, names, "Robust accuracy per class", f"the largest loss first; {attack}")
    listed = {
        "title": "Pairs of classes that share most",
        "columns": ["C"] if both.one else ["C, best", "C, last", "change"],
        "rows": [(words, _cells(C, both.one)) for words, C in pairs],
        "note": f"C under {attack}. The {PAIRS} largest"
        + f" of the best checkpoint, then those of the last one's {PAIRS} that are not among them"
        * (not both.one)
        + ".",
    }
    at = f" at best, epoch {best.checkpoint.epoch}"
    return {
        "bars": bars if rows else None,
        "confusion": confusion_figure(counts, view.names, at, attack, True) if counts else None,
        "pairs": listed if pairs else None,
    }


def _cells(C: Sequence[float | None], one: bool) -> list[str]:
    """C of a pair at best and last, and the change; once where these are one checkpoint."""
    a, b = C
    if one:
        return [number(a, 2)]
    return [number(a, 2), number(b, 2), signed(None if a is None or b is None else b - a, 2)]


def _pairs(view: RunView, both: BestAndLast) -> list[tuple[str, list[float | None]]]:
    """The most shared pairs of either checkpoint, linked to their features, with C at both."""
    pairs: dict[tuple[int, int], None] = {}
    known = [matrix_of(m, "C") for m in both.checkpoints]
    for C in filter(None, known):
        upper = ((i, j) for i in range(len(C)) for j in range(i + 1, len(C)))
        positive = (p for p in upper if (C[p[0]][p[1]] or 0) > 0)
        pairs |= dict.fromkeys(sorted(positive, key=lambda p: -(C[p[0]][p[1]] or 0))[:PAIRS])
    to = forgotten.anchors(view.forgotten, f"run-{view.index}-pair")
    return [
        (forgotten.linked(view.names, i, j, to), [C[i][j] if C else None for C in known]) for i, j in pairs
    ]


def shared(view: RunView) -> dict[str, Any] | None:
    """The features that carried the sharing at best, pair by pair, and what became of them at last."""
    both, features = view.both, view.forgotten
    if both is None or not view.run.done:
        return None
    name = view.run.folder.name
    command = shlex.join(["crossclass", "features", name])
    if both.one:
        return forgotten.nothing(
            "Best and last are one checkpoint: nothing to compare. Which features its classes share:",
            command,
        )
    if features is None:
        return forgotten.nothing(
            "measure.json of this run does not say it feature by feature. From its checkpoints:", command
        )
    n = view.run.results.comparisons.index(both.comparison) if both.comparison else 0
    pictures = load_feature_pictures(view.run.folder / "measure.json", n)
    return forgotten.section(features, pictures, view.names, f"run-{view.index}-pair", name, view.attack)


def evaluations(view: RunView) -> dict[str, Any] | None:
    """Every evaluation after training, side by side."""
    results = view.run.results.results
    if not results:
        return None
    views = measurement.views(results, f"run-{view.index}-measured")
    shown = [m for m in METRICS if any(one.metrics.get(m.key) is not None for one in results)]
    rows = [
        (
            sentence(m.label),
            "" if m.headline else m.doc,
            [(value(v.m.metrics.get(m.key), m), value_interval(v.interval(m), m)) for v in views],
        )
        for m in shown
    ]
    epochs = [(str(m.checkpoint.epoch or "–"), split_name(m.checkpoint.chosen_by)) for m in results]
    rows.insert(0, ("Epoch; chosen on", "", [(f"{e}; {by}" if by != "–" else e, "") for e, by in epochs]))
    under = [(short_attack(v.attack, v.m.data.n, v.m.data.split), "") for v in views]
    same = len(set(under)) == 1
    if not same:
        rows.insert(1, ("Attack", "", under))
    note = "In brackets: intervals over images. A best chosen on the test set is biased upwards."
    note = (f"{results[0].attack}; {under[0][0].partition('; ')[2]}. " if same else "") + note
    return {"columns": [v.label for v in views], "rows": rows, "note": note}


def comparisons(view: RunView) -> dict[str, Any] | None:
    """The comparisons beside that of best and last, which is the page; of that one the saliency maps."""
    views = comparison.views(view.run.results, view.run.folder, f"run-{view.index}", view.pictures)
    shown = view.both.comparison if view.both else None
    more = [v for v in views if v.c is not shown]
    maps = [comparison.saliency_html(v) for v in views if v.c is shown and v.c.saliency is not None]
    return {"views": more, "maps": maps} if more or maps else None


def conditions(view: RunView) -> dict[str, Any]:
    """What the numbers above were measured with."""
    return {"config": view.run.config}


def settings(view: RunView) -> dict[str, Any]:
    """Settings that differ from their defaults, the environment, and files to take away."""
    files = [path for name in FILES if (path := view.run.folder / name).exists()]
    hidden = ("class_names", "settings_changed", "check", "final", "data", "data_path", "sharing", "warnings")
    return {
        "changed": view.run.env.get("settings_changed"),
        "environment": {k: v for k, v in view.run.env.items() if k not in hidden and v not in (None, [], {})},
        "seconds": [sum(row.get(k) or 0 for row in view.rows) for k in ("seconds", "check_seconds")],
        "downloads": dict(map(download, files)),
    }


SECTIONS: list[Section[RunView]] = [
    Section("pictures", "Pictures", pictures, "shared/pictures"),
    Section("tiles", "Best and last checkpoint in numbers", tiles, "shared/tiles"),
    Section("curves", "Curves", curves, "shared/figures"),
    Section("truth", "Was the planted sharing found?", truth, "shared/figures"),
    Section("explorer", "Which classes share features, epoch by epoch", explorer, "shared/viewer"),
    Section("matrices", MATRICES_TITLE, matrices, "shared/figures"),
    Section("shared", forgotten.TITLE, shared, "shared/forgotten"),
    Section("classes", "Class by class", classes, "shared/classes"),
    Section("evaluations", "All numbers after training", evaluations, "shared/numbers"),
    Section("comparisons", "", comparisons),
    Section("conditions", "Under which conditions", conditions),
    Section("settings", "Settings that differ from their defaults", settings),
]
"""The sections of a run, in the order of the page."""
