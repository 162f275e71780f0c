"""Samples of eq. (8), the tied linear map of eq. (16), and each sample's exact worst case, without formulas.

The adversary is computed in two ways, neither of which is a closed form under test: from the signs of
explicit differences of the map's rows (`worst_case`), and by trying every corner of the cube
(`worst_of_corners`; a linear loss is largest in a corner).
"""

from functools import cache
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from crossclass.paper.theory.setting import PAPER, Layout, check_reading

Scalar = float | int


@cache
def design(layout: Layout = PAPER) -> Float[np.ndarray, "k 2 d"]:
    """The tied map: f = x @ W.T with W[i] = w1 design[i, 0] + w2 design[i, 1] (eq. 16); read-only.

    Features come as d_E times the K exclusive ones, then d_C times the cross-class ones. A feature is active
    on class i exactly where design[i] is not 0.
    """
    k = layout.classes
    if layout.kind == "pairwise" and k > 3:
        cross = np.array([[float(i in pair) for pair in combinations(range(k), 2)] for i in range(k)])
    else:
        cross = 1.0 - np.eye(k)  # for K = 3 the pair without j has the name j, as in eq. (8)
    own = np.tile(np.eye(k), layout.exclusive)
    cross = np.tile(cross, layout.shared)
    rows = np.concatenate([own, np.zeros_like(cross)], axis=1), np.concatenate([np.zeros_like(own), cross], 1)
    both = np.stack(rows, axis=1)
    both.flags.writeable = False
    return both


def weights(w1: Scalar, w2: Scalar, layout: Layout = PAPER) -> Float[np.ndarray, "k d"]:
    """W of f = x @ W.T."""
    both = design(layout)
    return w1 * both[:, 0] + w2 * both[:, 1]


def draw(
    n: int, mu: Scalar, sigma: Scalar, layout: Layout, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "n d"], Int[np.ndarray, " n"]]:
    """n samples (x, y) of eq. (8), the classes in turn; inactive features are exactly 0."""
    y = np.arange(n) % layout.classes
    active = design(layout).sum(axis=1)
    return active[y] * (mu + sigma * rng.standard_normal((n, active.shape[1]))), y


def margins(
    x: Float[np.ndarray, "n d"],
    y: Int[np.ndarray, " n"],
    w1: Scalar,
    w2: Scalar,
    eps: Scalar,
    layout: Layout = PAPER,
) -> Float[np.ndarray, "n k"]:
    """max over delta of f_j(x + delta) - f_y(x + delta) for each class j; -inf for j = y."""
    W, rows = weights(w1, w2, layout), np.arange(len(y))
    f = x @ W.T
    reach = eps * np.abs(W[None] - W[:, None]).sum(axis=2)
    out = f - f[rows, y][:, None] + reach[y]
    out[rows, y] = -np.inf
    return out


class Adversary(NamedTuple):
    """The worst rival and the worst perturbations of each sample."""

    rival: Int[np.ndarray, " n"]
    """The other class with the largest worst-case margin."""
    first: Float[np.ndarray, "n d"]
    """The perturbation of the bracket of eq. (13)."""
    second: Float[np.ndarray, "n d"]
    """The perturbation of its second term."""


def adversary(
    x: Float[np.ndarray, "n d"],
    y: Int[np.ndarray, " n"],
    w1: Scalar,
    w2: Scalar,
    eps: Scalar,
    beta: Scalar = 0.0,
    reading: str = "A",
    layout: Layout = PAPER,
) -> Adversary:
    """The rival and the perturbations of each sample, from the signs of explicit weight differences."""
    check_reading(reading)
    W = weights(w1, w2, layout)
    rival = margins(x, y, w1, w2, eps, layout).argmax(axis=1)
    difference = W[rival] - W[y]
    foreign = -beta / (layout.classes - 1) * (W.sum(axis=0) - W)[y]
    first = eps * np.sign(difference)
    if reading == "A":
        return Adversary(rival, first, eps * np.sign(foreign))
    if reading == "B":
        return Adversary(rival, first, np.zeros_like(x))
    if reading == "D":
        return Adversary(rival, first, first)
    # the rival of a joint maximum: the penalty is the same for all rivals, as the classes are exchangeable
    joint = eps * np.sign((1 - beta) * difference + foreign)
    return Adversary(rival, joint, joint)


def worst_case(
    x: Float[np.ndarray, "n d"],
    y: Int[np.ndarray, " n"],
    w1: Scalar,
    w2: Scalar,
    eps: Scalar,
    beta: Scalar = 0.0,
    reading: str = "A",
    layout: Layout = PAPER,
) -> Float[np.ndarray, " n"]:
    """Each sample's robust loss (eq. 10), or its smoothed one (eq. 13), without the weight penalty."""
    worst = adversary(x, y, w1, w2, eps, beta, reading, layout)
    W = weights(w1, w2, layout)
    bracket = ((W[worst.rival] - W[y]) * (x + worst.first)).sum(axis=1)
    foreign = ((W.sum(axis=0) - W)[y] * (x + worst.second)).sum(axis=1)
    return (1 - beta) * bracket - beta / (layout.classes - 1) * foreign


def worst_of_corners(
    x: Float[np.ndarray, "n d"],
    y: Int[np.ndarray, " n"],
    w1: Scalar,
    w2: Scalar,
    eps: Scalar,
    beta: Scalar = 0.0,
    reading: str = "A",
    layout: Layout = PAPER,
) -> Float[np.ndarray, " n"]:
    """`worst_case` by brute force: eqs. (10) and (13) in each of the 2^d corners and for each rival.

    Reading D takes the mean over the corners that maximise the bracket, which differ only in features that
    the bracket ignores.
    """
    check_reading(reading)
    W, cube = weights(w1, w2, layout), eps * np.array(list(product((-1.0, 1.0), repeat=x.shape[1])))
    f = (x @ W.T)[:, None, :] + (cube @ W.T)[None]  # n, corner, class
    own = np.arange(layout.classes) == y[:, None]
    f_own = np.where(own[:, None, :], f, 0.0).sum(axis=2)
    bracket = np.where(own[:, None, :], -np.inf, f).max(axis=2) - f_own
    second = -beta / (layout.classes - 1) * (f.sum(axis=2) - f_own)
    best = bracket.max(axis=1)
    if reading == "A":
        return (1 - beta) * best + second.max(axis=1)
    if reading == "B":
        clean = (x @ W.T).sum(axis=1) - (W[y] * x).sum(axis=1)
        return (1 - beta) * best - beta / (layout.classes - 1) * clean
    if reading == "C":
        return ((1 - beta) * bracket + second).max(axis=1)
    maximal: Bool[np.ndarray, "n c"] = bracket >= best[:, None] - 1e-9 * (1 + np.abs(best[:, None]))
    return (1 - beta) * best + (second * maximal).sum(axis=1) / maximal.sum(axis=1)
