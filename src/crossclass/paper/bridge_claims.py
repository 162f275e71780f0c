"""What the bridge from the theory to images shows: the claims on each family of models, judged.

The numbers are those of `bridge.measure_bridge`: for every eps the weights w_E and w_C of exclusive and of
shared parts, and CAS, each a list over seeds.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np

from crossclass.paper.verdict import Verdict, Word, above, everywhere


def judge_bridge(
    numbers: Mapping[str, Any], reach: float = 3.0, kept: float = 0.05, near: float = 0.1
) -> list[Verdict]:
    """On each family: a threshold; sharing falls; CAS follows it; on strengths, CAS is in closed form.

    A weight has fallen to 0 if less than the share `kept` of what it is at the smallest eps is left of it; an
    interval takes `reach` standard errors to either side. `near`: how far from CAS its closed form may be.
    """
    out = []
    for name, points in numbers["families"].items():
        ends = f"eps {points[0]['eps']:.4g} to {points[-1]['eps']:.4g}" if points else "no eps"
        unit = "mu" if name.startswith("strengths") else "the pixels' range"
        where = f"{name}: {ends} of {unit}; mu = {numbers['mu']:g}, sigma = {numbers['sigma']:g}"
        out += [_threshold(name, points, where, reach, kept), *_trend(name, points, where, reach)]
        if points and "cas_closed" in points[0]:
            out.append(_closed(name, points, where, near))
    return out


def _pooled(point: Mapping[str, Any], key: str) -> tuple[float, float]:
    """Mean over seeds and its standard error: the spread between seeds, and each fit's own error."""
    values, own = np.array(point[key]), np.array(point[f"error_{key}"])
    between = float(values.var(ddof=1)) if len(values) > 1 else 0.0
    return float(values.mean()), sqrt((between + float((own**2).mean())) / len(values))


def _quotient(a: tuple[float, float], b: tuple[float, float], reach: float) -> tuple[float, float]:
    """The interval of a / b, each a mean with its error; everything if b may be 0."""
    if b[0] <= reach * b[1]:
        return -np.inf, np.inf
    value = a[0] / b[0]
    half = reach * sqrt(a[1] ** 2 + (value * b[1]) ** 2) / b[0]
    return value - half, value + half


def _threshold(
    name: str, points: Sequence[Mapping[str, Any]], where: str, reach: float, kept: float
) -> Verdict:
    claim = f"{name}: beyond some eps the weight of shared parts is 0 while that of exclusive parts is not"
    if len(points) < 2 or points[0]["eps"] != 0:
        return Verdict(claim, "undecided", where, "it takes eps = 0 and one more")
    words, found = list[Word](), ""
    start = {key: _pooled(points[0], key) for key in ("exclusive", "shared")}
    if min(mean for mean, _ in start.values()) <= 0:
        return Verdict(claim, "undecided", where, "at eps = 0 nothing was learned")
    for point in points[1:]:
        left = {key: _quotient(_pooled(point, key), start[key], reach) for key in start}
        shared_stays, exclusive_stays = above(left["shared"], kept), above(left["exclusive"], kept)
        if shared_stays == "does not hold" and exclusive_stays == "holds":
            return Verdict(claim, "holds", where, _said(point, start), {"eps": point["eps"]})
        words.append("does not hold" if shared_stays == "holds" else "undecided")
        found = _said(point, start)
    word: Word = "does not hold" if set(words) == {"does not hold"} else "undecided"
    return Verdict(claim, word, where, f"nowhere; {found}", {"eps": None})


def _said(point: Mapping[str, Any], start: Mapping[str, tuple[float, float]]) -> str:
    left = {key: _pooled(point, key)[0] / start[key][0] for key in start}
    return f"at eps {point['eps']:.4g} {left['shared']:.1%} of w_C is left and {left['exclusive']:.1%} of w_E"


def _trend(
    name: str, points: Sequence[Mapping[str, Any]], where: str, reach: float
) -> tuple[Verdict, Verdict]:
    falls = f"{name}: w_C/w_E falls from the smallest to the largest eps"
    follows = f"{name}: clean CAS moves as w_C/w_E does, from the smallest to the largest eps"
    if len(points) < 2:
        said = "it takes two values of eps"
        return Verdict(falls, "undecided", where, said), Verdict(follows, "undecided", where, said)
    ends = points[0], points[-1]
    low, high = zip(
        *(_quotient(_pooled(p, "shared"), _pooled(p, "exclusive"), reach) for p in ends), strict=True
    )
    if any(np.mean(p["exclusive"]) <= 0 for p in ends):
        said = "w_E is 0 at one end: nothing was learned there"
        return Verdict(falls, "undecided", where, said), Verdict(follows, "undecided", where, said)
    ratios = [float(np.mean(p["shared"]) / np.mean(p["exclusive"])) for p in ends]
    cas = [float(np.mean(p["cas_clean"])) for p in ends]
    fall = above((low[0] - high[1], high[0] - low[1]))
    numbers = {"ratio_first": ratios[0], "ratio_last": ratios[1], "cas_first": cas[0], "cas_last": cas[1]}
    why = f"w_C/w_E from {ratios[0]:.3f} to {ratios[1]:.3f}, clean CAS from {cas[0]:.3f} to {cas[1]:.3f}"
    same: Word = "undecided"
    if fall != "undecided":
        same = "holds" if (cas[0] > cas[1]) == (fall == "holds") else "does not hold"
    return Verdict(falls, fall, where, why, numbers), Verdict(follows, same, where, why, numbers)


def _closed(name: str, points: Sequence[Mapping[str, Any]], where: str, near: float) -> Verdict:
    """CAS of each trained W beside that of its w_E and w_C alone; what separates them is the noise in W."""
    claim = f"{name}: CAS, clean and attacked, is the closed form's of w_E and w_C within {near:g}"
    pairs = [(p["eps"], p[a], p[b]) for p in points for a, b in _PAIRS]
    far = [(float(np.abs(np.subtract(a, b)).max()), eps) for eps, a, b in pairs]
    words: list[Word] = ["holds" if distance <= near else "does not hold" for distance, _ in far]
    most, eps = max(far)
    return Verdict(
        claim, everywhere(words), where, f"at most {most:.3f} apart, at eps {eps:.4g}", {"apart": most}
    )


_PAIRS = (("cas_clean", "cas_closed"), ("cas", "cas_closed_attacked"))
