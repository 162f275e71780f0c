"""Does a network get the images it was trained on? The plausible ways to feed it are tried on clean images.

All ways see the same images. After every block of images those are dropped that are worse than the best so
far, or cannot be better by two points any more: a sound network costs some hundred forward passes.
A way is clearly better only if it is right more often by more than half a point and by more than chance
(McNemar's exact test, shared among the ways and the looks), and clearly above the accuracy of guessing.
With the same constants the margins of the true class tell more than which images are right: then their sign
test may take the place of McNemar's, as every image counts in it.
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

from crossclass.analysis.accuracy_tests import ALPHA, above_chance, beats, hardly_learned, lead, learned
from crossclass.analysis.feedings import Feeding, same_constants
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
FIRST = 12
"""Images in the first block; every further block doubles their number."""
DROPPED = 0.005
"""A way is no longer tried if it is worse, and as much so by chance no more often than this."""
STREAM = 5
"""The clean images are drawn apart from those that are measured."""
SMALLER = 0.1
"""Margins are smaller if as much so by chance no more often than this: 3 points of accuracy that 48 images do
not show are in the margins of 200."""
FOR_NUMBERING = 200
"""Images on which a renumbering of the classes is sought first."""


@dataclass(frozen=True)
class Trial:
    """One way, and what the network says on the first images of the sample."""

    feeding: Feeding
    predicted: Int[Tensor, " m"]
    right: Bool[Tensor, " m"]
    """Which are classified correctly, under the renumbering if there is one."""
    margins: Float[Tensor, " m"]
    """The logit of the true class minus the largest other one."""

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
            if _comparable(t.feeding, self.loaded.feeding):
                p = min(p, margin_lead(t, self.loaded)[1])
            clear = _is_clear(*self._pair(t, self.loaded), self.labels[: t.n])
            if share >= MATTERS and p < 0.05 / max(1, len(self.others)) and clear:
                out.append(t)
        found = self.better()
        return tuple(t for t in out if not any(t is other for other in found))

    def worth_more_images(self) -> tuple[Trial, ...]:
        """Ways that more images will tell from the network as loaded.

        Right more often by two points (p < 0.2 for each), or with margins that are not clearly smaller.
        """
        return tuple(t for t in self.others if self._looks_better(t))

    def _looks_better(self, t: Trial) -> bool:
        share, p = lead(*self._pair(t, self.loaded))
        if share >= MATTERS and p < 0.2:
            return True
        # whoever trains on mirrored images too has the same margins on either
        by_margin = _comparable(t.feeding, self.loaded.feeding) and t.feeding.name != "mirrored"
        by_margin &= above_chance(self.loaded.right, self.labels[: self.loaded.n])
        return by_margin and share > -MATTERS and margin_lead(self.loaded, t)[1] > SMALLER

    def _clearly_better(self, t: Trial) -> bool:
        return _is_better_trial(t, self.loaded, self.labels, self.tests)

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
    before: InputTrial | None = None,
) -> InputTrial:
    """Compare the ways to feed a network on labelled clean images; the network is left as it was.

    Args:
        model: Takes images in [0, 1].
        x: Clean images in [0, 1]; neighbours should be of different classes.
        y: Their classes.
        loaded: How the network is fed now.
        others: The alternatives.
        budget: At most so many forward passes of one image, but never fewer than one block of each way;
            twice as many where the network as loaded is hardly better than guessing.
        batch: Images in a forward pass.
        orders: Numberings of the classes that their names suggest (`orders_of_names`).
        before: A trial of the same network, fed as now, on the same images: what it knows of these is used.
    """
    n = len(x)
    with full_precision(), frozen(model), isolated_rng(0, x.device):
        first = min(n, FOR_NUMBERING, max(FIRST, int(min(budget, 4 * n) / 4)))
        if before is None:
            own, own_margins = _answers(model, loaded, x[:first], y[:first], batch)
            true_of = explaining_renumbering(own, y[:first], orders)
            cost, seen = first, 0
        else:
            own, own_margins = before.loaded.predicted, before.loaded.margins
            true_of, cost, seen = before.renumbering, 0, 0
        outputs = y if true_of is None else outputs_of(true_of, y)
        if before is None and true_of is not None:
            own, own_margins = _answers(model, loaded, x[:first], outputs[:first], batch)
            cost += first
        said = [x.new_empty(0, dtype=torch.int64) for _ in others]
        margins = [x.new_empty(0, dtype=torch.float32) for _ in others]
        if hardly_learned(renumbered(own, true_of) == y[: len(own)], y[: len(own)]):
            budget *= 2  # it is fed wrongly, or never learned
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
            if stop > (known := len(own)):
                more, more_margins = _answers(model, loaded, x[known:stop], outputs[known:stop], batch)
                own, own_margins = torch.cat((own, more)), torch.cat((own_margins, more_margins))
            for i in alive:
                more, more_margins = _or_none(model, others[i], x[seen:stop], outputs[seen:stop], batch)
                said[i], margins[i] = torch.cat((said[i], more)), torch.cat((margins[i], more_margins))
            cost, seen = cost + need, stop
            now = Trial(loaded, own[:seen], is_right(own[:seen]), own_margins[:seen])
            tried = {i: Trial(others[i], said[i], is_right(said[i]), margins[i]) for i in alive}
            best = max((now, *tried.values()), key=lambda t: _count(t.right))
            alive = [
                i
                for i, t in tried.items()
                if not (lead(best.right, t.right)[1] < DROPPED or _hopeless(t, now))
            ]
            if len(alive) == 1 and _is_better_trial(tried[alive[0]], now, y, tests):
                break
    trials = [
        Trial(f, p, is_right(p), m)
        for f, p, m in zip((loaded, *others), (own, *said), (own_margins, *margins), strict=True)
    ]
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
    margins = [x.new_empty(0, dtype=torch.float32) for _ in ways]
    alive, seen, cost = list(range(len(ways))), 0, 0
    with full_precision(), frozen(model), isolated_rng(0, x.device):
        while seen < len(x) and len(alive) > 1:
            stop = min(len(x), max(100, 2 * seen))
            for i in alive:
                more, more_margins = _or_none(model, ways[i], x[seen:stop], labels[seen:stop], batch)
                said[i], margins[i] = torch.cat((said[i], more)), torch.cat((margins[i], more_margins))
            cost, seen = cost + len(alive) * (stop - seen), stop
            right = {i: said[i] == labels[:seen] for i in alive}
            best = max(right.values(), key=_count)
            alive = [i for i in alive if not beats(best, right[i])]
    trials = zip(ways, said, margins, strict=True)
    return [Trial(w, p, p == labels[: len(p)], m) for w, p, m in trials], cost


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


def margin_lead(a: Trial, b: Trial) -> tuple[float, float]:
    """On what share of the images more the margin is larger with a, and the p-value of the sign test."""
    n = min(a.n, b.n)
    return lead(a.margins[:n] > b.margins[:n], b.margins[:n] > a.margins[:n])


def _comparable(a: Feeding, b: Feeding) -> bool:
    """Whether margins compare: with other constants, or another network, they have another scale."""
    arranged = bool(a.of_arrangement) and a.variant is None and b.variant is None
    each = a.arrangement.each_by_itself == b.arrangement.each_by_itself
    return arranged and each and same_constants(a.constants, b.constants)


def _is_better_trial(t: Trial, loaded: Trial, labels: Int[Tensor, " n"], tests: int) -> bool:
    n = min(t.n, loaded.n)
    right, before, y = t.right[:n], loaded.right[:n], labels[:n]
    # whoever trains on mirrored images too is right as often on either
    by = MATTERS if t.feeding.name == "mirrored" else 0.005
    if is_clearly_better(right, before, y, tests, by):
        return True
    if not _comparable(t.feeding, loaded.feeding) or lead(right, before)[0] <= by:
        return False
    share, p = margin_lead(t, loaded)
    return share > 0 and p < ALPHA / tests and _is_clear(right, before, y, tests)


def _hopeless(t: Trial, loaded: Trial) -> bool:
    """Whether a way cannot be better by two points any more: its lead and three standard errors are less.

    With the same constants also if it is right no more often and its margins are smaller.
    """
    difference = t.right.double() - loaded.right.double()
    comparable = _comparable(t.feeding, loaded.feeding)
    if comparable and float(difference.sum()) <= 0 and margin_lead(loaded, t)[1] < DROPPED:
        return True
    if len(difference) <= 2 * FIRST:
        return False
    error = sqrt(max(float(difference.var()), 1 / len(difference)) / len(difference))
    return float(difference.mean()) + 3 * error < MATTERS


def outputs_of(true_of: tuple[int, ...], y: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """The output that means each class; classes beyond the renumbering have their own."""
    rest = range(len(true_of), max(len(true_of), int(y.max()) + 1))
    return torch.tensor([*true_of, *rest], device=y.device).argsort()[y]


def _or_none(
    model: Classifier, feeding: Feeding, x: Float[Tensor, "n c h w"], outputs: Int[Tensor, " n"], batch: int
) -> tuple[Tensor, Tensor]:
    """The answers; -1 for all where the network refuses such images, as a check of their range does."""
    try:
        return _answers(model, feeding, x, outputs, batch)
    except Exception as e:  # whatever anyone's network may raise
        if out_of_memory(e):  # says nothing about the images
            raise
        return torch.full((len(x),), -1, dtype=torch.int64, device=x.device), x.new_full((len(x),), -inf)


def _answers(
    model: Classifier, feeding: Feeding, x: Float[Tensor, "n c h w"], outputs: Int[Tensor, " n"], batch: int
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """The classes that a network says, and the margins of the outputs that are right."""
    classes = [x.new_empty(0, dtype=torch.int64)]
    margins = [x.new_empty(0, dtype=torch.float32)]
    for z, right in zip(_logits(model, feeding, x, batch), outputs.split(batch), strict=True):
        classes.append(core_classes.predicted(z))
        own = z.gather(1, right.clamp(max=z.shape[1] - 1)[:, None])[:, 0]
        others = z.scatter(1, right.clamp(max=z.shape[1] - 1)[:, None], -inf).amax(dim=1)
        margin = (own - others).nan_to_num(nan=-inf)
        margins.append(margin.where(right < z.shape[1], -inf).float())
    return torch.cat(classes), torch.cat(margins)


@torch.no_grad()
def _logits(
    model: Classifier, feeding: Feeding, x: Float[Tensor, "n c h w"], batch: int
) -> list[Float[Tensor, "m k"]]:
    """The outputs of each batch when a network is fed in this way, in the mode it is in."""
    if feeding.variant is not None:
        model = with_weights_of(model, feeding.variant.settings, x.shape[1], size_of(x))
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    with with_normalisation(model, *feeding.constants):
        return [model(feeding.arranged(b).to(dtype)).float() for b in x.split(batch) if len(b)]


def predictions(
    model: Classifier, feeding: Feeding, x: Float[Tensor, "n c h w"], batch: int = 250
) -> Int[Tensor, " n"]:
    """The classes that a network says when it is fed in this way, in the mode it is in; -1 for no number."""
    classes = [core_classes.predicted(z) for z in _logits(model, feeding, x, batch)]
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
