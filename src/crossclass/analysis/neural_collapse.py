"""Neural collapse, the rival explanation of a falling CAS (Papyan, Han and Donoho 2020).

Late in training the features of a class gather at its mean, the means become equally long and equally far
apart, and the head aligns with them. With non-negative features this alone makes C the identity and CAS 0.
The numbers here say how far it has gone, so that one can ask what CAS tells beyond it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crossclass.analysis.attribution import fitting_labels, means_by_class
from crossclass.core.classes import Classes


@dataclass(frozen=True)
class NeuralCollapse:
    """How far features and head have collapsed; each number falls to 0. NaN where it is undefined."""

    nc1: float
    """tr(Sigma_W Sigma_B^+) / K: the spread of features within classes beside that between them."""
    nc2_norms: float
    """Standard deviation over mean of the lengths of the centred class means."""
    nc2_angles: float
    """Mean over pairs of |cosine of the centred class means + 1 / (K - 1)|."""
    nc3: float
    """|| W~ / |W~| - M~ / |M~| ||, Frobenius norms, of the centred head and class means: between 0 and 2."""


def neural_collapse(g: Float[Tensor, "n d"], W: Float[Tensor, "k d"], y: Classes) -> NeuralCollapse:
    """NC1 to NC3 over the classes that have images.

    Sigma_W is the covariance of the features within classes, over all images, Sigma_B that of the class
    means, each class counting the same. Raises UserError for features, W and labels that do not fit together.

    Args:
        g: Features of the images.
        W: The head's weights.
        y: Classes of the images.
    """
    y = fitting_labels(g, W, y).long()
    there = (torch.bincount(y, minlength=len(W)) > 0).nonzero().flatten()
    means = means_by_class(g, y, len(W))
    M, rows = means[there], W.to(torch.float64)[there]
    M, rows = M - M.mean(dim=0), rows - rows.mean(dim=0)
    if len(there) < 2 or not bool(g.isfinite().all() & rows.isfinite().all()):
        return NeuralCollapse(*[torch.nan] * 4)
    length = M.norm(dim=1)
    cosines = (M @ M.T) / (length[:, None] * length)
    i, j = torch.triu_indices(len(M), len(M), offset=1)
    apart = rows / rows.norm() - M / M.norm()
    return NeuralCollapse(
        float(_within_over_between(g, y, means, M) / len(M)),
        float(length.std(correction=0) / length.mean()) if bool(length.mean() > 0) else torch.nan,
        float((cosines[i, j] + 1 / (len(M) - 1)).abs().mean()),
        float(apart.norm()),
    )


def _within_over_between(g: Tensor, y: Int[Tensor, " n"], means: Tensor, M: Tensor) -> Float[Tensor, ""]:
    """tr(Sigma_W Sigma_B^+), without a matrix of d x d: Sigma_B = M^T M / c, so Sigma_B^+ = c M^+ M^+T."""
    inverse = torch.linalg.pinv(M, rtol=1e-10)
    total = M.new_zeros(())
    for rows in torch.arange(len(y), device=y.device).split(4096):
        deviations = g[rows].to(torch.float64) - means[y[rows]]
        total += (deviations @ inverse).square().sum()
    return len(M) * total / len(y)


def logit_entropy(logits: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """Entropy of the softmax of each image's logits, in nats, between 0 and log K.

    NaN for logits of which one is NaN or the largest is infinite.
    """
    return torch.special.entr(logits.to(torch.float64).softmax(dim=1)).sum(dim=1)


def wrong_probability(logits: Float[Tensor, "n k"], y: Classes) -> Float[Tensor, " n"]:
    """What the softmax gives to wrong classes, for each image, in [0, 1]."""
    p = logits.to(torch.float64).softmax(dim=1)
    right = torch.as_tensor(y, device=p.device).long()
    return 1 - p.gather(1, right[:, None]).squeeze(1)
