"""What training on the data model shows: theorem 1, theorem 3 and corollary 1, judged.

The numbers are those of `linear.measure_training`: for AT and for label-smoothed AT the threshold, and at
every eps the weights of each sample's model, the closed form's, and their standard errors.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np

from crossclass.paper.verdict import Verdict, Word, above, everywhere


def judge_training(
    numbers: Mapping[str, Any], errors: float = 3.0, agree: float = 4.0
) -> dict[str, list[Verdict]]:
    """Three statements on AT (`thm1`), the same on label-smoothed AT (`thm3`), and corollary 1 (`cor1`).

    `errors`: how many standard errors from the threshold an eps must be to count, and around w2 an interval
    takes; `agree`: how many lie at most between trained and closed form.
    """
    where = f"{numbers['layout']}, mu = {numbers['mu']:g}, sigma = {numbers['sigma']:g}; {numbers['seeds']} "
    where += f"samples of {numbers['n']}, {numbers['steps']} steps of AT"
    runs = {"thm3" if run["beta"] else "thm1": run for run in numbers["runs"]}
    out = {theorem: _statements(run, where, errors, agree) for theorem, run in runs.items()}
    if len(runs) == 2:
        out["cor1"] = [_corollary(runs["thm1"], runs["thm3"], where, errors)]
    return out


def _statements(run: Mapping[str, Any], where: str, errors: float, agree: float) -> list[Verdict]:
    """Where w2 vanishes, where it does not, and that both weights are the closed form's."""
    where += f", label smoothing {run['beta']:g}" if run["beta"] else ""
    name = "eps1" if run["beta"] else "eps0"
    edge, points, resolution = errors * run["error"], run["points"], run["resolution"]
    over = [p for p in points if p["eps"] > run["threshold"] + edge]
    under = [p for p in points if p["eps"] < run["threshold"] - edge]
    beyond = f"{name} by more than {errors:g} standard errors"
    said = (
        (f"w2 reaches 0 at every eps above {beyond}", over, _is_zero, errors),
        (f"w2 stays positive at every eps below {beyond}", under, _is_positive, errors),
        (f"trained w1 and w2 are the closed form's within {agree:g} standard errors", points, _agrees, agree),
    )
    return [
        _verdict(claim, where, name, run, some, [word(p, resolution, reach) for p in some])
        for claim, some, word, reach in said
    ]


def _is_zero(point: Mapping[str, Any], resolution: float, errors: float) -> Word:
    if all(point["reached"]):
        return "holds"
    return "does not hold" if _is_positive(point, resolution, errors) == "holds" else "undecided"


def _is_positive(point: Mapping[str, Any], resolution: float, errors: float) -> Word:
    mean, reach = float(np.mean(point["w2"])), errors * point["error"][1]
    return "does not hold" if all(point["reached"]) else above((mean - reach, mean + reach), resolution)


def _agrees(point: Mapping[str, Any], resolution: float, errors: float) -> Word:
    return "holds" if _distance(point, resolution) <= errors else "does not hold"


def _distance(point: Mapping[str, Any], resolution: float) -> float:
    """Between trained and closed form, in standard errors of the mean; the larger of w1's and w2's."""
    far1 = abs(float(np.mean(point["w1"])) - point["closed"][0]) / point["error"][0]
    far2 = max(abs(float(np.mean(point["w2"])) - point["closed"][1]) - resolution, 0.0) / point["error"][1]
    return max(far1, far2)


def _verdict(
    claim: str,
    where: str,
    name: str,
    run: Mapping[str, Any],
    points: Sequence[Mapping[str, Any]],
    words: Sequence[Word],
) -> Verdict:
    if not points:
        return Verdict(claim, "undecided", where, "no eps was trained there")
    word = everywhere(words)
    worst = next((p for p, w in zip(points, words, strict=True) if w == word != "holds"), None)
    far = max(_distance(p, run["resolution"]) for p in points)
    if worst is None:
        w2 = [float(np.mean(p["w2"])) for p in points]
        why = f"{len(points)} values of eps, mean w2 from {min(w2):.4f} to {max(w2):.4f}"
        why += f", at most {far:.1f} standard errors from the closed form"
    else:
        why = f"at eps = {worst['eps']:.4f} w2 = {np.mean(worst['w2']):.4f} +- {worst['error'][1]:.4f}"
        why += f", closed form {worst['closed'][1]:.4f}"
    numbers = {name: run["threshold"], f"{name}_error": run["error"], "points": len(points), "farthest": far}
    return Verdict(
        claim, word, where, f"{name} = {run['threshold']:.4f} +- {run['error']:.4f}; {why}", numbers
    )


def _corollary(plain: Mapping[str, Any], smoothed: Mapping[str, Any], where: str, errors: float) -> Verdict:
    """w2 with label smoothing exceeds w2 without at every eps below eps1; paired, on the same samples."""
    claim = (
        f"label smoothing {smoothed['beta']:g} raises the trained w2 at every eps below eps1 (corollary 1)"
    )
    words, least = list[Word](), float("inf")
    without = {p["eps"]: p for p in plain["points"]}
    for b in smoothed["points"]:
        a = without.get(b["eps"])
        if a is not None and b["eps"] < smoothed["threshold"] - errors * smoothed["error"]:
            gain = np.subtract(b["w2"], a["w2"])
            reach = errors * float(gain.std(ddof=1)) / sqrt(len(gain))
            low, high = float(gain.mean()) - reach, float(gain.mean()) + reach
            words.append(above((low, high), plain["resolution"]))
            least = min(least, float(gain.mean()))
    if not words:
        return Verdict(claim, "undecided", where, "no eps was trained there")
    why = f"{len(words)} values of eps, smallest mean gain {least:.4f}"
    return Verdict(claim, everywhere(words), where, why, {"points": len(words), "least": least})
