"""One measured checkpoint on the page: its numbers under their conditions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from crossclass.analysis.metrics import METRICS, Metric, metric
from crossclass.analysis.pictures import Pictures
from crossclass.analysis.records import Comparison, Ends, Matrix, Measurement
from crossclass.report import figures, pictures as drawn, plots
from crossclass.report.format import (
    NO_ATTACK,
    level,
    number,
    sentence,
    short_attack,
    signed,
    split_name,
    value,
    value_interval,
)
from crossclass.report.packed import viewer
from crossclass.report.sections import Section, render

MATRICES = {
    "C": "C: classes by their mean attributions",
    "icas_matrix": "instance by instance: each image with the most alike of the other class",
    "all_pairs_matrix": "all pairs of images: their mean cosine",
    "decision_matrix": "decision: whose logits move together within classes",
    "offer_matrix": "offer: which classes the features put together",
    "profile_matrix": "logit profile: which classes are given alike logits",
}
"""The matrices of the viewer, by their key."""


@dataclass(frozen=True)
class MeasurementView:
    """What the sections of a measured checkpoint read."""

    m: Measurement
    label: str
    anchor: str
    names: Sequence[str]
    pictures: Pictures | None = None

    @property
    def attack(self) -> str:
        """The attack in words."""
        return self.m.attack or NO_ATTACK

    @property
    def attack_at_a_number(self) -> str:
        """The attack and the number of images in few words."""
        return short_attack(self.attack, self.m.data.n, self.m.data.split)

    @property
    def conditions(self) -> str:
        """The attack and the images, in a cell of a table."""
        n = f"{self.m.data.n:,} " if self.m.data.n else ""
        return f"{self.attack}; {n}{self.m.data.split or ''} images"

    @property
    def facts(self) -> list[str]:
        """What stands below the name."""
        at, facts = self.m.checkpoint, []
        if at.run and at.run not in self.label:
            facts.append(f"run {at.run}")
        if at.epoch is not None:
            facts.append(f"epoch {at.epoch}")
        if at.chosen_by:
            facts.append(f"chosen on the {split_name(at.chosen_by)} split")
        data = (self.m.data.name or "").partition(" (")[0]
        return [*facts, *(text for text in (data, self.m.model) if text)]

    def interval(self, m: Metric) -> Ends | None:
        """The interval of a metric over images."""
        return self.m.intervals.ends(m.key) if self.m.intervals else None

    @property
    def level(self) -> str:
        """The level of the intervals."""
        return level(self.m.intervals)

    @property
    def finding(self) -> str:
        """Accuracy and CAS in one sentence."""
        accuracy, cas = metric("robust" if self.m.attacked else "clean"), metric("cas")
        parts = [f"{m.label} is {self.text(m)}" for m in (accuracy, cas)]
        tail = ""
        if (share := self.m.metrics.get("cas_normalised")) is not None:
            tail = f", {value(share, metric('cas_normalised'))} of its largest possible value"
        return f"{sentence(parts[0])}; {parts[1]}{tail}."

    def text(self, m: Metric) -> str:
        """The value of a metric and its interval."""
        return f"{value(self.m.metrics.get(m.key), m)} {value_interval(self.interval(m), m)}".rstrip()

    def html(self, heading: int) -> Markup:
        """The whole article."""
        return render("measurement", SECTIONS, self, heading)


def class_names(m: Measurement | None, K: int) -> list[str]:
    """The names of the K classes; numbered where the file does not name them."""
    names = list(m.class_names) if m else []
    return names if len(names) == K else [f"class {i}" for i in range(K)]


def matrix_of(m: Measurement | Comparison, key: str) -> Matrix | None:
    """A matrix of a record, or None."""
    return m.matrices.get(key) if isinstance(m.matrices, Mapping) else None


def views(
    measurements: Sequence[Measurement], anchor: str, shown: Sequence[Pictures | None] = ()
) -> list[MeasurementView]:
    """All measurements of a file; `anchor` tells its anchors from those of other files."""
    of_all = [*shown, *[None] * (len(measurements) - len(shown))]
    named = zip(measurements, labels(measurements), of_all, strict=True)
    return [
        MeasurementView(m, label, f"{anchor}-{i}", class_names(m, len(matrix_of(m, "C") or ())), pictures)
        for i, (m, label, pictures) in enumerate(named, 1)
    ]


def labels(measurements: Sequence[Measurement]) -> list[str]:
    """Checkpoint and run; the radius too where only the attack tells two measurements apart."""
    checkpoints = [m.checkpoint for m in measurements]
    one_run = len({c.run for c in checkpoints}) == 1 and len({c.name for c in checkpoints}) > 1
    names = [c.name if one_run else c.title for c in checkpoints]
    attacks: dict[str, set[str | None]] = {}
    for m, name in zip(measurements, names, strict=True):
        attacks.setdefault(name, set()).add(m.attack)
    return [
        f"{name}, eps {m.conditions['eps']}" if len(attacks[name]) > 1 and "eps" in m.conditions else name
        for m, name in zip(measurements, names, strict=True)
    ]


def pictures(view: MeasurementView) -> dict[str, Any]:
    """The images, and how to read what follows."""
    named = [("", view.pictures)] if view.pictures else []
    of = [drawn.strip(named, view.names, view.attack), drawn.planted(view.pictures, view.names)]
    example = drawn.examples(matrix_of(view.m, "C"), view.names)
    return {"figures": [f for f in of if f], "example": example}


def tiles(view: MeasurementView) -> dict[str, Any]:
    """One tile for each headline metric that was measured."""
    metrics = [m for m in METRICS if m.headline and view.m.metrics.get(m.key) is not None]
    note = ""
    if view.m.intervals:
        method = f" ({view.m.intervals.method})" if view.m.intervals.method else ""
        note = f"In brackets: {view.level} intervals{method}, which resample images, not trainings."
    if view.m.conditions.get("attribution_subset") == "correct":
        note += " Attributions are of correctly classified images only."
    return {"tiles": [_tile(view, m) for m in metrics if m.key != "robust" or view.m.attacked], "note": note}


def _tile(view: MeasurementView, m: Metric) -> dict[str, Any]:
    attack = view.attack_at_a_number
    return {
        "title": sentence(m.label),
        "best": value(view.m.metrics[m.key], m),
        "last": None,
        "change": value_interval(view.interval(m), m),
        "attack": short_attack("no attack", view.m.data.n, view.m.data.split) if m.key == "clean" else attack,
        "note": m.doc if m.unit == "score" else "",
    }


def explorer(view: MeasurementView) -> dict[str, Any] | None:
    """The matrices of the checkpoint to look into."""
    C = matrix_of(view.m, "C")
    if not C or len(C) < 2:
        return None
    shown = [({"label": label}, M) for key, label in MATRICES.items() if (M := matrix_of(view.m, key))]
    data = viewer(view.names, shown, C)
    check = f"{view.attack_at_a_number}. Negative entries are red."
    return {"id": view.anchor, "data": data, "check": check, "note": _empty(view)}


def _empty(view: MeasurementView) -> str:
    empty = [view.names[i] for i in view.m.empty_classes]
    return f"Classes without attribution, counted as sharing nothing: {', '.join(empty)}." if empty else ""


def matrices(view: MeasurementView) -> dict[str, Any] | None:
    """C, and the other matrices where they were computed."""
    notes = {
        "C": ("C", "cosine of the classes' mean attributions", "CAS", "cas"),
        "icas_matrix": (
            "Instance by instance",
            "each image of the row with the most alike of the column",
            "I-CAS",
            "icas",
        ),
        "all_pairs_matrix": (
            "All pairs of images",
            "the mean cosine of every pair, near zero in adversarial training (section 5.3 of the paper)",
            "its sum",
            "all_pairs_cas",
        ),
        **{
            f"{kind}_matrix": (
                title,
                f"{MATRICES[f'{kind}_matrix'].partition(': ')[2]}",
                "its sum",
                f"{kind}_cas",
            )
            for kind, title in (("decision", "Decision"), ("offer", "Offer"), ("profile", "Logit profile"))
        },
    }
    shown: list[figures.PageFigure] = []
    there = len(matrix_of(view.m, "C") or ()) > 1  # the viewer has these matrices, in this order
    for key, (title, note, name, of) in notes.items():
        if C := matrix_of(view.m, key):
            text = f"{note}; {name} {number(view.m.metrics.get(of), 2)}; {view.attack_at_a_number}"
            at = [(f"data-{view.anchor}", len(shown))] if there else []
            shown.append(figures.matrix(C, view.names, title, text, of=at))
    return {"figures": shown, "note": "Negative entries are red.", "folded": True} if shown else None


def classes(view: MeasurementView) -> dict[str, Any] | None:
    """Accuracy per class, the confusion matrix, and the pairs that share most."""
    m, attack = view.m, view.attack_at_a_number
    parts = zip(view.names, m.classwise_robust or (), m.classwise_clean or (), strict=False)
    rows = sorted(parts, key=lambda r: -(r[1] or 0))
    counts = matrix_of(m, "confusion")
    if not (rows or counts or m.pairs):
        return None
    robust = "under attack" if m.attacked else "as judged"
    bars = class_figure(rows, (robust, "clean"), "Accuracy per class", f"the highest first; {attack}")
    note = "CAS adds up all such pairs, twice."
    if (correlation := m.metrics.get("sharing_confusion")) is not None:
        note = (
            f"Over all pairs, sharing and confusion have rank correlation {signed(correlation, 2)} "
            "(Spearman; the confusion of a pair is the mean of both error rates)."
        )
    pairs = {
        "title": "Pairs of classes that share most",
        "columns": ["C"],
        "rows": [(" – ".join(p.classes), [number(p.C, 2)]) for p in m.pairs],
        "note": f"{attack}. {note}",
    }
    return {
        "bars": bars if rows else None,
        "confusion": confusion_figure(counts, view.names, "", attack, m.attacked) if counts else None,
        "pairs": pairs if m.pairs else None,
    }


def class_figure(
    rows: Sequence[tuple[str, float | None, float | None]], labels: tuple[str, str], title: str, note: str
) -> figures.PageFigure:
    """Bars of each class with their numbers."""
    drawing = plots.class_bars(rows, labels, "accuracy")
    return figures.PageFigure(drawing, title, note, figures.rows(["class", *labels], rows))


def confusion_figure(
    counts: Matrix, names: Sequence[str], at: str, attack: str, attacked: bool
) -> figures.PageFigure:
    """The confusion matrix; `at` says of which checkpoint."""
    title = ("Adversarial predictions" if attacked else "Predictions") + at
    note = f"counts of images, true class by row; {attack}"
    drawing = plots.confusion(counts, names, attacked=attacked)
    return figures.matrix(counts, names, title, note, drawing, digits=0)


def further(view: MeasurementView) -> dict[str, Any] | None:
    """The metrics that have no tile."""
    metrics = [m for m in METRICS if not m.headline and view.m.metrics.get(m.key) is not None]
    rows = [
        (sentence(m.label), m.doc, [(value(view.m.metrics[m.key], m), value_interval(view.interval(m), m))])
        for m in metrics
    ]
    note = f"{view.attack_at_a_number}."
    return {"columns": ["value"], "rows": rows, "note": note} if rows else None


def conditions(view: MeasurementView) -> dict[str, Any]:
    """The attack, the images and the network in full."""
    return {"facts": facts(view.m)}


def facts(m: Measurement) -> dict[str, str]:
    """What is known of a measurement besides its numbers, by name."""
    facts = {
        "Model": m.model,
        "Data": m.data.name,
        "Run": m.checkpoint.run,
        "Weights (sha256)": m.checkpoint.sha256,
        "When the file was read": "; ".join(m.loaded),
    }
    if m.normalise:
        ends = (f"{key} {', '.join(f'{v:.4g}' for v in values)}" for key, values in m.normalise.items())
        facts["Normalisation"] = "; ".join(ends)
    if m.inputs:
        tried = ", ".join(f"{name} {share:.1%}" for name, share in m.inputs.accuracies.items())
        facts["Inputs tried on clean images"] = tried
    return {k: v for k, v in facts.items() if v}


SECTIONS: list[Section[MeasurementView]] = [
    Section("pictures", "Pictures", pictures, "shared/pictures"),
    Section("tiles", "In numbers", tiles, "shared/tiles"),
    Section("explorer", "Which classes share features", explorer, "shared/viewer"),
    Section("matrices", "The matrices as figures", matrices, "shared/figures"),
    Section("classes", "Class by class", classes, "shared/classes"),
    Section("further", "Further numbers", further, "shared/numbers"),
    Section("conditions", "Under which conditions", conditions),
]
"""The sections about one measured checkpoint, in the order of the page."""
