"""Which features decide for a class, and which of them classes share.

A classifier is f(x) = W g(x). The attribution of x to class i is A_i(x) = g(x) * W[i] (eq. 5); its mean
over the (adversarial) test images of class i is A_i; C[i, j] is the cosine of A_i and A_j (eq. 6); and
CAS(C) = sum over i != j of max(C[i, j], 0) (eq. 7). CAS says nothing alone: a constant classifier
maximises it, so read it together with accuracy.
"""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from crossclass.core.classes import Classes, class_labels, require_labels, whole_labels
from crossclass.core.errors import UserError
from crossclass.core.logits import require_tensor

_BLOCK = 1024
"""Images at a time."""


def class_means(g: Float[Tensor, "n d"], W: Float[Tensor, "k d"], y: Classes) -> Float[Tensor, "k d"]:
    """Mean attribution of each class over all its samples (Algorithm 1), in float64.

    W[i] is the same for the whole class, so the mean of g * W[i] is the mean of g, times W[i]; the head's
    bias takes no part. A class without samples gets a row of zeros, one with a value that is not finite keeps
    it. Raises UserError for features and W of different widths, and for labels that W has no row for.
    """
    y = fitting_labels(g, W, y)
    return means_by_class(g, y, len(W)) * W.to(torch.float64)


def require_head(g: Tensor, W: Tensor) -> None:
    """Raise UserError unless features are [n, d] and W is [k, d]."""
    require_tensor(g, "features")
    require_tensor(W, "weights W")
    if g.ndim != 2 or W.ndim != 2 or g.shape[1] != W.shape[1]:
        raise UserError(
            f"features have shape {list(g.shape)} and W has shape {list(W.shape)}; give features [n, d], the "
            "input of the last layer, and its weight [k, d]"
        )


def fitting_labels(g: Tensor, W: Tensor, y: Classes) -> Int[Tensor, " n"]:
    """The classes [n] of features g; raises UserError unless g, W and y fit together."""
    require_head(g, W)
    y = whole_labels(y, len(g))
    require_labels(y, len(W), "W", f"{len(W)} rows")
    return y


def means_by_class(v: Float[Tensor, "n m"], y: Classes, k: int) -> Float[Tensor, "k m"]:
    """Mean of v over the samples of each of k classes, in float64; zeros for a class without samples."""
    y = class_labels(y, len(v))
    n = torch.bincount(y, minlength=k).clamp(min=1).to(torch.float64)
    sums = torch.zeros(k, v.shape[1], dtype=torch.float64, device=v.device)
    for part, i in zip(v.split(_BLOCK), y.long().split(_BLOCK), strict=True):
        sums.index_add_(0, i, part.to(torch.float64))
    return sums / n[:, None]


def unit_rows(A: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Each row divided by its length, in float64; zeros for a row that is zero or not finite."""
    A = A.to(torch.float64)
    scale = A.abs().amax(dim=1, keepdim=True)  # squares of tiny attributions must not underflow
    A = torch.where((scale > 0) & scale.isfinite(), A / scale, 0.0)
    return A / A.norm(dim=1, keepdim=True).clamp(min=1.0)  # the norm is 0 or at least 1


def correlation(A: Float[Tensor, "k d"]) -> Float[Tensor, "k k"]:
    """C[i, j] = A_i . A_j / (|A_i| |A_j|) (eq. 6), in float64 and within [-1, 1].

    A class of zero norm (no samples, or features that are all off) shares nothing by definition: its row and
    column are 0, the diagonal too. Those of a class with a value that is not finite are NaN, and so is CAS.
    `empty_classes` lists both.
    """
    require_tensor(A, "class means")
    if A.ndim != 2:
        raise UserError(f"class means have shape {list(A.shape)}; give [k, d], as of `class_means`")
    unit, finite = unit_rows(A), A.isfinite().all(dim=1)
    return torch.where(finite[:, None] & finite, (unit @ unit.T).clamp(-1.0, 1.0), torch.nan)


def empty_classes(A: Float[Tensor, "k d"]) -> list[int]:
    """Classes whose mean attribution is exactly zero or not finite, so that C is undefined for them."""
    scale = A.abs().amax(dim=1)
    return [int(i) for i in ((scale == 0) | ~scale.isfinite()).nonzero().flatten()]


def off_diagonal(C: Shaped[Tensor, "k k"]) -> Shaped[Tensor, " m"]:
    """The k(k-1) entries with i != j."""
    return C[~torch.eye(len(C), dtype=torch.bool, device=C.device)]


def cas(C: Float[Tensor, "k k"]) -> float:
    """CAS(C) = sum over i != j of max(C[i, j], 0) (eq. 7); between 0 and k(k-1), NaN if C has a NaN.

    Raises UserError for a C that is not square.
    """
    _require_square(C)
    return float(off_diagonal(C).clamp(min=0).sum())


def negative_mass(C: Float[Tensor, "k k"]) -> float:
    """Sum over i != j of max(-C[i, j], 0): what eq. 7 leaves out; small, says the paper."""
    _require_square(C)
    return float((-off_diagonal(C)).clamp(min=0).sum())


def _require_square(C: Tensor) -> None:
    require_tensor(C, "correlations C", "give the matrix [k, k] of `correlation`")
    if C.ndim != 2 or C.shape[0] != C.shape[1] or len(C) < 2:
        raise UserError(
            f"C has shape {list(C.shape)}; give the matrix [k, k] of `correlation` (k > 1), not class means"
        )


def separation(C: Float[Tensor, "k k"], sharing: Int[Tensor, "k k"]) -> float:
    """How well C tells pairs that truly share a feature from pairs that do not: the AUC.

    The chance that a random sharing pair has the larger C than a random other pair (ties count half);
    1 is perfect, 0.5 is chance. Raises UserError if all pairs share or none does, if C has a NaN, and for
    matrices of other shapes.
    """
    _require_square(C)
    require_tensor(sharing, "sharing pairs")
    if sharing.shape != C.shape:
        raise UserError(f"C has shape {list(C.shape)} and `sharing` {list(sharing.shape)}; give both [k, k]")
    i, j = torch.triu_indices(len(C), len(C), offset=1)
    score, truth = C[i, j].cpu(), (sharing[i, j] > 0).cpu()
    if truth.all() or not truth.any():
        raise UserError("an AUC needs pairs that share and pairs that do not")
    if not score.isfinite().all():
        raise UserError("C has NaN or infinite entries; leave out those classes (`empty_classes`)")
    from sklearn.metrics import roc_auc_score  # slow to import

    return float(roc_auc_score(truth.numpy(), score.numpy()))
