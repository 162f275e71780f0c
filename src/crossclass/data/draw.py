"""Which images stand for a whole set: drawn over all of it by a seed, equally many of each class.

The first n of a folder that is sorted by class are of its first classes, and no number measured on them is
that of the set. A class with fewer images gives what it has. Draws are the same on every platform.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int

from crossclass.core.rng import generator


def draw(labels: Int[np.ndarray, " n"], sizes: Sequence[int], seed: int, stream: int) -> list[np.ndarray]:
    """Indices of disjoint parts of these sizes, in which neighbours belong to different classes.

    `labels` are the classes of the whole set. All parts have the same shares of the classes: what a class
    gives in all is divided in proportion to the sizes. `stream` separates draws with one seed.
    """
    noise = torch.rand(len(labels), generator=generator(seed, stream, 0, "subset"))
    shuffled = noise.argsort(stable=True).numpy()
    rank, turn = np.empty((2, len(labels)), dtype=np.int64)
    rank[shuffled] = np.arange(len(labels))
    for label in np.unique(labels):
        own = shuffled[labels[shuffled] == label]
        turn[own] = np.arange(len(own))  # the how-many-th of its class a sample is
    chosen = np.lexsort((rank, turn))[: sum(sizes)]
    count = np.bincount(labels[chosen])[labels[chosen]]
    chosen = chosen[np.lexsort((rank[chosen], (2 * turn[chosen] + 1) / (2 * count)))]
    parts = np.split(chosen, np.cumsum(sizes)[:-1])
    return [part[np.lexsort((labels[part], turn[part]))] for part in parts]
