"""GradAlign: a penalty on loss surfaces that one attack step cannot follow."""

from contextlib import nullcontext
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from crossclass.attacks import FGSM, AnyAttack, Images, Network
from crossclass.attacks.losses import Labels, Logits, cross_entropy
from crossclass.training.recipes.base import Loss, Noise, Recipe, logits_at


class GradAlign(Recipe):
    """FGSM training kept from catastrophic overfitting by aligned gradients (Andriushchenko 2020)."""

    kind: Literal["gradalign"] = "gradalign"
    attack: AnyAttack = FGSM()
    """The attack that makes the training images."""
    weight: float = Field(default=0.2, ge=0)
    """Weight of 1 - cosine of the two gradients."""

    def loss(
        self, model: Network, x: Images, x_adv: Images, y: Labels, generator: Noise = None
    ) -> tuple[Loss, Logits]:
        """CE(f(x_adv), y) + weight (1 - cos(grad_x L(x), grad_x L(x + eta))), eta uniform in the ball.

        As in tml-epfl/understanding-fast-adv-training, the gradient at x is a constant, back-propagation goes
        through the other one, and the mean leaves out images with a zero gradient (a batch that is cut in
        pieces has the mean of each). Three forwards in train mode, in the order x, x_adv, x + eta.
        """
        threat = self.attack.threat
        eta = threat.sample(x, threat.uniform_start, generator)
        at_x = _input_gradient(model, x, y, create_graph=False)
        logits = logits_at(model, x_adv)
        at_eta = _input_gradient(model, x + eta, y, create_graph=True)
        usable = nonzero(at_x) & nonzero(at_eta)
        bend = torch.where(usable, 1 - cosine(at_x, at_eta), 0).sum() / usable.sum().clamp(min=1)
        return cross_entropy(logits, y).mean() + self.weight * bend, logits


def nonzero(gradient: Float[Tensor, "n ..."]) -> Bool[Tensor, " n"]:
    """Whether the gradient of each sample has a direction, or is not finite."""
    return (gradient != 0).flatten(1).any(dim=1)


def cosine(a: Float[Tensor, "n ..."], b: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """Of each pair of gradients, at any length: 0 where one is zero, NaN where one is not finite.

    torch's own takes lengths below 1e-8 for 1e-8, and those of a confident network are shorter.
    """
    return (_unit(a) * _unit(b)).sum(dim=1)


def _unit(gradient: Float[Tensor, "n ..."]) -> Float[Tensor, "n d"]:
    flat = gradient.flatten(1)
    top = flat.detach().abs().amax(dim=1, keepdim=True)  # squares of 1e-30 leave float32
    scaled = flat / torch.where(top == 0, 1, top)
    return scaled * (1 / torch.where(top == 0, 1, scaled.norm(dim=1, keepdim=True)))


def _input_gradient(model: Network, x: Images, y: Labels, *, create_graph: bool) -> Tensor:
    x = x.detach().requires_grad_(True)
    # the fused attentions of transformers have no second derivative
    with sdpa_kernel(SDPBackend.MATH) if create_graph else nullcontext():
        loss = cross_entropy(logits_at(model, x), y).sum()
    (gradient,) = torch.autograd.grad(loss, x, create_graph=create_graph)
    return gradient
