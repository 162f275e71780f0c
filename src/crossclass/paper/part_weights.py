"""The weights that any model gives to exclusive and to shared parts, where the strengths of parts are known.

Logits are fitted to strengths by least squares, f_i ~ b_i + sum_p R[i, p] s_p (for a linear model on
strengths R is W). Then, with E_i the part of class i alone and C a part that several classes show,

    w_E = mean over i of  R[i, E_i] - (mean of R[j, E_i] over j != i),
    w_C = mean over C of  (mean of R[i, C] over classes that show C) - (mean over those that do not).

They are w1 and w2 if R is of the form of eq. (16), also after the same is added to all logits. A network is
not linear in s; the fit says how much its logits rise with a part on average, over all strengths of parts.
"""

from collections.abc import Sequence
from math import sqrt

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from crossclass.core.errors import UserError
from crossclass.paper.theory.samples import design, weights

BLOCKS = 10
"""Blocks of samples, each left out once by the jackknife."""


def fitted_weights(logits: Float[Tensor, "n k"], strengths: Float[Tensor, "n p"]) -> Float[Tensor, "k p"]:
    """R of the least-squares fit of logits to strengths, in float64."""
    X = torch.cat([strengths.new_ones(len(strengths), 1), strengths], dim=1)
    return torch.linalg.lstsq(X.double(), logits.double()).solution[1:].T


def part_weights(R: Float[Tensor, "k p"], edges: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """(w_E, w_C) of R, whose columns are the parts of each class alone, then a part per edge of two classes.

    Raises UserError for fewer than three classes or no edge: then no class lacks a shared part.
    """
    k = len(R)
    if k < 3 or not edges:
        raise UserError(
            "the weight of shared parts needs data with 3 classes or more and a part that two share"
        )
    own = R[:, :k].double()
    off = (own.sum() - own.diag().sum()) / (k * (k - 1))
    shared = []
    for p, pair in enumerate(edges, start=k):
        rest = [i for i in range(k) if i not in pair]
        shared.append(float(R[list(pair), p].mean() - R[rest, p].mean()))
    return float(own.diag().mean() - off), float(np.mean(shared))


def standard_errors(
    logits: Float[Tensor, "n k"], strengths: Float[Tensor, "n p"], edges: Sequence[tuple[int, int]]
) -> tuple[float, float]:
    """Standard errors of the fitted (w_E, w_C): the jackknife over blocks of samples."""
    block = torch.arange(len(logits)) * BLOCKS // len(logits)
    left = [
        part_weights(fitted_weights(logits[block != b], strengths[block != b]), edges) for b in range(BLOCKS)
    ]
    variance = np.var(np.array(left), axis=0) * (BLOCKS - 1)
    return sqrt(float(variance[0])), sqrt(float(variance[1]))


def cas_of_part_weights(w_e: float, w_c: float, eps: float = 0.0) -> float:
    """CAS of the linear model of eq. (16) with these weights, in closed form: clean, or attacked by eps.

    The rows of W sum to 0 here, as a penalty makes them; the same vector added to every row changes no
    prediction, but it changes CAS. eps is in units of mu. The attack on cross-entropy lowers every active
    feature by eps and raises every other one to eps, where such rows have negative weights: so CAS under
    attack can be 0 although w_C = w_E (from eps = 0.113 on).
    """
    W, active = weights(w_e, w_c), design().sum(axis=1)
    A = (active * (1.0 - eps) + (1 - active) * eps) * (W - W.mean(axis=0))
    length = np.linalg.norm(A, axis=1)
    if not length.all():
        return 0.0
    C = A @ A.T / np.outer(length, length)
    return float(np.maximum(C, 0.0).sum() - np.maximum(C.diagonal(), 0.0).sum())
