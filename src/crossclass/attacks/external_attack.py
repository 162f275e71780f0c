"""An attack of other code: a function `call(model, x, y, **arguments) -> x_adv`, whose result is checked.

The function gets the model as a frozen module in eval mode, images in [0, 1] and classes. Its result must be
finite, with |x_adv - x| <= eps in the threat's norm and 0 <= x_adv <= 1.
"""

import re
from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field, JsonValue, field_validator
from torch import Tensor

from crossclass.attacks.base import (
    ROUNDING,
    Attack,
    AttackResult,
    Images,
    Network,
    require_images,
    validate_images,
)
from crossclass.attacks.losses import Labels, hard
from crossclass.attacks.norms import AnyThreat, Linf, per_sample
from crossclass.attacks.sandbox import FrozenModule, sandbox
from crossclass.core.classes import class_labels, label_check
from crossclass.core.errors import UserError, first_line
from crossclass.core.foreign_code import foreign_code
from crossclass.core.trust import import_callable

BOX = (0.0, 1.0)
_NUMBER = r"(\d+(?:\.\d+)?)"


class External(Attack):
    """An attack of other code by its name, such as `my_attacks:pgd`, with its arguments.

    The name is imported when the attack runs; the current folder is importable. The function gets
    classes, also where the labels are soft, and all its randomness from the generator. A sample's
    result may depend on the others of its batch. Dead gradients are not counted.
    """

    kind: Literal["external"] = "external"
    call: str = ""
    """`MODULE:FUNCTION`, called as function(model, x, y, **arguments)."""
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments; the texts `eps`, `eps/4` and `8/255` stand for numbers, `eps` for the threat's."""
    threat: AnyThreat = Linf()
    """The ball that the result must lie in; the function itself knows only `arguments`."""

    @field_validator("call")
    @classmethod
    def _is_a_name(cls, call: str) -> str:
        if call and not re.fullmatch(r"[\w.]+:[\w.]+", call):
            raise ValueError("call is MODULE:FUNCTION, such as my_attacks:pgd")
        return call

    def __hash__(self) -> int:
        return hash(self.digest())  # a dict has no hash of its own

    def __str__(self) -> str:
        given = ", ".join(f"{k}={v}" for k, v in self.arguments.items())
        return f"{self.call}({given}), {self.threat}"

    def search(
        self, model: Network, x: Images, y: Labels, generator: torch.Generator | None = None
    ) -> AttackResult:
        """Adversarial images; success and gradients of the function are not known."""
        if not self.call:
            raise UserError("an external attack needs its function; give call=MODULE:FUNCTION")
        return run_external(self._run, self.call, self.threat, model, x, y, generator)

    def _run(self, model: FrozenModule, x: Images, y: Labels) -> object:
        arguments = {k: _resolve_radius(v, self.threat.eps) for k, v in self.arguments.items()}
        return import_callable(self.call, "the attack")(model, x, y, **arguments)


def run_external(
    run: Callable[[FrozenModule, Images, Labels], object],
    who: str,
    threat: AnyThreat,
    model: Network,
    x: Images,
    y: Labels,
    generator: torch.Generator | None,
) -> AttackResult:
    """Run other people's code in the sandbox and check its result; `who` names it in errors.

    Imports belong inside `run` too, since some modules seed a global stream when they are imported. Raises
    UserError.
    """
    require_images(x)
    device = generator.device if generator is not None else "cpu"
    seed = int(torch.randint(2**31, (), generator=generator, device=device))
    with torch.inference_mode(False), torch.no_grad():
        x, y = validate_images(x, BOX), class_labels(y, len(x)).to(x.device)
        dead = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        if len(x) == 0 or threat.eps == 0:  # nothing to search, and many libraries fail on it
            return AttackResult(x, None, dead)
        with sandbox(model, seed, who, x.device, label_check(y)) as module:
            try:
                with foreign_code(who, "calling"):
                    result = run(module, x.clone(memory_format=torch.contiguous_format), hard(y).clone())
            except (UserError, torch.OutOfMemoryError):
                raise
            except Exception as e:
                raise UserError(f"{who} raised {type(e).__name__}: {first_line(e)}".removesuffix(": ")) from e
        return AttackResult(validate_result(result, x, threat, who), None, dead)


def validate_result(result: object, x: Images, threat: AnyThreat, who: str) -> Images:
    """The result of `who` as float32 images; excess by rounding is removed, more raises UserError."""
    if not isinstance(result, Tensor):
        many = f" of {len(result)}" if isinstance(result, tuple | list) else ""
        raise UserError(f"{who} returned a {type(result).__name__}{many}; it must return the images alone")
    if result.shape != x.shape:
        shapes = f"{list(result.shape)} for images of shape {list(x.shape)}"
        raise UserError(f"{who} returned shape {shapes}; it must return all images, in their order")
    if not result.is_floating_point():
        raise UserError(f"{who} returned {result.dtype}; it must return floating-point images in [0, 1]")
    x_adv = torch.empty_like(x).copy_(result.detach())  # device, precision and layout are x's
    if not bool(x_adv.isfinite().all()):
        bad = int((~x_adv.isfinite()).flatten(1).any(dim=1).sum())
        raise UserError(f"{who} returned NaN or infinity in {bad} of {len(x)} images; look at its loss")
    moved = threat.norm(x_adv - x)
    most, low, high = (float(v) for v in (moved.max(), x_adv.min(), x_adv.max()))
    if most > threat.eps + threat.rounding:
        raise UserError(
            f"{who} moved an image by {most:.6g}, {most - threat.eps:.3g} more than {threat} allows"
            f"{_likely_cause(most, high, threat)}"
        )
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise UserError(f"{who} left [0, 1]: found [{low:.6g}, {high:.6g}]; clip its images to [0, 1]")
    outside = per_sample(moved > threat.eps, x)
    return torch.where(outside, x + threat.project(x_adv - x), x_adv).clamp(*BOX)


def _likely_cause(moved: float, highest: float, threat: AnyThreat) -> str:
    """The usual reason for an excess of this size, as the end of a sentence."""
    if highest > 20:
        return f" (images up to {highest:.4g}: in 0..255? divide by 255)"
    if moved > 3 * threat.eps:  # a factor of 255, often cut short by clipping to [0, 1]
        return f" (eps in 0..255 units? give {str(threat).split()[-1]})"
    return "; its eps and the threat's must agree, as with arguments={eps: eps}"


def _resolve_radius(value: JsonValue, eps: float) -> JsonValue:
    """`eps`, `eps/4` and `8/255` as numbers, everything else as it is."""
    if not isinstance(value, str):
        return value
    if share := re.fullmatch(rf"eps(?:/{_NUMBER})?", value):
        return eps / float(share[1] or 1)
    fraction = re.fullmatch(f"{_NUMBER}/{_NUMBER}", value)
    return float(fraction[1]) / float(fraction[2]) if fraction else value
