"""Which images stand for a whole set: drawn over all of it by a seed, over all classes.

The first n of a folder that is sorted by class are of its first classes, and no number measured on them is
that of the set. Classes give equally many (one with fewer images what it has), or as many as their shares.
Draws are the same on every platform.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int

from crossclass.core.rng import generator


def draw(
    labels: Int[np.ndarray, " n"],
    sizes: Sequence[int],
    seed: int,
    stream: int,
    proportional: bool = False,
) -> list[np.ndarray]:
    """Indices of disjoint parts of these sizes, in which neighbours belong to different classes.

    `labels` are the classes of the whole set. All parts have the same shares of the classes: what a class
    gives in all is divided in proportion to the sizes. `stream` separates draws with one seed.
    `proportional` draws one of each class and the others in the shares of the whole set, so that the mean
    over a part estimates that of the set; otherwise a class gives as many as any other.
    """
    noise = torch.rand(len(labels), generator=generator(seed, stream, 0, "subset"))
    shuffled = noise.argsort(stable=True).numpy()
    rank, turn = np.empty((2, len(labels)), dtype=np.int64)
    rank[shuffled] = np.arange(len(labels))
    for label in np.unique(labels):
        own = shuffled[labels[shuffled] == label]
        turn[own] = np.arange(len(own))  # the how-many-th of its class a sample is
    share = (2 * turn + 1) / (2 * np.bincount(labels)[labels])  # how far into its class a sample is
    first = np.where(turn == 0, 0, share) if proportional else turn
    chosen = np.lexsort((rank, first))[: sum(sizes)]
    count = np.bincount(labels[chosen])[labels[chosen]]
    chosen = chosen[np.lexsort((rank[chosen], (2 * turn[chosen] + 1) / (2 * count)))]
    parts = np.split(chosen, np.cumsum(sizes)[:-1])
    return [part[np.lexsort((labels[part], turn[part]))] for part in parts]
