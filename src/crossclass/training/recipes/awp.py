"""Adversarial weight perturbation (Wu et al. 2020): flat minima of whatever recipe is inside."""

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from crossclass.attacks import Images, Network
from crossclass.attacks.losses import Labels, Logits
from crossclass.models.model_state import exchanged
from crossclass.training.recipes.at import AT
from crossclass.training.recipes.base import Loss, Noise, Recipe

if TYPE_CHECKING:
    from crossclass.training.recipes import AnyRecipe


class AWP(Recipe):
    """The inner recipe's loss at w + v, where v is the worst small change of the weights.

    v_l = gamma |w_l| g_l / |g_l| for every weight with more than one dimension, g the gradient of the inner
    loss at the same x_adv. csdongxian/AWP steps a copy and restores the model; evaluating the loss at w + v
    gives the same gradient without a restore (and MAIR's global norm is another method).
    """

    kind: Literal["awp"] = "awp"
    inner: "AnyRecipe" = AT()
    """The recipe whose loss is made robust."""
    gamma: float = Field(default=0.01, gt=0)
    """Length of the change of each layer, relative to its weights."""
    warmup: int = Field(default=0, ge=0)
    """Epochs at the beginning that are trained with the inner recipe alone."""

    couples_batch: ClassVar[bool] = True

    def at_epoch(self, epoch: int) -> Recipe:
        """The inner recipe alone during the warm-up."""
        inner = self.inner.at_epoch(epoch)
        return inner if epoch <= self.warmup else self.replace(inner=inner)

    def loss(
        self, model: Network, x: Images, x_adv: Images, y: Labels, generator: Noise = None
    ) -> tuple[Loss, Logits]:
        """The inner loss at the perturbed weights; batch norm moves once, as with the original's copy.

        Raises TypeError for a plain function, which has no weights.
        """
        if not isinstance(model, nn.Module):
            raise TypeError("AWP perturbs the weights of a module; a plain function has none")
        start = generator.get_state() if generator is not None else None
        loss, _ = self.inner.loss(_shifted(model, [], update_stats=False), x, x_adv, y, generator)
        weights = [p for p in model.parameters() if p.ndim > 1 and p.requires_grad]
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        changes = [
            (weight, perturbation(weight.detach(), gradient, self.gamma))
            for weight, gradient in zip(weights, gradients, strict=True)
            if gradient is not None
        ]
        if generator is not None and start is not None:
            generator.set_state(start)  # the same noise in both
        return self.inner.loss(_shifted(model, changes, update_stats=True), x, x_adv, y, generator)


def perturbation(weight: Tensor, gradient: Tensor, gamma: float) -> Tensor:
    """v = gamma |w| g / |g|: the change of one layer, of relative length gamma; zero for a zero gradient."""
    top = gradient.abs().amax()
    squarable = (top == 0) | ((top > 1e-12) & (top < 1e12))  # squares of 1e-30 leave float32
    scaled = gradient / torch.where(squarable, 1, top)
    return gamma * weight.norm() * scaled / torch.where(top == 0, 1, scaled.norm())


def _shifted(
    model: nn.Module, changes: Sequence[tuple[Tensor, Tensor]], *, update_stats: bool
) -> Callable[[Tensor], Tensor]:
    """The model at changed weights; without `update_stats`, batch norm updates copies of its statistics."""
    buffers = [] if update_stats else list(model.buffers())
    copies = copy.deepcopy(buffers)  # together: buffers may be views of each other

    def forward(x: Tensor) -> Tensor:
        changed = [(weight, weight + change) for weight, change in changes]
        with exchanged(model, [*changed, *zip(buffers, copies, strict=True)]):
            out: Tensor = model(x)
        return out

    return forward
