"""One measured checkpoint on the page: its numbers under their conditions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from crossclass.analysis.metrics import METRICS, Metric, metric
from crossclass.analysis.records import Comparison, Ends, Matrix, Measurement
from crossclass.report import plots
from crossclass.report.format import NO_ATTACK, level, sentence, value, value_interval
from crossclass.report.sections import Section, render


@dataclass(frozen=True)
class MeasurementView:
    """What the sections of a measured checkpoint read."""

    m: Measurement
    label: str
    anchor: str
    names: Sequence[str]

    @property
    def attack(self) -> str:
        """The attack in words."""
        return self.m.attack or NO_ATTACK

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

    @property
    def tiles(self) -> list[dict[str, Any]]:
        """One tile for each headline metric that was measured."""
        metrics = [m for m in METRICS if m.headline and self.m.metrics.get(m.key) is not None]
        return [self._tile(m) for m in metrics if m.key != "robust" or self.m.attacked]

    def _tile(self, m: Metric) -> dict[str, Any]:
        ends = value_interval(self.interval(m), m)
        over = f"{self.level} interval over images" if ends else "no interval was computed"
        note = "without an attack" if m.key == "clean" else m.doc if m.unit == "score" else over
        return {
            "title": sentence(m.label),
            "best": value(self.m.metrics[m.key], m),
            "last": None,
            "change": ends,
            "note": f"{note} Read with accuracy." if m.unit == "score" else note,
        }

    def html(self, heading: int) -> Markup:
        """The whole article."""
        return render("measurement", SECTIONS, self, heading)


def measured_metrics(measurements: Sequence[Measurement]) -> list[Metric]:
    """The metrics that any of the measurements has."""
    return [m for m in METRICS if any(one.metrics.get(m.key) is not None for one in measurements)]


def class_names(m: Measurement | None, K: int) -> list[str]:
    """The names of the K classes; numbered where the file does not name them."""
    names = list(m.class_names) if m else []
    return names if len(names) == K else [f"class {i}" for i in range(K)]


def matrix_of(m: Measurement | Comparison, key: str) -> Matrix | None:
    """A matrix of a record, or None."""
    return m.matrices.get(key) if isinstance(m.matrices, Mapping) else None


def views(measurements: Sequence[Measurement], anchor: str) -> list[MeasurementView]:
    """All measurements of a file; `anchor` tells its anchors from those of other files."""
    named = enumerate(zip(measurements, labels(measurements), strict=True), 1)
    return [
        MeasurementView(m, label, f"{anchor}-{i}", class_names(m, len(matrix_of(m, "C") or ())))
        for i, (m, label) in named
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


def matrices(view: MeasurementView) -> dict[str, Any] | None:
    """C, and the instance-wise matrices where they were computed."""
    matrices = {key: matrix_of(view.m, key) for key in ("C", "icas_matrix", "all_pairs_matrix")}
    if not matrices["C"]:
        return None
    figures = {key: plots.matrix(C, view.names) for key, C in matrices.items() if C}
    return {"figures": figures, "empty": [view.names[i] for i in view.m.empty_classes]}


def classes(view: MeasurementView) -> dict[str, Any] | None:
    """Accuracy per class, the confusion matrix, and the pairs that share most."""
    parts = zip(view.names, view.m.classwise_robust or (), view.m.classwise_clean or (), strict=False)
    rows = [{"name": n, "best": robust, "last": clean} for n, robust, clean in parts]
    counts = matrix_of(view.m, "confusion")
    if not (rows or counts or view.m.pairs):
        return None
    return {
        "rows": sorted(rows, key=lambda r: -(r["best"] or 0)),
        "confusion": plots.confusion(counts, view.names, attacked=view.m.attacked) if counts else None,
        "correlation": view.m.metrics.get("sharing_confusion"),
    }


def further(view: MeasurementView) -> dict[str, Any] | None:
    """The metrics that have no tile."""
    metrics = [m for m in METRICS if not m.headline and view.m.metrics.get(m.key) is not None]
    rows = [(sentence(m.label), view.text(m), m.doc) for m in metrics]
    return {"rows": rows} if rows else None


def conditions(view: MeasurementView) -> dict[str, Any]:
    """The attack, the images and the network in full."""
    m = view.m
    facts = {
        "Model": m.model,
        "Data": m.data.name,
        "Run": m.checkpoint.run,
        "Weights (sha256)": m.checkpoint.sha256,
    }
    if m.normalise:
        ends = (f"{key} {', '.join(f'{v:.4g}' for v in values)}" for key, values in m.normalise.items())
        facts["Normalisation"] = "; ".join(ends)
    if m.inputs:
        tried = ", ".join(f"{name} {share:.1%}" for name, share in m.inputs.accuracies.items())
        facts["Inputs tried on clean images"] = tried
    return {"facts": {k: v for k, v in facts.items() if v}}


SECTIONS: list[Section[MeasurementView]] = [
    Section("matrices", "Which classes share features", matrices),
    Section("classes", "Class by class", classes),
    Section("further", "Further numbers", further),
    Section("conditions", "Under which conditions", conditions),
]
"""The sections about one measured checkpoint, in the order of the page."""
