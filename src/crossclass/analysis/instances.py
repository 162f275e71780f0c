"""Which samples, not only which classes, share features: the instance-wise scores (section 5.3).

Every sample has one attribution vector a(x) = g(x) * W[y(x)]. For x of class i the most similar sample of
class j is looked up, and the cosines are averaged over class i:

    I[i, j] = mean over x in i of  max over x' in j of  cos(a(x), a(x'))

I is not symmetric. Its diagonal is shown as 1 and left out of I-CAS = sum over i != j of max(I[i, j], 0),
which is `attribution.cas(I)`. A maximum over more candidates is larger, so compare I-CAS only at equal
numbers of samples per class. `all_pairs` averages over every pair instead; the paper found it near zero.

A sample whose attribution is zero (or not finite) has cosine 0 with everything; a class without samples
gives a row and a column of 0.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crossclass.analysis.attribution import means_by_class, unit_rows


def unit_attributions(
    g: Float[Tensor, "n d"], W: Float[Tensor, "k d"], y: Int[Tensor, " n"], block: int = 2048
) -> Float[Tensor, "n d"]:
    """a(x) / |a(x)| for every sample, in float32 (float64 if g is); a row of zeros where a(x) is zero."""
    units = torch.empty(g.shape, dtype=torch.promote_types(g.dtype, torch.float32), device=g.device)
    for first in range(0, len(g), block):
        rows = slice(first, first + block)
        units[rows] = unit_rows(g[rows].to(torch.float64) * W[y[rows].long()].to(torch.float64))
    return units


def nearest(
    g: Float[Tensor, "n d"], W: Float[Tensor, "k d"], y: Int[Tensor, " n"], block: int = 2048
) -> Float[Tensor, "n k"]:
    """The largest cosine of each sample to a sample of each class, in [-1, 1].

    In its own class a sample is not its own neighbour (that column takes no part in I). Without a candidate
    (a class that has no sample, or none but x) it is 0. Between input and output never more than
    block * block cosines are held, however many samples there are.
    """
    return largest_cosines(unit_attributions(g, W, y, block), y, len(W), block)


def largest_cosines(
    units: Float[Tensor, "n d"], y: Int[Tensor, " n"], k: int, block: int = 2048
) -> Float[Tensor, "n k"]:
    """`nearest` of vectors of k classes that already have length 1 (or 0)."""
    order = torch.argsort(y, stable=True)  # each class becomes one run of rows and columns
    ends = torch.bincount(y, minlength=k).cumsum(0).tolist()
    runs = list(zip([0, *ends[:-1]], ends, strict=True))
    units, n = units[order], len(units)
    best = torch.full((n, k), -torch.inf, dtype=units.dtype, device=units.device)
    for top in range(0, n, block):
        # float64 products, because no setting of TF32, bf16 or autocast touches them
        rows = units[top : top + block].to(torch.float64)
        for left in range(top, n, block):
            cosines = rows @ units[left : left + block].to(torch.float64).T
            if left == top:
                cosines.fill_diagonal_(-torch.inf)
            _take_maxima(best[top : top + block], cosines, runs, left)
            if left > top:  # cosines are symmetric: the same block from its columns
                _take_maxima(best[left : left + block], cosines.T, runs, top)
    out = torch.empty_like(best)
    out[order] = torch.where(best.isinf(), 0.0, best.clamp(-1.0, 1.0))
    return out


def _take_maxima(
    best: Float[Tensor, "r k"], cosines: Float[Tensor, "r c"], runs: list[tuple[int, int]], left: int
) -> None:
    """Take the block's maxima over each class into `best`; its columns are the sorted samples from `left`."""
    width = cosines.shape[1]
    for j, (start, end) in enumerate(runs):
        a, b = max(start - left, 0), min(end - left, width)
        if a < b:
            best[:, j] = torch.maximum(best[:, j], cosines[:, a:b].amax(dim=1).to(best.dtype))


def instance_correlation(nearest: Float[Tensor, "n k"], y: Int[Tensor, " n"]) -> Float[Tensor, "k k"]:
    """I[i, j]: the mean of `nearest[:, j]` over class i, float64; I[i, i] is 1 for a class with samples."""
    k = nearest.shape[1]
    present = (torch.bincount(y, minlength=k) > 0).to(torch.float64)
    return means_by_class(nearest, y, k).fill_diagonal_(0.0) + torch.diag(present)


def all_pairs(g: Float[Tensor, "n d"], W: Float[Tensor, "k d"], y: Int[Tensor, " n"]) -> Float[Tensor, "k k"]:
    """The mean of cos(a(x), a(x')) over all pairs x of class i and x' of class j, float64, in O(n d).

    It is the dot product of the classes' mean unit vectors. On the diagonal every ordered pair counts, x with
    itself too, so that the matrix is that of dot products; 1/n of such a diagonal is x with itself.
    """
    means = means_by_class(unit_attributions(g, W, y), y, len(W))
    return means @ means.T
