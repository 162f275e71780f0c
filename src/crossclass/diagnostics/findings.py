"""The findings of `examine` by name, and when a difference is more than chance.

Accuracies are compared as `analysis.accuracy_tests` says. A share s that a sound model may show is exceeded
if P(Bin(n, s) >= count) is below ALPHA; an examination makes some thirty comparisons.
"""

from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

from jaxtyping import Bool
from torch import Tensor

from crossclass.analysis.accuracy_tests import (
    ALPHA as ALPHA,
    beats as beats,
    tail_probability as tail_probability,
)

Level = Literal["fault", "warning", "note", "fine"]
Correct = Bool[Tensor, " n"]

FINDINGS: dict[str, str] = {
    "cannot-run": "the network fails on the images of this data set",
    "non-finite-weights": "a parameter or buffer holds NaN or infinity",
    "zero-layers": "a weight tensor is zero everywhere: its layer computes nothing",
    "degenerate-head": "two classes have the same head row, or one has none: they cannot be told apart",
    "dead-features": "more than half of the features are the same for every image",
    "train-mode": "modules are in train mode as given, or stay in it after eval()",
    "frozen-batch-norm": "batch norm is frozen while the rest of the network trains",
    "never-updated-batch-norm": "batch norm has its initial statistics: no training batch ever moved them",
    "stale-batch-norm": "batch norm's running statistics are far from those of the data",
    "wrong-class-count": "the network has another number of outputs than the data has classes",
    "non-finite-outputs": "some images have NaN or infinite outputs",
    "softmax-outputs": "the outputs are probabilities, not logits: attacks lose their gradients",
    "sigmoid-outputs": "the outputs are squashed into [0, 1], not logits: attacks lose their gradients",
    "log-softmax-outputs": "the outputs are log-probabilities: attacks work, attributions do not add up",
    "head-mismatch": "the head on the features does not give the outputs: C explains something else",
    "constant-outputs": "the outputs do not depend on the image",
    "collapsed-predictions": "nearly all images go to one class; CAS means nothing then",
    "unpredicted-classes": "classes that have images are never predicted",
    "classes-without-images": "the data name classes of which there is no image",
    "random-outputs": "the same images give other outputs a second time: robust accuracy is overstated",
    "batch-dependent": "the output of an image depends on the others in its batch",
    "wrong-normalisation": "the network was trained with another mean and std",
    "normalised-twice": "images are normalised before a network that normalises itself, or never wanted it",
    "wrong-range": "the network expects images in another range than [0, 1], or divides by 255 once more",
    "wrong-channel-order": "the network expects blue, green, red, or another order of the channels",
    "transposed-images": "the network expects height and width exchanged",
    "turned-images": "the network expects the images turned or mirrored",
    "inverted-images": "the network expects dark and bright exchanged",
    "wrong-variant": "the weights are for another network, with the same names and shapes",
    "permuted-labels": "the classes are numbered otherwise than in the data",
    "chance-accuracy": "the network is hardly better than guessing",
    "movable-cas": "nothing says where the features' origin is, and CAS depends on it",
    "zero-gradients": "the gradient is zero where the loss is not flat: white-box attacks stand still",
    "non-finite-gradients": "the gradient is NaN or infinite: white-box attacks stand still",
    "wrong-gradients": "the gradient does not tell how the output changes: rounded, shattered or reversed",
    "saturated-loss": "cross-entropy is exactly flat in float32 where the margin is not",
    "weak-cross-entropy": "margin or targeted PGD breaks many images that cross-entropy PGD does not",
    "attack-without-effect": "the attack breaks no image",
    "gradient-masking-eps": "robust accuracy rises with eps",
    "gradient-masking-steps": "robust accuracy rises with the number of steps",
    "gradient-masking-unbounded": "images survive an attack that may change them into any other",
    "gradient-masking-fgsm": "one step breaks images that PGD does not",
    "gradient-masking-noise": "random noise breaks images that PGD does not",
    "gradient-masking-black-box": "a random search without gradients breaks images that PGD does not",
    "gradient-masking-transfer": "images made on another network break this one where its own PGD does not",
    "not-examined": "some checks make no sense before other findings are mended",
}
"""Every finding by its name, and what it means."""


@dataclass(frozen=True)
class Finding:
    """One named result of an examination; level `fine` means that the fault was checked for and is absent."""

    name: str
    level: Level
    evidence: str
    """Numbers, images, attack, eps, seed."""
    remedy: str = ""
    """What to do; empty if fine."""
    numbers: dict[str, Any] = field(default_factory=dict)
    """Plain values for JSON."""
    follows_from: str = ""
    """The name of the finding that causes this one; empty for a cause, and if fine."""


def finding(name: str, level: Level, wrong: bool, evidence: str, remedy: str, **numbers: Any) -> Finding:
    """The finding at its level if something is wrong, else `fine` and without remedy.

    Numbers that are not finite become None, as JSON has none of them.
    """
    if name not in FINDINGS:
        raise KeyError(name)
    numbers = {k: None if isinstance(v, float) and not isfinite(v) else v for k, v in numbers.items()}
    return Finding(name, level if wrong else "fine", evidence, remedy if wrong else "", numbers)


def exceeds(count: int, n: int, share: float) -> bool:
    """Whether count of n is more than a share that a sound model may show, beyond binomial error."""
    return n > 0 and count / n > share and tail_probability(count, n, share) < ALPHA


def share(right: Correct) -> float:
    """The share of images that are correct, in [0, 1]."""
    return float(right.double().mean())


def percent(value: Correct | float) -> str:
    """`91.7 %` of a share, or of which images are correct."""
    return f"{100 * (share(value) if isinstance(value, Tensor) else value):.1f} %"


def shortened(names: list[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def listed(names: list[str]) -> str:
    """The first names behind a colon, to be put behind their number; nothing if there are none."""
    return f": {shortened(names)}" if names else ""
