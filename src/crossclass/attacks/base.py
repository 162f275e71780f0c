"""What every attack takes and returns, whoever wrote it."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from crossclass.attacks.losses import Labels
from crossclass.attacks.norms import AnyThreat
from crossclass.core.classes import class_labels, known_labels, read_with_reach
from crossclass.core.config import Settings
from crossclass.core.errors import UserError
from crossclass.core.logits import require_tensor

Images = Float[Tensor, "n ..."]
Network = Callable[[Tensor], Tensor]
"""Anything that maps images [n, c, h, w] to logits [n, k]."""
A = TypeVar("A", bound="Attack")


class AttackWarning(UserWarning):
    """An attack that is called has settings that mean something else than they seem."""


class AttackResult(NamedTuple):
    """What `Attack.search` returns."""

    x_adv: Images
    """Adversarial images, float32."""
    success: Shaped[Tensor, " n"] | None
    """Whether an image is misclassified (targeted: classified as the target); None if it was not checked."""
    dead_gradients: Int[Tensor, " n"]
    """Number of steps whose input gradient was zero or not finite: a sign of gradient masking."""


class Attack(Settings):
    """What all attacks share: settings that can be called; each defines `search`."""

    kind: str
    threat: AnyThreat
    """The ball that adversarial images lie in."""

    @property
    def gradients(self) -> int:
        """Input gradients taken per sample; 0 if that is not known."""
        return 0

    def search(
        self, model: Network, x: Images, y: Labels, generator: torch.Generator | None = None
    ) -> AttackResult:
        """Adversarial images in the ball and in the box, whether they succeed, and unusable gradients."""
        raise NotImplementedError(f"{type(self).__name__} must define search")

    def __call__(
        self, model: Network, x: Images, y: Labels, generator: torch.Generator | None = None
    ) -> Images:
        """Adversarial images, float32 [n, ...], in the ball around x and in the box.

        `x` are images in [0, 1], `y` classes [n] or probabilities [n, k] (targets, if it is targeted),
        `generator` draws the random starts. The model is left as it was. Warns with `AttackWarning`
        of settings that mean something else than they seem; crossclass's own loops call `search` instead.
        Raises UserError for images outside of the box, for NaN, for labels that are no classes of the
        network or not one for each image, and for settings that change no image.
        """
        from crossclass.attacks.attack_warnings import call_warnings  # which imports this file

        require_images(x)
        y = class_labels(y, len(x))
        if _SKIP_RANGE_CHECK.get():  # a recipe's own attack within `train`, which has warned
            return self.search(model, x, y, generator).x_adv
        for text in call_warnings(self, model, x, y):
            warnings.warn(text, AttackWarning, stacklevel=2)
        box = getattr(self, "box", (0.0, 1.0))
        usable = (~x.isnan() if box is not None else x.isfinite()).all()
        if box is not None:
            usable &= ((x.float() >= box[0] - ROUNDING) & (x.float() <= box[1] + ROUNDING)).all()
        if y.ndim == 2:
            usable &= y.isfinite().all().to(x.device)
        y = y.to(x.device)
        known, reach = read_with_reach(usable, y)  # the device is waited for once
        if not known and y.ndim == 2 and not y.isfinite().all():
            raise UserError("labels hold NaN or infinity; give the probabilities of all classes")
        odd = x.isnan() if box is not None else ~x.isfinite()
        if not known and (bad := int(odd.flatten(1).any(dim=1).sum())):
            what = "NaN" if box is not None else "NaN or infinity"
            raise UserError(f"{bad} of {len(x)} images hold {what}; leave them out, or mend what makes them")
        with skip_range_check() if known and box is not None else nullcontext(), known_labels(reach):
            return self.search(model, x, y, generator).x_adv

    def for_evaluation(self: A) -> A:
        """The same attack, but moving no batch-norm statistics of the model."""
        return self.replace(bn="train_frozen_stats") if getattr(self, "bn", "eval") == "train" else self


_SKIP_RANGE_CHECK = ContextVar("skip_range_check", default=False)


@contextmanager
def skip_range_check() -> Iterator[None]:
    """Inside, `validate_images` does not check the range of images, which would wait for the device."""
    token = _SKIP_RANGE_CHECK.set(True)
    try:
        yield
    finally:
        _SKIP_RANGE_CHECK.reset(token)


ROUNDING = 1e-6
"""How far outside of the box an image may lie."""


def require_images(x: object) -> None:
    """Raise UserError unless x are images: floating-point numbers [n, ...]; no value is looked at."""
    require_tensor(x, "images", "give a tensor [n, c, h, w] in [0, 1]")
    assert isinstance(x, Tensor)
    if not x.is_floating_point():
        kind = str(x.dtype).removeprefix("torch.")
        raise UserError(f"images have type {kind}; give floats in [0, 1], as bytes.float() / 255")
    if x.ndim < 2:
        raise UserError(f"images have shape {list(x.shape)}; give [n, c, h, w]")


def validate_images(x: Images, box: tuple[float, float] | None) -> Images:
    """x as float32, clipped into the box; raises UserError if it lies outside by more than rounding."""
    require_images(x)
    x = x.detach().float()
    if box is None:
        return x
    low, high = box
    if not _SKIP_RANGE_CHECK.get() and bool(((x < low - ROUNDING) | (x > high + ROUNDING)).any()):
        span = f"[{float(x.nan_to_num().min()):.3g}, {float(x.nan_to_num().max()):.3g}]"
        raise UserError(
            f"images must be in [{low:g}, {high:g}], found {span}; pass raw images and put the "
            "normalisation into the model"
        )
    return x.clamp(low, high)
