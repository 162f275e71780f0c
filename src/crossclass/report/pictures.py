"""The figures that a page begins with: images, the same under attack, and the parts that were planted."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from crossclass.analysis.pictures import Pictures
from crossclass.analysis.records import Matrix
from crossclass.report import plots
from crossclass.report.figures import PageFigure, rows
from crossclass.report.format import number


def strip(
    networks: Sequence[tuple[str, Pictures]], class_names: Sequence[str], attack: str
) -> PageFigure | None:
    """The images of the first network, and for each what its attack made of them and what it answers.

    Args:
        networks: A name (empty for one network alone) and its pictures, of the same images.
        class_names: The K classes.
        attack: In words.
    """
    if not networks:
        return None
    first = networks[0][1]
    shown: list[tuple[str, Any]] = [("image", first.images)]
    times = 1
    for name, one in networks:
        if one.attacked is not None:
            difference, times = plots.amplified(one.images, one.attacked)
            of = f"\nfor {_short(name, 12)}" if name else ""
            shown += [(f"under attack{of}", one.attacked), (f"difference\ntimes {times}", difference)]
    names = [*class_names, "no number"]
    captions, table = [], []
    for i, label in enumerate(first.labels):
        answers = [(names[one.clean[i]], names[one.robust[i]]) for _, one in networks]
        said = "\n".join(f"→ {_short(_pair(*pair), 15)}" for pair in answers)
        captions.append(f"{_short(names[label], 15)}\n{said}")
        table.append([names[label], *(answer for pair in answers for answer in pair)])
    columns = ["class"]
    for name, _ in networks:
        of = f" by {name}" if name else ""
        columns += [f"image taken for{of}", f"attacked image taken for{of}"]
    attacked = any(one.attacked is not None for _, one in networks)
    note = "Below each image: its class"
    note += "; → what the network takes it for"
    note += ", and what it takes the attacked image for, where that differs" if attacked else ""
    note += f". {attack}." if attacked else "."
    note += " The images are larger than shown." * first.reduced
    return PageFigure(
        plots.image_strip(shown, captions, 10),
        "Images that were measured" + (", and what the attack makes of them" if attacked else ""),
        note + " They are the first of each class, not chosen.",
        rows(columns, table),
        plots.image_strip(shown, captions[:8], 4),
        pictures=True,
    )


def _pair(clean: str, robust: str) -> str:
    return clean if clean == robust else f"{clean}, {robust}"


def _short(text: str, room: int = 14) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"


def planted(pictures: Pictures | None, class_names: Sequence[str]) -> PageFigure | None:
    """The parts that the classes of a generated data set show; None where nothing was planted."""
    if pictures is None or pictures.parts is None or pictures.shows is None:
        return None
    shows = [[int(p) for p in np.flatnonzero(own)] for own in pictures.shows]
    deep = max(map(len, shows))
    table = [[n, *own, *[""] * (deep - len(own))] for n, own in zip(class_names, shows, strict=True)]
    return PageFigure(
        plots.planted_parts(pictures.parts, shows, class_names),
        "What was planted: the parts that the images of each class are made of",
        "Two classes that show the same part share a cross-class feature; C should find these pairs.",
        rows(["class", *(f"part {i}" for i in range(1, deep + 1))], table),
        pictures=True,
    )


def examples(C: Matrix | None, names: Sequence[str]) -> str:
    """The pair that shares most and the pair that shares least, in one sentence; empty if C is unknown."""
    if not C or len(C) < 3:
        return ""
    pairs = [(C[i][j], i, j) for i in range(len(C)) for j in range(i) if C[i][j] is not None]
    (high, a, b), (low, c, d) = max(pairs), min(pairs)
    return (
        f"Here {names[b]} and {names[a]} share most (C = {number(high, 2)}), {names[d]} and {names[c]} least "
        f"(C = {number(low, 2)})."
    )
