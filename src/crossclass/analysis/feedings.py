"""The plausible ways to hand images in [0, 1] to a network: constants, orders of channels, orientations."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
from jaxtyping import Float
from torch import Tensor

from crossclass.checkpoints.foreign_weights import Aspect
from crossclass.models import Classifier, Variant, statistics
from crossclass.models.base import Statistics
from crossclass.models.reordered import TURNS, Arrangement

CONSTANTS: dict[str, Statistics] = {
    "half": ((0.5,), (0.5,)),  # images in [-1, 1]
    "bytes": ((0.0,), (1 / 255,)),  # images in 0..255
    # Caffe and Keras subtract the mean from 0..255 and divide by nothing
    "imagenet's mean in 0..255": ((0.485, 0.456, 0.406), (1 / 255,) * 3),
    "bytes around 0": ((0.5,), (1 / 255,)),
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10, std of image means": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "imagenet's mean": ((0.485, 0.456, 0.406), (1.0,) * 3),
}
"""Constants in common use that are no data set's."""
ALIKE = 0.15
"""Normalisations are neighbours if `apart` is less. Measured on two CIFAR-10 networks: neighbours change the
accuracy by less than one point, others by 8 to 80."""
AS_THEY_ARE = Arrangement()
EACH = "each image by itself"
SMALL = 0.02
"""The deviation of images in 0..255 is less."""


@dataclass(frozen=True)
class Feeding:
    """One way to hand images in [0, 1] to a network, or to a variant of it."""

    name: str
    """Of what differs, such as `cifar10`, `blue, green, red`, `transposed`, `shortcut_input=raw`."""
    constants: Statistics
    """Mean and standard deviation, one value per channel or one for all."""
    arrangement: Arrangement = AS_THEY_ARE
    """What becomes of the images before they are normalised."""
    variant: Variant | None = None
    """The network that takes the weights; None is the one that was loaded."""
    with_loaded_constants: bool = True
    """Of a variant: whether the normalisation is the one that the network was loaded with."""
    of_arrangement: tuple[Aspect, ...] = ()
    """What of the arrangement differs from that of the way whose alternative it is."""

    @property
    def aspect(self) -> Aspect:
        """What it is an alternative of; the last where it differs in two things."""
        return self.aspects[-1]

    @property
    def aspects(self) -> tuple[Aspect, ...]:
        """All that it is an alternative of."""
        if self.variant is not None and not self.of_arrangement:
            return ("architecture",)
        if self.of_arrangement:
            return self.of_arrangement
        return ("range" if self.name == "half" or min(self.constants[1]) < SMALL else "normalisation",)

    @property
    def setting(self) -> str:
        """What to type: `model.normalise=...`, `model.shortcut_input=raw`, or both."""
        if self.variant is None:
            return normalise_setting(self.name, self.constants)
        constants = "" if self.with_loaded_constants else f" {normalise_setting('', self.constants)}"
        return f"model.{self.variant.name}{constants}"

    @property
    def remedy(self) -> str:
        """What to do for a network that is not to be fed as now."""
        if self.variant is None and self.arrangement.each_by_itself:
            return "let the network standardise each image itself, with model.normalise=none"
        return f"set {self.setting}"

    @property
    def whole_name(self) -> str:
        """All of it, such as `imagenet, blue, green, red`."""
        named = [] if self.arrangement.each_by_itself else [self.name]
        return ", ".join([*named, *([self.arrangement.name] if self.arrangement.name else [])])

    def arranged(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c u v"]:
        """The images as the network gets them before it normalises."""
        return self.arrangement(x)


def known_constants(channels: int, data: Statistics, file: Statistics | None = None) -> dict[str, Statistics]:
    """The plausible normalisations for images of so many channels, by name; the file's own comes first.

    `data` are the channel statistics of the images, `file` the constants that a checkpoint carries.
    """
    named = ({"file": file} if file else {}) | {**statistics(), "data": data, **CONSTANTS}
    named |= {
        "the data's mean in 0..255": (data[0], (1 / 255,) * len(data[0])),
        "the data's mean": (data[0], (1.0,) * len(data[0])),
    }
    fitting = {n: s for n, s in named.items() if len(s[0]) in (1, channels)}
    if channels > 1:
        fitting.pop("mnist", None)
    return fitting


def as_loaded(
    model: Classifier, known: dict[str, Statistics], arrangement: Arrangement = AS_THEY_ARE
) -> Feeding:
    """The way in which a network is fed, under the name of its constants if they are known."""
    constants: Statistics = tuple(model.mean.flatten().tolist()), tuple(model.std.flatten().tolist())
    name = next((n for n, s in known.items() if same_constants(s, constants)), "its own constants")
    return Feeding(EACH if arrangement.each_by_itself else name, constants, arrangement)


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
    order = sorted(known, key=lambda n: (n != "file", n != usual, n != "imagenet"))
    plain = replace(loaded, arrangement=replace(loaded.arrangement, each_by_itself=False), of_arrangement=())
    near = [] if loaded.arrangement.each_by_itself else [loaded]
    for name in order:
        constants = known[name]
        if not any(apart(constants, f.constants) < ALIKE for f in (*near, *out)):
            out.append(replace(plain, name=name, constants=constants))
    if not loaded.arrangement.each_by_itself:
        out.append(standardised(plain))
    return [*out, *arrangements(loaded, channels, sides)]


def standardised(loaded: Feeding) -> Feeding:
    """Each image by its own mean and deviation instead of constants."""
    arrangement = replace(loaded.arrangement, each_by_itself=True)
    return replace(loaded, name=EACH, constants=((0.0,), (1.0,)), arrangement=arrangement)


def arrangements(loaded: Feeding, channels: int, sides: tuple[int, int]) -> list[Feeding]:
    """The same normalisation with other orders of channels, turned, and inverted."""
    now, out = loaded.arrangement, []
    # the constants belong to the network's channels, so they stay where they are
    if channels == 3:
        orders = [o for o in permutations(range(3)) if o != (now.channels or (0, 1, 2))]
        orders.sort(key=lambda o: o != (2, 1, 0))  # the most frequent first
        for order in orders:
            changed = replace(now, channels=() if order == (0, 1, 2) else order)
            name = Arrangement(channels=order).name
            way = replace(loaded, name=name, arrangement=changed, of_arrangement=("channel order",))
            moved = _in_order(loaded.constants, order)
            out.append(way)
            # a network for other images may have constants in their order
            if order == (2, 1, 0) and not now.channels and not same_constants(moved, loaded.constants):
                both: tuple[Aspect, ...] = ("normalisation", "channel order")
                out.append(replace(way, name=f"{name}, constants too", constants=moved, of_arrangement=both))
    for turn in ((False, False, False), *TURNS):
        if turn == (now.transposed, now.upside_down, now.mirrored) or (turn[0] and sides[0] != sides[1]):
            continue
        changed, name = now.turned(turn), TURNS.get(turn, "upright")
        if max(sides) > 1:
            out.append(replace(loaded, name=name, arrangement=changed, of_arrangement=("orientation",)))
    changed, name = replace(now, inverted=not now.inverted), "not inverted" if now.inverted else "inverted"
    return [*out, replace(loaded, name=name, arrangement=changed, of_arrangement=("brightness",))]


def with_both(
    loaded: Feeding, known: dict[str, Statistics], channels: int, sides: tuple[int, int], usual: str = "none"
) -> list[Feeding]:
    """Each other normalisation in each other arrangement: for a network that guesses with either alone."""
    out = []
    for f in feedings(loaded, known, channels, sides, usual):
        if f.of_arrangement:
            continue
        for other in arrangements(f, channels, sides):
            both = (*f.aspects, *other.of_arrangement)
            out.append(replace(other, name=f"{f.name}, {other.name}", of_arrangement=both))
    return out


def close_constants(now: Feeding, known: dict[str, Statistics], neighbours: bool) -> list[Feeding]:
    """The same way with constants that hardly differ: neighbours, and those of the images' channels.

    Where the channels are in another order the constants may belong to the network's channels or to the
    images': both are in use.
    """
    near = [(n, s) for n, s in known.items() if neighbours and apart(s, now.constants) < ALIKE]
    out = [(now.name, now.constants), *near]
    if order := now.arrangement.channels:
        out += [(f"{name} in the order of the channels", _in_order(s, order)) for name, s in out]
    different: list[tuple[str, Statistics]] = []
    for name, constants in out:
        if not any(same_constants(constants, s) for _, s in different):
            different.append((name, constants))
    return [replace(now, name=n, constants=s, of_arrangement=()) for n, s in different[1:]]


def _in_order(constants: Statistics, order: tuple[int, ...]) -> Statistics:
    """The constants of the channels in this order; one value stands for all."""
    mean, std = (tuple(v[c] for c in order) if len(v) == len(order) else v for v in constants)
    return mean, std


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
