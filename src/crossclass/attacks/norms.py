"""Norm balls: everything that depends on the norm of a perturbation is in the class of its ball.

PGD is the same for every norm, because a ball knows how to `sample` a start, take the `steepest` step and
`project` back. What else differs (the usual step, the name for AutoAttack, sensible radii) are attributes. A
new norm is one subclass of `Threat`, registered by `register(AnyThreat, L1)`. Perturbations have shape
[n, ...]; everything is per sample and in float32, in units of the image range [0, 1].
"""

import math
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Shaped
from pydantic import field_validator
from torch import Tensor

from crossclass.core.config import Eps, Settings
from crossclass.core.plugins import Family
from crossclass.core.rng import normal, uniform

Start = Literal["uniform", "uniform_radius", "ball", "sphere", "gauss", "none"]
Delta = Float[Tensor, "n ..."]

GAUSS = 0.001  # TRADES and MART start at x + 0.001 N(0, 1): the KL gradient at x itself is zero


def per_sample(value: Shaped[Tensor, " n"], like: Delta) -> Tensor:
    """One value per sample, in the shape [n, 1, ...] that is broadcast to perturbations."""
    return value.view(-1, *[1] * (like.ndim - 1))


class Threat(Settings):
    """A ball of perturbations of radius `eps` around an image; one subclass for each norm."""

    kind: str
    eps: Eps
    """Radius in [0, 1] units, such as 8/255."""

    label: ClassVar[str]
    """The norm as conditions, pages and errors write it, such as `l_inf`."""
    starts: ClassVar[tuple[Start, ...]]
    """Distributions that `sample` knows; the first is the default."""
    uniform_start: ClassVar[Start]
    """The start that is uniform in the ball."""
    usual_step: ClassVar[float] = 0.25
    """Step of PGD-20 as a share of eps, as in the paper's code."""
    short_step: ClassVar[float] = 0.25
    """Step of an attack of about ten steps as a share of eps."""
    smallest: ClassVar[float] = 0.0
    """Training in a ball of a smaller radius (but not 0) is refused: it was meant for another norm."""
    largest: ClassVar[float] = 1.0
    """Largest radius that is accepted."""
    rounding: ClassVar[float] = 1e-6
    """How far outside the ball the result of someone else's attack may lie; it is projected back."""
    autoattack: ClassVar[str | None] = None
    """The norm's name in AutoAttack; None if AutoAttack does not know it."""

    @field_validator("eps")
    @classmethod
    def _in_range(cls, eps: float) -> float:
        if eps < 0:
            raise ValueError("eps is a radius and cannot be negative")
        if eps > cls.largest:
            raise ValueError(f"images are in [0, 1]; did you mean eps={eps:g}/255?")
        return eps

    def __str__(self) -> str:
        n = self.eps * 255
        radius = f"{n:.4g}/255" if abs(n - round(n, 2)) < 1e-9 else f"{self.eps:.4g}"
        return f"{self.label} {radius}"

    def norm(self, delta: Delta) -> Float[Tensor, " n"]:
        """The norm of each perturbation."""
        raise NotImplementedError(f"{type(self).__name__} must define norm")

    def sample(self, x: Delta, start: Start, generator: torch.Generator | None) -> Delta:
        """A perturbation of the images x to start from, in the ball, drawn from `start`."""
        raise NotImplementedError(f"{type(self).__name__} must define sample")

    def steepest(self, gradient: Delta, step: float) -> Delta:
        """The perturbation of norm `step` that ascends fastest; a zero or NaN gradient does not move."""
        raise NotImplementedError(f"{type(self).__name__} must define steepest")

    def project(self, delta: Delta) -> Delta:
        """The nearest point of the ball."""
        raise NotImplementedError(f"{type(self).__name__} must define project")


class Linf(Threat):
    """|delta|_inf <= eps: every pixel may change by at most eps."""

    kind: Literal["linf"] = "linf"
    eps: Eps = 8 / 255
    """Radius in [0, 1] units, such as 8/255."""

    label: ClassVar[str] = "l_inf"
    starts: ClassVar[tuple[Start, ...]] = ("uniform", "gauss", "none")
    uniform_start: ClassVar[Start] = "uniform"
    autoattack: ClassVar[str | None] = "Linf"

    def norm(self, delta: Delta) -> Float[Tensor, " n"]:
        """max |delta| per sample."""
        return delta.flatten(1).abs().amax(dim=1)

    def sample(self, x: Delta, start: Start, generator: torch.Generator | None) -> Delta:
        """A start delta: `uniform` in the ball (the first of `starts` is the default), `gauss`, `none`."""
        if start == "none":
            return torch.zeros_like(x)
        if start == "gauss":
            return self.project(GAUSS * normal(x, generator))
        return (2 * uniform(x, generator) - 1) * self.eps

    def steepest(self, gradient: Delta, step: float) -> Delta:
        """step * sign(gradient) (eq. 2); a zero or NaN gradient does not move."""
        return step * gradient.sign().nan_to_num(nan=0.0)

    def project(self, delta: Delta) -> Delta:
        """The nearest point of the ball."""
        return delta.clamp(-self.eps, self.eps)


class L2(Threat):
    """|delta|_2 <= eps over all pixels and channels of an image."""

    kind: Literal["l2"] = "l2"
    eps: Eps = 128 / 255
    """Radius in [0, 1] units, such as 128/255 or 0.5."""

    label: ClassVar[str] = "l_2"
    starts: ClassVar[tuple[Start, ...]] = ("uniform_radius", "ball", "sphere", "gauss", "none")
    uniform_start: ClassVar[Start] = "ball"
    usual_step: ClassVar[float] = 0.125
    short_step: ClassVar[float] = 0.2
    smallest: ClassVar[float] = 0.05
    largest: ClassVar[float] = 32.0  # large images make radii of several units legitimate
    rounding: ClassVar[float] = 1e-5
    autoattack: ClassVar[str | None] = "L2"

    def norm(self, delta: Delta) -> Float[Tensor, " n"]:
        """|delta|_2 per sample, scaled first: squares of 1e-20 and of 1e20 leave float32."""
        flat = delta.flatten(1)
        top = flat.abs().amax(dim=1)
        safe = torch.where(top > 0, top, torch.ones_like(top))
        return (flat / safe[:, None]).norm(dim=1) * top

    def sample(self, x: Delta, start: Start, generator: torch.Generator | None) -> Delta:
        """A start delta; three distributions are in use and their mean radii differ by a factor of 2.

        `uniform_radius`: uniform direction times a radius uniform in [0, eps] (the paper's code, Rice);
        `ball`: uniform in the ball (foolbox, ART); `sphere`: on its surface (Madry, APGD).
        """
        if start == "none":
            return torch.zeros_like(x)
        noise = normal(x, generator)
        if start == "gauss":
            return self.project(GAUSS * noise)
        radius = torch.ones(len(x), dtype=torch.float32, device=x.device)
        if start != "sphere":
            radius = uniform(radius, generator)
        if start == "ball":
            radius = radius ** (1.0 / math.prod(x.shape[1:]))
        return self.project(self.steepest(noise, 1.0) * per_sample(radius * self.eps, x))

    def steepest(self, gradient: Delta, step: float) -> Delta:
        """step * gradient / |gradient|, exact from 1e-37 to 1e38; a zero or NaN gradient does not move."""
        gradient = gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        top = per_sample(gradient.flatten(1).abs().amax(dim=1), gradient)
        unit = gradient / torch.where(top > 0, top, torch.ones_like(top))
        norm = per_sample(unit.flatten(1).norm(dim=1), gradient)
        return unit * (step / torch.where(norm > 0, norm, torch.ones_like(norm)))

    def project(self, delta: Delta) -> Delta:
        """The nearest point of the ball."""
        norm = self.norm(delta)
        outside = norm > self.eps
        one = torch.ones_like(norm)  # not 1.0: a GPU would wait for it, and a CUDA graph cannot
        factor = torch.where(outside, self.eps / torch.where(outside, norm, one), one)
        return delta * per_sample(factor, delta)


AnyThreat = Annotated[Threat, Family(Linf, L2)]
