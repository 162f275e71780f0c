"""The theorems as entries: the truth table, the project's own AT on the data model, the bridge to images.

The verdicts come with the numbers, and each entry stores both.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from crossclass.paper.entry import Entry, Numbers, RunEvidence, Size
from crossclass.paper.verdict import Verdict

MU, SIGMA, BETA = 1.0, 0.9, 0.25
"""The setting of the figures."""
RADII = (0.0, 0.1, 0.15, 0.2, 0.3)
"""eps of the curves of theorem 2."""

_THEORY = ("paper/theorems.py", "paper/verdict.py", "paper/theory/*.py")
_LINEAR = (
    *(*_THEORY, "paper/theory_by_training.py", "models/model_state.py"),
    *("training/recipes/base.py", "training/recipes/at.py"),
    *(f"attacks/{name}.py" for name in ("base", "losses", "norms", "pgd")),
)
_BRIDGE = (
    *(*_LINEAR, "paper/theory_on_pictures.py", "paper/part_weights.py", "data/shapes.py"),
    *("core/rng.py", "models/base.py", "models/preactresnet.py"),
    *(f"training/{name}.py" for name in ("loop", "epoch", "state", "schedule")),
    *("analysis/attribution.py", "analysis/evaluate.py"),
)
SOURCES: Mapping[str, tuple[str, ...]] = {
    "thm1": _LINEAR,
    "thm2": _THEORY,
    "thm3": _LINEAR,
    "cor1": _LINEAR,
    "bridge": _BRIDGE,
}
"""The files that the numbers of each entry are computed with."""


@cache
def checksum(patterns: tuple[str, ...]) -> str:
    """A checksum of source files of the package."""
    import hashlib

    package = Path(__file__).parents[1]
    files = sorted({file for pattern in patterns for file in package.glob(pattern)})
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]


@cache
def _truth(size: Size) -> dict[str, list[Verdict]]:
    from crossclass.paper.theory.truth_table import truth_table

    return truth_table(n=400) if size == "smoke" else truth_table()


@cache
def _training(size: Size) -> dict[str, Any]:
    from crossclass.paper.theory_by_training import measure_training

    return measure_training(seeds=2, n=300, steps=30) if size == "smoke" else measure_training()


def _weights(evidence: RunEvidence, size: Size, rows: Sequence[str], trained: Sequence[str]) -> Numbers:
    """The verdicts of the truth table and of training on some theorems each, and the weights over eps."""
    import numpy as np

    from crossclass.paper.theory import closed
    from crossclass.paper.theory_by_training import judge_training

    training = _training(size)
    judged = judge_training(training)
    verdicts = [*(v for row in rows for v in _truth(size)[row]), *(v for id_ in trained for v in judged[id_])]
    eps = np.linspace(0, MU / 2, 101)[:-1]
    at, ls = (closed.optimum(MU, SIGMA, eps, beta=beta) for beta in (0.0, BETA))
    return {
        "verdicts": [asdict(v) for v in verdicts],
        "setting": {"mu": MU, "sigma": SIGMA, "lambda": 1.0, "beta": BETA},
        "eps": eps.tolist(),
        "at": [np.asarray(w).tolist() for w in at],
        "smoothed": [np.asarray(w).tolist() for w in ls],
        "eps0": float(closed.eps0(MU, SIGMA)),
        "eps1": float(closed.eps1(MU, SIGMA, BETA)),
        "training": training,
    }


def _theorem2(evidence: RunEvidence, size: Size) -> Numbers:
    import numpy as np

    from crossclass.paper.theory import closed

    r = np.linspace(0, 1.5, 151)
    curves = []
    for eps in RADII:
        best = float(closed.ratio_best((MU - 2 * eps) / SIGMA))
        pair, both = (np.asarray(p(1.0, r, MU, SIGMA, eps)).tolist() for p in (closed.p_pair, closed.p_all))
        at = float(closed.ratio_at(MU, SIGMA, eps))
        curves.append({"label": f"ε = {eps:g}", "pair": pair, "both": both, "at": at, "best": best})
    verdicts = [asdict(v) for v in _truth(size)["thm2"]]
    return {"verdicts": verdicts, "setting": {"mu": MU, "sigma": SIGMA}, "r": r.tolist(), "curves": curves}


def _theorem3(evidence: RunEvidence, size: Size) -> Numbers:
    import numpy as np

    from crossclass.paper.theory import closed

    sigma = np.linspace(0.005, 1.77, 180)
    thresholds = closed.eps0(1.0, sigma), closed.eps1(1.0, sigma, BETA)
    return {
        **_weights(evidence, size, ("thm3",), ("thm3",)),
        "sigma": sigma.tolist(),
        "thresholds": [np.asarray(t).tolist() for t in thresholds],
    }


def _bridge(evidence: RunEvidence, size: Size) -> Numbers:
    from crossclass.paper.theory_on_pictures import QUICK, Effort, judge_bridge, measure_bridge

    numbers = measure_bridge(QUICK if size == "smoke" else Effort())
    return {**numbers, "verdicts": [asdict(v) for v in judge_bridge(numbers)]}


OWN = ("(Lemma 1)", "(Theorem 1)", "(Theorem 2, eq. 11)", "(Theorem 3), reading A", "as printed), reading A")
"""Marks of the paper's own statements in the truth table; other rows are checks, readings, extensions."""


def _stored(m: Numbers) -> list[Verdict]:
    verdicts = [Verdict(**v) for v in m["verdicts"]]
    return [replace(v, extension=not any(words in v.claim for words in OWN)) for v in verdicts]


def _entry(id_: str, title: str, claim: str, compute: Callable[[RunEvidence, Size], Numbers]) -> Entry:
    return Entry(id_, title, claim, compute=compute, judge=_stored, code=partial(checksum, SOURCES[id_]))


THEOREMS = (
    _entry(
        "thm1",
        "Theorem 1: cross-class features are given up first (with Lemma 1)",
        "Under a robust loss w2 becomes 0 beyond some eps0 < mu/2, while w1 stays positive up to mu/2.",
        partial(_weights, rows=("lemma1", "thm1"), trained=("thm1",)),
    ),
    _entry(
        "thm2",
        "Theorem 2: cross-class features help",
        "The larger w2 in [0, w1] is, the more probably the right class is ranked above any other one.",
        _theorem2,
    ),
    _entry(
        "thm3",
        "Theorem 3: label smoothing keeps them longer",
        "With smoothed labels w2 is positive up to an eps1 that lies between eps0 and mu/2.",
        _theorem3,
    ),
    _entry(
        "cor1",
        "Corollary 1: and keeps more of them",
        "For every eps below eps1, smoothed labels return a larger w2.",
        partial(_weights, rows=("cor1",), trained=("thm3", "cor1")),
    ),
    _entry(
        "bridge",
        "From the theory to pictures",
        "Beyond the paper: is there such a threshold in models that are trained on pictures?",
        _bridge,
    ),
)
