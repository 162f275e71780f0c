"""Adversarial weight perturbation (Wu et al. 2020): flat minima of whatever recipe is inside."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from crossclass.attacks import Images, Network
from crossclass.attacks.losses import Labels, Logits
from crossclass.attacks.norms import AnyThreat
from crossclass.core.config import Settings
from crossclass.training.recipes.at import AT, Loss, Noise

if TYPE_CHECKING:
    from crossclass.training.recipes.family import AnyRecipe


class AWP(Settings):
    """The inner recipe's loss at w + v, where v is the worst small change of the weights.

    v_l = gamma |w_l| g_l / |g_l| for every weight with more than one dimension, g the gradient of the inner
    loss at the same x_adv. csdongxian/AWP steps a copy and restores the model; evaluating the loss at w + v
    gives the same gradient without a restore (and MAIR's global norm is another method).
    """

    kind: Literal["awp"] = "awp"
    inner: "AnyRecipe" = AT()
    gamma: float = Field(0.01, gt=0)
    warmup: int = Field(0, ge=0)
    """Epochs at the beginning that are trained without it."""

    @property
    def threat(self) -> AnyThreat | None:
        """The inner recipe's ball."""
        return self.inner.threat

    def craft(self, model: Network, x: Images, y: Labels, generator: Noise = None) -> Images:
        """The inner recipe's images."""
        return self.inner.craft(model, x, y, generator)

    def loss(
        self, model: Network, x: Images, x_adv: Images, y: Labels, generator: Noise = None
    ) -> tuple[Loss, Logits]:
        """The inner loss at the perturbed weights; batch norm moves once, as with the original's copy."""
        if not isinstance(model, nn.Module):
            raise TypeError("AWP perturbs the weights of a module; a plain function has none")
        start = generator.get_state() if generator is not None else None
        loss, _ = self.inner.loss(_at(model, {}, moving=False), x, x_adv, y, generator)
        weights = {n: p for n, p in model.named_parameters() if p.ndim > 1 and p.requires_grad}
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        changes = {
            name: worst(weight.detach(), gradient, self.gamma)
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
            if gradient is not None
        }
        if generator is not None and start is not None:
            generator.set_state(start)  # the same noise in both
        return self.inner.loss(_at(model, changes, moving=True), x, x_adv, y, generator)


def worst(weight: Tensor, gradient: Tensor, gamma: float) -> Tensor:
    """gamma |w| g / |g|: the layer's change of relative length gamma; none for a zero gradient."""
    return gamma * weight.norm() * gradient / (gradient.norm() + 1e-20)


def _at(model: nn.Module, changes: dict[str, Tensor], *, moving: bool) -> Callable[[Tensor], Tensor]:
    """The model at changed weights; without `moving`, batch norm's statistics are copies."""
    buffers = {} if moving else {n: b.clone() for n, b in model.named_buffers()}

    def forward(x: Tensor) -> Tensor:
        parameters = dict(model.named_parameters())
        changed = {name: parameters[name] + change for name, change in changes.items()}
        out: Tensor = torch.func.functional_call(model, {**changed, **buffers}, (x,))
        return out

    return forward
