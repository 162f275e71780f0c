"""The third check of the closed forms: projected subgradient descent on the mean loss of samples.

The adversary is computed anew in each step. Within w >= 0 a sample's worst rival and perturbation do not
depend on w (all rivals' exclusive features are 0), so the mean loss is quadratic there and a constant step
converges; nothing in the code relies on that.
"""

import numpy as np
from jaxtyping import Float, Int

from crossclass.paper.theory.samples import Scalar, adversary, design
from crossclass.paper.theory.setting import PAPER, Layout

_LEAST = 1e-9
"""The adversary sees at least this weight: at w = 0 the slope into w > 0 counts, where signs are not 0."""


def subgradient(
    x: Float[np.ndarray, "n d"],
    y: Int[np.ndarray, " n"],
    w: Float[np.ndarray, " 2"],
    eps: Scalar,
    lam: Scalar = 1.0,
    beta: Scalar = 0.0,
    reading: str = "A",
    layout: Layout = PAPER,
) -> Float[np.ndarray, " 2"]:
    """One subgradient of the mean loss by (w1, w2): its gradient with rival and perturbations held fixed."""
    w1, w2 = np.maximum(w, _LEAST)
    worst = adversary(x, y, float(w1), float(w2), eps, beta, reading, layout)
    both = design(layout)
    bracket = np.einsum("nd,nwd->w", x + worst.first, both[worst.rival] - both[y])
    foreign = np.einsum("nd,nwd->w", x + worst.second, (both.sum(axis=0) - both)[y])
    return ((1 - beta) * bracket - beta / (layout.classes - 1) * foreign) / len(y) + lam * w


def descend(
    x: Float[np.ndarray, "n d"],
    y: Int[np.ndarray, " n"],
    eps: Scalar,
    lam: Scalar = 1.0,
    beta: Scalar = 0.0,
    reading: str = "A",
    layout: Layout = PAPER,
    start: tuple[Scalar, Scalar] = (1.0, 1.0),
) -> tuple[float, float]:
    """(w1, w2) >= 0 that minimise the mean loss of samples; the step is 0.8 / lambda.

    Ends when a step moves w by less than 1e-12 of its length, or after 100 steps.
    """
    w = np.array(start, dtype=float)
    for _ in range(100):
        before = w
        w = np.maximum(w - 0.8 / lam * subgradient(x, y, w, eps, lam, beta, reading, layout), 0.0)
        if np.linalg.norm(w - before) <= 1e-12 * np.linalg.norm(before):
            break
    return float(w[0]), float(w[1])
