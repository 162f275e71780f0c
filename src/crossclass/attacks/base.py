"""What every attack takes and returns, whoever wrote it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from crossclass.attacks.losses import Labels
from crossclass.attacks.norms import AnyThreat
from crossclass.core.config import Settings
from crossclass.core.errors import UserError

Images = Float[Tensor, "n ..."]
A = TypeVar("A", bound="Attack")


@runtime_checkable
class Network(Protocol):
    """Anything that maps images [n, c, h, w] to logits [n, k]."""

    def __call__(self, x: Tensor, /) -> Tensor: ...


class Found(NamedTuple):
    """What a search returns: the images, which were seen misclassified, and dead gradients."""

    x_adv: Images
    wrong: Shaped[Tensor, " n"] | None
    """Whether the kept iterate was seen misclassified (hit, if targeted); None if nothing was scored."""
    dead: Int[Tensor, " n"]
    """Per sample, the number of steps whose gradient was zero or not finite: a sign of masking."""


class Attack(Settings):
    """What all attacks share: settings that can be called; each defines `search`."""

    kind: str
    threat: AnyThreat
    """The ball that adversarial images lie in."""

    @property
    def gradients(self) -> int:
        """Input gradients taken per sample; 0 if that is not known."""
        return 0

    def search(self, model: Network, x: Images, y: Labels, generator: torch.Generator | None = None) -> Found:
        """Adversarial images, float32, in the ball and in the box, with what was seen on the way."""
        raise NotImplementedError(f"{type(self).__name__} must define search")

    def __call__(
        self, model: Network, x: Images, y: Labels, generator: torch.Generator | None = None
    ) -> Images:
        """Adversarial images, float32, in the ball around x and in the box. Raises UserError."""
        return self.search(model, x, y, generator).x_adv

    def for_evaluation(self: A) -> A:
        """The same images, but nothing of the model moves: what an evaluation may run."""
        return self.replace(bn="train_frozen_stats") if getattr(self, "bn", "eval") == "train" else self


_TRUSTED = ContextVar("skip_range_check", default=False)


@contextmanager
def skip_range_check() -> Iterator[None]:
    """Inside, images are known to lie in the box; to look at them would wait for the device."""
    token = _TRUSTED.set(True)
    try:
        yield
    finally:
        _TRUSTED.reset(token)


ROUNDING = 1e-6
"""How far outside of the box an image may lie."""


def validate_images(x: Images, box: tuple[float, float] | None) -> Images:
    """x as float32, clipped into the box; raises UserError if it lies outside by more than rounding."""
    x = x.detach().float()
    if box is None:
        return x
    low, high = box
    if not _TRUSTED.get() and bool(
        ((x < low - ROUNDING) | (x > high + ROUNDING)).any()
    ):  # NaN passes: it stays its own
        found = f"[{float(x.nan_to_num().min()):.3g}, {float(x.nan_to_num().max()):.3g}]"
        raise UserError(
            f"images must be in [{low:g}, {high:g}], found {found}; pass raw images and put the "
            "normalisation into the model"
        )
    return x.clamp(low, high)
