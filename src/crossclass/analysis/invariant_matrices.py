"""Which classes go together, by matrices that stay when only the description of a network changes.

C and CAS depend on the origin and the basis of feature space: a vector added to every row of W, to every
feature (with the bias compensated), or a rotation of the features changes no prediction and changes C. The
three matrices here are the same before and after every such change: W -> W + 1 v^T, g -> g + v and g -> G g
with any invertible G, W and b compensated. With W~ the head less its mean row, M~ the class means of g less
their mean, and Sigma the pooled covariance of g within classes, they are the cosines that belong to

    decision       W~ Sigma W~^T: whose logits move together within classes
    offer          M~ Sigma^+ M~^T: which classes the features put together
    profile        (M~ W~^T) (M~ W~^T)^T: which classes are given alike logits

and their scores are CAS's sum over i != j of max(., 0). They stand beside C, not in place of it: C says by
which features, in the basis of ReLU features, which is a natural one. Of two classes each is 1 on the
diagonal and -1 beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crossclass.analysis.attribution import fitting_labels, means_by_class, off_diagonal
from crossclass.analysis.intervals import Interval, of_influences, positive_part
from crossclass.core.classes import Classes

Kind = Literal["decision", "offer", "profile"]
KINDS: tuple[Kind, ...] = ("decision", "offer", "profile")
_BLOCK = 1024
"""Images at a time."""
_SPANNED = 1e-10
"""Directions of less variance than this share of the largest one count as none, features in units of their
deviation."""
_OUTSIDE = 1e-6
"""The share of the class means' length that may lie outside of what Sigma spans."""


@dataclass(frozen=True)
class Invariant:
    """One of the matrices, its score and the interval of the score."""

    matrix: Float[Tensor, "k k"]
    """Cosines, in float64; rows and columns of classes without images are 0."""
    interval: Interval
    """Of the score, between 0 and K(K-1), over test sets of as many images of each class."""
    shrinkage: float = 0.0
    """Of Sigma, for `offer`; 0 is none. With fewer images than features the class means reach out of what
    Sigma spans. Then it is shrunk towards a multiple of the identity (Ledoit and Wolf 2004), features in
    units of their deviation, and the matrix is invariant only roughly."""

    @property
    def score(self) -> float:
        """The sum over i != j of max(., 0)."""
        return self.interval.estimate


def invariant_matrices(g: Float[Tensor, "n d"], W: Float[Tensor, "k d"], y: Classes) -> dict[Kind, Invariant]:
    """All three of them. Raises UserError for features, W and labels that do not fit together.

    Images with a feature that is not finite are left out.

    Args:
        g: Features of the (adversarial) images.
        W: The head's weights.
        y: Classes of the images.
    """
    y = fitting_labels(g, W, y).long()
    there = g.isfinite().all(dim=1)
    if not bool(there.all()):
        g, y = g[there], y[there]
    W = W.to(torch.float64).nan_to_num(0.0, 0.0, 0.0)
    sample = _Sample(g, y, len(W))
    if len(sample.there) < 2:
        most = float(len(W) * (len(W) - 1))
        nothing = Invariant(W.new_zeros(len(W), len(W)), Interval(0.0, 0.0, most))
        return dict.fromkeys(KINDS, nothing)
    z = W.new_empty(len(y), len(W))
    for rows, a in sample.deviations():
        z[rows] = a @ (W - W.mean(dim=0)).T
    R = sample.centred @ (W - W.mean(dim=0)).T
    return {"decision": _decision(sample, z), "offer": _offer(sample), "profile": _profile(sample, z, R)}


class _Sample:
    """Features of images: the means of the classes there are, and deviations from them, a block at a time.

    A copy of all features in float64 would take twice their memory.
    """

    def __init__(self, g: Float[Tensor, "n d"], y: Int[Tensor, " n"], k: int) -> None:
        self.g, self.y, self.k, self.n = g, y, k, torch.bincount(y, minlength=k)
        self.there = (self.n > 0).nonzero().flatten()
        self.means = means_by_class(g, y, k)
        M = self.means[self.there]
        self.centred = M - M.mean(dim=0)
        self.row = torch.zeros(k, dtype=torch.int64, device=g.device)
        self.row[self.there] = torch.arange(len(self.there), device=g.device)

    def deviations(self) -> Iterator[tuple[Int[Tensor, " m"], Float[Tensor, "m d"]]]:
        """Images, and their features less the means of their classes, in float64."""
        for rows in torch.arange(len(self.y), device=self.g.device).split(_BLOCK):
            yield rows, self.g[rows].to(torch.float64) - self.means[self.y[rows]]

    @property
    def share(self) -> Float[Tensor, " n"]:
        """For each image the share of the images that are of its class."""
        return (self.n[self.y] / len(self.y)).to(torch.float64)

    def between(self, Q: Float[Tensor, "c c"]) -> Float[Tensor, "k k"]:
        """A matrix over the classes there are, over all classes."""
        out = Q.new_zeros(self.k, self.k)
        out[self.there[:, None], self.there] = Q
        return out

    def noise(self, variance: Float[Tensor, " c"]) -> Float[Tensor, "c c"]:
        """What noise of the class means, of these variances, adds to products of the centred means."""
        J = torch.eye(len(variance), dtype=torch.float64, device=variance.device) - 1 / len(variance)
        return J @ torch.diag(variance) @ J


def _decision(sample: _Sample, z: Float[Tensor, "n k"]) -> Invariant:
    """Of z, the deviations of the centred logits from their class means."""
    z = z[:, sample.there]
    matrix, G = _cosines(z.T @ z / len(z))
    v = torch.cat([((part @ G) * part).sum(dim=1) for part in z.split(_BLOCK)])
    variance = (1 - matrix.square()).square() / max(1, len(z) - len(sample.there))
    return _invariant(sample, matrix, _less_noise(matrix, variance), v * sample.share)


def _profile(sample: _Sample, z: Float[Tensor, "n k"], R: Float[Tensor, "c k"]) -> Invariant:
    """Of R, the centred mean logits, and z, deviations of the centred logits from their class means."""
    Q = R @ R.T
    matrix, G = _cosines(Q)
    variance = torch.zeros(sample.k, dtype=torch.float64, device=R.device)
    along = 2 * (G @ R)  # the derivative of <G, R R^T>
    along = along - along.mean(dim=0)
    parts = []
    for part, i in zip(z.split(_BLOCK), sample.y.split(_BLOCK), strict=True):
        variance.index_add_(0, i, part.square().sum(dim=1))
        parts.append((part * along[sample.row[i]]).sum(dim=1))
    n = sample.n[sample.there].to(torch.float64)
    left = _without(Q, sample.noise(variance[sample.there] / (n * (n - 1).clamp(min=1))))
    S = z.T @ z / len(z)
    moves = ((R @ S) * R).sum(dim=1)[:, None] / n
    s2 = _noise_of_cosines(left, moves + moves.T, S.square().sum() / n / n[:, None])
    return _invariant(sample, matrix, _less_noise(_cosines(left)[0], s2), torch.cat(parts))


def _offer(sample: _Sample) -> Invariant:
    count, d = sample.g.shape
    Sigma = sample.means.new_zeros(d, d)
    for _, a in sample.deviations():
        Sigma.addmm_(a.T, a, alpha=1 / count)
    scale = Sigma.diagonal().sqrt()
    unit = torch.where(scale <= scale.max() * 1e-12, 1.0, scale)
    Sigma /= unit[:, None] * unit
    M = sample.centred / unit
    shrinkage = 0.0
    values, vectors = torch.linalg.eigh(Sigma)
    spanned = values > _SPANNED * values.max().clamp(min=1e-300)
    inside = M @ vectors[:, spanned]
    outside = (M.square().sum() - inside.square().sum()).clamp(min=0).sqrt()
    rank = int(spanned.sum())
    if bool(outside > _OUTSIDE * M.norm()):
        from sklearn.covariance import ledoit_wolf_shrinkage  # slow to import

        of_all = torch.cat([a / unit for _, a in sample.deviations()])  # hardly more images than features
        shrinkage = float(ledoit_wolf_shrinkage(of_all.cpu().numpy(), assume_centered=True))
        values = (1 - shrinkage) * values.clamp(min=0) + shrinkage * values.clamp(min=0).mean()
        spanned = values > 0
    V = vectors[:, spanned]
    H = (M @ V) / values[spanned] @ V.T  # M~ Sigma^+
    Q = H @ M.T
    matrix, G = _cosines(Q)
    share, parts = sample.share, []
    for rows, a in sample.deviations():
        h = (a / unit) @ H.T
        of_means = 2 * (G - G.mean(dim=0))[sample.row[sample.y[rows]]]
        of_sigma = (1 - shrinkage) * share[rows, None] * (h @ G)
        parts.append(((of_means - of_sigma) * h).sum(dim=1))
    n, left = sample.n[sample.there].to(torch.float64), count - len(sample.there) - rank - 1
    corrected = _score(matrix)
    if not shrinkage and left > 0:  # Sigma^+ is too large by this factor, and so is what noise of M~ adds
        inflated = (count - len(sample.there)) / left
        cleaned = _without(Q, inflated * sample.noise(rank / n))
        moves = inflated * cleaned.diagonal()[:, None] / n
        s2 = _noise_of_cosines(cleaned, moves + moves.T, inflated**2 * rank / n / n[:, None])
        corrected = _less_noise(_cosines(cleaned)[0], s2)
    return _invariant(sample, matrix, corrected, torch.cat(parts), shrinkage)


def _score(C: Float[Tensor, "c c"]) -> float:
    return float(off_diagonal(C).clamp(min=0).sum())


def _without(Q: Float[Tensor, "c c"], noise: Float[Tensor, "c c"]) -> Float[Tensor, "c c"]:
    """Q less the noise of the class means; of a class that cannot be told from its noise a tenth is left."""
    q = Q.diagonal()
    return (Q - noise).diagonal_scatter(torch.maximum(q - noise.diagonal(), q / 10))


def _noise_of_cosines(
    Q: Float[Tensor, "c c"], first: Float[Tensor, "c c"], second: Float[Tensor, "c c"]
) -> Float[Tensor, "c c"]:
    """Variance of the cosines of Q, from that of its entries by noise of one mean, and of both."""
    O, q = _cosines(Q)[0], Q.diagonal()  # noqa: E741 - a matrix
    return ((1 - O.square()) * first + second) / (q[:, None] * q).clamp(min=1e-300)


def _less_noise(matrix: Float[Tensor, "c c"], variance: Float[Tensor, "c c"]) -> float:
    """The score without what noise around 0 adds to it: max(., 0) counts only what is above."""
    return float(off_diagonal(positive_part(matrix, variance.sqrt())[0]).sum())


def _cosines(Q: Float[Tensor, "c c"]) -> tuple[Float[Tensor, "c c"], Float[Tensor, "c c"]]:
    """Q with its diagonal made 1, and the derivative of its score by Q."""
    q = Q.diagonal().clamp(min=0)
    there = q > 1e-12 * q.max().clamp(min=1e-300) if len(q) else q > 0
    length = torch.where(there, q, 1.0).sqrt()
    O = Q / (length[:, None] * length)  # noqa: E741 - a matrix
    O = torch.where(there[:, None] & there, O, 0.0).clamp(-1.0, 1.0)  # noqa: E741
    slope = (O > 0).to(torch.float64).fill_diagonal_(0.0)
    G = slope / (length[:, None] * length) - torch.diag((slope * O).sum(dim=1) / length**2)
    return O, G


def _invariant(
    sample: _Sample, matrix: Tensor, corrected: float, v: Tensor, shrinkage: float = 0.0
) -> Invariant:
    whole = sample.between(matrix)
    plain = _score(whole)
    most = float(sample.k * (sample.k - 1))
    # where the means are mostly noise the correction is too large, so the interval is that of both
    one, two = (of_influences(plain, centre, v, sample.y, most) for centre in (corrected, plain))
    ends = {"low": min(one.low, two.low), "high": max(one.high, two.high)}
    return Invariant(whole, one._replace(**ends), shrinkage)
