"""An order of the classes in which those that share much stand side by side."""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

EXACT = 200
"""Up to so many classes the leaves of the tree are turned to the best order; more take long."""


def by_similarity(C: Sequence[Sequence[float | None]] | NDArray[np.float64]) -> list[int]:
    """The classes in the order of the leaves of a tree of average linkage (UPGMA) over the distance 1 - C.

    Args:
        C: Cosines [K, K] in [-1, 1]; None, a class without images, is as far from all as 0.

    Returns:
        A permutation of 0, ..., K-1.

    Source: scipy.cluster.hierarchy; the best turn of the leaves by Bar-Joseph et al. (2001).
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    values = np.nan_to_num(np.array(C, dtype=float))
    if len(values) < 3:
        return list(range(len(values)))
    distances = 1 - (values + values.T) / 2
    np.fill_diagonal(distances, 0)
    with warnings.catch_warnings(action="ignore"):
        tree = linkage(squareform(distances, checks=False), "average", optimal_ordering=len(values) <= EXACT)
    return [int(i) for i in leaves_list(tree)]
