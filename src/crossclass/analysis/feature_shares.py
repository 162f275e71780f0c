"""Which features carry the sharing: C and CAS split exactly over features.

With the unit attribution vectors u_i = A_i / |A_i|, C_ij is the sum over features k of c_ij^k = u_ik u_jk:

    share_k = sum over i != j with C_ij > 0 of c_ij^k,    sum over k of share_k = CAS.

Multiplying a feature by a positive number and dividing its column of W by it changes nothing. Splitting a
feature in two that are alike does change C: CAS knows the features as they are.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy.special import stdtrit
from torch import Tensor

from crossclass.analysis.attribution import class_means, correlation, unit_rows
from crossclass.analysis.intervals import LEVEL, Checkpoint
from crossclass.core.errors import UserError
from crossclass.core.logits import require_tensor

_BLOCK = 1024
"""Images at a time."""


@dataclass(frozen=True)
class FeatureShares:
    """What each feature adds to CAS, and for how many classes it counts."""

    share: Float[Tensor, " d"]
    """Of CAS; the sum over features is CAS. Negative where a feature makes classes less alike."""
    effective_classes: Float[Tensor, " d"]
    """(sum_i a_ik)^2 / sum_i a_ik^2 with a_ik = max(A_i[k], 0): 1 is specific to a class, K is shared by all
    alike; 0 for a feature that counts for no class."""
    mass: Float[Tensor, " d"]
    """sum_i a_ik, what the feature adds to the logits of the right classes."""


@dataclass(frozen=True)
class Forgotten:
    """What each feature had added to CAS at a first checkpoint and does not at a second of the same run."""

    share: Float[Tensor, " d"]
    """share_k(first) - share_k(second) over pairs of classes that are positive at both."""
    changed_sign: float
    """The rest of the difference of CAS: what pairs added at the first that are not positive at the second,
    less what pairs add that became positive."""


def feature_shares(A: Float[Tensor, "k d"]) -> FeatureShares:
    """Split CAS over features.

    Args:
        A: Mean attributions of the classes (`class_means`). Classes without images, or with a value that is
            not finite, share nothing.

    Raises:
        UserError: if A is not [k, d].
    """
    u = _units(A)
    a = A.to(torch.float64).nan_to_num(0.0, 0.0, 0.0).clamp(min=0)
    largest = a.amax(dim=0).clamp(min=torch.finfo(torch.float64).tiny)  # squares must not underflow
    scaled = a / largest
    classes = scaled.sum(dim=0).square() / scaled.square().sum(dim=0).clamp(min=1)
    return FeatureShares((u * (_positive(A) @ u)).sum(dim=0), classes, a.sum(dim=0))


def half_of_sharing(shares: FeatureShares) -> int:
    """So few features carry half of what all positive shares add to CAS."""
    total = shares.share.clamp(min=0).sort(descending=True).values.cumsum(0)
    return int((total < total[-1] / 2).sum()) + 1 if len(total) and bool(total[-1] > 0) else 0


def largest(v: Float[Tensor, " d"], most: int) -> list[int]:
    """Where the `most` largest of the positive entries are, the largest first."""
    order: list[int] = v.argsort(descending=True)[:most].tolist()
    return [k for k in order if float(v[k]) > 0]


def pair_shares(A: Float[Tensor, "k d"], i: int, j: int) -> Float[Tensor, " d"]:
    """What each feature adds to C[i, j]; the sum is C[i, j]. Raises UserError for classes that A lacks."""
    u = _units(A)
    for c in (i, j):
        if not 0 <= c < len(u):
            raise UserError(f"there is no class {c}; the classes are 0 to {len(u) - 1}")
    return u[i] * u[j]


def forgotten(first: Float[Tensor, "k d"], second: Float[Tensor, "m e"]) -> Forgotten:
    """Split the difference of CAS of two checkpoints of one run, whose features are the same units.

    `share.sum() + changed_sign` is CAS(first) - CAS(second).

    Args:
        first: Mean attributions at the first checkpoint.
        second: The same at the second.

    Raises:
        UserError: if the two have different shapes.
    """
    u, v = _units(first), _units(second)
    if u.shape != v.shape:
        raise UserError(
            f"the checkpoints have {list(u.shape)} and {list(v.shape)} classes and features; features are "
            "the same units only in two checkpoints of one run"
        )
    P, Q = _positive(first), _positive(second)
    both = P * Q
    share = (u * (both @ u)).sum(dim=0) - (v * (both @ v)).sum(dim=0)
    C, D = (correlation(A).nan_to_num(0.0) for A in (first, second))
    return Forgotten(share, float((C * (P - both)).sum() - (D * (Q - both)).sum()))


def share_intervals(
    g: Float[Tensor, "n d"], W: Float[Tensor, "k d"], y: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Lower and upper ends of each feature's share over test sets of as many images of each class.

    By the same infinitesimal jackknife as the interval of CAS (`intervals.cas`): the influences of one image
    on all features add up to its influence on the plain CAS. The bias of CAS is not removed here. A class
    with a single image makes every end infinite.
    """
    share = feature_shares(class_means(g, W, y)).share
    return _ends(share, [_Influence(g, W, y)], y)


def forgotten_intervals(
    first: Checkpoint, second: Checkpoint, y: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Ends for each `Forgotten.share`, paired by image; each checkpoint is features and W."""
    A, B = class_means(*first, y), class_means(*second, y)
    both = _positive(A) * _positive(B)
    parts = [_Influence(*first, y, both), _Influence(*second, y, both)]
    return _ends(forgotten(A, B).share, parts, y)


class _Influence:
    """v_k(x) = 2 (P u)_ik (a_k - u_ik (u_i . a)) / |A_i| with a = g(x) * W_i - A_i, for x of class i."""

    def __init__(self, g: Tensor, W: Tensor, y: Tensor, pairs: Tensor | None = None) -> None:
        self.g, self.W, self.y = g, W.to(torch.float64), y.long()
        self.A = class_means(g, W, y)
        self.u = _units(self.A)
        self.usable = (self.u != 0).any(dim=1, keepdim=True)
        length = torch.where(self.usable, self.A.norm(dim=1, keepdim=True), 1.0)
        self.slope = 2 * ((_positive(self.A) if pairs is None else pairs) @ self.u) / length

    def of(self, rows: Int[Tensor, " m"]) -> Float[Tensor, "m d"]:
        """v of some images."""
        i = self.y[rows]
        a = torch.where(self.usable[i], self.g[rows].to(torch.float64) * self.W[i] - self.A[i], 0.0)
        return self.slope[i] * (a - self.u[i] * (self.u[i] * a).sum(dim=1, keepdim=True))


def _ends(value: Tensor, parts: list[_Influence], y: Tensor) -> tuple[Tensor, Tensor]:
    y = y.long()
    k = len(parts[0].W)
    n = torch.bincount(y, minlength=k).to(torch.float64)
    if bool((n == 1).any()):
        return torch.full_like(value, -torch.inf), torch.full_like(value, torch.inf)
    n = n.clamp(min=2)[:, None]
    squares = value.new_zeros(k, len(value))
    for rows in torch.arange(len(y), device=y.device).split(_BLOCK):
        v = parts[0].of(rows)
        for second in parts[1:]:
            v = v - second.of(rows)
        squares.index_add_(0, y[rows], v.square())
    part = squares / (n * (n - 1))
    variance = part.sum(dim=0)
    shares = part / torch.where(variance > 0, variance, 1.0)
    freedom = 1 / (shares.square() / (n - 1)).sum(dim=0).clamp(min=1e-300)  # Welch
    quantile = torch.as_tensor(stdtrit(freedom.cpu().numpy(), 0.5 + LEVEL / 2)).to(variance)
    half = torch.where(variance > 0, quantile * variance.sqrt(), 0.0)
    return value - half, value + half


def _units(A: Tensor) -> Float[Tensor, "k d"]:
    require_tensor(A, "class means")
    if A.ndim != 2:
        raise UserError(f"class means have shape {list(A.shape)}; give [k, d], as of `class_means`")
    u = unit_rows(A)
    return torch.where(A.isfinite().all(dim=1, keepdim=True), u, 0.0)


def _positive(A: Tensor) -> Float[Tensor, "k k"]:
    """1 for the pairs of different classes that share."""
    C = correlation(A).nan_to_num(0.0)
    positive: Bool[Tensor, "k k"] = C > 0
    return positive.fill_diagonal_(False).to(torch.float64)
