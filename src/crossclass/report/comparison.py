"""Two checkpoints on the page: what differs, with the paired intervals that `measure` computed."""

import base64
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from crossclass.analysis.metrics import METRICS, Metric, metric
from crossclass.analysis.pictures import Pictures
from crossclass.analysis.records import (
    ClassChange,
    Comparison,
    Ends,
    Matrix,
    Measurement,
    PairChange,
    ResultFile,
)
from crossclass.report import figures, forgotten, pictures as drawn, plots
from crossclass.report.format import (
    NO_ATTACK,
    change,
    holds_zero,
    level,
    number,
    sentence,
    short_attack,
    signed,
    value,
    value_interval,
)
from crossclass.report.measurement import class_figure, class_names, confusion_figure, facts, matrix_of
from crossclass.report.packed import COARSE, viewer
from crossclass.report.sections import Section, render

SPREAD = (
    Metric("half_mass_area", "share of the image that holds half of a map", "", lambda _: None, "accuracy"),
    Metric("entropy", "entropy of a map, 1 if it is flat", "", lambda _: None, "share"),
)
"""What is stored of saliency maps, and how it is printed."""
PAIRS = 12
"""Number of pairs of classes that are listed."""
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
    title: str = ""
    """Unset where the page says it already."""
    pictures: tuple[Pictures | None, Pictures | None] = (None, None)

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
    def attack_at_a_number(self) -> str:
        """The attack and the number of images in few words."""
        return short_attack(self.attack, self.c.data.n, self.c.data.split)

    @property
    def warnings(self) -> list[str]:
        """Those of the comparison, and those of either checkpoint that are not among them."""
        told = list(self.c.warnings)
        own = [(name, text) for name, m in self.sides for text in m.warnings]
        return told + [f"{name}: {text}" for name, text in own if not any(text in other for other in told)]

    @property
    def sides(self) -> list[tuple[str, Measurement]]:
        """The name and the measurement of both, as far as they are known."""
        both = ((self.c.a, self.first), (self.c.b, self.second))
        return [(name, m) for name, m in both if m is not None]

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
    attack: str,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """A tile for two values of a metric under an attack, and how they differ."""
    notes = [*notes, *["the interval holds 0: it may be chance"] * holds_zero(ends)]
    a, b = (value(v, m) for v in values)
    under = f"no attack; {attack.partition('; ')[2]}" if m.key == "clean" else attack
    return {
        "title": sentence(m.label),
        "best": a,
        "last": b,
        "change": change,
        "attack": under,
        "note": sentence("; ".join(notes)),
    }


def intervals_note(c: Comparison | None) -> str:
    """What the intervals in brackets are."""
    if c is None or c.intervals is None:
        return "No interval of the differences was computed."
    return (
        f"In brackets: {level(c.intervals)} intervals of the difference, the same images for both; they "
        "resample images, not trainings: another seed may differ by more."
    )


def views(
    file: ResultFile, folder: Path, anchor: str, shown: Sequence[Pictures | None] = ()
) -> list[ComparisonView]:
    """All comparisons of a file in `folder`; `anchor` tells its anchors from those of other files."""
    out = []
    for i, c in enumerate(file.comparisons, 1):
        both = [_measurement(c, side, file.results) for side in (0, 1)]
        drawn = dict(zip(map(id, file.results), shown, strict=False))
        of = [drawn.get(id(m)) for m in both]
        title = f"{c.a} against {c.b}"
        out.append(ComparisonView(c, both[0], both[1], folder, f"{anchor}-{i}", title, (of[0], of[1])))
    return out


def unlike(a: Measurement, b: Measurement) -> str:
    """In what two measurements are not alike, so that no difference of theirs means anything; else empty."""
    how = {
        "attacks": [m.attack or NO_ATTACK for m in (a, b)],
        "numbers of images": [str(m.data.n) for m in (a, b)],
        "splits": [str(m.data.split) for m in (a, b)],
        "images": [m.data.checksum or "" for m in (a, b)],
        "classes": [", ".join(m.class_names) for m in (a, b)],
    }
    for what, (one, two) in how.items():
        if one and two and one != two:
            words = f" ({one} and {two})" if what not in ("images", "classes") else ""
            return f"different {what}{words}"
    return ""


def between(
    a: Measurement,
    b: Measurement,
    names: tuple[str, str],
    anchor: str,
    title: str = "",
    shown: tuple[Pictures | None, Pictures | None] = (None, None),
) -> ComparisonView | None:
    """Two measurements of different files side by side, without intervals of the difference.

    None where they are `unlike`.
    """
    if unlike(a, b):
        return None
    both = {m.key: (a.get(m.key), b.get(m.key)) for m in METRICS}
    pairs = {k: [x, y] for k, (x, y) in both.items() if x is not None and y is not None}
    first, second = matrix_of(a, "C"), matrix_of(b, "C")
    K = len(first or ())
    same = first is not None and second is not None and len(second) == K
    accuracies = zip(class_names(a, K), a.classwise_robust or (), b.classwise_robust or (), strict=False)
    classes = [
        ClassChange(**{"class": name}, a=x, b=y, change=x - y)
        for name, x, y in accuracies
        if x is not None and y is not None
    ]
    c = Comparison(
        a=names[0],
        b=names[1],
        of=(a.checkpoint, b.checkpoint),
        data=a.data,
        attack=a.attack,
        classes=sorted(classes, key=lambda r: -abs(r.change)),
        pairs=_pair_changes(first, second, class_names(a, K)) if same and first and second else [],
        matrices={"C_difference": plots.subtract(first, second)} if same and first and second else {},
        **pairs,
        **{f"d_{k}": x - y for k, (x, y) in pairs.items()},
    )
    return ComparisonView(c, a, b, Path(), anchor, title, shown)


def _pair_changes(A: Matrix, B: Matrix, names: Sequence[str]) -> list[PairChange]:
    """The pairs whose C differs most."""
    out = []
    for i in range(len(A)):
        for j in range(i + 1, len(A)):
            x, y = A[i][j], B[i][j]
            if x is not None and y is not None:
                out.append((abs(x - y), i, j, x, y))
    return [
        PairChange(i=i, j=j, classes=(names[i], names[j]), a=x, b=y, change=x - y)
        for _, i, j, x, y in heapq.nlargest(PAIRS, out)
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


def pictures(view: ComparisonView) -> dict[str, Any]:
    """The images and what the attack on either network makes of them."""
    named = [(name, one) for name, one in zip((view.c.a, view.c.b), view.pictures, strict=True) if one]
    alike = [pair for pair in named if np.array_equal(pair[1].images, named[0][1].images)]
    strip = drawn.strip(alike, view.names, view.attack)
    parts = drawn.planted(named[0][1], view.names) if named else None
    C = matrix_of(view.first, "C") if view.first else None
    return {"figures": [f for f in (strip, parts) if f], "example": drawn.examples(C, view.names)}


def tiles(view: ComparisonView) -> dict[str, Any]:
    """One tile for each headline metric that both have."""
    shown = [
        difference_tile(m, values, view.change(m, values), view.interval(m), view.attack_at_a_number)
        for m in METRICS
        if m.headline and (values := view.values(m))
    ]
    note = f"Numbers stand as {view.c.a} → {view.c.b}. {intervals_note(view.c)}"
    return {"tiles": shown, "note": note}


def explorer(view: ComparisonView) -> dict[str, Any] | None:
    """The matrices of both to look into."""
    keys = {"C": "C"} if len(view.names) > COARSE else {"C": "C", "icas_matrix": "instance by instance"}
    shown = [
        ({"label": f"{label} of {name}"}, M)
        for key, label in keys.items()
        for name, m in view.sides
        if (M := matrix_of(m, key)) and len(M) == len(view.names)
    ]
    if not shown or len(view.names) < 2:
        return None
    check = f"{view.attack_at_a_number}. Negative entries are red."
    to = forgotten.links(view.c.features, view.anchor, view.run or "")
    data = viewer(view.names, shown, shown[0][1], features=to)
    return {"id": view.anchor, "data": data, "check": check, "note": ""}


def matrices(view: ComparisonView) -> dict[str, Any] | None:
    """C of both and their difference."""
    cas, attack = view.c.metrics.get("cas"), view.attack_at_a_number
    shown: list[figures.PageFigure] = []
    for i, (name, m) in enumerate((("a", view.first), ("b", view.second))):
        if m and (C := matrix_of(m, "C")):
            text = f"CAS {number(cas[i], 2)}; {attack}" if cas else attack
            id_ = f"table-{view.anchor}-{name}"
            shown.append(figures.matrix(C, view.names, f"C of {getattr(view.c, name)}", text, id=id_))
    if D := matrix_of(view.c, "C_difference"):
        text = f"blue: larger in {view.c.a}, red: larger in {view.c.b}; {attack}"
        title = f"{view.c.a} minus {view.c.b}"
        large = len(shown) == 2 and len(D) > COARSE
        of = [(one.id, 0) for one in shown] if large else []
        shown.append(figures.matrix(D, view.names, title, text, plots.difference(D, view.names), of=of))
    note = "Negative entries of C are red; the difference has a scale of its own."
    return {"figures": shown, "note": note} if shown else None


def shared(view: ComparisonView) -> dict[str, Any] | None:
    """Of two checkpoints of one run, the features that carried the sharing at the first, pair by pair."""
    c, numbers = view.c, view.c.features
    if numbers is None:
        return None
    at = view.attack_at_a_number
    return forgotten.section(numbers, [], view.names, view.anchor, view.run or "", at, (c.a, c.b))


def changes(view: ComparisonView) -> dict[str, Any] | None:
    """The classes and the pairs of classes that changed most."""
    c, attack = view.c, view.attack_at_a_number
    if not (c.classes or c.pairs):
        return None
    title = f"{'Robust accuracy' if view.attacked else 'Accuracy'} per class"
    rows = [(r.name, r.a, r.b) for r in c.classes]
    bars = class_figure(rows, (c.a, c.b), title, f"the largest change first; {attack}") if rows else None
    pairs = {
        "title": "Pairs of classes whose C differs most",
        "columns": [c.a, c.b, "change"],
        "rows": [
            (" – ".join(p.classes), [number(p.a, 2), number(p.b, 2), signed(p.b - p.a, 2)])
            for p in c.pairs[:PAIRS]
        ],
        "note": f"C under {attack}.",
    }
    return {"bars": bars, "confusion": None, "pairs": pairs if c.pairs else None}


def predictions(view: ComparisonView) -> dict[str, Any] | None:
    """The confusion matrices of both."""
    shown = [
        confusion_figure(counts, view.names, f" of {name}", view.attack_at_a_number, view.attacked)
        for name, m in view.sides
        if (counts := matrix_of(m, "confusion")) and len(counts) == len(view.names)
    ]
    return {"figures": shown, "note": "", "folded": True} if shown else None


def _own_interval(one: Measurement, m: Metric) -> Ends | None:
    return one.intervals.ends(m.key) if one.intervals else None


def further(view: ComparisonView) -> dict[str, Any] | None:
    """Every number of both side by side, each with its own interval."""
    if len(view.sides) < 2:
        return None
    rows = [
        (
            sentence(m.label),
            "" if m.headline else m.doc,
            [(value(one.get(m.key), m), value_interval(_own_interval(one, m), m)) for _, one in view.sides],
        )
        for m in METRICS
        if any(one.get(m.key) is not None for _, one in view.sides)
    ]
    note = f"{view.attack_at_a_number}. In brackets: the interval of each number over images."
    return {"columns": [view.c.a, view.c.b], "rows": rows, "note": note}


def conditions(view: ComparisonView) -> dict[str, Any] | None:
    """What is known of either network."""
    known = [facts(m) for _, m in view.sides]
    names = list(dict.fromkeys(key for one in known for key in one))
    rows = [(name, "", [(one.get(name, "–"), "") for one in known]) for name in names]
    if not rows:
        return None
    note = f"{view.attack}; {view.c.data.n or 'an unrecorded number of'} {view.c.data.split or ''} images."
    return {"columns": [name for name, _ in view.sides], "rows": rows, "note": note, "words": True}


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


def saliency_html(view: ComparisonView) -> Markup:
    """Only where both look, for a page that shows the rest already."""
    return render("saliency", [s for s in SECTIONS if s.id == "saliency"], view, 1)


SECTIONS: list[Section[ComparisonView]] = [
    Section("pictures", "Pictures", pictures, "shared/pictures"),
    Section("tiles", "In numbers", tiles, "shared/tiles"),
    Section("explorer", "Which classes share features", explorer, "shared/viewer"),
    Section("matrices", "C of both", matrices, "shared/figures"),
    Section("shared", forgotten.TITLE, shared, "shared/forgotten"),
    Section("changes", "What changed most", changes, "shared/classes"),
    Section("saliency", "Where both look", saliency, "comparison/saliency"),
    Section("predictions", "What both take the images for", predictions, "shared/figures"),
    Section("further", "All numbers", further, "shared/numbers"),
    Section("conditions", "Under which conditions", conditions, "shared/numbers"),
]
"""The sections about two checkpoints, in the order of the page."""
