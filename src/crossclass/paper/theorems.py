"""The paper's theorems as entries: the truth table, the project's own AT on the data model, the bridge.

Words come with the numbers here (`theory.claims`, `linear_claims`, `bridge_claims`); each entry stores both.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from crossclass.paper.bridge import QUICK, measure_bridge
from crossclass.paper.bridge_claims import judge_bridge
from crossclass.paper.claims import Numbers
from crossclass.paper.entry import Experiment, Found, Size
from crossclass.paper.linear import measure_training
from crossclass.paper.linear_claims import judge_training
from crossclass.paper.theory import closed
from crossclass.paper.theory.claims import truth_table
from crossclass.paper.verdict import Verdict
from crossclass.report import plots

MU, SIGMA, BETA = 1.0, 0.9, 0.25
"""Of the pictures, as of the panel."""
RADII = (0.0, 0.1, 0.15, 0.2, 0.3)
"""eps of the curves of theorem 2."""


SOURCES = (
    *(f"paper/{name}.py" for name in ("theorems", "linear", "linear_claims", "verdict")),
    *(f"paper/{name}.py" for name in ("bridge", "bridge_claims", "effective")),
    *("paper/theory/*.py", "attacks/*.py", "training/recipes/*.py", "data/*.py", "models/*.py"),
    *("core/rng.py", "core/runtime.py", "training/loop.py", "training/epoch.py", "training/state.py"),
    *("analysis/evaluate.py", "analysis/attribution.py"),
)
"""What the numbers are computed with; what watches, draws, tells or looks after files is not in it."""


@cache
def code() -> str:
    """A checksum of the source that the numbers come from."""
    package = Path(__file__).parents[1]
    files = sorted(file for pattern in SOURCES for file in package.glob(pattern))
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]


@cache
def _truth(size: Size) -> dict[str, list[Verdict]]:
    return truth_table(n=400) if size == "smoke" else truth_table()


@cache
def _training(size: Size) -> dict[str, Any]:
    return measure_training(seeds=2, n=300, steps=30) if size == "smoke" else measure_training()


def _weights(size: Size, rows: Sequence[str], trained: Sequence[str]) -> Numbers:
    """The verdicts of the truth table and of training on some theorems each, and the weights over eps."""
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


def _draw_weights(m: Numbers) -> plots.Figure:
    title = "mu = {mu:g}, sigma = {sigma:g}, beta = {beta:g}".format(**m["setting"])
    at, smoothed = ((np.array(a), np.array(b)) for a, b in (m["at"], m["smoothed"]))
    return plots.feature_weights(np.array(m["eps"]), at, smoothed, m["eps0"], m["eps1"], title=title)


def _success(found: Found, size: Size) -> Numbers:
    r = np.linspace(0, 1.5, 151)
    curves = []
    for eps in RADII:
        best = float(closed.ratio_best((MU - 2 * eps) / SIGMA))
        pair, both = (np.asarray(p(1.0, r, MU, SIGMA, eps)).tolist() for p in (closed.p_pair, closed.p_all))
        at = float(closed.ratio_at(MU, SIGMA, eps))
        curves.append({"label": f"ε = {eps:g}", "pair": pair, "both": both, "at": at, "best": best})
    verdicts = [asdict(v) for v in _truth(size)["thm2"]]
    return {"verdicts": verdicts, "setting": {"mu": MU, "sigma": SIGMA}, "r": r.tolist(), "curves": curves}


def _draw_success(m: Numbers) -> plots.Figure:
    return plots.success_curves(np.array(m["r"]), [plots.Success(**curve) for curve in m["curves"]])


def _phases(found: Found, size: Size) -> Numbers:
    sigma = np.linspace(0.005, 1.77, 180)
    thresholds = closed.eps0(1.0, sigma), closed.eps1(1.0, sigma, BETA)
    return {
        **_weights(size, ("thm3",), ("thm3",)),
        "sigma": sigma.tolist(),
        "thresholds": [np.asarray(t).tolist() for t in thresholds],
    }


def _draw_phases(m: Numbers) -> plots.Figure:
    sigma, eps0, eps1 = (np.array(v) for v in (m["sigma"], *m["thresholds"]))
    return plots.phase_diagram(sigma, eps0, eps1, beta=m["setting"]["beta"])


def _bridge(found: Found, size: Size) -> Numbers:
    numbers = measure_bridge(QUICK if size == "smoke" else None)
    return {**numbers, "verdicts": [asdict(v) for v in judge_bridge(numbers)]}


def _draw_bridge(m: Numbers) -> plots.Figure:
    """What is left of the weights of exclusive and of shared parts by eps, and CAS over its first value."""
    panels = {}
    for name, points in m["families"].items():
        series = {"exclusive parts": "exclusive", "shared parts": "shared", "CAS (clean)": "cas_clean"}
        first = {key: sum(points[0][key]) / len(points[0][key]) for key in series.values()}
        panels[name] = {
            word: [(p["eps"], [v / first[key] for v in p[key]]) for p in points]
            for word, key in series.items()
            if first[key] > 0
        }
    return plots.lines(panels, "eps", width=12)


OWN = ("(Lemma 1)", "(Theorem 1)", "(Theorem 2, eq. 11)", "(Theorem 3), reading A", "as printed), reading A")
"""What the paper states, as the truth table words it; its other rows are checks, readings and extensions."""


def _stored(m: Numbers) -> list[Verdict]:
    found = [Verdict(**v) for v in m["verdicts"]]
    return [replace(v, beyond=not any(words in v.claim for words in OWN)) for v in found]


THEOREMS: tuple[Experiment, ...] = (
    Experiment(
        "thm1",
        "Theorem 1: cross-class features are given up first (with Lemma 1)",
        "Under a robust loss w2 becomes 0 beyond some eps0 < mu/2, while w1 stays positive up to mu/2.",
        measure=lambda found, size: _weights(size, ("lemma1", "thm1"), ("thm1",)),
        draw=_draw_weights,
        judge=_stored,
        code=code,
    ),
    Experiment(
        "thm2",
        "Theorem 2: cross-class features help",
        "The larger w2 in [0, w1] is, the more probably the right class is ranked above any other one.",
        measure=_success,
        draw=_draw_success,
        judge=_stored,
        code=code,
    ),
    Experiment(
        "thm3",
        "Theorem 3: label smoothing keeps them longer",
        "With smoothed labels w2 is positive up to an eps1 that lies between eps0 and mu/2.",
        measure=_phases,
        draw=_draw_phases,
        judge=_stored,
        code=code,
    ),
    Experiment(
        "cor1",
        "Corollary 1: and keeps more of them",
        "For every eps below eps1, smoothed labels return a larger w2.",
        measure=lambda found, size: _weights(size, ("cor1",), ("thm3", "cor1")),
        draw=_draw_weights,
        judge=_stored,
        code=code,
    ),
    Experiment(
        "bridge",
        "From the theory to pictures",
        "Beyond the paper: is there such a threshold in models that are trained on pictures?",
        measure=_bridge,
        draw=_draw_bridge,
        judge=_stored,
        code=code,
    ),
)
