"""Which samples, not only which classes, share features: the instance-wise scores (section 5.3).

Every sample has one attribution vector a(x) = g(x) * W[y(x)]. For x of class i the most similar sample of
class j is looked up, and the cosines are averaged over class i:

    I[i, j] = mean over x in i of  max over x' in j of  cos(a(x), a(x'))

I is not symmetric. Its diagonal is shown as 1 and left out of I-CAS = sum over i != j of max(I[i, j], 0),
which is `attribution.cas(I)`. A maximum over more candidates is larger, so compare I-CAS only at equal
numbers of samples per class. `all_pairs` averages over every pair instead; the paper found it near zero.

A sample whose attribution is zero has cosine 0 with everything; a class without samples gives a row and a
column of 0. A sample whose attribution is not finite makes NaN of what depends on it in `nearest` and
`all_pairs`; `neighbours` gives it cosine 0.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crossclass.analysis.attribution import fitting_labels, means_by_class, unit_rows
from crossclass.core.classes import Classes, class_labels, require_labels, whole_labels
from crossclass.core.errors import UserError
from crossclass.core.logits import require_tensor


class Neighbours(NamedTuple):
    """For each sample and each class, the two most similar samples of that class."""

    best: Float[Tensor, "n k"]
    """The largest cosine to a sample of the class; 0 without a candidate."""
    second: Float[Tensor, "n k"]
    """The largest cosine when the sample of `best` is left out; 0 without another candidate."""
    which: Int[Tensor, "n k"]
    """The row of the sample that gives `best` (one of them where several do); -1 without a candidate."""


def unit_attributions(
    g: Float[Tensor, "n d"], W: Float[Tensor, "k d"], y: Classes, block: int = 2048
) -> Float[Tensor, "n d"]:
    """a(x) / |a(x)| for every sample, in float32 (float64 if g is); a row of zeros where a(x) is zero."""
    y = class_labels(y, len(g))
    units = torch.empty(g.shape, dtype=torch.promote_types(g.dtype, torch.float32), device=g.device)
    for first in range(0, len(g), block):
        rows = slice(first, first + block)
        units[rows] = unit_rows(g[rows].to(torch.float64) * W[y[rows].long()].to(torch.float64))
    return units


def nearest(
    g: Float[Tensor, "n d"], W: Float[Tensor, "k d"], y: Classes, block: int = 2048
) -> Float[Tensor, "n k"]:
    """The largest cosine of each sample to a sample of each class, in [-1, 1]: `neighbours(...).best`.

    It is NaN for a sample whose attribution is not finite, and in the columns of that sample's class. Raises
    UserError for features and W of different widths, and for labels that W has no row for.
    """
    y = fitting_labels(g, W, y)
    odd = undefined(g, W, y)
    best = neighbours(g, W, y, block).best
    return best.masked_fill_(odd[:, None] | (torch.bincount(y[odd], minlength=len(W)) > 0), torch.nan)


def undefined(g: Float[Tensor, "n d"], W: Float[Tensor, "k d"], y: Classes) -> Bool[Tensor, " n"]:
    """Which samples have an attribution with a value that is not finite; raises as `nearest` does."""
    y = fitting_labels(g, W, y)
    return ~(g.isfinite().all(dim=1) & W.isfinite().all(dim=1)[y.long()])


def neighbours(g: Float[Tensor, "n d"], W: Float[Tensor, "k d"], y: Classes, block: int = 2048) -> Neighbours:
    """The two most similar samples of each class to each sample.

    In its own class a sample is not its own neighbour (that column takes no part in I). A class that has no
    sample, or none but x, gives 0. Between input and output never more than block * block cosines are held,
    however many samples there are.
    """
    y = fitting_labels(g, W, y)
    return unit_neighbours(unit_attributions(g, W, y, block), y, len(W), block)


def unit_neighbours(units: Float[Tensor, "n d"], y: Classes, k: int, block: int = 2048) -> Neighbours:
    """`neighbours` of vectors of k classes that already have length 1 (or 0)."""
    y = class_labels(y, len(units))
    order = torch.argsort(y, stable=True)  # each class becomes one run of rows and columns
    ends = torch.bincount(y, minlength=k).cumsum(0).tolist()
    runs = list(zip([0, *ends[:-1]], ends, strict=True))
    units, n = units[order], len(units)
    best = torch.full((n, k), -torch.inf, dtype=units.dtype, device=units.device)
    found = Neighbours(best, best.clone(), torch.full_like(best, -1, dtype=torch.int32))
    for top in range(0, n, block):
        # float64 products, because no setting of TF32, bf16 or autocast touches them
        rows = units[top : top + block].to(torch.float64)
        for left in range(top, n, block):
            cosines = rows @ units[left : left + block].to(torch.float64).T
            if left == top:
                cosines.fill_diagonal_(-torch.inf)
            _take_maxima(found, top, cosines, runs, left)
            if left > top:  # cosines are symmetric: the same block from its columns
                _take_maxima(found, left, cosines.T, runs, top)
    back = torch.empty_like(order)
    back[order] = torch.arange(n, device=order.device)
    which = torch.where(found.which < 0, -1, order.to(torch.int32)[found.which.clamp(min=0)])
    best, second = (torch.where(c.isinf(), 0.0, c.clamp(-1.0, 1.0))[back] for c in found[:2])
    return Neighbours(best, second, which[back])


def _take_maxima(
    found: Neighbours, top: int, cosines: Float[Tensor, "r c"], runs: list[tuple[int, int]], left: int
) -> None:
    """Take a block's two largest of each class; its samples are those from `top` and `left` on."""
    rows, width = slice(top, top + len(cosines)), cosines.shape[1]
    for j, (start, end) in enumerate(runs):
        a, b = max(start - left, 0), min(end - left, width)
        if a < b:
            best, second, which = (t[rows, j] for t in found)
            part = cosines[:, a:b]
            value, at = part.max(dim=1)
            at = at[:, None]
            part.scatter_(1, at, -torch.inf)
            runner_up = part.amax(dim=1).to(best.dtype)
            part.scatter_(1, at, value[:, None])
            value = value.to(best.dtype)
            which.copy_(torch.where(value > best, at[:, 0].to(torch.int32) + (left + a), which))
            second.copy_(torch.maximum(torch.minimum(best, value), torch.maximum(second, runner_up)))
            best.copy_(torch.maximum(best, value))


def instance_correlation(nearest: Float[Tensor, "n k"], y: Classes) -> Float[Tensor, "k k"]:
    """I[i, j]: the mean of `nearest[:, j]` over class i, float64; I[i, i] is 1 for a class with samples."""
    require_tensor(nearest, "cosines")
    if nearest.ndim != 2:
        raise UserError(f"cosines have shape {list(nearest.shape)}; give [n, k], as of `nearest`")
    k, y = nearest.shape[1], whole_labels(y, len(nearest))
    require_labels(y, k, "`nearest`", f"{k} columns")
    present = (torch.bincount(y, minlength=k) > 0).to(torch.float64)
    return means_by_class(nearest, y, k).fill_diagonal_(0.0) + torch.diag(present)


def all_pairs(g: Float[Tensor, "n d"], W: Float[Tensor, "k d"], y: Classes) -> Float[Tensor, "k k"]:
    """The mean of cos(a(x), a(x')) over all pairs x of class i and x' of class j, float64, in O(n d).

    It is the dot product of the classes' mean unit vectors. On the diagonal every ordered pair counts, x with
    itself too, so that the matrix is that of dot products; 1/n of such a diagonal is x with itself. A class
    with an attribution that is not finite gives a row and a column of NaN.
    """
    y = fitting_labels(g, W, y)
    odd = undefined(g, W, y)
    means = means_by_class(unit_attributions(g, W, y), y, len(W))
    known = torch.bincount(y[odd], minlength=len(W)) == 0
    return torch.where(known[:, None] & known, means @ means.T, torch.nan)
