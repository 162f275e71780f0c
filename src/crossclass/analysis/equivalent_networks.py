"""How far CAS is moved by changes of a network that leave every prediction as it is.

f(x) = W g(x) + b can be written in many ways: a vector added to every row of W adds the same number to all
logits; features moved by a vector, the bias compensated, and features in another basis, g -> G g with
W -> W G^-1, give the same logits. C and CAS are not the same for all of these. Features behind a ReLU have a
natural origin, off, and a natural basis; others have not. `invariant_matrices` holds scores that stay.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from crossclass.analysis.attribution import cas, correlation, fitting_labels, means_by_class
from crossclass.core.classes import Classes
from crossclass.core.rng import generator

ROTATIONS = 5
"""Random bases that are tried."""


@dataclass(frozen=True)
class MovedCas:
    """CAS of a network, and of others with the same predictions."""

    as_it_is: float
    rows_shifted: float
    """The deviation of each column of W over classes added to every row."""
    rows_centred: float
    """The mean row of W subtracted from every row."""
    features_shifted: float
    """The deviation of each feature over images added to it."""
    features_centred: float
    """The mean of each feature over images subtracted from it."""
    rotated: tuple[float, ...]
    """In random orthonormal bases of feature space."""

    @property
    def rotated_mean(self) -> float:
        """The mean over the random bases."""
        return math.fsum(self.rotated) / len(self.rotated)


def moved_cas(g: Float[Tensor, "n d"], W: Float[Tensor, "k d"], y: Classes, seed: int = 0) -> MovedCas:
    """CAS as it is and after each of the changes; the memory is that of d x d numbers.

    Raises UserError for features, W and labels that do not fit together.

    Args:
        g: Features of the images.
        W: The head's weights.
        y: Classes of the images.
        seed: Of the random bases.
    """
    y = fitting_labels(g, W, y)
    M, W = means_by_class(g, y, len(W)), W.to(torch.float64)
    there = torch.bincount(y.long(), minlength=len(W))[:, None] > 0
    mean, deviation = g.mean(dim=0, dtype=torch.float64), g.std(dim=0, correction=0).to(torch.float64)

    def of(means: Tensor, rows: Tensor) -> float:
        return cas(correlation(torch.where(there, means * rows, 0.0)).nan_to_num(0.0))

    return MovedCas(
        of(M, W),
        of(M, W + W.std(dim=0, correction=0)),
        of(M, W - W.mean(dim=0)),
        of(M + deviation, W),
        of(M - mean, W),
        tuple(of(M @ G, W @ G) for G in (_rotation(M.shape[1], M, seed, i) for i in range(ROTATIONS))),
    )


def _rotation(d: int, like: Tensor, seed: int, draw: int) -> Float[Tensor, "d d"]:
    normal = torch.randn(d, d, generator=generator(seed, draw), dtype=torch.float64)
    Q, R = torch.linalg.qr(normal)
    return (Q * R.diagonal().sign()).to(like.device)  # Haar (Mezzadri 2007)
