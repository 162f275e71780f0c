"""Two checkpoints on the page: what differs, with the paired intervals that `measure` computed."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from crossclass.analysis.metrics import METRICS, Metric, metric
from crossclass.analysis.records import Comparison, Ends, Measurement, ResultFile
from crossclass.report import plots
from crossclass.report.format import NO_ATTACK, change, holds_zero, level, sentence, value
from crossclass.report.measurement import class_names, matrix_of
from crossclass.report.sections import Section, render

SPREAD = (
    Metric("half_mass_area", "share of the image that holds half of a map", "", lambda _: None, "accuracy"),
    Metric("entropy", "entropy of a map, 1 if it is flat", "", lambda _: None, "share"),
)
"""What is stored of saliency maps, and how it is printed."""
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class ComparisonView:
    """What the sections of a comparison read."""

    c: Comparison
    first: Measurement | None
    second: Measurement | None
    folder: Path
    """Where the picture of the saliency maps lies."""
    anchor: str

    @property
    def run(self) -> str | None:
        """The run of which both are checkpoints."""
        of = self.c.of
        return of[0].run if of and of[0].run and of[0].run == of[1].run else None

    @property
    def attack(self) -> str:
        """The attack in words."""
        return self.c.attack or NO_ATTACK

    @property
    def attacked(self) -> bool:
        """Whether the numbers are of adversarial images."""
        return not (self.c.attack or "").startswith("none")

    @property
    def level(self) -> str:
        """The level of the intervals."""
        return level(self.c.intervals)

    @property
    def names(self) -> list[str]:
        """The names of the classes."""
        return class_names(self.first, len(matrix_of(self.c, "C_difference") or ()))

    def interval(self, m: Metric) -> Ends | None:
        """The paired interval of the difference of a metric."""
        return self.c.intervals.ends(f"d_{m.key}") if self.c.intervals else None

    def values(self, m: Metric) -> tuple[float, float] | None:
        """The values of a metric in both; None where one is unknown or, for `robust`, without an attack."""
        a, b = self.c.metrics.get(m.key) or (None, None)
        return None if a is None or b is None or (m.key == "robust" and not self.attacked) else (a, b)

    def change(self, m: Metric, values: tuple[float, float]) -> str:
        """How the second differs from the first."""
        d = self.c.metrics.get(f"d_{m.key}")
        d = values[0] - values[1] if d is None else d
        return change(d, self.interval(m), m, within=bool(self.run))

    @property
    def tiles(self) -> list[dict[str, Any]]:
        """One tile for each headline metric that both have."""
        return [
            difference_tile(m, values, self.change(m, values), self.interval(m), self.level)
            for m in METRICS
            if m.headline and (values := self.values(m))
        ]

    @property
    def finding(self) -> str:
        """How accuracy and CAS differ, in one sentence."""
        parts = []
        for m in (metric("robust" if self.attacked else "clean"), metric("cas")):
            if values := self.values(m):
                chance = ", which may be chance" * holds_zero(self.interval(m))
                parts.append(f"{m.label} {self.change(m, values)}{chance}")
        head = f"From {self.c.a} to {self.c.b}" if self.run else f"{self.c.b} against {self.c.a}:"
        return f"{head} {' and '.join(parts)}." if parts else f"{self.c.a} and {self.c.b} were compared."

    def html(self, heading: int) -> Markup:
        """All sections."""
        return render("comparison", SECTIONS, self, heading)


def difference_tile(
    m: Metric,
    values: tuple[float, float],
    change: str,
    ends: Ends | None,
    level: str,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """A tile for two values of a metric, how they differ, and the paired interval of the difference."""
    same = "interval of the difference, same images for both"
    notes = [*notes, f"{level} {same}" if ends else "no interval was computed"]
    notes += ["it holds 0, so this may be chance"] * holds_zero(ends)
    notes += ["without an attack"] * (m.key == "clean")
    note = "; ".join(notes) + ". Read with accuracy." * (m.unit == "score")
    a, b = (value(v, m) for v in values)
    return {"title": sentence(m.label), "best": a, "last": b, "change": change, "note": note}


def views(file: ResultFile, folder: Path, anchor: str) -> list[ComparisonView]:
    """All comparisons of a file in `folder`; `anchor` tells its anchors from those of other files."""
    results = file.results
    return [
        ComparisonView(c, _measurement(c, 0, results), _measurement(c, 1, results), folder, f"{anchor}-{i}")
        for i, c in enumerate(file.comparisons, 1)
    ]


def _measurement(c: Comparison, side: int, measurements: Sequence[Measurement]) -> Measurement | None:
    """The measurement of one side: the same attack, images and numbers, and its name."""
    for m in measurements:
        alike = (m.attack, m.data.n, m.data.split) == (c.attack, c.data.n, c.data.split)
        at, label = m.checkpoint, (c.a, c.b)[side]
        if c.of:
            named = (at.name, at.run) == (c.of[side].name, c.of[side].run)
        else:
            named = label in (at.name, at.title)
        both = {key: c.metrics.get(key) for key in ("robust", "cas")}
        same = all(pair is None or m.metrics.get(key) == pair[side] for key, pair in both.items())
        if alike and named and same:
            return m
    return None


def matrices(view: ComparisonView) -> dict[str, Any] | None:
    """C of both and their difference."""
    sides = {"first": view.first, "second": view.second}
    matrices = {side: C for side, m in sides.items() if m and (C := matrix_of(m, "C"))}
    figures = {side: plots.matrix(C, view.names) for side, C in matrices.items()}
    if D := matrix_of(view.c, "C_difference"):
        figures["difference"] = plots.difference(D, view.names)
    return {"figures": figures} if figures else None


def changes(view: ComparisonView) -> dict[str, Any] | None:
    """The classes and the pairs of classes that changed most."""
    if not (view.c.classes or view.c.pairs):
        return None
    rows = [{"name": r.name, "best": r.a, "last": r.b} for r in view.c.classes]
    return {"rows": rows, "pairs": view.c.pairs[:12]}


def saliency(view: ComparisonView) -> dict[str, Any] | None:
    """How far the Grad-CAM maps of both spread, and their picture if it lies beside the file and is a PNG."""
    if view.c.saliency is None:
        return None
    s = view.c.saliency.to_dict()
    path = view.folder / Path(str(s["grid"])).name if s.get("grid") else None
    data = path.read_bytes() if path and path.is_file() else b""
    picture = f"data:image/png;base64,{base64.b64encode(data).decode()}" if data.startswith(PNG) else None
    sets = (("these images", s), ("all images", s.get("all_images") or {}))
    rows = [(m, of, numbers[m.key]) for m in SPREAD for of, numbers in sets if numbers.get(m.key)]
    return {"s": s, "picture": picture, "rows": rows}


SECTIONS: list[Section[ComparisonView]] = [
    Section("matrices", "C of both", matrices),
    Section("changes", "What changed most", changes),
    Section("saliency", "Where both look", saliency),
]
"""The sections about two checkpoints, in the order of the page."""
