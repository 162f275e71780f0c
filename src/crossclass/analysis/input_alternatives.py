"""Does a network get the images it was trained on? The plausible ways to feed it are tried on clean images.

All ways see the same images. After every block of images those are dropped that are clearly worse than the
best so far, or cannot be better by two points any more: a sound network costs a few hundred forward passes.
A way is clearly better only if it is right more often by more than half a point and by more than chance
(McNemar's exact test, shared among the ways and the looks), and clearly above the accuracy of guessing.
Where a renumbering of the classes explains the errors of the network as loaded, the ways are compared under
that renumbering: else all of them would be at chance. A way may also be another network with the same
weights, where the names and shapes in a file do not show which it is.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil, inf, log2, sqrt

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crossclass.analysis.accuracy_tests import above_chance, beats, hardly_learned, lead, learned
from crossclass.checkpoints.foreign_weights import Aspect
from crossclass.core.device import full_precision, out_of_memory
from crossclass.core.rng import isolated_rng
from crossclass.data import Split, as_float
from crossclass.data.draw import draw
from crossclass.models import Classifier, Variant, statistics, with_weights_of
from crossclass.models.base import Statistics, size_of
from crossclass.models.model_state import frozen

CONSTANTS: dict[str, Statistics] = {
    "half": ((0.5,), (0.5,)),  # images in [-1, 1]
    "bytes": ((0.0,), (1 / 255,)),  # images in 0..255
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10, std of image means": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
}
"""Constants in common use that are no data set's."""
ALIKE = 0.15
"""Normalisations are neighbours if `apart` is less. Measured on two CIFAR-10 networks: neighbours change the
accuracy by less than one point, others by 8 to 80."""
MATTERS = 0.02
"""A difference in accuracy that a user wants to know of."""
FIRST = 25
"""Images in the first block; every further block doubles their number."""
STREAM = 5
"""The clean images are drawn apart from those that are measured."""
FOR_NUMBERING = 200
"""Images on which a renumbering of the classes is sought first."""


@dataclass(frozen=True)
class Feeding:
    """One way to hand images in [0, 1] to a network, or to a variant of it."""

    name: str
    """Of the normalisation, such as `cifar10`, or `blue, green, red`, `transposed`, `shortcut_input=raw`."""
    constants: Statistics
    """Mean and standard deviation, one value per channel or one for all."""
    reversed_channels: bool = False
    transposed: bool = False
    variant: Variant | None = None
    """The network that takes the weights; None is the one that was loaded."""
    with_loaded_constants: bool = True
    """Of a variant: whether the normalisation is the one that the network was loaded with."""

    @property
    def aspect(self) -> Aspect:
        """What it is an alternative of."""
        if self.variant is not None:
            return "architecture"
        if self.reversed_channels:
            return "channel order"
        if self.transposed:
            return "height and width"
        return "range" if self.name in ("bytes", "half") else "normalisation"

    @property
    def setting(self) -> str:
        """What to type: `model.normalise=...`, `model.shortcut_input=raw`, or both."""
        if self.variant is None:
            return normalise_setting(self.name, self.constants)
        constants = "" if self.with_loaded_constants else f" {normalise_setting('', self.constants)}"
        return f"model.{self.variant.name}{constants}"

    def arranged(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c u v"]:
        """The images in the order of channels and sides that the network gets."""
        x = x.flip(1) if self.reversed_channels else x
        return x.transpose(2, 3).contiguous() if self.transposed else x


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

    def disagreement(self, a: Trial, b: Trial) -> float:
        """The share of the images on which two ways lead to different predictions."""
        n = min(a.n, b.n)
        return float((a.predicted[:n] != b.predicted[:n]).double().mean())

    def _clearly_better(self, t: Trial) -> bool:
        right, loaded = self._pair(t, self.loaded)
        return is_clearly_better(right, loaded, self.labels[: len(right)], self.tests)

    def _pair(self, a: Trial, b: Trial) -> tuple[Bool[Tensor, " m"], Bool[Tensor, " m"]]:
        n = min(a.n, b.n)
        return a.right[:n], b.right[:n]

    def _common(self, t: Trial, among: Sequence[Trial]) -> Bool[Tensor, " m"]:
        return t.right[: min(other.n for other in among)]


def known_constants(channels: int, data: Statistics, file: Statistics | None = None) -> dict[str, Statistics]:
    """The plausible normalisations for images of so many channels, by name; the file's own comes first.

    `data` are the channel statistics of the images, `file` the constants that a checkpoint carries.
    """
    named = ({"file": file} if file else {}) | {**statistics(), "data": data, **CONSTANTS}
    fitting = {n: s for n, s in named.items() if len(s[0]) in (1, channels)}
    if channels > 1:
        fitting.pop("mnist", None)
    return fitting


def as_loaded(model: Classifier, known: dict[str, Statistics]) -> Feeding:
    """The way in which a network is fed, under the name of its constants if they are known."""
    constants: Statistics = tuple(model.mean.flatten().tolist()), tuple(model.std.flatten().tolist())
    name = next((n for n, s in known.items() if same_constants(s, constants)), "its own constants")
    return Feeding(name, constants)


def feedings(
    loaded: Feeding, known: dict[str, Statistics], channels: int, sides: tuple[int, int], usual: str = "none"
) -> list[Feeding]:
    """The plausible alternatives to `loaded`, one for each group of neighbouring normalisations.

    Args:
        loaded: How the network is fed now.
        known: Normalisations by name (`known_constants`).
        channels: Of the images.
        sides: Height and width; they may be exchanged only where they are equal.
        usual: The name that stands for its neighbours.
    """
    out: list[Feeding] = []
    order = sorted(known, key=lambda n: (n != "file", n != usual))
    for name in order:
        constants = known[name]
        if not any(apart(constants, f.constants) < ALIKE for f in (loaded, *out)):
            out.append(Feeding(name, constants))
    return [*out, *arrangements(loaded, channels, sides)]


def arrangements(loaded: Feeding, channels: int, sides: tuple[int, int]) -> list[Feeding]:
    """The same normalisation with the channels reversed, and with height and width exchanged."""
    out = []
    if channels == 3:
        # the constants belong to the network's channels, so they stay where they are
        out.append(replace(loaded, name="blue, green, red", reversed_channels=not loaded.reversed_channels))
    if sides[0] == sides[1] > 1:
        out.append(replace(loaded, name="transposed", transposed=not loaded.transposed))
    return out


def with_variants(variants: Sequence[Variant], loaded: Feeding, among: Sequence[Feeding]) -> list[Feeding]:
    """Each variant of a network under each of several normalisations; `loaded` may be one of them."""
    return [
        replace(
            f,
            name=v.name if f is loaded else f"{f.name}, {v.name}",
            variant=v,
            with_loaded_constants=f is loaded,
        )
        for f in among
        for v in variants
    ]


def try_feedings(
    model: Classifier,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    loaded: Feeding,
    others: Sequence[Feeding],
    *,
    budget: float = inf,
    batch: int = 250,
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
    """
    n = len(x)
    with full_precision(), frozen(model), isolated_rng(0, x.device):
        first = min(n, FOR_NUMBERING, max(FIRST, int(min(budget, 4 * n) / 4)))
        own = predictions(model, loaded, x[:first], batch)
        true_of = explaining_renumbering(own, y[:first])
        guessing = not above_chance(_renumbered(own, true_of) == y[:first], y[:first])
        cost, seen = first, 0
        said = [x.new_empty(0, dtype=torch.int64) for _ in others]
        alive = list(range(len(others)))
        looks = 1 + ceil(log2(max(n, FIRST) / FIRST))
        tests = max(1, len(others)) * looks

        def is_right(predicted: Tensor) -> Tensor:
            # where as loaded nothing is recognized, each way may bring a numbering of its own
            own_numbering = explaining_renumbering(predicted, y[: len(predicted)]) if guessing else true_of
            return _renumbered(predicted, own_numbering) == y[: len(predicted)]

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
            best = max(right, key=lambda r: int(r.sum()))
            alive = [
                i
                for i, r in zip(alive, right[1:], strict=True)
                if not (beats(best, r) or _hopeless(r, right[0]))
            ]
            if len(alive) == 1 and is_clearly_better(is_right(said[alive[0]]), right[0], y[:seen], tests):
                break
    trials = [Trial(f, p, is_right(p)) for f, p in zip((loaded, *others), (own, *said), strict=True)]
    return InputTrial(y, trials[0], tuple(trials[1:]), tests, true_of, cost)


def is_clearly_better(
    a: Bool[Tensor, " m"], b: Bool[Tensor, " m"], labels: Int[Tensor, " m"], tests: int
) -> bool:
    """Whether a is right more often than b by half a point and more than chance, and better than guessing.

    Where b is hardly better than guessing, a must be beyond what any inputs of an untrained head lead to.
    """
    return _is_clear(a, b, labels, tests) and beats(a, b, by=0.005, tests=tests)


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
    classes = [torch.where(z.isfinite().all(dim=1), z.argmax(dim=1), -1) for z in logits]
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


def explaining_renumbering(predicted: Int[Tensor, " n"], labels: Int[Tensor, " n"]) -> tuple[int, ...] | None:
    """The class meant by each output, where another numbering explains the errors; else None.

    It is sought on one half of the images and must be better by five points and by more than chance on the
    other, and above the accuracy of guessing there; the answer is then that of all images. Of the outputs
    that change their class three in four must be given to images of the new one more often than to those of
    any other: an untrained head tells some classes by accident, and never most of them.
    """
    if len(labels) < 4:
        return None
    k = int(max(predicted.max(), labels.max())) + 1
    half = torch.arange(len(labels), device=labels.device) // k % 2 == 0
    found = best_renumbering(predicted[half], labels[half], k)
    rest, y = predicted[~half], labels[~half]
    before, after = rest == y, _renumbered(rest, found) == y
    if not len(y) or not beats(after, before, by=0.05) or not above_chance(after, y):
        return None
    counts = _counts(predicted, labels, k)
    true_of = renumbering(counts)
    moved = true_of != torch.arange(k)
    meant = (counts.argmax(dim=0) == true_of) & (counts.sum(dim=0) > 0)
    explained = 4 * int((moved & meant).sum()) >= 3 * int(moved.sum())
    return tuple(true_of.tolist()) if explained else None


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


def _renumbered(predicted: Int[Tensor, " n"], true_of: tuple[int, ...] | None) -> Int[Tensor, " n"]:
    """The classes meant by predictions; outputs beyond the renumbering, and -1, stay as they are."""
    if true_of is None or not len(predicted):
        return predicted
    size = max(len(true_of), int(predicted.max()) + 1)
    table = torch.tensor([*true_of, *range(len(true_of), size), -1], device=predicted.device)
    return table[predicted]


def clean_sample(split: Split, n: int, seed: int) -> tuple[Float[Tensor, "m c h w"], Int[Tensor, " m"]]:
    """At most n images in [0, 1] and labels, drawn over the whole split, as many of each class as there are.

    Neighbours belong to different classes, so that every first part is balanced too.
    """
    labels = split.labels.cpu().numpy()
    some = split.take(torch.from_numpy(draw(labels, (min(n, len(labels)),), seed, STREAM)[0]))
    return as_float(some.images), some.labels


def same_constants(a: Statistics, b: Statistics) -> bool:
    """Equal up to a ten-thousandth; one value stands for all channels."""
    return all(np.allclose(x, y, rtol=0, atol=1e-4) for x, y in zip(a, b, strict=True))


def apart(a: Statistics, b: Statistics) -> float:
    """How far two normalisations send the darkest and the brightest pixel apart, in [0, 1] of the image."""
    ends = [(np.array([[0.0], [1.0]]) - np.array(mean)) / np.array(std) for mean, std in (a, b)]
    smaller = np.minimum(np.array(a[1]), np.array(b[1]))
    return float(np.max(np.abs(ends[0] - ends[1]) * smaller))


def normalise_setting(name: str, constants: Statistics) -> str:
    """What to type for a normalisation: `model.normalise=...`."""
    name = name or next((n for n, s in statistics().items() if same_constants(s, constants)), "")
    if name in statistics() or name == "data":
        return f"model.normalise={name}"
    mean, std = (", ".join(f"{v:.6g}" for v in values) for values in constants)
    return f"model.normalise={{mean: [{mean}], std: [{std}]}}"
