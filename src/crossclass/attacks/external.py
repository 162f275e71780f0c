"""Anyone's attack: a function `call(model, x, y, **arguments) -> x_adv`, checked for ball and box.

The function gets the model as a frozen module in eval mode, images in [0, 1] and classes. What it
returns is measured, not believed: |x_adv - x| <= eps in the threat's norm, 0 <= x_adv <= 1, all finite.
"""

import re
from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field, JsonValue, field_validator
from torch import Tensor

from crossclass.attacks.base import Attack, Found, Images, Network, validate_images
from crossclass.attacks.losses import Labels, hard
from crossclass.attacks.norms import AnyThreat, Linf
from crossclass.attacks.sandbox import FrozenModule, fenced
from crossclass.core.errors import UserError
from crossclass.core.trust import import_callable

BOX = (0.0, 1.0)
_NUMBER = r"\d+(?:\.\d+)?"
_RADIUS = re.compile(rf"(eps)(?:/({_NUMBER}))?|({_NUMBER})/({_NUMBER})")


class External(Attack):
    """Someone else's attack by its name, such as `my_attacks:pgd`, with its arguments; the result is checked.

    The name is imported when the attack runs; the current folder is importable. The function gets
    classes, also where the labels are soft, and all its randomness from the generator. What it makes
    of a batch is its own affair: a sample's result may depend on the others. Dead gradients are not
    counted, for nobody can see them from outside.
    """

    kind: Literal["external"] = "external"
    call: str = ""
    """`package.module:function`, called as function(model, x, y, **arguments)."""
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments; the texts `eps`, `eps/4` and `8/255` stand for numbers, `eps` for the threat's."""
    threat: AnyThreat = Linf()
    """The ball that the result must lie in; the function itself is told only by `arguments`."""

    @field_validator("call")
    @classmethod
    def _is_a_name(cls, call: str) -> str:
        if call and not re.fullmatch(r"[\w.]+:[\w.]+", call):
            raise ValueError("call is package.module:function, such as my_attacks:pgd")
        return call

    def __hash__(self) -> int:
        return hash(self.digest())  # a dict has no hash of its own

    def __str__(self) -> str:
        given = ", ".join(f"{k}={v}" for k, v in self.arguments.items())
        return f"{self.call}({given}), {self.threat}"

    def search(self, model: Network, x: Images, y: Labels, generator: torch.Generator | None = None) -> Found:
        """The same; nothing is known about the way."""
        if not self.call:
            raise UserError("an external attack needs its function; give call=package.module:function")
        return searched(self._run, self.call, self.threat, model, x, y, generator)

    def _run(self, model: FrozenModule, x: Images, y: Labels) -> object:
        arguments = {k: _filled(v, self.threat.eps) for k, v in self.arguments.items()}
        return import_callable(self.call, "the attack")(model, x, y, **arguments)


def searched(
    run: Callable[[FrozenModule, Images, Labels], object],
    who: str,
    threat: AnyThreat,
    model: Network,
    x: Images,
    y: Labels,
    generator: torch.Generator | None,
) -> Found:
    """Run someone else's search inside the fence and check what it returns; `who` names it in errors.

    Whatever `run` imports is imported inside too: modules that seed a stream when imported exist.
    Raises UserError.
    """
    place = generator.device if generator is not None else "cpu"
    seed = int(torch.randint(2**31, (), generator=generator, device=place))
    with torch.inference_mode(False), torch.no_grad():
        x = validate_images(x, BOX)
        dead = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        if len(x) == 0 or threat.eps == 0:  # nothing to search, and many libraries fail on it
            return Found(x, None, dead)
        with fenced(model, seed, who, x.device) as handed:
            try:
                found = run(handed, x.clone(memory_format=torch.contiguous_format), hard(y).clone())
            except (UserError, torch.OutOfMemoryError):
                raise
            except Exception as e:
                said = str(e).strip().partition("\n")[0]
                raise UserError(f"{who} raised {type(e).__name__}{f': {said}' if said else ''}") from e
        return Found(checked(found, x, threat, who), None, dead)


def checked(found: object, x: Images, threat: AnyThreat, who: str) -> Images:
    """What `who` returned as float32 images; excess by rounding is removed, more is refused by UserError."""
    if not isinstance(found, Tensor):
        many = f" of {len(found)}" if isinstance(found, tuple | list) else ""
        raise UserError(f"{who} returned a {type(found).__name__}{many}; it must return the images alone")
    if found.shape != x.shape:
        shapes = f"{list(found.shape)} for images of shape {list(x.shape)}"
        raise UserError(f"{who} returned shape {shapes}; it must return all images, in their order")
    if not found.is_floating_point():
        raise UserError(f"{who} returned {found.dtype}; it must return floating-point images in [0, 1]")
    x_adv = torch.empty_like(x).copy_(found.detach())  # device, precision and layout are x's
    if not bool(x_adv.isfinite().all()):
        bad = int((~x_adv.isfinite()).flatten(1).any(dim=1).sum())
        raise UserError(f"{who} returned NaN or infinity in {bad} of {len(x)} images; look at its loss")
    moved = threat.norm(x_adv - x)
    most, low, high = (float(v) for v in (moved.max(), x_adv.min(), x_adv.max()))
    if most > threat.eps + threat.rounding:
        raise UserError(
            f"{who} moved an image by {most:.6g}, {most - threat.eps:.3g} more than {threat} allows"
            f"{_unit_trap(most, high, threat)}"
        )
    if low < -1e-6 or high > 1 + 1e-6:
        raise UserError(f"{who} left [0, 1]: found [{low:.6g}, {high:.6g}]; clip its images to [0, 1]")
    outside = (moved > threat.eps).view(-1, *[1] * (x.ndim - 1))
    return torch.where(outside, x + threat.project(x_adv - x), x_adv).clamp(*BOX)


def _unit_trap(moved: float, highest: float, threat: AnyThreat) -> str:
    """The usual reason for an excess of this size, as the end of a sentence."""
    if highest > 20:
        return f" (images up to {highest:.4g}: in 0..255? divide by 255)"
    if moved > 3 * threat.eps:  # a factor of 255, often cut short by clipping to [0, 1]
        return f" (eps in 0..255 units? give {str(threat).split()[-1]})"
    return "; its eps and the threat's must agree, as with arguments={eps: eps}"


def _filled(value: JsonValue, eps: float) -> JsonValue:
    """`eps`, `eps/4` and `8/255` as numbers, everything else as it is."""
    parts = _RADIUS.fullmatch(value) if isinstance(value, str) else None
    if parts is None:
        return value
    radius, share, above, below = parts.groups()
    return eps / float(share or 1) if radius else float(above) / float(below)
