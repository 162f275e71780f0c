"""The section "What was shared, and forgotten": features that classes have in common at best and last."""

import shlex
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from crossclass.analysis.feature_pictures import FeaturePicture, shown_features
from crossclass.analysis.forgotten_records import ForgottenFeature, SharedAndForgotten, SharedPair
from crossclass.report import plots
from crossclass.report.format import number, signed

TITLE = "What was shared, and forgotten"
FIRST = 8
"""Pairs of classes that are listed at once; the others are folded away."""
TILE = 72
"""Width of an image on the page in pixels."""


def anchors(features: SharedAndForgotten | None, prefix: str) -> dict[tuple[int, int], str]:
    """Where on the page the features of a pair of classes i < j lie."""
    return {(p.i, p.j): f"{prefix}-{p.i}-{p.j}" for p in (features.pairs if features else ())}


def linked(names: Sequence[str], i: int, j: int, to: dict[tuple[int, int], str]) -> str:
    """The names of two classes i < j, as a link to their features where there are any."""
    words = f"{names[i]} – {names[j]}"
    return Markup('<a href="#{}">{}</a>').format(to[i, j], words) if (i, j) in to else words


def links(features: SharedAndForgotten | None, prefix: str, target: str) -> dict[str, Any] | None:
    """What the viewer of matrices reads to lead from a cell to the features of its pair of classes."""
    if features is None or not features.pairs:
        return None
    pairs = [[p.i, p.j] for p in features.pairs]
    return {"prefix": prefix, "pairs": pairs, "command": f"crossclass features {shlex.quote(target)} pair="}


def section(
    features: SharedAndForgotten,
    pictures: Sequence[FeaturePicture],
    names: Sequence[str],
    prefix: str,
    target: str,
    conditions: str,
    sides: tuple[str, str] = ("best", "last"),
) -> dict[str, Any]:
    """The variables of the template.

    Args:
        features: The stored numbers.
        pictures: Images beside them, if there are any.
        names: The K classes.
        prefix: With which the anchors of the pairs begin.
        target: What `crossclass features` is given to show more.
        conditions: The attack and the images in few words.
        sides: What both checkpoints are called.
    """
    known = [0, *(p.j for p in features.pairs), *(i for f in features.features for i, _, _ in f.classes)]
    names = [*names, *(f"class {i}" for i in range(len(names), max(known) + 1))]
    pairs = [_pair(p, pictures, names, prefix, target, sides) for p in features.pairs]
    first = [names[i] for p in features.pairs[:1] for i in (p.i, p.j)]
    return {
        "reason": "",
        "finding": _finding(features, sides),
        "conditions": conditions,
        "sides": sides,
        "forgotten": [_forgotten(f, names) for f in features.features],
        "pairs": pairs[:FIRST],
        "folded": pairs[FIRST:],
        "left_out": features.more_pairs,
        "command": _command(target, *first),
    }


def nothing(reason: str, command: str) -> dict[str, Any]:
    """The same where there are no numbers: why, and what to run."""
    return {"reason": reason, "command": command}


def _command(target: str, *pair: str) -> str:
    words = ["crossclass", "features", target, *([f"pair={','.join(pair)}"] if pair else [])]
    return shlex.join(words)


def _finding(f: SharedAndForgotten, sides: tuple[str, str]) -> str:
    whole = f.lost + f.changed_sign
    carried = (
        f"At {sides[0]}, {f.half:,} of {f.width:,} features carry half of what classes share. "
        if f.half
        else f"At {sides[0]}, no two classes share. "
    )
    verb = "fell" if whole > 0 else "rose"
    moved = f"{verb} by {number(abs(whole), 2)}" if round(whole, 2) else "did not change"
    return (
        f"{carried}From {sides[0]} to {sides[1]} CAS {moved}: {signed(-f.lost, 2)} over pairs of classes "
        f"that share at both checkpoints, {signed(-f.changed_sign, 2)} over pairs that share at one only."
    )


def _to(both: Sequence[float], digits: int = 2) -> str:
    return f"{number(both[0], digits)} → {number(both[1], digits)}"


def _forgotten(f: ForgottenFeature, names: Sequence[str]) -> dict[str, Any]:
    low, high = f.lost_interval or (None, None)
    return {
        "k": f.k,
        "share": _to(f.share),
        "lost": number(f.lost, 2),
        "ends": "" if low is None or high is None else f"[{number(low, 2)},\u00a0{number(high, 2)}]",
        "counts": number(f.effective_classes, 1),
        "classes": "; ".join(f"{names[i]} {_to((a, b))}" for i, a, b in f.classes),
    }


def _pair(
    p: SharedPair,
    pictures: Sequence[FeaturePicture],
    names: Sequence[str],
    prefix: str,
    target: str,
    sides: tuple[str, str],
) -> dict[str, Any]:
    own = [one for one in pictures if one.pair == (p.i, p.j)]
    shown = [(k, [_picture(one, names, sides) for one in own if one.k == k]) for k in shown_features(p)]
    numbers = {f.k: _to(f.C, 3) for f in p.features}
    return {
        "anchor": f"{prefix}-{p.i}-{p.j}",
        "names": (names[p.i], names[p.j]),
        "C": _to(p.C),
        "rows": [(f.k, _to(f.C, 3), _to(f.i), _to(f.j)) for f in p.features],
        "pictures": [{"k": k, "C": numbers[k], "of": of} for k, of in shown if of],
        "command": _command(target, names[p.i], names[p.j]),
    }


def _picture(one: FeaturePicture, names: Sequence[str], sides: tuple[str, str]) -> dict[str, Any]:
    """Images above, below them the maps at both checkpoints; and in words what the feature adds."""
    name = names[one.of_class]
    adds = [
        f"{side} {', '.join(number(v, 2) for v in values)}"
        for side, values in zip(sides, one.adds.tolist(), strict=True)
    ]
    return {
        "class": name,
        "src": plots.overlay_strip(one.images / 255.0, one.maps / 255.0),
        "width": TILE * len(one.images),
        "adds": "; ".join(adds),
        "alt": f"{len(one.images)} images of {name} on which feature {one.k} adds most at {sides[0]}, and "
        f"where in them it lies at {sides[0]} and at {sides[1]}",
    }
