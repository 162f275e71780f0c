"""The features that carried the sharing at the best checkpoint of a run, and what became of them at the last.

All numbers are exact and come from the two passes that are there already; what is kept is bounded: some pairs
of classes, and of each some features.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from crossclass.analysis.evaluate import EvaluationPass, top_pairs
from crossclass.analysis.feature_shares import (
    feature_shares,
    forgotten,
    forgotten_intervals,
    half_of_sharing,
    largest,
    pair_shares,
)
from crossclass.analysis.forgotten_records import (
    ForgottenFeature,
    PairFeature,
    SharedAndForgotten,
    SharedPair,
)

PAIRS = 45
"""Pairs of classes that are kept: all of 10 classes."""
CARRY, LOST = 4, 2
"""Features of a pair: those that carry most of it, and of the others those that lost most."""
FEATURES = 8
"""Features that are named over all pairs."""
CLASSES = 3
"""Classes that are named for a feature."""


def shared_and_forgotten(first: EvaluationPass, second: EvaluationPass) -> SharedAndForgotten | None:
    """What the first checkpoint of a run shares, by feature, and what of it is left at the second.

    None for networks of different shapes, whose features are not the same units.
    """
    if first.W.shape != second.W.shape:
        return None
    A, B = first.means, second.means
    shares, then, lost = feature_shares(A), feature_shares(B), forgotten(A, B)
    ends = None
    if first.used is None and second.used is None:
        both = (first.features, first.W), (second.features, second.W)
        ends = forgotten_intervals(*both, first.labels)
    positive = [p for p in top_pairs(first.C, PAIRS) if float(first.C[p]) > 0]
    sharing = int((first.C.triu(diagonal=1) > 0).sum())
    return SharedAndForgotten(
        width=A.shape[1],
        half=half_of_sharing(shares),
        lost=_rounded(lost.share.sum()),
        changed_sign=_rounded(torch.tensor(lost.changed_sign)),
        features=[
            ForgottenFeature(
                k=k,
                share=(_rounded(shares.share[k]), _rounded(then.share[k])),
                lost=_rounded(lost.share[k]),
                lost_interval=None if ends is None else _finite(ends[0][k], ends[1][k]),
                effective_classes=_rounded(shares.effective_classes[k]),
                classes=[
                    (i, _rounded(A[i, k]), _rounded(B[i, k]))
                    for i in largest(A[:, k].nan_to_num(0.0), CLASSES)
                ],
            )
            for k in largest(lost.share, FEATURES)
        ],
        pairs=[_pair(A, B, p, (float(first.C[p]), float(second.C[p]))) for p in positive],
        more_pairs=sharing - len(positive),
    )


def _pair(
    A: Float[Tensor, "k d"], B: Float[Tensor, "k d"], pair: tuple[int, int], C: tuple[float, float]
) -> SharedPair:
    i, j = pair
    a, b = (pair_shares(M[[i, j]], 0, 1) for M in (A, B))
    carry = largest(a, CARRY)
    gone = torch.where(a > 0, a - b, 0.0).index_fill(0, torch.tensor(carry, dtype=torch.long), 0.0)
    return SharedPair(
        i=i,
        j=j,
        C=(round(C[0], 4), round(C[1], 4)),
        features=[
            PairFeature(
                k=k,
                C=(_rounded(a[k]), _rounded(b[k])),
                i=(_rounded(A[i, k]), _rounded(B[i, k])),
                j=(_rounded(A[j, k]), _rounded(B[j, k])),
            )
            for k in [*carry, *largest(gone, LOST)]
        ],
    )


def _rounded(value: Tensor) -> float:
    """With digits enough for a page; 0 where it is not finite."""
    return round(float(value.nan_to_num(0.0, 0.0, 0.0)), 4)


def _finite(low: Tensor, high: Tensor) -> tuple[float, float] | None:
    return (_rounded(low), _rounded(high)) if bool(low.isfinite() & high.isfinite()) else None
