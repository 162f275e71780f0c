"""Does a network get the images it was trained on? The plausible ways to feed it are tried on clean images.

All ways see the same images. After every block of images those are dropped that are clearly worse than the
best so far, or cannot be better by two points any more: a sound network costs a few hundred forward passes.
A way is clearly better only if it is right more often by more than half a point and by more than chance
(McNemar's exact test, shared among the ways and the looks), and clearly above the accuracy of guessing.
Where a renumbering of the classes explains the errors of the network as loaded, each way is compared under
that renumbering or as the data number the classes, whichever is right more often. A way may also be another
network with the same weights, where the names and shapes in a file do not show which it is.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, inf, log2, sqrt

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crossclass.analysis.accuracy_tests import above_chance, beats, hardly_learned, lead, learned
from crossclass.analysis.feedings import Feeding
from crossclass.analysis.renumbering import explaining_renumbering, renumbered
from crossclass.core import classes as core_classes
from crossclass.core.device import full_precision, out_of_memory
from crossclass.core.rng import isolated_rng
from crossclass.data import Split, as_float
from crossclass.data.draw import draw
from crossclass.models import Classifier, with_weights_of
from crossclass.models.base import size_of
from crossclass.models.model_state import frozen

MATTERS = 0.02
"""A difference in accuracy that a user wants to know of."""
FIRST = 25
"""Images in the first block; every further block doubles their number."""
STREAM = 5
"""The clean images are drawn apart from those that are measured."""
FOR_NUMBERING = 200
"""Images on which a renumbering of the classes is sought first."""


@dataclass(frozen=True)
class Trial:
    """One way, and what the network says on the first images of the sample."""

    feeding: Feeding
    predicted: Int[Tensor, " m"]
    right: Bool[Tensor, " m"]
    """Which are classified correctly, under the renumbering if there is one."""

    @property
    def n(self) -> int:
        """The number of images on which it was tried."""
        return len(self.right)

    @property
    def accuracy(self) -> float:
        """The share of these images that is right, in [0, 1]."""
        return float(self.right.double().mean()) if self.n else 0.0


@dataclass(frozen=True)
class InputTrial:
    """What came out: the way as loaded, the others, and which of them are better beyond doubt."""

    labels: Int[Tensor, " n"]
    loaded: Trial
    others: tuple[Trial, ...]
    """In the order in which they were given; those that were dropped early saw fewer images."""
    tests: int
    """Comparisons that share the level."""
    renumbering: tuple[int, ...] | None
    """The class meant by each output, where that explains the errors; None: as the data number them."""
    cost: int
    """Forward passes of one image that were made."""

    def better(self) -> tuple[Trial, ...]:
        """The ways that are clearly better than as loaded, the best first; the earlier among equals."""
        out = [t for t in self.others if self._clearly_better(t)]
        return tuple(sorted(out, key=lambda t: -int(self._common(t, out).sum())))

    def tied(self, best: Trial) -> tuple[Trial, ...]:
        """The other ways that are clearly better than as loaded and not clearly worse than the best."""
        return tuple(t for t in self.better() if t is not best and not beats(*self._pair(best, t)))

    def suspected(self) -> tuple[Trial, ...]:
        """Ways that look better by two points or more (p < 0.05 shared among them), but not beyond doubt."""
        out = []
        for t in self.others:
            share, p = lead(*self._pair(t, self.loaded))
            clear = _is_clear(*self._pair(t, self.loaded), self.labels[: t.n])
            if share >= MATTERS and p < 0.05 / max(1, len(self.others)) and clear:
                out.append(t)
        found = self.better()
        return tuple(t for t in out if not any(t is other for other in found))

    def worth_more_images(self) -> tuple[Trial, ...]:
        """Ways that look better by two points or more (p < 0.2 for each): more images will tell."""
        pairs = ((t, *lead(*self._pair(t, self.loaded))) for t in self.others)
        return tuple(t for t, share, p in pairs if share >= MATTERS and p < 0.2)

    def _clearly_better(self, t: Trial) -> bool:
        right, loaded = self._pair(t, self.loaded)
        # whoever trains on mirrored images too is right as often on either
        by = MATTERS if t.feeding.name == "mirrored" else 0.005
        return is_clearly_better(right, loaded, self.labels[: len(right)], self.tests, by)

    def _pair(self, a: Trial, b: Trial) -> tuple[Bool[Tensor, " m"], Bool[Tensor, " m"]]:
        n = min(a.n, b.n)
        return a.right[:n], b.right[:n]

    def _common(self, t: Trial, among: Sequence[Trial]) -> Bool[Tensor, " m"]:
        return t.right[: min(other.n for other in among)]


def disagreement(a: Trial, b: Trial) -> float:
    """The share of the images on which two ways lead to different predictions."""
    n = min(a.n, b.n)
    return float((a.predicted[:n] != b.predicted[:n]).double().mean())


def try_feedings(
    model: Classifier,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    loaded: Feeding,
    others: Sequence[Feeding],
    *,
    budget: float = inf,
    batch: int = 250,
    orders: Sequence[tuple[int, ...]] = (),
) -> InputTrial:
    """Compare the ways to feed a network on labelled clean images; the network is left as it was.

    Args:
        model: Takes images in [0, 1].
        x: Clean images in [0, 1]; neighbours should be of different classes.
        y: Their classes.
        loaded: How the network is fed now.
        others: The alternatives.
        budget: At most so many forward passes of one image, but never fewer than one block of each way.
        batch: Images in a forward pass.
        orders: Numberings of the classes that their names suggest (`orders_of_names`).
    """
    n = len(x)
    with full_precision(), frozen(model), isolated_rng(0, x.device):
        first = min(n, FOR_NUMBERING, max(FIRST, int(min(budget, 4 * n) / 4)))
        own = predictions(model, loaded, x[:first], batch)
        true_of = explaining_renumbering(own, y[:first], orders)
        cost, seen = first, 0
        said = [x.new_empty(0, dtype=torch.int64) for _ in others]
        alive = list(range(len(others)))
        looks = 1 + ceil(log2(max(n, FIRST) / FIRST))
        tests = max(1, len(others)) * looks

        def is_right(predicted: Tensor) -> Tensor:
            labels = y[: len(predicted)]
            right = max((predicted == labels, renumbered(predicted, true_of) == labels), key=_count)
            if not above_chance(right, labels):  # it may bring a numbering of its own
                right = renumbered(predicted, explaining_renumbering(predicted, labels, orders)) == labels
            return right

        while alive and seen < n:
            stop = min(n, max(FIRST, 2 * seen))
            need = len(alive) * (stop - seen) + max(0, stop - len(own))
            if seen and cost + need > budget:
                break
            if stop > len(own):
                own = torch.cat((own, predictions(model, loaded, x[len(own) : stop], batch)))
            for i in alive:
                said[i] = torch.cat((said[i], _or_none(model, others[i], x[seen:stop], batch)))
            cost, seen = cost + need, stop
            right = [is_right(own[:seen]), *(is_right(said[i]) for i in alive)]
            best = max(right, key=_count)
            alive = [
                i
                for i, r in zip(alive, right[1:], strict=True)
                if not (beats(best, r) or _hopeless(r, right[0]))
            ]
            if len(alive) == 1 and is_clearly_better(is_right(said[alive[0]]), right[0], y[:seen], tests):
                break
    trials = [Trial(f, p, is_right(p)) for f, p in zip((loaded, *others), (own, *said), strict=True)]
    return InputTrial(y, trials[0], tuple(trials[1:]), tests, true_of, cost)


def try_all(
    model: Classifier,
    x: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    ways: Sequence[Feeding],
    batch: int = 250,
) -> tuple[list[Trial], int]:
    """Ways of which none is more usual, each until it is clearly worse; and the forward passes made.

    `labels` are the outputs that are right.
    """
    said = [x.new_empty(0, dtype=torch.int64) for _ in ways]
    alive, seen, cost = list(range(len(ways))), 0, 0
    with full_precision(), frozen(model), isolated_rng(0, x.device):
        while seen < len(x) and len(alive) > 1:
            stop = min(len(x), max(4 * FIRST, 2 * seen))
            for i in alive:
                said[i] = torch.cat((said[i], _or_none(model, ways[i], x[seen:stop], batch)))
            cost, seen = cost + len(alive) * (stop - seen), stop
            right = {i: said[i] == labels[:seen] for i in alive}
            best = max(right.values(), key=_count)
            alive = [i for i in alive if not beats(best, right[i])]
    return [Trial(w, p, p == labels[: len(p)]) for w, p in zip(ways, said, strict=True)], cost


def most_right(trials: Sequence[Trial]) -> Trial:
    """The way that is right most often of those that were tried longest, the first among equals."""
    longest = max(t.n for t in trials)
    return max((t for t in trials if t.n == longest), key=lambda t: _count(t.right))


def _count(right: Bool[Tensor, " m"]) -> int:
    return int(right.sum())


def is_clearly_better(
    a: Bool[Tensor, " m"], b: Bool[Tensor, " m"], labels: Int[Tensor, " m"], tests: int, by: float = 0.005
) -> bool:
    """Whether a is right more often than b by a share and more than chance, and better than guessing.

    Where b is hardly better than guessing, a must be beyond what any inputs of an untrained head lead to.
    """
    return _is_clear(a, b, labels, tests) and beats(a, b, by=by, tests=tests)


def _is_clear(
    a: Bool[Tensor, " m"], b: Bool[Tensor, " m"], labels: Int[Tensor, " m"], tests: int = 1
) -> bool:
    return learned(a, labels) if hardly_learned(b, labels) else above_chance(a, labels, tests)


def _hopeless(other: Bool[Tensor, " m"], loaded: Bool[Tensor, " m"]) -> bool:
    """Whether a way cannot be better by two points any more: its lead and three standard errors are less."""
    difference = other.double() - loaded.double()
    if len(difference) <= FIRST:
        return False
    error = sqrt(max(float(difference.var()), 1 / len(difference)) / len(difference))
    return float(difference.mean()) + 3 * error < MATTERS


def _or_none(model: Classifier, feeding: Feeding, x: Float[Tensor, "n c h w"], batch: int) -> Tensor:
    """The predictions; -1 for all where the network refuses such images, as a check of their range does."""
    try:
        return predictions(model, feeding, x, batch)
    except Exception as e:  # whatever anyone's network may raise
        if out_of_memory(e):  # says nothing about the images
            raise
        return torch.full((len(x),), -1, dtype=torch.int64, device=x.device)


@torch.no_grad()
def predictions(
    model: Classifier, feeding: Feeding, x: Float[Tensor, "n c h w"], batch: int = 250
) -> Int[Tensor, " n"]:
    """The classes that a network says when it is fed in this way, in the mode it is in; -1 for no number."""
    if feeding.variant is not None:
        model = with_weights_of(model, feeding.variant.settings, x.shape[1], size_of(x))
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    with with_normalisation(model, *feeding.constants):
        logits = [model(feeding.arranged(b).to(dtype)).float() for b in x.split(batch)]
    classes = [core_classes.predicted(z) for z in logits]
    return torch.cat(classes) if classes else x.new_empty(0, dtype=torch.int64)


@contextmanager
def with_normalisation(model: Classifier, mean: tuple[float, ...], std: tuple[float, ...]) -> Iterator[None]:
    """The model with another mean and std inside; its own buffers are put back."""
    before = model.mean, model.std
    try:
        model.mean = before[0].new_tensor(mean).view(1, -1, 1, 1)
        model.std = before[1].new_tensor(std).view(1, -1, 1, 1)
        yield
    finally:
        model.mean, model.std = before


def clean_sample(split: Split, n: int, seed: int) -> tuple[Float[Tensor, "m c h w"], Int[Tensor, " m"]]:
    """At most n images in [0, 1] and labels, drawn over the whole split, as many of each class as there are.

    Neighbours belong to different classes, so that every first part is balanced too.
    """
    labels = split.labels.cpu().numpy()
    some = split.take(torch.from_numpy(draw(labels, (min(n, len(labels)),), seed, STREAM)[0]))
    return as_float(some.images), some.labels
