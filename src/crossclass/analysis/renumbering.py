"""Are the outputs of a network numbered otherwise than the classes of the data?"""

import re
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from crossclass.analysis.accuracy_tests import above_chance, beats, learned

ALMOST_ALL = 0.85
"""Of the images that any numbering could explain, also one that names a class twice, a renumbering explains
so many. Measured on 200 images: 1.0 for five networks with permuted classes that are right on 82 to 95 %
(digits, Shapes, CIFAR-10), and .48 and .62 for two networks for digits that get inverted images."""


def explaining_renumbering(
    predicted: Int[Tensor, " n"], labels: Int[Tensor, " n"], orders: Sequence[tuple[int, ...]] = ()
) -> tuple[int, ...] | None:
    """The class meant by each output, where another numbering explains the errors; else None.

    It is sought on one half of the images and must be better by five points and by more than chance on the
    other, and beyond what untrained heads reach there; the answer is then that of all images. Of the outputs
    that change their class three in four must be given to images of the new one more often than to those of
    any other, and hardly more images may be explained by naming a class twice: an untrained head tells some
    classes by accident, and images that the network does not want are confused, not renumbered.

    Args:
        predicted: What the network says of each image; -1 is no prediction.
        labels: The classes of the images.
        orders: Renumberings that class names suggest (`orders_of_names`): these need no search.
    """
    if len(labels) < 4:
        return None
    before = predicted == labels
    for order in orders:
        after = renumbered(predicted, order) == labels
        if beats(after, before, by=0.05, tests=len(orders)) and learned(after, labels):
            return order
    k = int(max(predicted.max(), labels.max())) + 1
    half = torch.arange(len(labels), device=labels.device) // k % 2 == 0
    found = best_renumbering(predicted[half], labels[half], k)
    rest, y = predicted[~half], labels[~half]
    after = renumbered(rest, found) == y
    if not len(y) or not beats(after, rest == y, by=0.05):
        return None
    if not above_chance(after, y) or not learned(after, y):
        return None
    counts = _counts(predicted, labels, k)
    true_of = renumbering(counts)
    moved = true_of != torch.arange(k)
    meant = (counts.argmax(dim=0) == true_of) & (counts.sum(dim=0) > 0)
    explained = 4 * int((moved & meant).sum()) >= 3 * int(moved.sum())
    return tuple(true_of.tolist()) if explained and _one_to_one(counts, true_of) >= ALMOST_ALL else None


def _one_to_one(counts: Int[Tensor, "k k"], true_of: Int[Tensor, " k"]) -> float:
    """The images that a renumbering explains, as a share of those that any assignment does."""
    most = max(int(counts.amax(dim=0).sum()), int(counts.amax(dim=1).sum()), 1)
    return int(counts[true_of, torch.arange(len(counts))].sum()) / most


def orders_of_names(names: Sequence[str]) -> list[tuple[int, ...]]:
    """The class meant by each output of a network that sorts the same names otherwise.

    Sorted as text they are `1, 10, 2`, as numbers `1, 2, 10`; capital letters come first or do not count.
    """
    if len(set(names)) < len(names):
        return []
    keys = (str, _as_numbers, str.casefold)
    orders = [tuple(names.index(name) for name in sorted(names, key=key)) for key in keys]
    return [o for o in dict.fromkeys(orders) if o != tuple(range(len(names)))]


def _as_numbers(name: str) -> list[tuple[int, str]]:
    """A key that sorts the numbers in a name by their value."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)]


def best_renumbering(predicted: Int[Tensor, " n"], labels: Int[Tensor, " n"], k: int) -> tuple[int, ...]:
    """The class meant by each of k outputs, by the most images; -1 is no prediction."""
    return tuple(renumbering(_counts(predicted, labels, k)).tolist())


def _counts(predicted: Int[Tensor, " n"], labels: Int[Tensor, " n"], k: int) -> Int[Tensor, "k k"]:
    """How many images of each class (row) got each output (column); -1 is no prediction."""
    said = predicted >= 0
    return torch.bincount(labels[said] * k + predicted[said], minlength=k * k).view(k, k).cpu()


def renumbering(counts: Int[Tensor, "k k"]) -> Int[Tensor, " k"]:
    """The class meant by each output: the one-to-one match with the most images, of counts [true, predicted].

    On ties outputs keep their number, so nothing moves without evidence.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import

    k = len(counts)
    gain = (k + 1) * counts.cpu() + torch.eye(k, dtype=counts.dtype)
    return torch.from_numpy(linear_sum_assignment(gain.T.numpy(), maximize=True)[1])


def renumbered(predicted: Int[Tensor, " n"], true_of: tuple[int, ...] | None) -> Int[Tensor, " n"]:
    """The classes meant by predictions; outputs beyond the renumbering, and -1, stay as they are."""
    if true_of is None or not len(predicted):
        return predicted
    size = max(len(true_of), int(predicted.max()) + 1)
    table = torch.tensor([*true_of, *range(len(true_of), size), -1], device=predicted.device)
    return table[predicted]
